"""The first page: is the promise being kept?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

from starlette.responses import Response
from starlette.routing import Route

from daemon.texts import lasted
from daemon.web.console import glance, promise
from daemon.web.console.plots import Plot, Series
from daemon.web.console.visit import Visit, room
from storage.refusals import Outcome
from storage.sights import OptOuts
from storage.terms import REASONS, Reason

DAYS, HOURS = 30, 48
_STOPPED: Final[tuple[Outcome, ...]] = ("refused", "stripped", "withdrawn")
# What a way to opt out is called, and the sources that it comes from; the last takes what no other does.
_WAYS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("by mail", ("mail",)),
    ("by link", ("one-click", "page")),
    ("by API", ("api",)),
    ("by hand", ("operator", "phone", "letter")),
)
Relayed = Mapping[tuple[datetime, Outcome], int]


async def overview(visit: Visit) -> Response:
    """How everything is, in words and numbers."""
    sight, standing, asked, relayed = await asyncio.gather(
        glance.sight(visit), glance.standing(visit), glance.opt_outs(visit, DAYS), glance.relayed(visit, HOURS)
    )
    now, vitals, settings = visit.context.now().astimezone(UTC), visit.inside.vitals(), dict(visit.inside.settings)
    limits = visit.inside.limits
    return visit.page(
        "overview.html",
        verdict=promise.judged(sight, vitals, settings, now, limits),
        now=now,
        vitals=vitals,
        sight=sight,
        mailboxes=[
            (m, promise.mailbox_level(m, sight, vitals, now, limits), promise.watched_by(m, sight))
            for m in vitals.mailboxes
        ],
        review=_due(sight.oldest_review, limits.due, now),
        oldest=None if (duty := vitals.duty) is None else _due(duty.open_since, limits.due, now),
        checked=promise.last_check(sight),
        backed_up=sight.jobs.get("back_up"),
        keeps_backups=promise.keeps_backups(settings),
        reasons=_by_reason(standing),
        today=_today(relayed, now),
        opt_outs=opt_outs_plot(asked, now.date()),
        relayed=relayed_plot(relayed, now),
    )


def _due(since: datetime | None, within: timedelta, now: datetime) -> tuple[datetime, datetime, str] | None:
    """(since when it waits, when it is due, how long before or after that we are)."""
    return None if since is None else (since, since + within, lasted(abs(since + within - now)))


def _by_reason(standing: Mapping[tuple[int, Reason], int]) -> list[tuple[str, int]]:
    """(reason, rows) as far as there are any."""
    totals = [(word, sum(n for (_, r), n in standing.items() if r == reason)) for word, reason in REASONS.items()]
    return [(word, number) for word, number in totals if number]


def _today(relayed: Relayed, now: datetime) -> dict[str, int]:
    """What the relay did since midnight (UTC): recipients by what became of them."""
    of_today = [(outcome, n) for (hour, outcome), n in relayed.items() if hour.date() == now.date()]
    kinds: Mapping[str, Sequence[Outcome]] = {
        "refused": _STOPPED,
        "passed": ("passed", "service", "would-refuse"),
        "deferred": ("deferred",),
        "rejected": ("rejected",),
    }
    return {kind: sum(n for outcome, n in of_today if outcome in outcomes) for kind, outcomes in kinds.items()}


# ------------------------------------------------------------------ plots


def opt_outs_plot(asked: OptOuts, today: date) -> Plot:
    """Opt-outs a day, by the way they came."""
    days = [today - timedelta(days=n) for n in range(DAYS - 1, -1, -1)]
    way_of = {source: way for way, sources in _WAYS for source in sources}
    counts: dict[tuple[date, str], int] = {}
    for (day, source), number in asked.of.items():
        at = day, way_of.get(source, _WAYS[-1][0])
        counts[at] = counts.get(at, 0) + number
    series = [Series(way, [counts.get((day, way), 0) for day in days]) for way, _ in _WAYS]
    total = sum(counts.values())
    about = f"{total:,} opt-out{'s' if total != 1 else ''} from {days[0]} to {days[-1]}, a bar for each day (UTC)."
    if not asked.whole:
        about += " There were so many that the first days are not counted in full."
    return Plot("opt-outs", f"Opt-outs a day, the last {DAYS} days", about, [f"{d:%m-%d}" for d in days], series)


def relayed_plot(relayed: Relayed, now: datetime) -> Plot:
    """Recipients an hour whom the relay kept from getting mail; beside them, in the table, who got it."""
    last = now.replace(minute=0, second=0, microsecond=0)
    hours = [last - timedelta(hours=n) for n in range(HOURS - 1, -1, -1)]

    def series(name: str, *outcomes: Outcome) -> Series:
        return Series(name, [sum(relayed.get((hour, o), 0) for o in outcomes) for hour in hours])

    stopped, passed = series("refused", *_STOPPED), series("passed", "passed")
    others = [series("would have been refused (observed)", "would-refuse"), series("passed as service mail", "service")]
    shown = [stopped, *(other for other in others if any(other.numbers))]
    kept, sent = sum(stopped.numbers), sum(passed.numbers)
    about = f"{kept:,} recipient{'s' if kept != 1 else ''} refused and {sent:,} passed since {hours[0]:%Y-%m-%d %H:%M} UTC, a bar for each hour."
    title = f"Recipients refused an hour, the last {HOURS} hours"
    return Plot("relayed", title, about, [f"{hour:%m-%d %H:00}" for hour in hours], shown, beside=[passed])


ROUTES: Final = [Route("/console", room("check", overview))]
