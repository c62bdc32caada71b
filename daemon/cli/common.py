"""What the commands share: exit codes, the config, output, and reading arguments."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from daemon.config import Loaded, find, load
from daemon.service import open_for
from storage import suppressions
from storage.address import Address, NotAnAddress, parse
from storage.engine import Ledger
from storage.models import ALL, Reason

OK: Final = 0
NO: Final = 1  # the answer is "no"
USAGE: Final = 64
DATAERR: Final = 65
NOINPUT: Final = 66
SOFTWARE: Final = 70
TEMPFAIL: Final = 75
CONFIG: Final = 78
INTERRUPTED: Final = 130

AsJson = Annotated[bool, typer.Option("--json", help="JSON Lines on stdout.")]
ListOption = Annotated[str | None, typer.Option("--list", metavar="ID", help="Of this mailing list only.")]

chosen_config: str | None = None  # of -c; set once per invocation


class Stop(Exception):
    """End the command with a sentence on stderr ("" for none) and an exit code."""

    def __init__(self, sentence: str, code: int):
        super().__init__(sentence)
        self.code = code


def loaded() -> Loaded:
    """The config that was asked for. Raises ConfigError."""
    return load(find(chosen_config))


def ledger(config: Loaded, *, writes: bool = False) -> Ledger:
    """The ledger; what reads never creates it. Raises Unavailable, Unusable."""
    return open_for(config, allow_create=writes and config.config.storage.create)


def actor() -> str:
    """Who is at the keyboard, for the audit log."""
    try:
        return f"cli {getpass.getuser()}"
    except (KeyError, OSError):
        return "cli"


def now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


def scope_of(list_id: str | None, config: Loaded, numbers: dict[str, int]) -> int:
    """The scope of --list. Raises Stop(64) for a list that neither the config nor the ledger knows."""
    if list_id is None:
        return ALL
    if list_id not in numbers:
        known = ", ".join(sorted({*numbers, *(x.id for x in config.config.list)})) or "none"
        raise Stop(f"no list {list_id!r}; known: {known}", USAGE)
    return numbers[list_id]


def scope_word(scope: int, numbers: dict[str, int]) -> str:
    """`all` or `list:ID`."""
    return "all" if scope == ALL else next((f"list:{i}" for i, n in numbers.items() if n == scope), f"list:{scope}")


def address(text: str) -> Address:
    """An ADDR argument. Raises Stop(65)."""
    try:
        return parse(text)
    except NotAnAddress as problem:
        raise Stop(f"{text!r} is not an address: {problem}", DATAERR) from None


def arguments(given: Iterable[str]) -> Iterator[str]:
    """The ADDR arguments, `-` standing for the lines of stdin."""
    for text in given:
        if text == "-":
            yield from filter(None, map(str.strip, sys.stdin))
        else:
            yield text


def tell(fact: dict[str, Any], as_json: bool, text: str) -> None:
    """One fact on stdout."""
    print(json.dumps(fact, ensure_ascii=False) if as_json else text)


def note(text: str) -> None:
    """Something that is no fact, on stderr."""
    print(text, file=sys.stderr)


def when(moment: datetime | int | None) -> str | None:
    """RFC 3339 in UTC with Z; from an aware datetime or seconds."""
    if moment is None:
        return None
    if isinstance(moment, int):
        moment = datetime.fromtimestamp(moment, UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def reason_word(reason: int | None) -> str | None:
    """`opt-out` for 2."""
    return None if reason is None else Reason(reason).word


def list_numbers(of: Ledger) -> dict[str, int]:
    """List id -> number."""
    with of.connect() as db:
        return suppressions.list_numbers(db)
