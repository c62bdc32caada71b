"""What the commands share: exit codes, the config, output, and reading arguments."""

from __future__ import annotations

import gc
import getpass
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from daemon import texts
from storage import terms

if TYPE_CHECKING:
    from daemon.config import Loaded
    from storage.address import Address
    from storage.engine import Ledger

OK: Final = 0
NO: Final = 1  # the answer is "no"
USAGE: Final = 64
DATAERR: Final = 65
NOINPUT: Final = 66
SOFTWARE: Final = 70
TEMPFAIL: Final = 75
CONFIG: Final = 78
INTERRUPTED: Final = 130

# The words of storage.models, which takes too long to import for a help text (tests/cli holds the two together).
REASONS: Final = ("complaint", "opt-out", "operator", "hard-bounce", "soft-bounce", "wanted")
SOURCES: Final = ("mail", "one-click", "page", "api", "phone", "letter", "operator", "import", "dsn", "arf")

NO_SUCH_LIST: Final = -1  # the number of a list that the ledger has not met yet: no row has it
_LARGEST: Final = 2**63 - 1  # of SQLite's integers

AsJson = Annotated[bool, typer.Option("--json", help="JSON Lines on stdout.")]
ListOption = Annotated[str | None, typer.Option("--list", metavar="ID", help="Of this mailing list only.")]

USUAL_GC: Final = gc.get_threshold()  # for commands that stay up: __main__ sets another for a quick start
LISTS_GC: Final = (100_000, 20, 1_000_000)  # for those that have rows by the hundred thousand, which are in no circle
harmless, one_line, scope_word = texts.harmless, texts.one_line, terms.scope_word
chosen_config: str | None = None  # of -c; set once per invocation
at_end: Final = ExitStack()  # what is to be closed when the command has ended


class Stop(Exception):
    """End the command with a sentence on stderr ("" for none) and an exit code."""

    def __init__(self, sentence: str, code: int):
        super().__init__(sentence)
        self.code = code


class ReaderGone(Exception):
    """Whoever read our stdout has had enough: `optoutd list | head -1`."""


# ------------------------------------------------------------------ config and ledger


def loaded() -> Loaded:
    """The config that was asked for. Raises ConfigError."""
    from daemon.config import ConfigError, find, load

    path = find(chosen_config)
    try:
        return load(path)
    except ConfigError as error:
        if any(problem.path for problem in error.problems):  # the others name the file themselves
            note(f"optoutd: {path} cannot be used:")
        raise


def ledger(config: Loaded, *, writes: bool = False) -> Ledger:
    """The ledger; what reads never creates it. Raises Unavailable, Unusable."""
    from daemon.opening import open_for

    create = writes and config.config.storage.create
    opened = open_for(config, allow_create=create, journal_failed=_journal_failed)
    at_end.callback(opened.close)
    return opened


def _journal_failed(why: OSError) -> None:
    note(f"optoutd: recorded, but the journal in storage.backup_dir cannot be written: {why.strerror}; back up soon")


def list_numbers(of: Ledger) -> dict[str, int]:
    """List id -> number."""
    from storage.suppressions import list_numbers as numbers

    with of.connect() as db:
        return numbers(db)


def scope_of(list_id: str | None, config: Loaded, numbers: dict[str, int]) -> int:
    """The scope of --list. Raises Stop(64) for a list that neither the config nor the ledger knows."""
    from storage.terms import ALL

    if list_id is None:
        return ALL
    configured = {x.id for x in config.config.list}
    if list_id not in configured and list_id not in numbers:
        known = ", ".join(sorted({*numbers, *configured})) or "none (see [[list]] in the config)"
        raise Stop(f"no list {list_id!r}; known: {known}", USAGE)
    return numbers.get(list_id, NO_SUCH_LIST)


# ------------------------------------------------------------------ arguments


def actor() -> str:
    """Who is at the keyboard, for the audit log."""
    try:
        return f"cli {getpass.getuser()}"
    except (KeyError, OSError):
        return "cli"


def now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


def address(text: str) -> Address:
    """An ADDR argument. Raises Stop(65)."""
    from storage.address import NotAnAddress, parse

    try:
        return parse(text)
    except NotAnAddress as problem:
        raise Stop(not_an_address(text, problem), DATAERR) from None


def not_an_address(text: str, problem: Exception) -> str:
    """The sentence about a malformed ADDR."""
    named = re.search(r"<([^<>\s]+@[^<>\s]+)>", text)
    hint = f"give only what is in the brackets: {named[1]}" if named else problem
    return f"{text[:80]!r} is not an address: {hint}"


def arguments(given: Iterable[str]) -> Iterator[str]:
    """The ADDR arguments, `-` standing for the lines of stdin."""
    for text in given:
        if text != "-":
            yield text
        elif sys.stdin is None:
            raise Stop("- is stdin, but stdin is closed", NOINPUT)
        else:
            yield from filter(None, map(str.strip, sys.stdin))


def is_number(number: int) -> bool:
    """Can there be a row with this number?"""
    return 0 < number <= _LARGEST


# ------------------------------------------------------------------ output


def prepare_streams() -> None:
    """Facts are UTF-8 whatever the locale; octets that were no UTF-8 stay readable instead of stopping us."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape")  # Excel begins its lists with a BOM
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # in JSON a \udcff is an escape, too


def tell(fact: dict[str, Any], as_json: bool, text: str, paint: Callable[[str], str] = str) -> None:
    """One fact on stdout; `paint` colours the text. Raises ReaderGone."""
    try:
        print(json.dumps(fact, ensure_ascii=False) if as_json else paint(harmless(text)))
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError as why:
        forget_stdout()
        raise Stop(f"stdout: {why.strerror}", TEMPFAIL) from None


def note(text: str) -> None:
    """Something that is no fact, on stderr."""
    with suppress(OSError):  # nobody listens: the exit code says it all the same
        print(harmless(text), file=sys.stderr)


def forget_stdout() -> None:
    """What is still buffered goes nowhere: else Python complains of it at exit, with an exit code of its own."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
