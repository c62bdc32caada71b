"""The config file: a config, or its problems; never a traceback, and no secret in a problem."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from daemon.config import ConfigError, load
from tests.fuzz.driving import One

_ROOT: Final = Path(__file__).parents[3]
_SECRET: Final = "hunter2-hunter2-hunter2-hunter2"
_FILES: Final = tuple(
    f"{of}-{kind}" for of in ("imap", "crm", "admin", "kim", "shop", "upstream") for kind in ("password", "token")
)
BASES: Final = (
    (_ROOT / "config.example.toml").read_bytes(),
    (_ROOT / "config.example.toml").read_bytes().replace(b"\n# ", b"\n"),
    *(path.read_bytes() for path in sorted((_ROOT / "tests/configs").glob("*.toml"))),
)
WORDS: Final = (
    b"[house]\n",
    b"[[mailbox]]\n",
    b"[[relay.listener]]\n",
    b"[[web.operator]]\n",
    b"[[web.token]]\n",
    b"[upstream]\n",
    b"[[list]]\n",
    b"password_file = ",
    b"listen = ",
    b"true",
    b"[]",
    b"{}",
    b"[[]]",
    b'""',
    b'"127.0.0.1:99999"',
    b'"[::1]:0"',
    b"1979-05-27T07:32:00Z",
    b"inf",
    b"nan",
    b"-1",
    b'"\\u0000"',
    b'"\\uD800"',
    b"'''",
    b'"postgresql://["',
    b'"https://["',
    b'"10.0.0.0/99"',
    b'"/dev/zero"',
    b'"."',
)


def _look_at(wrong: ConfigError, size: int) -> None:
    assert wrong.problems
    assert all(p.sentence for p in wrong.problems)
    assert _SECRET not in str(wrong)
    assert len(str(wrong)) < 100 * (size + 100)


@contextmanager
def ready() -> Iterator[One]:
    """A directory with the files that configs name."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "optoutd.toml")
        for file in _FILES:
            Path(name, file).write_text(_SECRET)

        def one(octets: bytes) -> None:
            path.write_bytes(octets)
            path.chmod(0o600)
            try:
                loaded = load(path)
            except ConfigError as wrong:
                _look_at(wrong, len(octets))
            else:
                assert loaded.config.house

        yield one
