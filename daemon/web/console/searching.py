"""What somebody types who asks "why?": an address, a domain, a reference, a whole refusal, a link of ours, a Message-ID."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from daemon.mail import tokens
from storage import incoming, refusals, suppressions, undo
from storage.address import Address, NotAnAddress, SiteKey, parse
from storage.incoming import Seen
from storage.refusals import Refusal
from storage.suppressions import Fact, Whom
from storage.terms import ALL

LONGEST: Final = 2_000
_REF: Final = re.compile(r"\(ref (\d{1,18})\)|\A(?:\(?ref\.? ?)?(\d{1,18})\)?\Z", re.IGNORECASE)
_BRACKETS: Final = re.compile(r"<([^<>\s]{1,400})>")
_DOMAIN: Final = re.compile(r"@?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+")
_NOBODY: Final = "That link is of a message to several people, so it names nobody."


@dataclass(frozen=True, slots=True)
class Someone:
    """A person or a domain; of a key alone `address` is what is kept beside it, or None. `by`: how they were found."""

    whom: Whom
    address: Address | None
    by: str = ""


@dataclass(frozen=True, slots=True)
class Behind:
    """What stands behind a reference that leads to no one person: several, an import, or something that was done."""

    ref: int
    people: tuple[Someone, ...]
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """A message that we read, or whose recipients were refused: `refused` beside whom, as far as that is known."""

    message_id: str
    seen: tuple[Seen, ...]
    refused: tuple[tuple[Refusal, Someone], ...]


@dataclass(frozen=True, slots=True)
class Nothing:
    """Nothing is found: why, as a sentence."""

    sentence: str


Found = Someone | Behind | Message | Nothing


def search(db: Connection, site_key: SiteKey, text: str) -> Found:
    """What does this mean? `text`: as it was typed, without space around it."""
    if len(text) > LONGEST:
        return Nothing("That is too long to be an address, a reference or a link.")
    if "\0" in text:  # which PostgreSQL does not even compare
        return Nothing("That has a character in it that nothing we know has.")
    if (key := _hex_key(text)) is not None:
        return _of_key(db, key)
    if ref := _REF.search(text):
        return _behind(db, site_key, int(ref[1] or ref[2]))
    for token in tokens.find(site_key, ("link", "received", "undo"), text):
        if token.address_key == tokens.NOBODY:
            return Nothing(_NOBODY)
        of = "everything" if token.list_number == ALL else suppressions.scope_word(db, token.list_number)
        return _of_key(db, token.address_key, f"a link of ours for {of}, made out to them")
    return _message(db, text) or _someone(text)


def query_of(someone: Someone) -> str:
    """What to type to come to this person."""
    if someone.address is not None:
        return str(someone.address)
    assert isinstance(someone.whom, bytes)
    return f"key {someone.whom.hex()}"


def _hex_key(text: str) -> bytes | None:
    found = re.fullmatch(r"(?:key )?([0-9a-f]{32})", text)
    return bytes.fromhex(found[1]) if found else None


def _of_key(db: Connection, key: bytes, by: str = "") -> Someone:
    """By the address beside it, if one is kept: then every form of it is asked for."""
    for known in undo.addresses(db, [key]):
        address = parse(known)
        return Someone(address, address, by)
    return Someone(key, None, by)


def _behind(db: Connection, site_key: SiteKey, ref: int) -> Found:
    facts = suppressions.by_evidence(db, ref)
    if not facts:
        return Nothing(f"There is no reference {ref}: nothing that we wrote down has this number.")
    people = tuple(_people(db, site_key, facts, f"reference {ref}"))
    return people[0] if len(people) == 1 else Behind(ref, people, tuple(facts[:100]))


def _people(db: Connection, site_key: SiteKey, facts: list[Fact], by: str) -> list[Someone]:
    """Whom a reference is about: as they were written, else as they are kept, else by their keys."""
    keys = list(dict.fromkeys(f.key for f in facts if f.key is not None))
    written = [text for f in facts for text in str((f.detail or {}).get("address") or "").split(";") if text]
    named = [Someone(a, a, by) for a in map(_read, dict.fromkeys(written)) if a is not None]
    if len(keys) == 1 and len(named) == 1:
        return named
    found = [_of_key(db, key, by) for key in keys[:100]]
    return found if keys else named


def _read(text: str) -> Address | None:
    try:
        return parse(text)
    except NotAnAddress:
        return None


def _message(db: Connection, text: str) -> Message | None:
    """A Message-ID looks like an address, so it is looked for wherever something can be one."""
    inside = _BRACKETS.search(text)
    for spelled in dict.fromkeys((text, f"<{inside[1] if inside else text}>")):
        if "@" not in spelled:
            continue
        seen = incoming.twins(db, spelled, b"")
        refused = refusals.of_message(db, spelled)
        if seen or refused:
            return Message(spelled, tuple(seen[:50]), tuple((r, _of_key(db, r.key)) for r in refused))
    return None


def _someone(text: str) -> Found:
    inside = _BRACKETS.search(text)
    written = inside[1] if inside else text.removeprefix("mailto:")
    if "@" not in written and _DOMAIN.fullmatch(written):
        written = f"@{written}"
    try:
        address = parse(written)
    except NotAnAddress as problem:
        return Nothing(f"That is no address, reference, link or Message-ID that we know: {problem}.")
    return Someone(address, address)


def told(found: Behind) -> dict[str, Any]:
    """What was done on a reference, of which nobody is the only one."""
    first = found.facts[0]
    detail = first.detail or {}
    return {
        "ref": found.ref,
        "at": first.at,
        "event": first.event,
        "actor": first.actor,
        "source": first.source,
        "given": detail.get("because") or detail.get("note") or None,
        "file": detail.get("file"),
        "rows": detail.get("rows"),
        "first": detail.get("first"),
        "last": detail.get("last"),
        "people": found.people,
    }
