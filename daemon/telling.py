"""Facts as the contract words them: what the command line prints, the API answers and the console shows.

Each function gives one JSON object: keys always present, `None` where something is not known, times in RFC 3339.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, Literal

from sqlalchemy import Connection

from daemon.gate import Gate, Refused
from storage import brake, imports, refusals, suppressions, terms
from storage.address import NotAnAddress, SiteKey, keys_of, parse
from storage.engine import Unavailable, Unusable
from storage.incoming import Item
from storage.lookup import Row
from storage.refusals import Outcome, Overview, Refusal
from storage.suppressions import Fact, RawRow, Whom
from storage.terms import ALL, Reason, reason_word, when

Told = dict[str, Any]
Numbers = Mapping[str, int]  # list id -> list number
State = Literal["clear", "suppressed", "unknown", "malformed"]

CHECKED: Final = ("address", "suppressed", "scope", "reason", "since", "matched", "lists", "error")
scope_word = terms.scope_word
_HISTORY: Final = (
    "at", "event", "source", "mailbox", "uid", "message_id", "words", "rules", "actor", "because", "ref", "scope", "reason"
)  # fmt: skip


# ------------------------------------------------------------------ may they be mailed?


def checked(gate: Gate, text: str, list_id: str | None) -> tuple[State, Told]:
    """May whoever `text` names be mailed (of this list)? The fact of `check`, and what it comes to."""
    try:
        address = parse(text)
    except NotAnAddress as problem:
        return "malformed", unchecked(text, str(problem))
    try:
        rows = gate.rows(address)
    except (Unavailable, Unusable) as problem:
        return "unknown", unchecked(text, str(problem))
    return judged(gate, text, rows, list_id)


def judged(gate: Gate, text: str, rows: list[Row], list_id: str | None) -> tuple[State, Told]:
    """The same of rows that were asked for already."""
    fact = unchecked(text, None)
    fact["lists"] = gate.list_ids(sorted({r.scope for r in rows if r.reason != Reason.WANTED}))
    answer = gate.judge(rows, list_id)
    if not isinstance(answer, Refused):
        return "clear", fact | {"suppressed": False}
    v = answer.verdict
    scope = "all" if v.scope == ALL else f"list:{answer.of}"
    told = {"scope": scope, "reason": v.reason.word, "since": when(v.since), "matched": v.matched}
    return "suppressed", fact | told | {"suppressed": True}


def unchecked(text: str, error: str | None) -> Told:
    """The fact of `check` where nothing can be said, and why."""
    return {**dict.fromkeys(CHECKED), "address": text, "lists": [], "error": error}


# ------------------------------------------------------------------ a person's story


def story(db: Connection, site_key: SiteKey, person: Whom, numbers: Numbers) -> Told:
    """What stands against a person, and all that ever happened: the fact of `show ADDR`."""
    rows = suppressions.standing(db, site_key, person)
    if isinstance(person, bytes):
        name, keys, past = None, [person], suppressions.by_keys(db, [person])
    else:
        name, keys = str(person), [key for key, _ in keys_of(site_key, person)]
        past = suppressions.history(db, site_key, person)
    return _story(db, name, rows, past + _imports(db, rows), refusals.of_key(db, keys), numbers)


def against(db: Connection, site_key: SiteKey, person: Whom, numbers: Numbers) -> list[Told]:
    """What stands against a person, without the story of it: `suppressions` of `show ADDR`."""
    rows = suppressions.standing(db, site_key, person)
    details = suppressions.details(db, [r[4] for r in rows])
    return [_standing(r, details.get(r[4]), numbers, []) for r in rows]


def behind(db: Connection, site_key: SiteKey, ref: int, numbers: Numbers) -> Told | None:
    """What stands behind a reference, the (ref N) of a refusal: the fact of `show --ref`. None: there is no such one."""
    facts = suppressions.by_evidence(db, ref)
    if not facts:
        return None
    rows = suppressions.standing_by_evidence(db, ref, site_key)
    refused = [r for r in refusals.of_key(db, [f.key for f in facts if f.key]) if r.evidence == ref]
    brought = imports.brought(db, ref) if any(fact.event == "imported" for fact in facts) else None
    told = _story(db, _named(facts), rows, facts, refused, numbers)
    if brought is not None:
        told |= {"import": asdict(brought), "suppressed": bool(brought.standing) or told["suppressed"]}
    return told


def _story(
    db: Connection,
    address: str | None,
    rows: list[RawRow],
    facts: list[Fact],
    refused: list[Refusal],
    numbers: Numbers,
) -> Told:
    details = suppressions.details(db, [r[4] for r in rows])
    past = [*(_happened(f, numbers) for f in facts), *(_refusal(r, numbers) for r in refused)]
    return {
        "address": address,
        "suppressed": any(r[2] != Reason.WANTED for r in rows),
        "suppressions": [_standing(r, details.get(r[4]), numbers, facts) for r in rows],
        "history": sorted(past, key=lambda h: h["at"]),
        "import": None,
    }


def _imports(db: Connection, rows: list[RawRow]) -> list[Fact]:
    """What brought these rows, of those that came with many others: the record does not name each."""
    of_rows = [fact for ref in dict.fromkeys(r[4] for r in rows) for fact in suppressions.by_evidence(db, ref)]
    return [fact for fact in of_rows if fact.event == "imported"]


def _named(facts: list[Fact]) -> str | None:
    """Whom the evidence is about, if that is kept."""
    return next((str(f.detail["address"]) for f in facts if f.detail and f.detail.get("address")), None)


def _standing(row: RawRow, detail: Told | None, numbers: Numbers, facts: list[Fact]) -> Told:
    """A row that stands. Of somebody who was forgotten the audit row still says where it came from."""
    of_it = detail or {"source": next((f.source for f in facts if f.evidence == row[4]), None)}
    return {
        "scope": scope_word(row[1], numbers),
        "reason": reason_word(row[2]),
        "since": when(row[3]),
        "source": of_it.get("source"),
        "note": of_it.get("note") or None,
        "ref": row[4],
    }


def _happened(fact: Fact, numbers: Numbers) -> Told:
    of_it = fact.detail or {}
    told = {k: of_it.get(k) or None for k in ("mailbox", "uid", "message_id", "words", "rules")}
    return {
        "at": when(fact.at),
        "event": fact.event,
        "source": fact.source,
        **told,
        "actor": fact.actor,
        "because": of_it.get("because") or of_it.get("note") or _list_of(of_it) or None,
        "ref": fact.evidence,
        "scope": None if fact.scope is None else scope_word(fact.scope, numbers),
        "reason": reason_word(fact.reason),
    }


def _list_of(detail: Told) -> str:
    """Of an import: which list, and where in it."""
    if not detail.get("file"):
        return ""
    lines = f", lines {detail['first']} to {detail['last']}" if detail.get("first") else ""
    return f"in the list {detail['file']} ({detail.get('format') or 'unknown format'}{lines})"


def _refusal(of: Refusal, numbers: Numbers) -> Told:
    """What the relay did, as a part of the history. `because`: why, and in mail of which list."""
    to = f", mail to {scope_word(of.list_number, numbers)}" if of.list_number else ""
    return {
        **dict.fromkeys(_HISTORY),
        "at": when(of.at),
        "event": of.outcome,
        "message_id": of.message_id or None,
        "actor": f"relay {of.credential}".rstrip(),
        "because": f"{reason_word(of.reason or None) or ''}{to}".removeprefix(", ") or None,
        "ref": of.evidence or None,
    }


# ------------------------------------------------------------------ lists of many


def listed(row: Any, numbers: Numbers) -> Told:
    """A row of `suppressions.listing`: the fact of `list`."""
    key, address, scope, reason, since, _, source = row
    return {
        "address": address,
        "key": key.hex(),
        "scope": scope_word(scope, numbers),
        "reason": reason_word(reason),
        "source": source,
        "since": when(since),
    }


def recorded(fact: Fact, mac: bytes, numbers: Numbers) -> Told:
    """A row of the audit log: the fact of `audit export`."""
    return {
        "seq": fact.seq,
        "at": when(fact.at),
        "actor": fact.actor,
        "event": fact.event,
        "key": fact.key.hex() if fact.key is not None else None,
        "scope": None if fact.scope is None else scope_word(fact.scope, numbers),
        "reason": reason_word(fact.reason),
        "source": fact.source,
        "evidence": fact.evidence,
        "mac": mac.hex(),
    }


def changed(fact: Fact, mac: bytes, address: str | None, numbers: Numbers) -> Told:
    """The same for a program that follows what happens: with the person's address, if it is known."""
    return {**recorded(fact, mac, numbers), "address": address}


def turned_away(number: int, of: Refusal, numbers: Numbers) -> Told:
    """A refusal of the relay. `list`: of which list the mail was, if it was of one."""
    return {
        "id": number,
        "at": when(of.at),
        "outcome": of.outcome,
        "address": of.address,
        "key": of.key.hex(),
        "list": scope_word(of.list_number, numbers).removeprefix("list:") if of.list_number else None,
        "reason": reason_word(of.reason or None),
        "credential": of.credential or None,
        "message_id": of.message_id or None,
        "ref": of.evidence or None,
        "others": of.others,
    }


def waiting(item: Item) -> Told:
    """An item of the review queue: the fact of `review list`."""
    return {
        "id": item.id,
        "mailbox": item.place.mailbox if item.place else None,
        "uid": item.place.uid if item.place else None,
        "received": when(item.at),
        "from": item.sender or None,
        "addresses": list(item.addresses),
        "scope": item.scope,
        "rules": list(item.rules),
        "state": item.state,
    }


def brakes(db: Connection) -> list[Told]:
    """What waits for a person by itself, and what acts: the facts of `brake`, one each, the kinds before single causes."""
    pulled = brake.pulled(db)
    return [_brake(what, pulled.get(what)) for what in (*brake.WHAT, *sorted(pulled.keys() - {*brake.WHAT}))]


def _brake(what: brake.What, it: brake.Pulled | None) -> Told:
    told = {"since": when(it.since), "actor": it.actor, "because": it.because, "ref": it.evidence} if it else {}
    return {"what": what, "pulled": it is not None, **dict.fromkeys(("since", "actor", "because", "ref")), **told}


_ACCEPTING: Final = {
    "resubscribe": "lift the opt-out of",
    "hard-bounce": "suppress as bounced:",
    "soft-bounce": "suppress for a while as bounced:",
    "complaint": "suppress as complained:",
}


def accepting(item: Item) -> str:
    """What accepting an item of the queue would do, and to whom, as part of a sentence."""
    people = ", ".join(item.addresses) or item.sender or "nobody"
    return f"{_ACCEPTING.get(item.wish, 'suppress')} {people}"


def in_full(item: Item) -> Told:
    """The same with what the writer says: the fact of `review show`."""
    return {**waiting(item), "words": item.words or None, "excerpt": item.excerpt or None}


def overview(found: Overview, relay: Mapping[Outcome, int], numbers: Numbers) -> Told:
    """The ledger in numbers, and what the relay did (outcome -> recipients): the fact of `stats`.

    `wanted` rows suppress nobody: they are among the reasons, and nowhere else.
    """
    by_reason: dict[str, int] = {}
    by_scope: dict[str, int] = {}
    for (scope, reason), number in sorted(found.rows.items()):
        by_reason[reason.word] = by_reason.get(reason.word, 0) + number
        if reason != Reason.WANTED:
            word = scope_word(scope, numbers)
            by_scope[word] = by_scope.get(word, 0) + number
    return {
        "suppressions": sum(by_scope.values()),
        "by_reason": by_reason,
        "by_scope": by_scope,
        "intake": found.intake,
        "review_open": found.review_open,
        "audit_rows": found.audit_rows,
        "relay": {outcome.replace("-", "_"): number for outcome, number in relay.items()},
    }
