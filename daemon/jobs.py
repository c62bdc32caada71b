"""What is done by the clock: hourly backups, the nightly audit check, soft bounces that run out, old refusals, and the
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
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from daemon import events
from daemon.config import Bounce
from storage import audit, backup, incoming, journal, outbox, refusals, suppressions
from storage.engine import WRITE_SECONDS, Ledger, Unavailable, Unusable
from storage.write import write

_GAP: Final = 0.05  # s between two transactions of a long deletion, in which a live opt-out gets its turn
_TIDY_MILLISECONDS: Final = 100
_SOON: Final = timedelta(seconds=30)  # after the start, when mailboxes and campaigns want the disk


@dataclass(frozen=True)
class Jobs:
    """The jobs over one ledger. Each runs in a thread, never on the event loop.

    `refusals_days`: how long the relay's record is kept; 0 = for ever. `backup_dir`: where backups go; None = nowhere.
    """

    ledger: Ledger
    bounce: Bounce
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    refusals_days: int = 400
    backup_dir: Path | None = None

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
        """Has the record been changed?"""
        try:
            with self.ledger.reading() as db:
                head = audit.verify(db, self.ledger.site_key)
        except audit.ChainBroken as broken:
            events.audit_broken(str(broken))
        else:
            self._done("verify_audit", rows=head.seq, head=str(head))

    def expire(self) -> None:
        """End soft-bounce suppressions that have stood long enough."""
        now = self.now()
        with write(self.ledger, now, "job expire") as w:
            ended = suppressions.expire(w, now - timedelta(days=self.bounce.soft_days))
            incoming.forget_soft_bounces(w, self.bounce.soft_window_days)
            incoming.forget_unproven(w)
            outbox.forget(w)
        self._done("expire", ended=ended)

    def forget_refusals(self) -> None:
        """Delete what the relay's record has kept long enough, some thousand rows at a time."""
        forgotten = 0
        while True:
            with write(self.ledger, self.now(), "job forget_refusals") as w:
                some = refusals.forget(w, self.refusals_days)
            if some == 0:
                break
            forgotten += some
            time.sleep(_GAP)
        self._done("forget_refusals", forgotten=forgotten)

    def tidy(self) -> None:
        """Write the log back into the database file and let SQLite renew its statistics.

        While somebody reads for long (a backup, the audit check) only a part can be written back. SQLite would wait for the
        reader, and let no opt-out in meanwhile: so it waits no longer than an opt-out may.
        """
        with self.ledger.connect() as db:
            db.exec_driver_sql(f"PRAGMA busy_timeout = {_TIDY_MILLISECONDS}").all()
            try:
                db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all()
                db.exec_driver_sql("PRAGMA optimize").all()
            finally:
                db.exec_driver_sql(f"PRAGMA busy_timeout = {WRITE_SECONDS * 1000}").all()
        self._done("tidy")

    def _done(self, name: str, **facts: Any) -> None:
        with write(self.ledger, self.now(), f"job {name}") as w:
            w.job_ran(name)
        events.job_done(name, **facts)


def schedule(jobs: Jobs) -> AsyncIOScheduler:
    """The timetable (UTC); call .start() in the running loop and .shutdown() at the end."""
    common = {"misfire_grace_time": 3600, "coalesce": True, "max_instances": 1}
    scheduler = AsyncIOScheduler(timezone=UTC, job_defaults=common)
    scheduler.add_job(_run, "cron", args=[jobs.verify_audit], hour=3, minute=17, id="verify_audit")
    scheduler.add_job(_run, "interval", args=[jobs.expire], hours=1, id="expire")
    scheduler.add_job(_run, "interval", args=[jobs.forget_refusals], hours=1, id="forget_refusals")
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
    except Exception as error:  # noqa: BLE001 - told in our log; a bug in one job must not end the service
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
        except BaseException as why:  # noqa: BLE001 - raised again in the coroutine that waits for this thread
            error = why
        with contextlib.suppress(RuntimeError):  # the loop is closed: we have stopped
            loop.call_soon_threadsafe(tell, error)

    threading.Thread(target=work, name=f"job {getattr(job, '__name__', '')}", daemon=True).start()
    error = await ended
    if error is not None:
        raise error
