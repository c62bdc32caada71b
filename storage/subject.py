"""All that is held about one person, table by table, for them or for whoever asks for proof. Only reads.

Nothing in it is about anybody else: of what several people share, the others' addresses are masked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from storage import refusals, suppressions
from storage.address import Address, SiteKey
from storage.forgotten import among
from storage.mentions import Mentions, loaded
from storage.pieces import in_pieces, under
from storage.refusals import Refusal
from storage.suppressions import Fact, RawRow
from storage.terms import utc
from storage.traces import Traces, trace

SOMEBODY: Final = "(somebody else)"
_EVERY: Final = 2**31 - 1  # refusals: all of them


class Entry(NamedTuple):
    """An audit row: `fact` with its particulars (of nobody else), and what chains it."""

    fact: Fact
    mac: bytes


class Message(NamedTuple):
    """A message that was seen in a mailbox: where, when it came, what it was read as, and why it is the person's."""

    mailbox: str
    folder: str
    uid: int
    message_id: str
    received: datetime | None
    label: str
    evidence: int | None


class Review(NamedTuple):
    """A doubtful message: `sender` and `names_them` say how the person comes into it."""

    number: int
    received: datetime
    is_sender: bool
    is_named: bool
    scope: str
    rules: list[str]
    words: str
    excerpt: str
    state: str
    decided: datetime | None
    note: str


class Notice(NamedTuple):
    """A mail that we owe or have sent the person ourselves."""

    at: datetime
    kind: str
    state: str
    address: str


@dataclass(frozen=True, slots=True)
class Held:
    """Everything. `named_in`: particulars of acts that are kept under nobody's key, or somebody else's, and name the person."""

    address: Address
    traces: Traces
    forgotten: bool
    addresses: tuple[str, ...]
    suppressions: tuple[RawRow, ...]  # their domain's as well
    asked_again: tuple[tuple[int, int, datetime], ...]  # scope, reason, when last
    entries: tuple[Entry, ...]
    named_in: tuple[tuple[datetime, dict[str, Any]], ...]
    messages: tuple[Message, ...]
    reviews: tuple[Review, ...]
    refusals: tuple[Refusal, ...]
    notices: tuple[Notice, ...]
    soft_bounces: tuple[datetime, ...]  # days
    unproven: tuple[tuple[datetime, int], ...]  # hour, how many requests


def held(db: Connection, site_key: SiteKey, address: Address) -> Held:
    """Gather it. Give a connection with a consistent snapshot."""
    who, found = Mentions(address), trace(db, site_key, address)
    keys = found.keys
    entries = tuple(_entries(db, who, keys))
    behind = {e.fact.evidence for e in entries if e.fact.evidence is not None}
    return Held(
        address=address,
        traces=found,
        forgotten=bool(among(db, keys)),
        addresses=tuple(sorted({row[0] for row in under(db, "SELECT address FROM person WHERE key", keys)})),
        suppressions=_standing(db, site_key, address, found),
        asked_again=tuple(
            (scope, reason, utc(at))
            for scope, reason, at in under(db, "SELECT scope, reason, at FROM asked_again WHERE key", keys)
        ),
        entries=entries,
        named_in=tuple(_named_in(db, who, sorted(set(found.evidence) - behind))),
        messages=tuple(_messages(db, found, behind)),
        reviews=tuple(_reviews(db, who, found.reviews)),
        refusals=tuple(refusals.of_key(db, keys, _EVERY)),
        notices=tuple(
            Notice(utc(at), kind, state, text)
            for at, kind, state, text in under(db, "SELECT at, kind, state, address FROM outbox WHERE id", found.outbox)
        ),
        soft_bounces=tuple(utc(day * 86_400) for (day,) in under(db, "SELECT day FROM soft_bounce WHERE key", keys)),
        unproven=tuple(_unproven(db, site_key, found.spelled)),
    )


def _standing(db: Connection, site_key: SiteKey, address: Address, found: Traces) -> tuple[RawRow, ...]:
    """What keeps mail from them: rows of their own, of their whole domain, and under a foreign digest of the address."""
    rows = {*found.suppressions, *found.hashed, *suppressions.standing(db, site_key, address)}
    return tuple(sorted(rows, key=lambda r: (r[3], r[1:])))


def of_them(detail: dict[str, Any], who: Mentions) -> dict[str, Any]:
    """The particulars of an act without other people: their addresses, and what leads to a message that is not this person's alone."""
    people = [a for a in str(detail.get("address") or "").split(";") if a]
    others = [a for a in people if not who.same(a)]
    kept = {name: _masked(value, who) for name, value in detail.items() if name not in ("address", "message_id")}
    if "address" in detail:
        kept["address"] = ";".join([a for a in people if who.same(a)] + [SOMEBODY] * bool(others))
    if "message_id" in detail:
        kept["message_id"] = SOMEBODY if others and detail["message_id"] else detail["message_id"]
    return kept


def _masked(value: Any, who: Mentions) -> Any:
    if isinstance(value, str):
        return who.others_masked(value, SOMEBODY)
    return [_masked(v, who) for v in value] if isinstance(value, list) else value


def _entries(db: Connection, who: Mentions, keys: Sequence[bytes]) -> Iterator[Entry]:
    macs = {int(seq): bytes(mac) for seq, mac in under(db, "SELECT seq, mac FROM audit WHERE key", keys)}
    for fact in suppressions.by_keys(db, keys):
        detail = None if fact.detail is None else of_them(fact.detail, who)
        yield Entry(replace(fact, detail=detail), macs[fact.seq])


def _named_in(db: Connection, who: Mentions, numbers: Sequence[int]) -> Iterator[tuple[datetime, dict[str, Any]]]:
    for at, detail in under(db, "SELECT at, detail FROM evidence WHERE detail IS NOT NULL AND id", numbers):
        yield utc(at), of_them(loaded(detail), who)


def _messages(db: Connection, found: Traces, behind: set[int]) -> Iterator[Message]:
    """No index leads from an evidence to its messages: all are looked through, once."""
    columns = "id, mailbox, folder, uid, message_id, internaldate, label, evidence"
    rows = in_pieces(db, f"SELECT {columns} FROM incoming WHERE evidence IS NOT NULL")
    about = behind | set(found.evidence)
    messages = {row[0]: row[1:] for row in rows if row[7] in about}
    messages |= {row[0]: row[1:] for row in under(db, f"SELECT {columns} FROM incoming WHERE id", found.incoming)}
    for number in sorted(messages):
        mailbox, folder, uid, message_id, came, label, of = messages[number]
        identity = SOMEBODY if of in found.shared or (of in about and of not in behind) else message_id
        yield Message(mailbox, folder, uid, identity, None if came is None else utc(came), label, of)


def _reviews(db: Connection, who: Mentions, numbers: Sequence[int]) -> Iterator[Review]:
    columns = "id, at, sender, addresses, scope, rules, words, excerpt, state, decided, note"
    for row in under(db, f"SELECT {columns} FROM review WHERE id", numbers):
        number, at, sender, addresses, scope, rules, words, excerpt, state, decided, note = row
        texts = [who.others_masked(text, SOMEBODY) for text in (words, excerpt, note)]
        yield Review(
            number,
            utc(at),
            who.same(sender),
            any(map(who.same, json.loads(addresses))),
            scope,
            json.loads(rules),
            texts[0],
            texts[1],
            state,
            None if decided is None else utc(decided),
            texts[2],
        )


def _unproven(db: Connection, site_key: SiteKey, spelled: Sequence[str]) -> Iterator[tuple[datetime, int]]:
    """Requests that nobody proved are counted under the writer's address as it was written."""
    keys = list(dict.fromkeys(k for text in spelled for k in site_key.address_keys(text.lower())))
    for hour, count in under(db, "SELECT hour, count FROM unproven WHERE writer", keys):
        yield utc(hour * 3600), count
