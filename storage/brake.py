"""The brake: what nobody asked for can be kept from acting by itself; it waits for a person instead.

Bounces, complaints and requests that nobody proved, each for itself. The state is a row of `meta` under the seal of the
small tables; who pulled it, and why, is in the record. Whoever acts asks within his own transaction, so that what is
committed after the brake was pulled has heard of it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

from sqlalchemy import Connection

from storage import suppressions
from storage.write import Write

What = Literal["bounces", "complaints", "unproven"]
WHAT: Final[tuple[What, ...]] = get_args(What)
_NAME: Final = "brake"


@dataclass(frozen=True, slots=True)
class Pulled:
    """Since when something waits; by whom, why (None: forgotten since), and the evidence that says so."""

    since: datetime
    actor: str
    because: str | None
    evidence: int


def set_to(w: Write, pull: Iterable[What], release: Iterable[What], because: str) -> Collection[What]:
    """Pull the brake on some, release it of others; both at once leaves it pulled. Returns what is changed by that.

    What is so already stays as it is, and is not written down again.
    """
    before = _state(w.db)
    pulled = set(pull)
    changed = sorted((pulled - before.keys()) | (set(release) - pulled) & before.keys())
    if not changed:
        return ()
    on = {what: what in pulled for what in changed}
    number = w.evidence(source="operator", because=because, brake=on)
    w.audit("brake", source="operator", evidence=number)
    after = {what: state for what, state in before.items() if on.get(what, True)}
    after |= {what: {"since": w.at, "by": w.actor, "evidence": number[0]} for what in changed if on[what]}
    _put(w, after)
    return changed


def is_pulled(db: Connection, what: What) -> bool:
    """Must this wait for a person?"""
    return what in _state(db)


def pulled(db: Connection) -> Mapping[What, Pulled]:
    """All that waits now, for people to look at."""
    state = _state(db)
    details = suppressions.details(db, [of["evidence"] for of in state.values()]) if state else {}
    return {
        what: Pulled(
            datetime.fromtimestamp(of["since"], UTC),
            of["by"],
            details.get(of["evidence"], {}).get("because"),
            of["evidence"],
        )
        for what, of in sorted(state.items())
    }


def _state(db: Connection) -> dict[What, dict[str, Any]]:
    value = db.exec_driver_sql("SELECT value FROM meta WHERE name = ?", (_NAME,)).scalar()
    found: dict[What, dict[str, Any]] = json.loads(bytes(value)) if value is not None else {}
    return found


def _put(w: Write, state: Mapping[What, Mapping[str, Any]]) -> None:
    if not state:
        w.db.exec_driver_sql("DELETE FROM meta WHERE name = ?", (_NAME,))
        return
    w.keep_out_older_than("0005")
    w.db.exec_driver_sql(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (_NAME, json.dumps(state, sort_keys=True).encode()),
    )
