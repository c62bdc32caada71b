"""What the rooms that only look ask of the database: each question once for all who look at the same time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TypeVar

from daemon.web.console.visit import Visit
from daemon.web.remembering import Remembering
from storage import refusals, sights
from storage.refusals import Line, Outcome
from storage.sights import OptOuts, Sight
from storage.terms import Reason

_T = TypeVar("_T")


async def sight(visit: Visit) -> Sight:
    """How things stand now. This and the others raise Unavailable, Unusable, TimeoutError."""
    mailboxes = [mailbox.name for mailbox in visit.inside.vitals().mailboxes]
    return await _asked(visit, "sight", lambda: sights.sight(visit.context.ledger, mailboxes), seconds=3)


async def standing(visit: Visit) -> Mapping[tuple[int, Reason], int]:
    """(scope, reason) -> rows, of a minute ago at most, or of as long as it takes to count a great many."""

    def count() -> Mapping[tuple[int, Reason], int]:
        with visit.context.ledger.connect() as db:
            return refusals.standing(db)

    return await _asked(visit, "standing", count, seconds=60)


async def opt_outs(visit: Visit, days: int) -> OptOuts:
    """Of the last days, by source."""
    now, ledger = visit.context.now(), visit.context.ledger
    return await _asked(visit, f"opt-outs {days}", lambda: sights.opt_outs(ledger, now, days), seconds=30)


async def relayed(visit: Visit, hours: int) -> Mapping[tuple[datetime, Outcome], int]:
    """What the relay did in the last hours."""
    now, ledger = visit.context.now(), visit.context.ledger
    return await _asked(visit, f"relayed {hours}", lambda: sights.relayed(ledger, now, hours), seconds=10)


async def by_list(visit: Visit, days: int) -> Mapping[int, Line]:
    """List number -> what the relay did for its mail in the last days; 0: for mail of no list."""
    since = visit.context.now() - timedelta(days=days)

    def report() -> Mapping[int, Line]:
        with visit.context.ledger.reading() as db:
            return {int(line.group or 0): line for line in refusals.report(db, since, "list")}

    return await _asked(visit, f"by list {days}", report, seconds=30)


async def _asked(visit: Visit, name: str, look: Callable[[], _T], *, seconds: float) -> _T:
    remembering: Remembering = visit.request.state.remembering
    workers = visit.workers
    return await remembering.get(name, lambda: workers.read(look), of=visit.context, seconds=seconds)
