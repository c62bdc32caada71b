"""Alarms about what we keep: the record, the list, backups, jobs, and the programs that are told."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from daemon.duty.alarm import Alarm, Kind, Look
from daemon.texts import lasted
from storage import census, deferral, hooks, sights
from storage.audit import Chain

BACKUP: Final = timedelta(hours=3)  # one is made every hour
HOURLY: Final = timedelta(hours=4)
DAILY: Final = timedelta(days=3)
# The jobs of the timetable, and how long after its last good end each is late (a test holds it to the timetable).
LATE_AFTER: Final = {
    **dict.fromkeys(("note_head", "expire", "forget_refusals", "tidy"), HOURLY),
    **dict.fromkeys(("verify_audit", "forget_evidence", "forget_ordinary", "forget_reviews", "check_evidence"), DAILY),
}
_AFTER_START: Final = timedelta(minutes=30)  # what a daemon that was down has to catch up with
_HOOK: Final = timedelta(hours=6)  # of the three days after which a change is given up


def record(look: Look) -> Iterator[Alarm]:
    """The record was changed behind our back, or cut."""
    verify = "Keep a copy of database and log, and run `optoutd audit verify`: it names the row. Then docs/audit.md."
    since = _unmended(look, "record-broken", "verify_audit", look.vitals.record_broken)
    if since is not None:
        yield Alarm("record-broken", "", since, "The record of opt-outs was changed behind our back", verify)
    if not sights.record(look.db, Chain(look.ledger.site_key)).as_left:
        text = "The end of the record is not as we left it"
        yield Alarm("record-broken", "end", look.now, text, verify)


def unexplained(look: Look) -> Iterator[Alarm]:
    """Suppressions of which nobody can say why."""
    since = _unmended(look, "suppressions-unexplained", "check_evidence", look.vitals.unexplained)
    if since is not None:
        text = "Some suppressions have no evidence: nobody can say why they stand"
        advice = (
            "Rows were deleted from the database by another program. Run `optoutd audit verify`, then docs/audit.md."
        )
        yield Alarm("suppressions-unexplained", "", since, text, advice)


def _unmended(look: Look, kind: Kind, job: str, found: bool) -> datetime | None:
    """Since when something that `job` looks for is wrong: it stays so over a restart, until that job ends well again."""
    stood = look.standing.get((kind, ""))
    if stood is None:
        return look.now if found else None
    return stood if found or _last(look, job) <= stood else None


def _last(look: Look, job: str) -> datetime:
    return datetime.fromtimestamp(census.numbers(look.db).jobs.get(job, 0), UTC)


def jobs(look: Look) -> Iterator[Alarm]:
    """A job has not ended well for too long."""
    ended = census.numbers(look.db).jobs
    for name, limit in LATE_AFTER.items():
        last = datetime.fromtimestamp(ended.get(name, 0), UTC)
        if name in ended and _is_late(look, "job-late", name, last, limit):
            text = f"The job {name} has not ended well for {lasted(look.now - last)}"
            advice = "job_failed in the log says why; it is tried again at its time."
            if name == "verify_audit":
                advice += " Until then run `optoutd audit verify` by hand."
            yield Alarm("job-late", name, last, text, advice)


def backups(look: Look) -> Iterator[Alarm]:
    """There is no backup of today."""
    if look.ledger.journal is None:  # none are made
        return
    made = census.numbers(look.db).jobs.get("back_up")
    last = look.vitals.started if made is None else _last(look, "back_up")
    if _is_late(look, "backup-old", "", last, BACKUP):
        text = f"There has been no backup for {lasted(look.now - last)}"
        advice = "backup_failed in the log says what to do: most often the disk of storage.backup_dir is full or away."
        yield Alarm("backup-old", "", last, text, advice)


def _is_late(look: Look, kind: Kind, about: str, last: datetime, limit: timedelta) -> bool:
    caught_up = (kind, about) in look.standing or look.now - look.vitals.started >= _AFTER_START
    return caught_up and look.now - last > limit


def deferring(look: Look) -> Iterator[Alarm]:
    """The list has a gap, and nobody is mailed until it is closed."""
    gap = deferral.deferred(look.db)
    if gap is not None:
        text = f"The list has a gap since {gap.since:%Y-%m-%d %H:%M} UTC, so all mail is deferred"
        yield Alarm(
            "lookups-deferred", "", gap.since, text, "`optoutd restore --status` says what is still to be done."
        )


def webhooks(look: Look) -> Iterator[Alarm]:
    """Programs that do not hear of changes."""
    for name, place in hooks.places(look.db).items():
        if place.failures and name in look.vitals.hooks:  # one that is gone from the config is not tried any more
            yield Alarm(
                "webhook-failing",
                name,
                look.now,
                f"The webhook {name} does not take what it is told ({place.trouble})",
                "Look at that program, at `url` and `secret_file`. After three days a change is given up.",
                ripe=_HOOK,
            )
    for name, counts in hooks.counts(look.db).items():
        if counts.undelivered:
            many = f"{counts.undelivered} change{'s' if counts.undelivered > 1 else ''}"
            yield Alarm(
                "webhook-gave-up",
                name,
                look.now,
                f"The webhook {name} was never told of {many}",
                "That program may mail people who have opted out. `optoutd hooks` shows them, and sends them again.",
            )
