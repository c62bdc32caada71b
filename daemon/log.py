"""The log: how a line is written, and what keeps addresses out of it.

`configure` sets up structlog once per process (JSON Lines when stderr is not a terminal). What is logged of a person is
12 hex digits of a keyed digest, unless the operator asked for plain addresses.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Container, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog

from storage.address import Who

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_ADDRESS: Final = re.compile(
    r'(?:"[^"@]{1,128}"|[^\s<>()\[\],;:"@]{1,128})@(?:\[[^\s\]]{1,60}\]|[^\s<>()\[\],;:"@]{1,253})'
)
plain = False
bound: Any = structlog.get_logger()


def configure(format: str = "auto", level: str = "info", addresses: str = "digest") -> None:
    """Set up logging to stderr as the [log] section says."""
    global plain, bound
    plain = addresses == "plain"
    as_json = format == "json" or (format == "auto" and not sys.stderr.isatty())
    renderer: Any = _json if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    if as_json and _is_journal():
        renderer = _journal
    structlog.configure(
        processors=[_head, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: _STDERR,
        cache_logger_on_first_use=False,
    )
    bound = structlog.get_logger().bind()  # made once, not for every line: each message of a campaign has one
    for noisy in ("mail.log", "aiosmtpd", "imapclient", "apscheduler", "alembic", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)  # aiosmtpd logs every command, addresses included, at INFO
    root = logging.getLogger()
    if not any(isinstance(h, _Libraries) for h in root.handlers):
        root.addHandler(_Libraries(logging.WARNING))


class _Stderr:
    """Writes lines to stderr, whole. A log that cannot be written (disk full, reader gone) must not stop a promise."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def msg(self, line: str) -> None:
        """One line."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            sys.stderr.write(line + "\n")  # which flushes: stderr is line-buffered, whatever it is

    log = debug = info = warning = warn = error = critical = fatal = exception = msg


_STDERR: Final = _Stderr()


class _Libraries(logging.Handler):
    """What libraries have to say, as an event like ours: else Python prints it to stderr as it is, addresses and all."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        trace = trace_of(record.exc_info[1]) if record.exc_info else []
        say = bound.error if record.levelno >= logging.ERROR else bound.warning
        say("library_said", logger=record.name, text=masked(record.getMessage()), trace=trace)


def _head(_logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """ts, level and event first: a line is read from the left."""
    ts = datetime.now(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
    return {"ts": ts, "level": method, "event": event.pop("event"), **event}


_ENCODER: Final = json.JSONEncoder(default=str)


def _json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    return _ENCODER.encode(event)


_PRIORITIES: Final = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>"}


def _journal(logger: object, method: str, event: MutableMapping[str, Any]) -> str:
    """With a level that journald takes off again (sd-daemon(3)): `journalctl -p warning` shows what is one."""
    return _PRIORITIES.get(method, "<6>") + _json(logger, method, event)


def _is_journal() -> bool:
    """Is stderr the journal's? systemd names its device and inode, which a redirected one has not."""
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def shown(who: Who) -> str:
    """A person, as a line may name them."""
    return who.plain if plain else who.digest


def masked(text: object, known: Container[str] = ()) -> str:
    """A text of somebody else's making (a server's reply, an error) with the addresses in it made unreadable.

    `known`: addresses of the house, in small letters, which may be read. One line, printable: no escape sequence, no NUL, no
    half of a character, which a database or a page would choke on.
    """
    words = _line(text)
    return (words if plain else without_addresses(words, known))[:300]  # cut last: half an address is not seen as one


def nameless(text: object) -> str:
    """As `masked`, for what is written down and mailed: there no address is readable, whatever the log may show."""
    return without_addresses(_line(text))[:300]


def _line(text: object) -> str:
    words = " ".join(str(text)[:4000].split())
    return words if words.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in words)


def without_addresses(text: str, known: Container[str] = ()) -> str:
    """The text with all addresses but the known ones (in small letters) made unreadable."""
    return _ADDRESS.sub(lambda found: found[0] if found[0].lower() in known else "<address>", text)


def trace_of(error: BaseException | None) -> list[str]:
    """Where it happened, innermost last. No values: a traceback of structlog's or rich's has the locals in it."""
    lines: list[str] = []
    while error is not None:
        lines.append(type(error).__name__)
        lines += [
            f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)[-8:]
        ]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return lines
