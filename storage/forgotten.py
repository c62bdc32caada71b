"""People who were erased: their keys stay, so that they are never mailed, and nothing ever refills what was erased.

Whoever stores an address, or a text that may hold one, asks here first. The mark is a row of address keys: keyed digests
that tell nobody anything without the site key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection

from storage.address import Address, SiteKey, keys_of
from storage.mentions import Mentions, named, named_in_id, strings
from storage.pieces import under

MASK: Final = "(forgotten)"
_INSTEAD: Final = "erased:"  # no Message-ID that we store begins like this: theirs begin with <
# What of an evidence is of our own making. The rest is the person's: address, words, and what leads to the message.
_OURS: Final = frozenset(
    "source rules proof because note wish review list asked rows decision reason file format digest removed click exempt everything".split()
)
_SILENT: Final = _OURS - {"because", "note", "reason", "file"}  # and of that, what cannot have a name in it


def personal_keys(site_key: SiteKey, address: Address) -> list[bytes]:
    """Every key under which rows of this very person may stand: all forms but the domain, all site keys."""
    return [key for key, kind in keys_of(site_key, address) if kind != "domain"]


def among(db: Connection, keys: Iterable[bytes]) -> set[bytes]:
    """Those of these keys whose person was forgotten."""
    asked = list(dict.fromkeys(keys))
    if not asked or not _anybody(db):
        return set()
    return {bytes(row[0]) for row in under(db, "SELECT key FROM forgotten WHERE key", asked)}


def _anybody(db: Connection) -> bool:
    return db.exec_driver_sql("SELECT 1 FROM forgotten LIMIT 1").first() is not None


def is_marked(db: Connection, site_key: SiteKey, whom: Address | bytes) -> bool:
    """Was this person forgotten?"""
    keys = [whom] if isinstance(whom, bytes) else personal_keys(site_key, whom)
    return bool(among(db, keys))


def whose(db: Connection, site_key: SiteKey, texts: Iterable[str]) -> list[Address]:
    """The forgotten people whom these texts name."""
    return _marked(db, site_key, [a for text in texts for a in named(text)]) if _anybody(db) else []


def _marked(db: Connection, site_key: SiteKey, addresses: Iterable[Address]) -> list[Address]:
    people = {a: personal_keys(site_key, a) for a in addresses}
    marked = among(db, (key for keys in people.values() for key in keys))
    return [a for a, keys in people.items() if marked.intersection(keys)]


def mark(db: Connection, keys: Iterable[bytes]) -> None:
    """From now on nothing is to be known of these people but their keys."""
    if marked := [(key,) for key in dict.fromkeys(keys)]:
        db.exec_driver_sql("INSERT INTO forgotten (key) VALUES (?) ON CONFLICT (key) DO NOTHING", marked)


def ours(detail: dict[str, Any]) -> dict[str, Any]:
    """What may be kept of the particulars of an act that is about a forgotten person alone."""
    return {name: value for name, value in detail.items() if name in _OURS}


def tells(detail: dict[str, Any]) -> bool:
    """Is there anything in the particulars of an act by which somebody might be known?"""
    return any(value for name, value in detail.items() if name not in _SILENT)


def kept_out(db: Connection, site_key: SiteKey, detail: dict[str, Any], about: Iterable[str] = ()) -> dict[str, Any]:
    """The particulars of an act without what is about forgotten people.

    `about`: addresses whom they concern, if those are not in them. If anybody named was forgotten, it goes what a person
    wrote and what leads to the message; other people's addresses, and what we say ourselves, stay.
    """
    gone = whose(db, site_key, [*about, *strings(detail)])
    if not gone:
        return detail
    kept = ours(detail)
    if "address" in detail:
        kept["address"] = without(detail["address"].split(";"), gone)
    return {name: masked(value, gone) for name, value in kept.items()}


def without(addresses: Sequence[str], gone: Sequence[Address]) -> str:
    """Addresses, joined by `;`, but for those of some people."""
    people = [Mentions(a) for a in gone]
    return ";".join(a for a in addresses if not any(p.same(a) or p.names(a) for p in people))


def masked(value: Any, gone: Sequence[Address]) -> Any:
    """A value as JSON has it, with the addresses of some people replaced."""
    if isinstance(value, str):
        for person in gone:
            value = Mentions(person).masked(value, MASK)
        return value
    return [masked(v, gone) for v in value] if isinstance(value, list) else value


def message_id(db: Connection, site_key: SiteKey, given: str, digest: bytes | None, sender: str) -> str:
    """A Message-ID as it may be stored: not that of a message from somebody forgotten, and not with their address in it."""
    if not given or not _anybody(db):
        return given
    people = [*named(sender), *named_in_id(given)]
    return instead_of_id(digest) if _marked(db, site_key, people) else given


def instead_of_id(digest: bytes | None) -> str:
    """What stands for the Message-ID of a message that is known by its octets alone; "" if not even by those."""
    return f"{_INSTEAD}{digest.hex()}" if digest else ""


def is_instead(stored: str) -> bool:
    """Is this no Message-ID, but what stands for one?"""
    return stored.startswith(_INSTEAD)
