"""The words of other people's lists: what a column is called, what a status means, how a date is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final

from storage.terms import REASONS

Record = Mapping[str, object]  # of one row: normalised name -> cell (JSON: str, list or dict)


class Strange(Exception):
    """A status that we do not understand: of which column, and what it says."""

    def __init__(self, column: str, value: str):
        super().__init__(column, value)
        self.column, self.value = column, value


@lru_cache(maxsize=4096)
def name(text: str) -> str:
    """A column's name as we compare it: `Email Address` is `email_address`, `EmailAddress` `emailaddress`."""
    return re.sub(r"[\s\-./]+", "_", text.strip().strip("\ufeff'\"").lower()).strip("_")


def say(record: Record, *names: str) -> str:
    """The first of these columns that says something, trimmed."""
    for one in names:
        found = said(record.get(one))
        if found:
            return found
    return ""


def said(value: object) -> str:
    """A cell as text: of a JSON list its members, joined."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ";".join(filter(None, map(said, value)))
    return "" if isinstance(value, dict) else str(value)


# ------------------------------------------------------------------ the address

# What the column of addresses is called, without `-`, `_` and spaces.
_ADDRESS: Final = frozenset(
    (
        "email emailaddress mail mailaddress address recipient recipientemail rcptto subscriberemail contactemail useremail"
        " customeremail primaryemail emailadresse mailadresse adresse adresseemail courriel adressecourriel adressemail"
        " correo correoelectronico correoelectrónico indirizzoemail epost epostadresse emailadres endereçodeemail"
    ).split()
)
DIGESTS: Final = frozenset(
    "md5 sha256 hash digest md5hash sha256hash emailmd5 emailsha256 emailhash hashedemail md5email sha256email".split()
)
_BRACKETED: Final = re.compile(r"[^<>]{0,200}<([^<>\s]{1,320})>\Z")
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{32}|[0-9a-fA-F]{64})\Z")
_FORMULA: Final = re.compile(r"'+[=+\-@\t\r]")
CELL: Final = 512  # characters of an address that are looked at: the longest there can be has 320


def means_address(column: str) -> bool:
    """Is this (normalised) name one of a column of addresses?"""
    return column.replace("_", "") in _ADDRESS


def means_digest(column: str) -> bool:
    """Is it one of a column of hashes?"""
    return column.replace("_", "") in DIGESTS


def from_csv(cell: str) -> str:
    """The address in a cell of a table: as `trimmed`, and without the apostrophe that `harmless` has put before it."""
    text = _bare(cell)
    return trimmed(text[1:] if text[:1] == "'" and _FORMULA.match(text) else text)


def _bare(text: str) -> str:
    """Without space around it, or the marks that stand between two files which were put together. Bounded."""
    text = text.strip()
    return (text if text.isascii() else text.strip("\ufeff\u200b").strip())[:CELL]


def trimmed(text: str) -> str:
    """An address, bounded, without space around it or a name before `<...>`."""
    text = _bare(text)
    if text[-1:] == ">":
        found = _BRACKETED.match(text)
        return found[1] if found else text
    return text


def looks_like_address(cell: str) -> bool:
    """One `@` with something behind it, and no space: enough to tell a column of addresses from others."""
    text = trimmed(cell)
    return "@" in text[:-1] and not any(c.isspace() for c in text)


def is_digest(cell: str) -> bool:
    """32 or 64 hex digits?"""
    return _HEX.match(cell.strip()) is not None


# ------------------------------------------------------------------ what a status means

SUBSCRIBED: Final = ""  # is on the list, and nobody may take it for an opt-out
# status -> our reason; SUBSCRIBED: no suppression. Names as `name` makes them, without `_`.
_STATUSES: Final[dict[str, str]] = {
    **{word.replace("-", ""): word for word in REASONS},
    **dict.fromkeys(
        (
            "unsubscribed unsubscribe unsub unsubscription optout optedout listunsubscribe globalunsubscribe groupunsubscribe"
            " unsubscribelink removed donotmail donotemail donotcontact dnc abgemeldet désabonné désinscrit"
        ).split(),
        "opt-out",
    ),
    **dict.fromkeys(
        "complaint complained spam spamreport spamcomplaint abuse abusecomplaint feedbackloop fbl".split(), "complaint"
    ),
    **dict.fromkeys(
        (
            "bounce bounced hardbounce hardbounced hard permanent permanentbounce invalid invalidemail invalidaddress"
            " cleaned undeliverable"
        ).split(),
        "hard-bounce",
    ),
    **dict.fromkeys("softbounce softbounced soft transient transientbounce temporarybounce".split(), "soft-bounce"),
    **dict.fromkeys(
        "manual manualsuppression manuallyadded blocklisted blacklisted blocklist blacklist suppressed banned".split(),
        "operator",
    ),
    **dict.fromkeys(
        (
            "subscribed active enabled confirmed optin optedin ok valid deliverable delivered clean never pending unconfirmed"
            " nonsubscribed transactional none"
        ).split(),
        SUBSCRIBED,
    ),
}
_YES: Final = frozenset("1 true t yes y x on ja oui si sí".split())
_NOES: Final = frozenset("0 false f no n off nein non".split()) | {""}


def status(column: str, value: str) -> str:
    """Our reason for a status, SUBSCRIBED if it is none. Raises Strange."""
    found = _STATUSES.get(name(value).replace("_", ""))
    if found is None:
        raise Strange(column, value)
    return found


def one_of(column: str, value: str, meanings: Mapping[str, str]) -> str:
    """The same by the words of one service (lower case). Raises Strange."""
    found = meanings.get(value.lower())
    if found is None:
        raise Strange(column, value)
    return found


def flag(column: str, value: str) -> bool:
    """A cell that says yes or no. Raises Strange."""
    low = value.lower()
    if low in _YES:
        return True
    if low in _NOES:
        return False
    raise Strange(column, value)


# ------------------------------------------------------------------ scopes and dates

_LIST_ID: Final = re.compile(r"(?:list:)?([a-z0-9-]{1,32})\Z")


def scopes(column: str, value: str) -> tuple[str, ...]:
    """`all`, `list:a;list:b`, `a` as ids, ("all",) for everything, () if it says nothing. Raises Strange."""
    found = []
    for word in filter(None, map(str.strip, value.replace(",", ";").split(";"))):
        if word in ("all", "*"):
            return ("all",)
        match = _LIST_ID.match(word)
        if not match:
            raise Strange(column, value)
        found.append(match[1])
    return tuple(found)


_EPOCH: Final = re.compile(r"(\d{9,11})(?:\.\d+)?\Z")
_MILLISECONDS: Final = re.compile(r"(\d{12,14})\Z")
_GO: Final = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.\d+)? ?([+-]\d\d):?(\d\d)?(?: [A-Z]{2,5})?\Z")
_FIRST: Final = datetime(1990, 1, 1, tzinfo=UTC)


def moment(value: str) -> datetime | None:
    """When, aware; None if it does not say so in a way that has one meaning only (03/04/2021 has two).

    Seconds or milliseconds since 1970, ISO 8601, RFC 5322, and what Go and PostgreSQL print. UTC where no zone is given.
    """
    try:
        return _plausible(_moment(value.strip()[:40])) if value else None
    except (ValueError, OverflowError, OSError, TypeError, IndexError):
        return None


def _moment(text: str) -> datetime | None:
    if found := _EPOCH.match(text):
        return datetime.fromtimestamp(int(found[1]), UTC)
    if found := _MILLISECONDS.match(text):
        return datetime.fromtimestamp(int(found[1]) // 1000, UTC)
    if text[:4].isdigit():
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            found = _GO.match(text)
            return datetime.fromisoformat(f"{found[1]}{found[2]}:{found[3] or '00'}") if found else None
    return (
        parsedate_to_datetime(text) if text[:1].isalpha() or (text[:2].strip().isdigit() and "/" not in text) else None
    )


def _plausible(found: datetime | None) -> datetime | None:
    """Aware, in whole seconds; nobody was suppressed before there were lists: then it is another kind of number."""
    if found is None:
        return None
    aware = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC).replace(microsecond=0)
    return aware if aware >= _FIRST else None


def first_of(record: Record, names: Sequence[str]) -> str:
    """The name of the first of these columns that is there, "" if none is."""
    return next((n for n in names if n in record), "")


_RUNS: Final = re.compile(r"'*[=+\-@\t\r]")


def harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula; `from_csv` takes the apostrophe off again."""
    return "'" + cell if _RUNS.match(cell) else cell
