"""Another process, for what only another process can do: hold a lock, write beside us, be killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ledgers import Books

ROOT = Path(__file__).parents[2]
_BEFORE = """
import sys, time, sqlite3
from pathlib import Path
from tests.ledgers import ALL, Reason, again
directory = Path(sys.argv[1])
def open_again():
    return again(*sys.argv[1:])
def say(text):
    print(text, flush=True)
"""


@contextmanager
def another(ledger: Books, script: str) -> Iterator[subprocess.Popen[str]]:
    """Run a script with `open_again()`, `directory` (of one in a file) and `say`; killed at the end of the block."""
    command = [sys.executable, "-c", _BEFORE + script, *ledger.where]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def hear(process: subprocess.Popen[str], text: str) -> None:
    """Wait until it says so."""
    assert process.stdout
    heard = process.stdout.readline().strip()
    assert heard == text, f"expected {text!r}, heard {heard!r}"


def tell(process: subprocess.Popen[str], text: str = "") -> None:
    """Give it a line to read."""
    assert process.stdin
    process.stdin.write(text + "\n")
    process.stdin.flush()
