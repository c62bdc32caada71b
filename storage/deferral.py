"""Deferring after a restore: the list is known to have a gap, and until that is closed nobody is told "may be mailed".

A row of `meta`, which every lookup asks for when it opens the database (`engine.refuse_deferred`). Whoever writes, and
`replay` first of all, goes on as ever.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from storage import meta
from storage.terms import seconds, utc
from storage.write import Write

_NAME: Final = "deferred"


@dataclass(frozen=True, slots=True)
class Deferred:
    """From when on changes may be missing, and the mailboxes that were read again since."""

    since: datetime
    closed: frozenset[str]


def begin(w: Write, since: int) -> None:
    """Answer nobody from now on. `since`: seconds UTC."""
    _put(w, Deferred(utc(since), frozenset()))


def _put(w: Write, it: Deferred) -> None:
    value = json.dumps({"since": seconds(it.since), "closed": sorted(it.closed)}).encode()
    meta.put(w.db, _NAME, value)


def deferred(db: Connection) -> Deferred | None:
    """Is everybody deferred, and since when has the list a gap?"""
    value = meta.get(db, _NAME)
    if value is None:
        return None
    found = json.loads(bytes(value))
    return Deferred(utc(found["since"]), frozenset(found["closed"]))


def replayed(w: Write, mailbox: str, since: datetime | None, mailboxes: Iterable[str]) -> frozenset[str] | None:
    """A mailbox was read again from `since` on (None: all of it). Returns the `mailboxes` that are still to be read.

    When that is none, the deferral has ended, and that is in the record. None: nothing was deferred, or it began earlier
    than what was read.
    """
    it = deferred(w.db)
    if it is None or (since is not None and since > it.since):
        return None
    closed = it.closed | {mailbox}
    left = frozenset(mailboxes) - closed
    if left:
        _put(w, Deferred(it.since, closed))
    else:
        end(w, f"every mailbox was read again from {it.since.isoformat()} on")
    return left


def end(w: Write, because: str) -> bool:
    """Answer again, and put into the record why. False: nothing was deferred."""
    if deferred(w.db) is None:
        return False
    meta.drop(w.db, _NAME)
    w.audit("restored", source="operator", evidence=w.evidence(source="operator", because=because))
    return True
