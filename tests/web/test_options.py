"""The [web] section: what is not configured does not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config import ConfigError, load
from daemon.options import Web


def web(directory: Path, section: str) -> Web:
    path = directory / "optoutd.toml"
    path.write_text(f'[house]\nname = "Quill"\n{section}')
    path.chmod(0o600)
    return load(path).config.web


@pytest.mark.parametrize(
    ("section", "listen"),
    [
        ("", ""),
        ("[web]\n", "127.0.0.1:8025"),
        ('[web]\npublic_url = "https://mail.quillpdf.example"\n', "127.0.0.1:8025"),
        ('[web]\nlisten = ""\npublic_listen = "0.0.0.0:80"\n', ""),
        ('[web]\nlisten = "[::1]:0"\npublic_listen = "[::1]:0"\n', "[::1]:0"),
    ],
)
def test_where_it_listens(tmp_path: Path, section: str, listen: str) -> None:
    assert web(tmp_path, section).listen == listen


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ('listen = "8025"', "web.listen: '8025' is not HOST:PORT"),
        ('public_listen = "127.0.0.1"', "web.public_listen: '127.0.0.1' is not HOST:PORT"),
        ('public_listen = "127.0.0.1:8025"', "web.public_listen: the same as listen"),
        ("lisen = 1", "web.lisen: unknown key, did you mean `listen`?"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, section: str, problem: str) -> None:
    with pytest.raises(ConfigError) as told:
        web(tmp_path, f"[web]\n{section}\n")
    assert [str(p)[: len(problem)] for p in told.value.problems] == [problem]
