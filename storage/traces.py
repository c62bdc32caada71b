"""Where in the ledger is a person? Every row that is under one of their keys, and every text that names them.

What stands under a key is found by an index. Texts about others may name the person, too, so all of them are looked
through: some seconds for millions of rows, on a connection that only reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from storage.address import Address, SiteKey, forms, parse, person
from storage.forgotten import among, is_instead, personal_keys, tells
from storage.mentions import Mentions, loaded, strings
from storage.pieces import in_pieces, under
from storage.suppressions import RawRow


@dataclass(frozen=True, slots=True)
class Traces:
    """Rows by their ids (people, outbox, soft bounces: by key). What is said of `keys` stands under one of them."""

    keys: tuple[bytes, ...]  # the first: what every spelling of the address is looked up by
    marked: bool  # were they forgotten before?
    spelled: tuple[str, ...]  # as the person's address stands anywhere under a key of theirs
    suppressions: tuple[RawRow, ...]
    hashed: tuple[RawRow, ...]  # under a digest that anybody can make of the address
    people: tuple[bytes, ...]
    evidence: tuple[int, ...]  # that is about the person, or names them
    shared: tuple[int, ...]  # of those, what explains rows of somebody else as well
    reviews: tuple[int, ...]
    incoming: tuple[int, ...]  # messages about the person, or whose Message-ID names them
    refusals: int
    refused_ids: tuple[int, ...]  # refusals whose Message-ID names the person
    outbox: tuple[int, ...]
    soft_bounces: int
    audit_rows: int

    @property
    def known(self) -> bool:
        """Is there anything at all?"""
        return bool(self.plain or self.suppressions or self.refusals or self.soft_bounces or self.audit_rows)

    @property
    def plain(self) -> bool:
        """Is there anything that names the person?"""
        found = (self.hashed, self.people, self.evidence, self.reviews, self.incoming, self.refused_ids, self.outbox)
        return any(found)


def trace(db: Connection, site_key: SiteKey, address: Address) -> Traces:
    """Find everything about a person, under whatever form of the address."""
    who = Mentions(address)
    people = {
        bytes(key): text
        for key, text in _texts(db, who, "person", "key", "address")
        if who.names(text) or who.same(text)
    }
    widest = site_key.address_key(
        person(address, ("tag", "alias"))
    )  # all their spellings are asked for under this one, too
    keys = list(dict.fromkeys([widest, *personal_keys(site_key, address), *people]))
    for text in people.values():
        keys += [k for k in personal_keys(site_key, parse(text)) if k not in keys]
    people |= {bytes(key): text for key, text in under(db, "SELECT key, address FROM person WHERE key", keys)}
    spelled = tuple(dict.fromkeys([str(address), *people.values()]))
    evidence, shared = _evidence(db, who, keys)
    reviews, from_them = _reviews(db, who)
    evidence |= _decisions(db, reviews)
    return Traces(
        keys=tuple(keys),
        marked=among(db, keys) == set(keys),
        spelled=spelled,
        suppressions=rows_under(db, keys),
        hashed=rows_under(db, _digests(spelled)),
        people=tuple(people),
        evidence=tuple(sorted(evidence)),
        shared=tuple(sorted(shared & evidence)),
        reviews=tuple(reviews),
        incoming=_messages(db, who, evidence, from_them),
        refusals=sum(n for (n,) in under(db, "SELECT count(*) FROM refusal WHERE key", keys)),
        refused_ids=_refused_ids(db, who, keys),
        outbox=tuple(row[0] for row in under(db, "SELECT id FROM outbox WHERE key", keys)),
        soft_bounces=sum(n for (n,) in under(db, "SELECT count(*) FROM soft_bounce WHERE key", keys)),
        audit_rows=sum(n for (n,) in under(db, "SELECT count(*) FROM audit WHERE key", keys)),
    )


def _texts(db: Connection, who: Mentions, table: str, *columns: str) -> Iterator[Any]:
    """The rows of a table whose texts (all columns but the first) may name the person: the database looks roughly."""
    texts = " || ' ' || ".join(f"coalesce(CAST({c} AS TEXT), '')" for c in columns[1:])
    where, values = (f" WHERE replace(lower({texts}), '.', '') LIKE ?", (f"%{who.word}%",)) if who.word else ("", ())
    query = f"SELECT {', '.join(columns)} FROM {table}{where}"
    yield from in_pieces(db, query, values)


def rows_under(db: Connection, keys: Sequence[bytes]) -> tuple[RawRow, ...]:
    """The suppression rows of these keys."""
    found = under(db, "SELECT key, scope, reason, since, evidence FROM suppression WHERE key", keys)
    return tuple((bytes(r[0]), int(r[1]), int(r[2]), int(r[3]), int(r[4])) for r in found)


def digests(spelled: Iterable[str]) -> list[bytes]:
    """The keys of rows that came as foreign digests of these addresses: 16 octets of each kind."""
    texts = {text.strip().lower().encode("utf-8", "surrogateescape") for text in spelled}
    kinds: tuple[Callable[[bytes], Any], ...] = (_md5, hashlib.sha256)
    return [kind(text).digest()[:16] for text in texts for kind in kinds]


def _md5(text: bytes) -> Any:
    return hashlib.md5(text, usedforsecurity=False)


def _digests(spelled: Iterable[str]) -> list[bytes]:
    """Of an address as it is known, and of all its forms."""
    every = set(spelled)
    for text in spelled:
        every.update(form for kind, form in forms(parse(text)) if kind != "domain")
    return digests(every)


# ------------------------------------------------------------------ tables


def _evidence(db: Connection, who: Mentions, keys: Sequence[bytes]) -> tuple[set[int], set[int]]:
    """(evidence that is the person's, evidence that is somebody else's as well).

    What stands behind rows of one person alone is theirs, whatever it says. Of what several share it is if it names them:
    a batch of an import or of expired bounces names nobody.
    """
    behind = {row[0] for row in under(db, "SELECT evidence FROM audit WHERE key", keys) if row[0] is not None}
    query = "SELECT a.evidence, a.key FROM audit a WHERE a.key IS NOT NULL AND a.evidence"
    shared = {row[0] for row in under(db, query, sorted(behind)) if bytes(row[1]) not in keys}
    naming = {
        number
        for number, detail in _texts(db, who, "evidence", "id", "detail")
        if any(who.names(text) or any(map(who.same, text.split(";"))) for text in strings(loaded(detail)))
    }
    shared |= {row[0] for row in under(db, query, sorted(naming - behind)) if bytes(row[1]) not in keys}
    own = under(db, "SELECT id, detail FROM evidence WHERE detail IS NOT NULL AND id", sorted(behind - shared))
    return naming | {number for number, detail in own if tells(loaded(detail))}, shared


def _reviews(db: Connection, who: Mentions) -> tuple[list[int], list[int]]:
    """(items that name the person, the messages of those that are from them)."""
    items, messages = [], []
    texts = ("sender", "addresses", "words", "excerpt", "note")
    for number, incoming, sender, addresses, *rest in _texts(db, who, "review", "id", "incoming", *texts):
        people = [sender, *json.loads(addresses)]
        if any(who.same(p) or who.names(p) for p in people) or any(map(who.names, rest)):
            items.append(number)
            if incoming is not None and (who.same(sender) or who.names(sender)):
                messages.append(incoming)
    return items, messages


def _decisions(db: Connection, reviews: Sequence[int]) -> set[int]:
    """The evidence of what was decided on these items."""
    if not reviews:
        return set()
    query = "SELECT id, detail FROM evidence WHERE detail LIKE ?"
    rows = in_pieces(db, query, ('%"review": %',))
    return {number for number, detail in rows if loaded(detail).get("review") in reviews}


def _messages(db: Connection, who: Mentions, evidence: set[int], from_them: Sequence[int]) -> tuple[int, ...]:
    """Sightings of the person's messages, and those whose Message-ID tells of them."""
    about = {row[0] for row in under(db, "SELECT id FROM incoming WHERE id", from_them)}
    about |= _of_evidence(db, evidence)
    about |= {n for n, text in _texts(db, who, "incoming", "id", "message_id") if who.hints(text)}
    known = "SELECT id, message_id FROM incoming WHERE message_id <> '' AND id"
    return tuple(sorted(n for n, text in under(db, known, sorted(about)) if not is_instead(text)))


def _of_evidence(db: Connection, evidence: set[int]) -> set[int]:
    """No index leads from an evidence to its messages, so all are looked through, once."""
    if not evidence:
        return set()
    rows = in_pieces(db, "SELECT id, evidence FROM incoming WHERE evidence IS NOT NULL")
    return {number for number, of in rows if of in evidence}


def _refused_ids(db: Connection, who: Mentions, keys: Sequence[bytes]) -> tuple[int, ...]:
    mine = under(db, "SELECT id, message_id FROM refusal WHERE key", keys)
    found = {number for number, text in mine if who.hints(text)}
    return tuple(sorted(found | {n for n, text in _texts(db, who, "refusal", "id", "message_id") if who.is_in(text)}))
