"""The one mapping between the words of the contract and the small integers of the tables; and times as they are kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final


class Reason(IntEnum):
    """Why a row stands. Smaller is stronger: the reason shown is the smallest. Numbers are for ever."""

    COMPLAINT = 1
    OPT_OUT = 2
    OPERATOR = 3
    HARD_BOUNCE = 4
    SOFT_BOUNCE = 5
    WANTED = 6  # exempts one list from an `all` opt-out

    @property
    def word(self) -> str:
        """As in JSON, CSV, API and audit: `opt-out`."""
        return self.name.lower().replace("_", "-")


REASONS: Final = {r.word: r for r in Reason}
SOURCES: Final = ("mail", "one-click", "page", "api", "phone", "letter", "operator", "import", "dsn", "arf")
ALL: Final = 0  # the scope of everything; a list's scope is its number


def seconds(moment: datetime) -> int:
    """Whole seconds since 1970 of an aware datetime. Raises ValueError on a naive one."""
    if moment.tzinfo is None:
        raise ValueError("a datetime without a time zone")
    return int(moment.timestamp())


def utc(at: int) -> datetime:
    """Seconds since 1970, as a moment."""
    return datetime.fromtimestamp(at, UTC)


def joined(scopes: Iterable[int], ids: dict[int, str]) -> str:
    """Scopes as the contract writes them: `all`, or `list:a;list:b`. `ids`: list number -> id."""
    words = {"all" if s == ALL else f"list:{ids.get(s, s)}" for s in scopes}
    return ";".join(sorted(words, key=lambda w: (w != "all", w)))


def scope_word(scope: int, numbers: Mapping[str, int]) -> str:
    """One scope as the contract writes it. `numbers`: list id -> number."""
    return joined([scope], {number: list_id for list_id, number in numbers.items()})


def reason_word(reason: int | None) -> str | None:
    """`opt-out` for 2."""
    return None if reason is None else Reason(reason).word


def moment(text: str) -> datetime:
    """A date or an RFC 3339 time, UTC unless it says so. Raises ValueError."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("no date; write 2026-01-31 or 2026-01-31T12:00:00Z") from None


def when(moment: datetime | int | None) -> str | None:
    """RFC 3339 in UTC with Z; from an aware datetime or seconds."""
    if moment is None:
        return None
    if isinstance(moment, int):
        moment = utc(moment)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
