"""The weekly digest: was the promise kept, and by which numbers? One mail on its day, `optoutd digest` at any time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from daemon.texts import lasted
from storage import week as weeks
from storage.alarms import Noted
from storage.engine import Ledger
from storage.terms import when
from storage.week import WEEK, Week
from storage.write import write

HOUR: Final = 8  # UTC, at which it goes out
_LONGEST: Final = timedelta(days=31)  # that one digest tells of, after a long absence
# While one of these stood, the promise was broken, or nobody can say that it was kept.
_BROKEN: Final = {"promise-broken": "somebody was mailed who had opted out"}
_IN_DOUBT: Final = {
    "record-broken": "the record was changed behind our back",
    "suppressions-unexplained": "some suppressions have no evidence",
    "request-overdue": "a request waited longer than it may",
}


def if_due(ledger: Ledger, now: datetime, weekday: int) -> Week | None:
    """What is to be mailed now. The very first time nothing is: a digest begins where the one before ended.

    Raises Unavailable, Unusable.
    """
    with ledger.connect() as db:
        last = weeks.last_sent(db)
    if last is None or last > now:  # the clock was a year ahead once
        sent(ledger, now)
        return None
    if not last < moment_before(now, weekday):
        return None
    return weeks.week(ledger, max(last, now - _LONGEST), now)


def moment_before(now: datetime, weekday: int) -> datetime:
    """The last time that it was 8:00 UTC on this day of the week."""
    today = now.replace(hour=HOUR, minute=0, second=0, microsecond=0)
    found = today - timedelta(days=(today.weekday() - weekday) % 7)
    return found if found <= now else found - WEEK


def sent(ledger: Ledger, now: datetime) -> None:
    """Note that it was. Raises Unavailable, Unusable."""
    with write(ledger, now, "duty") as w:
        w.job_ran("digest")


# ------------------------------------------------------------------ in words


def verdict(of: Week) -> str:
    """Was the promise kept? One sentence."""
    broken = [why for kind, why in _BROKEN.items() if kind in of.kinds]
    doubts = [why for kind, why in _IN_DOUBT.items() if kind in of.kinds]
    if not of.as_left and "record-broken" not in of.kinds:
        doubts.append("the record does not end as we left it")
    if broken:
        return f"The promise was not kept: {'; '.join([*broken, *doubts])}."
    if doubts:
        return f"It is in doubt whether the promise was kept: {'; '.join(doubts)}."
    return "The promise was kept."


def subject(of: Week) -> str:
    """Of the mail."""
    return f"[optoutd] {of.start:%Y-%m-%d} to {of.end:%Y-%m-%d}: {verdict(of).partition(':')[0].rstrip('.')}"


def text(of: Week, due: timedelta) -> str:
    """All of it. `due`: how long a request may be open."""
    width = 22
    lines = [f"{name:<{width}}{value}" for name, value in _lines(of, due)]
    told = [verdict(of), f"From {of.start:%Y-%m-%d %H:%M} to {of.end:%Y-%m-%d %H:%M} UTC:", "\n".join(lines)]
    if of.alarms:
        told += ["Alarms:\n" + "\n".join(_alarm(alarm) for alarm in of.alarms)]
    return "\n\n".join(told) + "\n"


def _lines(of: Week, due: timedelta) -> Iterator[tuple[str, str]]:
    ways = ", ".join(f"{way} {number:,}" for way, number in sorted(of.opt_outs.items(), key=lambda x: (-x[1], x[0])))
    total = sum(of.opt_outs.values())
    yield (
        "opt-outs",
        f"{total:,}" + (f" ({ways})" if ways else "") + ("" if of.whole else ", counted from the end only"),
    )
    if of.seconds is not None:
        half, longest = (lasted(timedelta(seconds=s)) for s in of.seconds)
        yield "from mail to the list", f"half of them within {half}, all within {longest}"
    yield "relay", f"{of.refused:,} recipients refused, {of.passed:,} passed"
    yield "doubtful mail", f"{of.reviews:,} decided, {of.open:,} open"
    if of.review_oldest is not None:
        left = of.review_oldest + due - of.end
        how = f"{lasted(left)} left" if left > timedelta(0) else f"{lasted(-left)} late"
        yield "  the oldest open", f"received {when(of.review_oldest)}, due {when(of.review_oldest + due)}: {how}"
    yield "suppressions", f"{of.suppressions:,} in force"
    yield "end of the record", of.head
    yield "  last found whole", _last(of, "verify_audit", "note_head")
    yield "last backup", _last(of, "back_up")
    if of.canaries:
        passed = (f"{mailbox} {when(at) if at else 'never'}" for mailbox, at in of.canaries.items())
        yield "canary last through", ", ".join(passed)
    yield "alarms", f"{sum(of.kinds.values()):,}"


def _last(of: Week, *jobs: str) -> str:
    found = [of.jobs[job] for job in jobs if job in of.jobs]
    return str(when(max(found))) if found else "never"


def _alarm(alarm: Noted) -> str:
    ended = f"to {when(alarm.ended)}" if alarm.ended else "and still"
    return f"  {when(alarm.since)} {ended}: {alarm.text} ({alarm.kind})"


def fact(of: Week) -> dict[str, Any]:
    """As the command line tells programs."""
    half, longest = of.seconds or (None, None)
    return {
        "start": when(of.start),
        "end": when(of.end),
        "kept": verdict(of) == "The promise was kept.",
        "verdict": verdict(of),
        "opt_outs": dict(of.opt_outs),
        "seconds_median": half,
        "seconds_longest": longest,
        "refused": of.refused,
        "passed": of.passed,
        "reviews_decided": of.reviews,
        "review_open": of.open,
        "review_oldest": of.review_oldest and when(of.review_oldest),
        "suppressions": of.suppressions,
        "head": of.head,
        "jobs": {name: when(at) for name, at in sorted(of.jobs.items())},
        "canaries": {mailbox: at and when(at) for mailbox, at in of.canaries.items()},
        "alarms": [
            {
                "kind": alarm.kind,
                "about": alarm.about,
                "since": when(alarm.since),
                "ended": alarm.ended and when(alarm.ended),
                "text": alarm.text,
            }
            for alarm in of.alarms
        ],
    }
