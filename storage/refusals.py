"""Verbs on the relay's record: who was refused, how many of what, and the ledger in numbers.

Nothing here decides anything: the record may lose its last second (daemon.register), a suppression never. So no audit
row is written either. Single refusals (`refusal`) answer "was she refused, and when?"; counts by the hour (`tally`)
answer for a campaign, and cost the same however much mail passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, get_args

from sqlalchemy import Connection

from storage import forgotten
from storage.address import NotAnAddress, keys_of, parse
from storage.mentions import Mentions
from storage.pieces import in_pieces
from storage.terms import Reason, seconds, utc
from storage.write import Write

# What may stand in a Refusal. Whatever becomes of a recipient, it is counted once.
#   refused: 550 · stripped: left out of a message, the client heard 250 · withdrawn: opted out between RCPT and the dot
#   would-refuse: passed, for the relay only observes · service: passed, as service mail that an opt-out would have stopped
Kept = Literal["refused", "stripped", "withdrawn", "would-refuse", "service"]
# What is only counted.
#   passed: the upstream has it · deferred: 451 of ours · rejected: by the upstream, or by us for what the message is
#   duplicate: messages that upstream may have twice · foreign: messages with somebody else's unsubscribe link
Counted = Literal["passed", "deferred", "rejected", "duplicate", "foreign"]
Outcome = Kept | Counted
_KEPT: Final[tuple[Kept, ...]] = get_args(Kept)
OUTCOMES: Final[tuple[Outcome, ...]] = ("passed", *_KEPT, "deferred", "rejected", "duplicate", "foreign")
By = Literal["list", "credential", "message-id"]

_LONGEST: Final = 300  # characters of a Message-ID: it is a client's text, and an index holds it
_AT_ONCE: Final = 500  # keys a statement


class Refusal(NamedTuple):
    """A recipient who was refused, or would have been.

    `key`: under which this person's rows are written (`address.person`). `list_number`, `evidence`: 0 for none.
    `credential`: the AUTH user, "" for none. `others`: how many recipients of the same transaction got the message; one
    refusal of the transaction tells it and the rest have 0, so that it can be summed up. `address`: as RCPT gave it;
    kept only where the ledger keeps addresses and has none of a person it suppresses.
    """

    at: datetime
    outcome: Kept
    key: bytes
    list_number: int
    reason: int
    credential: str
    message_id: str
    evidence: int
    others: int = 0
    address: str | None = None


class Tally(NamedTuple):
    """What is counted together. `hour`: hours since 1970 UTC; the rest as in Refusal (reason 0: none)."""

    hour: int
    list_number: int
    credential: str
    outcome: Outcome
    reason: int


# ------------------------------------------------------------------ writing


def record(w: Write, refusals: Sequence[Refusal], tallies: Mapping[Tally, int]) -> None:
    """Add refusals, and counts to the counts that are there. Addresses of people known by key alone are learned."""
    if refusals:
        erased = forgotten.among(w.db, (r.key for r in refusals))
        w.db.exec_driver_sql(
            "INSERT INTO refusal (at, outcome, key, list, reason, credential, message_id, evidence, others)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(seconds(r.at), *r[1:6], _message_id(r, r.key in erased), r.evidence, r.others) for r in refusals],
        )
        if w.ledger.keep_addresses:
            _learn(w, {r.key: r.address for r in refusals if r.address})
    if tallies:
        w.db.exec_driver_sql(
            "INSERT INTO tally (hour, list, credential, outcome, reason, count) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (hour, list, credential, outcome, reason) DO UPDATE SET count = tally.count + excluded.count",
            [(*tally, n) for tally, n in tallies.items()],
        )


def _message_id(of: Refusal, erased: bool) -> str:
    """A message to one recipient may have that recipient in its Message-ID: not that of a forgotten one."""
    if erased:
        try:
            if not of.address or Mentions(parse(of.address)).hints(of.message_id):
                return ""
        except NotAnAddress:
            return ""
    return _storable(of.message_id)


def _storable(text: str) -> str:
    """Octets that were no UTF-8 come as surrogates, which no database takes; PostgreSQL takes no NUL either."""
    return text[:_LONGEST].encode("utf-8", "replace").decode().replace("\0", "?")


def _learn(w: Write, heard: dict[bytes, str]) -> None:
    """A token names a person by key alone; the refusal of the next mail says which address that is."""
    keys = list(heard)
    people = []
    for start in range(0, len(keys), _AT_ONCE):
        for key in _nameless(w.db, keys[start : start + _AT_ONCE]):
            address = _address_under(w, key, heard[key])
            if address is not None:
                people.append((key, address))
    if people:
        w.db.exec_driver_sql("INSERT INTO person (key, address) VALUES (?, ?)", people)


def _nameless(db: Connection, keys: Sequence[bytes]) -> list[bytes]:
    """Those of these keys that suppress somebody whose address is not known. The one place that says who may be learned."""
    marks = ",".join("?" * len(keys))
    query = (
        f"SELECT DISTINCT s.key FROM suppression s WHERE s.key IN ({marks})"
        " AND NOT EXISTS (SELECT 1 FROM person p WHERE p.key = s.key)"
        " AND NOT EXISTS (SELECT 1 FROM forgotten f WHERE f.key = s.key)"
    )
    return [bytes(row[0]) for row in db.exec_driver_sql(query, tuple(keys))]


def _address_under(w: Write, key: bytes, path: str) -> str | None:
    """The address in a RCPT path as `person` keeps it, if it is one of this key."""
    try:
        address = parse(path)
    except NotAnAddress:
        return None
    own = [k for k, kind in keys_of(w.ledger.site_key, address) if kind != "domain"]
    return str(address) if key in own and not forgotten.among(w.db, own) else None


def forget(w: Write, days: int, most: int = 5_000) -> int:
    """Delete what is older than `days` (0: nothing, ever), some thousand rows at most. Returns how many.

    Call it in a transaction of its own until it returns 0: a live opt-out waits for each, and 5,000 rows take tens of
    milliseconds.
    """
    if days == 0:
        return 0
    before = w.at - days * 86_400
    refusals = w.db.exec_driver_sql(
        "DELETE FROM refusal WHERE id IN (SELECT id FROM refusal WHERE at < ? ORDER BY at LIMIT ?)", (before, most)
    )
    tallies = w.db.exec_driver_sql(
        "DELETE FROM tally WHERE (hour, list, credential, outcome, reason) IN"
        " (SELECT hour, list, credential, outcome, reason FROM tally WHERE hour < ? ORDER BY hour LIMIT ?)",
        (before // 3600, most),
    )
    return refusals.rowcount + tallies.rowcount


# ------------------------------------------------------------------ the report


_NO_LIMIT: Final = 2**63 - 1  # LIMIT of more rows than there can be


def _columns(number: str, outcomes: Sequence[Outcome]) -> str:
    """How often each outcome, and each reason: one row a group, four times as fast as a row each and adding up here."""
    terms = [f"outcome = '{o}'" for o in outcomes] + [f"reason = {int(r)}" for r in Reason]
    return ", ".join(f"{number} FILTER (WHERE {term})" for term in terms)


_BY_MESSAGE: Final = (
    f"SELECT message_id, sum(others), {_columns('count(*)', _KEPT)} FROM refusal WHERE at >= ?"
    " GROUP BY message_id ORDER BY max(id) DESC LIMIT ?"
)
_TALLIED: Final = f"{_columns('sum(count)', OUTCOMES)} FROM tally WHERE hour >= ?"
_BY_TALLY: Final[dict[By | None, str]] = {
    None: f"SELECT NULL, {_TALLIED} LIMIT ?",
    "list": f"SELECT list, {_TALLIED} GROUP BY list ORDER BY list LIMIT ?",
    "credential": f"SELECT credential, {_TALLIED} GROUP BY credential ORDER BY credential LIMIT ?",
}


def passed(db: Connection, until: datetime, hours: int) -> int:
    """How many recipients the relay passed in the hours that end with the one of `until`."""
    last = seconds(until) // 3600
    query = "SELECT coalesce(sum(count), 0) FROM tally WHERE hour > ? AND hour <= ? AND outcome = 'passed'"
    return int(db.exec_driver_sql(query, (last - hours, last)).scalar_one())


class Line(NamedTuple):
    """A line of the report: what of (list number, credential, Message-ID), how often which outcome, and why.

    `counts` has those outcomes that are known for such a group, 0 included; `reasons` those that there were.
    """

    group: int | str | None
    counts: dict[Outcome, int]
    reasons: dict[Reason, int]


def report(db: Connection, since: datetime | None, by: By | None, most: int = _NO_LIMIT) -> Iterator[Line]:
    """What the relay did, in groups (None: one line for all), the first `most` of them.

    By list and credential from the counts, which begin with the full hour that `since` lies in. By Message-ID from the
    single refusals, newest message first: only messages of which somebody was refused are there, and `passed` is who
    got them beside him.
    """
    moment = 0 if since is None else seconds(since)
    outcomes: Sequence[Outcome]
    if by == "message-id":
        query, first, outcomes = _BY_MESSAGE, moment, ("passed", *_KEPT)
    else:
        query, first, outcomes = _BY_TALLY[by], moment // 3600, OUTCOMES
    return (_line(row, outcomes) for row in in_pieces(db, query, (first, most)))


def _line(row: Sequence[Any], outcomes: Sequence[Outcome]) -> Line:
    group, *numbers = row
    why = zip(Reason, numbers[len(outcomes) :], strict=True)
    counts = dict(zip(outcomes, (int(n or 0) for n in numbers), strict=False))  # the rest are the reasons
    return Line(group, counts, {reason: int(n) for reason, n in why if n})


_ONE: Final = "SELECT at, outcome, key, list, reason, credential, message_id, evidence, others FROM refusal"


def of_key(db: Connection, keys: Sequence[bytes], most: int = 50) -> list[Refusal]:
    """The latest refusals of a person, oldest first."""
    marks = ",".join("?" * len(keys))
    found = db.exec_driver_sql(f"{_ONE} WHERE key IN ({marks}) ORDER BY at DESC, id DESC LIMIT ?", (*keys, most)).all()
    return [_refusal(r) for r in reversed(found)]


def of_message(db: Connection, message_id: str, most: int = 50) -> list[Refusal]:
    """Who was refused in a message, by its Message-ID: the first ones, oldest first."""
    asked = (message_id[:_LONGEST], most)
    return [_refusal(r) for r in db.exec_driver_sql(f"{_ONE} WHERE message_id = ? ORDER BY at, id LIMIT ?", asked)]


def _refusal(row: Any) -> Refusal:
    return Refusal(utc(row[0]), row[1], bytes(row[2]), *row[3:])


# ------------------------------------------------------------------ the ledger in numbers


@dataclass(frozen=True, slots=True)
class Overview:
    """How much the ledger holds. `rows`: (scope, reason) -> suppression rows; `intake`: label -> messages."""

    rows: dict[tuple[int, Reason], int]
    intake: dict[str, int]
    review_open: int
    audit_rows: int


# A message that lies in two mailboxes, or was moved, is one: known by its Message-ID, else by its octets (as
# `incoming.twins` has it); one that was never fetched is its own. It counts as what it was first read as.
_INTAKE: Final = """
    SELECT label, count(*) FROM incoming WHERE id IN (
        SELECT min(id) FROM incoming WHERE state <> 'reading' AND label <> ''
        GROUP BY message_id, CASE WHEN message_id = '' THEN digest END,
                 CASE WHEN message_id = '' AND (digest IS NULL OR length(digest) = 0) THEN id END)
    GROUP BY label ORDER BY label
"""


def standing(db: Connection) -> dict[tuple[int, Reason], int]:
    """(scope, reason) -> suppression rows. Goes through all of them: about 0.1 s a million."""
    rows = db.exec_driver_sql("SELECT scope, reason, count(*) FROM suppression GROUP BY scope, reason")
    return {(scope, Reason(reason)): int(number) for scope, reason, number in rows}


def overview(db: Connection) -> Overview:
    """Count everything. Some hundred milliseconds a million suppressions."""
    return Overview(
        standing(db),
        {row[0]: row[1] for row in db.exec_driver_sql(_INTAKE)},
        int(db.exec_driver_sql("SELECT count(*) FROM review WHERE state = 'open'").scalar_one()),
        int(db.exec_driver_sql("SELECT count(*) FROM audit").scalar_one()),
    )
