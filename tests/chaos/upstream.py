"""The end of the line as a process: takes mail, writes it down before it says so, and has moods.

    python -m tests.chaos.upstream PORT RECORD MOOD

MOOD is a file with the moods of tests.sink as JSON (`replies`, `delays`, `drop_at`, `lose_after`), read again whenever it changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import SupportsIndex

from tests.sink import Sink, Transaction

_ATTEMPT = re.compile(rb"^X-Attempt: (\S+)\r$", re.MULTILINE)


class Book(list[Transaction]):
    """The record: a line for each message that was taken, in the file before the client hears of it."""

    def __init__(self, path: Path):
        super().__init__()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def append(self, taken: Transaction, /) -> None:
        """Write it down; nothing is kept in memory."""
        if not taken.reply.startswith("2"):
            return
        head = taken.data.partition(b"\r\n\r\n")[0] + b"\r\n"
        attempt = _ATTEMPT.search(head)
        line = {
            "attempt": attempt[1].decode() if attempt else "",
            "mail_from": _path(taken.mail_from),
            "rcpt_to": [_path(r) for r in taken.rcpt_to],
            "at": time.monotonic(),
            "head": head.decode("latin-1") if len(taken.rcpt_to) == 1 else "",
        }
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def __getitem__(self, index: SupportsIndex | slice, /) -> Transaction:  # type: ignore[override]  # nothing is kept
        raise IndexError(index)


def _path(argument: str) -> str:
    return argument.partition(">")[0].lstrip("<")


def main() -> None:
    """Until killed."""
    port, record, mood = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    sink = Sink(port, transactions=Book(record))
    sink.start()
    seen = 0.0
    while True:
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):  # being written
            changed = mood.stat().st_mtime
            if changed != seen:
                told = json.loads(mood.read_text())
                sink.replies, sink.delays = told.get("replies", {}), told.get("delays", {})
                sink.drop_at, sink.lose_after = told.get("drop_at", ""), told.get("lose_after", "")
                seen = changed
        sink.commands.clear()
        time.sleep(0.05)


if __name__ == "__main__":
    main()
