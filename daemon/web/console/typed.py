"""What an operator types into the fields of a form, understood or not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from daemon.web.context import Context
from storage import suppressions, terms
from storage.terms import ALL


class NotUnderstood(Exception):
    """It cannot be: the message is a sentence for the operator."""


def moment(text: str) -> datetime | None:
    """A date or a time, UTC unless it says so; None for "". Raises NotUnderstood."""
    if not text:
        return None
    try:
        return terms.moment(text)
    except ValueError:
        raise NotUnderstood(f"{text} is no date: write 2026-01-31, or 2026-01-31T12:00.") from None


def number(text: str) -> int | None:
    """Of an item or a run, as a form or path has it; None: it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def until(text: str) -> datetime | None:
    """The same, to the end of what is named: a day, or a minute. Raises NotUnderstood."""
    found = moment(text)
    if found is None:
        return None
    lasts = {len("2026-01-31"): timedelta(days=1), len("2026-01-31T12:00"): timedelta(minutes=1)}
    try:
        return found + lasts.get(len(text), timedelta(seconds=1)) - timedelta(seconds=1)
    except OverflowError:
        raise NotUnderstood(f"{text} is no date that can be waited for.") from None


def numbers_of(of: Context) -> dict[str, int]:
    """List id -> number, of all lists there ever were. Asks the ledger: for a thread."""
    with of.ledger.connect() as db:
        return suppressions.list_numbers(db)


def scope(text: str, of: Context, numbers: Mapping[str, int]) -> int | None:
    """`all` or the id of a list; None for "". One that the ledger has not met yet fits nothing. Raises NotUnderstood."""
    known = {"all": ALL, **{x.id: -1 for x in of.house.lists}, **numbers}
    if text not in ("", *known):
        raise NotUnderstood("There is no such list.")
    return known.get(text)
