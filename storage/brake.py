"""The brake: what nobody asked for can be kept from acting by itself; it waits for a person instead.

Bounces, complaints and requests that nobody proved; all of a kind, or those of one cause: `bounces:outlook.com`,
`bounces:outlook.com/5.1.1`, `complaints:reporter.example`. The state is a row of `meta` under the seal of the small
tables; who pulled it, and why, is in the record. Whoever acts asks within his own transaction, so that what is committed
after the brake was pulled has heard of it. What has acted is counted by the hour in the same transaction, so that several
nodes count together, and what is not committed is not counted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, get_args

from sqlalchemy import Connection

from storage import meta, suppressions
from storage.engine import REVISION
from storage.terms import seconds, utc
from storage.write import Write

Kind = Literal["bounces", "complaints", "unproven"]
WHAT: Final[tuple[Kind, ...]] = get_args(Kind)
What = str  # a kind, or one and whose: see `is_name`
ITSELF: Final = "brake"  # who pulled it where nobody did

_NAME: Final = "brake"
_DOMAIN = r"[a-z0-9][a-z0-9.-]{0,98}"
_KNOWN = re.compile(
    rf"unproven|complaints(?::{_DOMAIN})?|bounces(?::{_DOMAIN}(?:/(?:[245]\.\d{{1,3}}\.\d{{1,3}}|none))?)?"
)
# A narrow brake is nothing that code of before this revision knows. (It asks for no more than there is yet.)
_NARROW: Final = min(REVISION, "0006")
# Counts stand in the table of what nobody proved, so many hours after its own: nothing of either is in the other's sums.
_LATER: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class Pulled:
    """Since when something waits; by whom, why (None: forgotten since), and the evidence that says so."""

    since: datetime
    actor: str
    because: str | None
    evidence: int


def is_name(text: str) -> bool:
    """Is this something a brake can be pulled on? A kind; or whose bounces (and with which status), or complaints."""
    return len(text) <= 130 and _KNOWN.fullmatch(text) is not None


def kind_of(what: What) -> str:
    """`bounces` for `bounces:outlook.com/5.1.1`."""
    return what.partition(":")[0]


def wider(what: What) -> tuple[What, ...]:
    """All brakes that hold this, the narrowest first: itself, whoever it is of, the whole kind."""
    return tuple(dict.fromkeys((what, what.partition("/")[0], kind_of(what))))


def said(what: What) -> str:
    """In a sentence: `bounces of outlook.com with 5.1.1`, `complaints of reporter.example`."""
    kind, _, whose = what.partition(":")
    domain, _, status = whose.partition("/")
    words = "requests that nobody proved" if kind == "unproven" else kind
    return words + f" of {domain}" * bool(domain) + f" with {status}" * bool(status and status != "none")


def set_to(w: Write, pull: Iterable[What], release: Iterable[What], because: str) -> Collection[What]:
    """Pull the brake on some, release it of others; both at once leaves it pulled. Returns what is changed by that.

    What is so already stays as it is, and is not written down again. What is released is counted from nothing again.
    """
    changed = _set(w, pull, release, because, w.actor, "operator")
    for what in set(changed) - set(pull):
        w.db.exec_driver_sql("DELETE FROM unproven WHERE hour >= ? AND writer = ?", (_LATER, _digest(w, what)))
    return changed


def pull_by_itself(w: Write, what: What, because: str, source: str) -> bool:
    """Too many came of one cause: pull it in nobody's name. `source`: how they came to us, as in storage.terms.

    False: it was pulled already.
    """
    return bool(_set(w, [what], [], because, ITSELF, source))


def _set(
    w: Write, pull: Iterable[What], release: Iterable[What], because: str, actor: str, source: str
) -> Collection[What]:
    before = _state(w.db)
    pulled = set(pull)
    changed = sorted((pulled - before.keys()) | (set(release) - pulled) & before.keys())
    if not changed:
        return ()
    on = {what: what in pulled for what in changed}
    number = w.evidence(source=source, because=because, brake=on)
    w.audit("brake", source=source, evidence=number, actor=actor)
    after = {what: state for what, state in before.items() if on.get(what, True)}
    after |= {what: {"since": w.at, "by": actor, "evidence": number[0]} for what in changed if on[what]}
    _put(w, after)
    return changed


def is_pulled(db: Connection, what: What) -> bool:
    """Must this wait for a person? By its own brake, or by a wider one."""
    state = _state(db)
    return any(brake in state for brake in wider(what))


def pulled(db: Connection) -> Mapping[What, Pulled]:
    """All that waits now, for people to look at."""
    state = _state(db)
    details = suppressions.details(db, [of["evidence"] for of in state.values()]) if state else {}
    return {
        what: Pulled(
            utc(of["since"]),
            of["by"],
            details.get(of["evidence"], {}).get("because"),
            of["evidence"],
        )
        for what, of in sorted(state.items())
    }


def _state(db: Connection) -> dict[What, dict[str, Any]]:
    value = meta.get(db, _NAME)
    found: dict[What, dict[str, Any]] = json.loads(bytes(value)) if value is not None else {}
    return found


def _put(w: Write, state: Mapping[What, Mapping[str, Any]]) -> None:
    if not state:
        meta.drop(w.db, _NAME)
        return
    w.keep_out_older_than("0005" if state.keys() <= set(WHAT) else _NARROW)
    meta.put(w.db, _NAME, json.dumps(state, sort_keys=True).encode())


# ------------------------------------------------------------------ how many of a cause have acted


def count(w: Write, what: What, came: datetime, people: int) -> int:
    """Count so many people more; returns how many were suppressed of what came in that hour by this cause, these included.

    `came`: when the message did, so that a backlog is counted as it arrived.
    """
    found = w.db.exec_driver_sql(
        "INSERT INTO unproven (hour, writer, count) VALUES (?, ?, ?)"
        " ON CONFLICT (hour, writer) DO UPDATE SET count = unproven.count + excluded.count RETURNING count",
        (seconds(came) // 3600 + _LATER, _digest(w, what), people),
    ).scalar_one()
    return int(found)


def _digest(w: Write, what: What) -> bytes:
    """A domain can be somebody's name: the counts do not show whose they are."""
    return hashlib.blake2b(what.encode(), key=w.ledger.site_key.derive(b"brake counts"), digest_size=16).digest()


def forget_counts(w: Write, days: int = 60) -> None:
    """Drop the hours so long past that no mailbox is read back to them."""
    w.db.exec_driver_sql(
        "DELETE FROM unproven WHERE hour >= ? AND hour < ?", (_LATER, w.at // 3600 - days * 24 + _LATER)
    )
