"""How it is with the hooks, as facts: for the command line and the console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from daemon.options import Webhook
from daemon.webhooks.told import kind_of
from storage import hooks
from storage.terms import joined, reason_word, when

Told = dict[str, Any]


def standing(db: Connection, configured: Sequence[Webhook]) -> list[Told]:
    """Each hook of the config, then those that are not in it any more and have something left: the fact of `hooks`."""
    places, counts = hooks.places(db), hooks.counts(db)
    of_config = {section.name: section for section in configured}
    gone = [name for name in counts if name not in of_config]
    return [
        _standing(db, name, of_config.get(name), places.get(name), counts.get(name, hooks.Counts()))
        for name in [*of_config, *gone]
    ]


def _standing(
    db: Connection, name: str, section: Webhook | None, place: hooks.Place | None, counts: hooks.Counts
) -> Told:
    failing = place is not None and place.failures > 0
    state = "removed" if section is None else "new" if place is None else "failing" if failing else "well"
    return {
        "name": name,
        "url": section.url if section else None,
        "events": list(section.events) if section else [],
        "state": state,
        "waiting": 0 if section is None or place is None else _waiting(db, section, place),
        "undelivered": counts.undelivered,
        "again": counts.again,
        "failures": place.failures if place else 0,
        "trouble": (place.trouble or None) if place else None,
        "next_try": when(place.due) if place and failing and place.due else None,
        "reached": place.reached if place else None,
    }


def _waiting(db: Connection, section: Webhook, place: hooks.Place) -> int:
    found = hooks.waiting(db, place.reached) if place.head > place.reached else []
    return sum(n for event, reason, n in found if kind_of(event, reason) in section.events)


def untold(lost: hooks.Lost, numbers: Mapping[str, int]) -> Told:
    """A change that a hook was never told: the fact of `hooks list`. `numbers`: list id -> number."""
    ids = {number: list_id for list_id, number in numbers.items()}
    change = lost.change
    return {
        "id": lost.id,
        "hook": lost.hook,
        "seq": change.seq,
        "type": kind_of(change.event, change.reason),
        "at": when(change.at),
        "scope": joined([change.scope or 0], ids),
        "reason": reason_word(change.reason),
        "ref": change.evidence,
        "given_up": when(lost.at),
        "again": not lost.trouble,
        "trouble": lost.trouble or None,
    }
