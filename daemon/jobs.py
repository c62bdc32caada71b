"""What is done by the clock: backups, the audit checks, soft bounces that run out, what has been kept long enough, and the
database's own upkeep.

Times of the last good run are kept in the ledger; the schedule itself lives in memory. APScheduler's default would
silently skip a job that is due while the loop is busy for a second, hence the settings of `schedule`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from sqlalchemy import Connection

from daemon import events
from daemon.config import Bounce, Retention
from storage import (
    answers,
    audit,
    backup,
    brake,
    explained,
    incoming,
    journal,
    outbox,
    refusals,
    retention,
    suppressions,
)
from storage.engine import Ledger, Unavailable, Unusable
from storage.write import write

_P = ParamSpec("_P")
_T = TypeVar("_T")
_GAP: Final = 0.05  # s between two transactions of a long deletion, in which a live opt-out gets its turn
_SOON: Final = timedelta(seconds=30)  # after the start, when mailboxes and campaigns want the disk


@dataclass
class Jobs:
    """The jobs over one ledger. Each runs in a thread, never on the event loop.

    `backup_dir`: where backups go; None = nowhere.
    """

    ledger: Ledger
    bounce: Bounce
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    kept: Retention = field(default_factory=Retention)
    backup_dir: Path | None = None

    def take_over(self, bounce: Bounce, kept: Retention) -> None:
        """Other settings, from the next run of each job on."""
        self.bounce, self.kept = bounce, kept

    def back_up(self) -> None:
        """Make a backup if the last one is an hour old, and drop the oldest; never the other way round."""
        if self.backup_dir is None:
            return
        try:
            self._back_up(self.backup_dir)
        except (OSError, backup.NotWritten, backup.Damaged, Unavailable, Unusable) as why:
            events.backup_failed(why, _advice(why))

    def _back_up(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        now, keys = self.now(), self.ledger.journal
        behind = keys is not None and keys.behind
        if not behind and not backup.is_due(directory, now):
            return
        backup.clear(directory)
        made = backup.take(self.ledger, directory / backup.name(now), now)
        if keys is not None:
            keys.behind = keys.behind and not behind
            keys.rotate(backup.stamp(made.file))
        left = backup.prune(directory)
        journal.prune(directory, backup.stamp(left[0]))
        self._done("back_up", file=made.file.name, octets=made.octets, kept=len(left), head=str(made.head))

    def verify_audit(self) -> None:
        """Has the record been changed, or the list? All of it."""
        try:
            with self.ledger.reading() as db:
                head = audit.verify(db, self.ledger.site_key, progress=_give_way)
        except audit.ChainBroken as broken:
            events.audit_broken(str(broken))
        else:
            self._found_whole("verify_audit", head)

    def note_head(self) -> None:
        """Has the record been changed since the last check? Where it ends now goes to the log."""
        try:
            with self.ledger.reading() as db:
                head, _ = audit.verify_new(db, self.ledger.site_key, _give_way)
        except audit.ChainBroken as broken:
            events.audit_broken(str(broken))
        else:
            self._found_whole("note_head", head)
            events.audit_head(head.seq, str(head))

    def _found_whole(self, job: str, head: audit.Head) -> None:
        with write(self.ledger, self.now(), f"job {job}") as w:
            audit.remember_verified(w.db, self.ledger.site_key, head)
            w.job_ran(job)
        events.job_done(job, rows=head.seq, head=str(head))

    def check_evidence(self) -> None:
        """Has every suppression its evidence? In pieces, of which none keeps anybody waiting."""
        after: bytes | None = b""
        found = 0
        while after is not None:
            number, after = self._read(explained.missing, after)
            found += number
            time.sleep(_GAP)
        if found:
            events.suppressions_unexplained(found)
        else:
            self._done("check_evidence")

    def expire(self) -> None:
        """End soft-bounce suppressions that have stood long enough, and forget what was of use for a day or some weeks."""
        now = self.now()
        with write(self.ledger, now, "job expire") as w:
            ended = suppressions.expire(w, now - timedelta(days=self.bounce.soft_days))
            incoming.forget_soft_bounces(w, self.bounce.soft_window_days)
            incoming.forget_unproven(w)
            brake.forget_counts(w)
            outbox.forget(w)
            answers.forget(w)
        self._done("expire", ended=ended)

    def forget_refusals(self) -> None:
        """Delete what the relay's record has kept long enough, some thousand rows at a time."""
        forgotten = 0
        while True:
            with write(self.ledger, self.now(), "job forget_refusals") as w:
                some = refusals.forget(w, self.kept.refusals)
            if some == 0:
                break
            forgotten += some
            time.sleep(_GAP)
        self._done("forget_refusals", forgotten=forgotten)

    def forget_evidence(self) -> None:
        """Forget the particulars of what has ended long ago. What explains a standing suppression stays."""
        last = forgotten = 0
        if before := self._before(self.kept.evidence):
            while some := self._read(retention.old_evidence, before, last):
                with write(self.ledger, self.now(), "job forget_evidence") as w:
                    forgotten += retention.forget_evidence(w, some, before)
                last = some[-1]
                time.sleep(_GAP)
        self._done("forget_evidence", forgotten=forgotten)

    def forget_ordinary(self) -> None:
        """Delete what is known of old ordinary mail. It is not read again all the same."""
        forgotten = 0
        if before := self._before(self.kept.ordinary):
            for folder in self._read(retention.watched):
                while some := self._read(retention.old_messages, folder, before):
                    with write(self.ledger, self.now(), "job forget_ordinary") as w:
                        retention.forget_messages(w, folder, some, before)
                    forgotten += len(some)
                    time.sleep(_GAP)
        self._done("forget_ordinary", forgotten=forgotten)

    def forget_reviews(self) -> None:
        """Take out of decided reviews what was written, by whom and about whom."""
        forgotten = 0
        if before := self._before(self.kept.review_excerpt):
            while some := self._read(retention.decided_reviews, before):
                with write(self.ledger, self.now(), "job forget_reviews") as w:
                    retention.forget_reviews(w, some)
                forgotten += len(some)
                time.sleep(_GAP)
        self._done("forget_reviews", forgotten=forgotten)

    def _before(self, days: int) -> datetime | None:
        """What is older than this has been kept long enough; None: nothing, ever."""
        return self.now() - timedelta(days=days) if days else None

    def _read(self, look: Callable[Concatenate[Connection, _P], _T], *about: _P.args, **more: _P.kwargs) -> _T:
        """What is due is looked for on a connection that keeps nobody from writing."""
        with self.ledger.connect() as db:
            return look(db, *about, **more)

    def tidy(self) -> None:
        """Write the log back into the database file and let SQLite renew its statistics. PostgreSQL does so by itself."""
        self.ledger.store.verify(self.ledger.site_key)
        self.ledger.store.tidy()
        self._done("tidy")

    def _done(self, name: str, **facts: Any) -> None:
        with write(self.ledger, self.now(), f"job {name}") as w:
            w.job_ran(name)
        events.job_done(name, **facts)


def _give_way(_: int) -> None:
    """Between two thousand rows: a thread that computes all the time keeps the relay waiting 5 ms for each of its turns."""
    time.sleep(0.001)


def schedule(jobs: Jobs) -> AsyncIOScheduler:
    """The timetable (UTC); call .start() in the running loop and .shutdown() at the end."""
    common = {"misfire_grace_time": 3600, "coalesce": True, "max_instances": 1}
    scheduler = AsyncIOScheduler(timezone=UTC, job_defaults=common)
    scheduler.add_job(_run, "cron", args=[jobs.verify_audit], hour=3, minute=17, id="verify_audit")
    # soon after each start, too: a daemon that is started often would never come to an hour
    soon = datetime.now(UTC) + timedelta(minutes=1)
    scheduler.add_job(_run, "interval", args=[jobs.note_head], hours=1, id="note_head", next_run_time=soon)
    scheduler.add_job(_run, "interval", args=[jobs.expire], hours=1, id="expire")
    scheduler.add_job(_run, "interval", args=[jobs.forget_refusals], hours=1, id="forget_refusals")
    scheduler.add_job(_run, "cron", args=[jobs.forget_evidence], hour=3, minute=37, id="forget_evidence")
    scheduler.add_job(_run, "cron", args=[jobs.forget_ordinary], hour=3, minute=47, id="forget_ordinary")
    scheduler.add_job(_run, "cron", args=[jobs.forget_reviews], hour=3, minute=57, id="forget_reviews")
    scheduler.add_job(_run, "cron", args=[jobs.check_evidence], hour=4, minute=7, id="check_evidence")
    scheduler.add_job(_run, "interval", args=[jobs.tidy], minutes=30, id="tidy")
    if jobs.backup_dir is not None:  # looks whether one is due: so one that failed, or a restart, does not skip an hour
        soon = datetime.now(UTC) + _SOON
        scheduler.add_job(_run, "interval", args=[jobs.back_up], minutes=5, next_run_time=soon, id="back_up")
    return scheduler


def _advice(why: Exception) -> str:
    """What to do about a backup that failed."""
    if isinstance(why, backup.NotWritten) and why.full:
        return "make room on the disk of storage.backup_dir"
    if isinstance(why, backup.Damaged):
        return "run `optoutd audit verify`: the copy is not whole, so the database may not be either"
    if isinstance(why, OSError | backup.NotWritten):
        return "storage.backup_dir must be a directory that the daemon may write to (under systemd: ReadWritePaths=)"
    return "the older backups are as they were; it is tried again"


async def _run(job: Callable[[], None]) -> None:
    name = getattr(job, "__name__", "job")
    try:
        await _in_thread(job)
    except (Unavailable, Unusable) as why:
        events.job_failed(name, why)
    except Exception as error:  # noqa: BLE001 - told as an event of ours, without the values in it; the job comes again
        events.failed(f"job {name}", error)


async def _in_thread(job: Callable[[], None]) -> None:
    """As asyncio.to_thread, but nobody waits for it at the end: an audit check of some minutes must not delay a stop.

    What it was writing is rolled back by SQLite; it runs again at its time.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[BaseException | None] = loop.create_future()

    def tell(error: BaseException | None) -> None:
        if not ended.done():
            ended.set_result(error)

    def work() -> None:
        error: BaseException | None = None
        try:
            job()
        except BaseException as why:  # noqa: BLE001 - not swallowed: handed over to the coroutine, which raises it
            error = why
        with contextlib.suppress(RuntimeError):  # the loop is closed: we have stopped
            loop.call_soon_threadsafe(tell, error)

    threading.Thread(target=work, name=f"job {getattr(job, '__name__', '')}", daemon=True).start()
    error = await ended
    if error is not None:
        raise error
