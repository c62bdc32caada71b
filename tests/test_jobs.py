"""What is done by the clock."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from daemon import events, jobs, metrics
from daemon.config import Bounce, Retention
from daemon.jobs import Jobs
from storage import audit, backup, explained, journal, refusals
from storage.engine import Ledger, Unavailable
from storage.journal import Journal
from storage.refusals import Refusal, Tally
from storage.sqlite import File
from storage.terms import Reason
from storage.write import write
from tests.ledgers import Books, books

NOW = datetime.now(UTC)
TIMETABLE = (
    "verify_audit note_head expire forget_refusals forget_evidence forget_ordinary forget_reviews check_evidence tidy"
).split()


@pytest.fixture
def ledger(tmp_path: Path) -> Books:
    return books(tmp_path / "ledger")


@pytest.fixture
def due(ledger: Books) -> Jobs:
    return Jobs(ledger.ledger, Bounce(), lambda: NOW)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    handlers = list(logging.getLogger().handlers)
    yield capsys
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = handlers


def told(said: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in said.readouterr().err.splitlines()]


def ran(ledger: Books) -> dict[str, int]:
    with ledger.ledger.connect() as db:
        return {row[0]: row[1] for row in db.exec_driver_sql("SELECT name, at FROM job_run")}


def test_the_audit_check_tells_where_the_record_ends(
    ledger: Books, due: Jobs, said: pytest.CaptureFixture[str]
) -> None:
    events.configure("json", "info")
    ledger.suppress("ann@example.com")
    due.verify_audit()
    [line] = told(said)
    assert (line["event"], line["job"], line["rows"]) == ("job_done", "verify_audit", 1)
    assert ran(ledger) == {"verify_audit": int(NOW.timestamp())}


def test_the_audit_check_tells_of_a_changed_record(ledger: Books, due: Jobs, said: pytest.CaptureFixture[str]) -> None:
    events.configure("json", "info")
    ledger.suppress("ann@example.com")
    with closing(sqlite3.connect(ledger.ledger.path)) as db:
        db.execute("UPDATE suppression SET since = 1")
        db.commit()
    due.verify_audit()
    assert [line["event"] for line in told(said)] == ["audit_broken"]
    assert not ran(ledger)


def test_the_head_is_noted_and_a_changed_record_told(
    ledger: Books, due: Jobs, said: pytest.CaptureFixture[str]
) -> None:
    events.configure("json", "info")
    ledger.suppress("ann@example.com")
    due.note_head()
    _, line = told(said)
    with ledger.ledger.reading() as db:
        assert (line["event"], line["seq"], line["head"]) == (
            "audit_head",
            1,
            str(audit.Chain(ledger.ledger.site_key).head(db)),
        )
    assert ran(ledger) == {"note_head": int(NOW.timestamp())}
    ledger.suppress("bob@example.com")
    with closing(sqlite3.connect(ledger.ledger.path)) as raw:
        raw.execute("UPDATE audit SET actor = 'somebody else' WHERE seq = 2")
        raw.commit()
    due.note_head()
    assert [line["event"] for line in told(said)] == ["audit_broken"]


def unexplained() -> bool:
    """What /metrics says."""
    return metrics.suppressions_unexplained.on


def test_suppressions_without_evidence_are_told_and_a_check_that_finds_none_is_noted(
    ledger: Books, due: Jobs, said: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    events.configure("json", "info")
    monkeypatch.setattr(explained.missing, "__defaults__", (b"", 3))  # rows of several pieces
    for n in range(7):
        ledger.suppress(f"p{n}@example.com")
    due.check_evidence()
    assert ran(ledger) == {"check_evidence": int(NOW.timestamp())}
    assert not unexplained()
    with closing(sqlite3.connect(ledger.ledger.path)) as db:
        db.execute("DELETE FROM evidence WHERE id IN (2, 5)")
        db.execute("DELETE FROM job_run")
        db.commit()
    due.check_evidence()
    assert [(x["event"], x.get("number")) for x in told(said)] == [("job_done", None), ("suppressions_unexplained", 2)]
    assert not ran(ledger)
    assert unexplained()
    with closing(sqlite3.connect(ledger.ledger.path)) as db:
        db.execute("DELETE FROM suppression WHERE evidence IN (2, 5)")
        db.commit()
    due.check_evidence()
    assert not unexplained()


def test_soft_bounces_run_out_and_nothing_else_does(ledger: Books, due: Jobs) -> None:
    long_ago = NOW - timedelta(days=31)
    ledger.suppress("full@example.com", reason=Reason.SOFT_BOUNCE, since=long_ago)
    ledger.suppress("gone@example.com", reason=Reason.HARD_BOUNCE, since=long_ago)
    ledger.suppress("ann@example.com", since=long_ago)
    ledger.suppress("new@example.com", reason=Reason.SOFT_BOUNCE, since=NOW - timedelta(days=29))
    due.expire()
    with ledger.ledger.connect() as db:
        left = db.exec_driver_sql("SELECT reason FROM suppression ORDER BY reason").scalars().all()
    assert left == [Reason.OPT_OUT, Reason.HARD_BOUNCE, Reason.SOFT_BOUNCE]
    due.verify_audit()
    assert set(ran(ledger)) == {"expire", "verify_audit"}


@pytest.mark.parametrize(("days", "left"), [(400, 1), (0, 12_001)])
def test_old_refusals_go_and_a_live_opt_out_gets_its_turn_between(ledger: Books, days: int, left: int) -> None:
    old = Refusal(NOW - timedelta(days=401), "refused", bytes(16), 0, Reason.OPT_OUT, "", "", 1)
    tallied = Tally(int(old.at.timestamp()) // 3600, 0, "", "refused", Reason.OPT_OUT)
    with write(ledger.ledger, NOW, "relay") as w:
        refusals.record(w, [old] * 12_000, {tallied: 12_000})
        refusals.record(w, [old._replace(at=NOW)], {tallied._replace(hour=tallied.hour + 9624): 1})
    waited = []

    def opt_out() -> None:
        began = time.monotonic()
        ledger.suppress("ann@example.com")
        waited.append(time.monotonic() - began)

    live = threading.Timer(0.01, opt_out)
    live.start()
    began = time.monotonic()
    Jobs(ledger.ledger, Bounce(), lambda: NOW, Retention(refusals=days)).forget_refusals()
    took = time.monotonic() - began
    live.join()
    with ledger.ledger.connect() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM refusal").scalar() == left
        assert db.exec_driver_sql("SELECT sum(count) FROM tally").scalar() == left
    assert set(ran(ledger)) == {"forget_refusals"}
    assert days == 0 or waited[0] < took, "it did not wait for the end"


def test_what_a_reload_says_counts_from_the_next_run_on(ledger: Books, due: Jobs) -> None:
    old = Refusal(NOW - timedelta(days=401), "refused", bytes(16), 0, Reason.OPT_OUT, "", "", 1)
    with write(ledger.ledger, NOW, "relay") as w:
        refusals.record(w, [old], {})
    for days, left in ((0, 1), (400, 0)):
        due.take_over(Bounce(), Retention(refusals=days))
        due.forget_refusals()
        with ledger.ledger.connect() as db:
            assert db.exec_driver_sql("SELECT count(*) FROM refusal").scalar() == left


def test_tidying_writes_the_log_back(ledger: Books, due: Jobs) -> None:
    for n in range(50):
        ledger.suppress(f"a{n}@example.com")
    log = ledger.ledger.path.with_name("optoutd.db-wal")
    before = log.stat().st_size
    due.tidy()
    assert log.stat().st_size < before / 10


def test_tidying_while_somebody_reads_for_long_keeps_no_opt_out_waiting(ledger: Books, due: Jobs) -> None:
    ledger.suppress("ann@example.com")
    reader, other = (Ledger(File(ledger.ledger.path), ledger.ledger.site_key) for _ in range(2))
    with reader.reading() as db:
        db.exec_driver_sql("SELECT count(*) FROM suppression").all()
        ledger.suppress("bob@example.com")
        tidying = threading.Thread(target=due.tidy)
        tidying.start()
        time.sleep(0.02)
        began = time.monotonic()
        Books(other, ledger.numbers).suppress("live@example.com")
        waited = time.monotonic() - began
        tidying.join()
    assert waited < 1  # 5 s if the tidying waits for the reader
    reader.close()
    other.close()


def test_tidying_while_somebody_writes_is_no_error(ledger: Books, due: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The statistics are renewed the next time; what else goes wrong is told."""
    said = sqlite3.OperationalError("database is locked")
    said.sqlite_errorcode = sqlite3.SQLITE_BUSY
    asking = Connection.exec_driver_sql

    def ask(db: Connection, statement: str, *values: Any, **other: Any) -> Any:
        if statement == "PRAGMA optimize":
            raise OperationalError(statement, None, said)
        return asking(db, statement, *values, **other)

    monkeypatch.setattr(Connection, "exec_driver_sql", ask)
    due.tidy()
    said.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    with pytest.raises(Unavailable):
        due.tidy()


async def test_a_job_that_cannot_run_is_told_and_the_next_one_runs(
    ledger: Books, due: Jobs, said: pytest.CaptureFixture[str]
) -> None:
    events.configure("json", "info")
    ran_after: list[bool] = []

    def no_database() -> None:
        raise Unavailable("gone")

    def a_bug() -> None:
        raise RuntimeError("ann@example.com")

    for job in (no_database, a_bug, lambda: ran_after.append(True)):
        await jobs._run(job)
    assert [line["event"] for line in told(said)] == ["job_failed", "failed"]
    assert ran_after == [True]


async def test_a_job_that_is_due_while_the_loop_is_busy_is_not_skipped(ledger: Books, due: Jobs) -> None:
    scheduler = jobs.schedule(due)
    assert {job.id for job in scheduler.get_jobs()} == set(TIMETABLE)
    scheduler.start()
    try:
        scheduler.get_job("expire").modify(next_run_time=datetime.now(UTC) - timedelta(minutes=5))
        async with asyncio.timeout(10):
            while "expire" not in ran(ledger):
                await asyncio.sleep(0.05)
    finally:
        scheduler.shutdown(wait=False)


# ------------------------------------------------------------------ backups


@pytest.fixture
def backing(ledger: Books, tmp_path: Path) -> Jobs:
    where = tmp_path / "kept"
    ledger.ledger.journal = Journal(where / "journal.log", ledger.ledger.site_key)
    return Jobs(ledger.ledger, Bounce(), lambda: NOW, backup_dir=where)


def at(job: Jobs, minutes: int) -> Jobs:
    return replace(job, now=lambda: NOW + timedelta(minutes=minutes))


def test_a_backup_is_made_every_hour_and_the_journal_goes_on_after_it(
    ledger: Books, backing: Jobs, said: pytest.CaptureFixture[str]
) -> None:
    events.configure("json", "info")
    where = backing.backup_dir
    assert where
    ledger.suppress("ann@example.com")
    backing.back_up()
    at(backing, 59).back_up()
    ledger.suppress("bob@example.com")
    at(backing, 61).back_up()
    ledger.suppress("cem@example.com")
    stamps = [(NOW + timedelta(minutes=m)).strftime("%Y%m%dT%H%M%SZ") for m in (0, 61)]
    names = [f"journal-{s}.log" for s in stamps] + ["journal.log"] + [f"optoutd-{s}.db" for s in stamps]
    assert sorted(p.name for p in where.iterdir()) == names
    first, second = told(said)
    assert (first["event"], first["job"], first["kept"], second["kept"]) == ("job_done", "back_up", 1, 2)
    assert where.stat().st_mode & 0o777 == 0o700
    backup.verify(where / names[-1], ledger.ledger.site_key)


def test_48_are_kept_and_what_they_have_goes_from_the_journal(ledger: Books, backing: Jobs) -> None:
    where = backing.backup_dir
    assert where
    where.mkdir()
    old = [(NOW - timedelta(hours=n)).strftime("%Y%m%dT%H%M%SZ") for n in range(1, 60)]
    for stamp in old:
        (where / f"optoutd-{stamp}.db").touch()
        (where / f"journal-{stamp}.log").touch()
    backing.back_up()
    kept = backup.kept(where)
    assert (len(kept), kept[0].name) == (48, f"optoutd-{old[46]}.db")
    assert min(p.name for p in journal.segments(where)) == f"journal-{old[46]}.log"


@pytest.mark.parametrize(
    ("why", "advice"),
    [
        (backup.NotWritten("database or disk is full", full=True), "make room on the disk"),
        (backup.NotWritten("attempt to write a readonly database"), "must be a directory that the daemon may write to"),
        (PermissionError(13, "Permission denied"), "must be a directory that the daemon may write to"),
        (backup.Damaged("row 3: changed"), "run `optoutd audit verify`"),
        (Unavailable("database away"), "it is tried again"),
    ],
)
def test_a_backup_that_fails_says_what_to_do_and_touches_no_older_one(
    ledger: Books,
    backing: Jobs,
    said: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    why: Exception,
    advice: str,
) -> None:
    events.configure("json", "info")
    where = backing.backup_dir
    assert where
    where.mkdir()
    old = [where / backup.name(NOW - timedelta(hours=n)) for n in range(2, 60)]
    for path in old:
        path.touch()

    def failing(*_: object) -> None:
        raise why

    with monkeypatch.context() as patch:
        patch.setattr(backup, "take", failing)
        backing.back_up()
    [line] = told(said)
    assert line["event"] == "backup_failed"
    assert advice in str(line["advice"])
    assert sorted(where.iterdir()) == sorted(old)
    at(backing, 5).back_up()  # the next look makes it
    assert backup.kept(where)[-1].name == backup.name(NOW + timedelta(minutes=5))


def test_what_the_journal_missed_is_backed_up_soon(ledger: Books, backing: Jobs) -> None:
    where = backing.backup_dir
    assert where
    backing.back_up()
    where.rename(where.with_name("elsewhere"))
    where.write_text("not a directory")
    ledger.suppress("ann@example.com")
    where.unlink()
    where.with_name("elsewhere").rename(where)
    at(backing, 5).back_up()
    at(backing, 10).back_up()
    assert len(backup.kept(where)) == 2
    found = journal.since(journal.read(where, ledger.ledger.site_key), (1, 1), 0)
    assert found.whole


async def test_a_backup_is_looked_for_soon_after_the_start(ledger: Books, due: Jobs, backing: Jobs) -> None:
    assert jobs.schedule(due).get_job("back_up") is None
    scheduler = jobs.schedule(backing)
    scheduler.start()
    try:
        job = scheduler.get_job("back_up")
        assert job.next_run_time - datetime.now(UTC) < timedelta(minutes=1)
        job.modify(next_run_time=datetime.now(UTC))
        async with asyncio.timeout(10):
            while "back_up" not in ran(ledger):
                await asyncio.sleep(0.02)
    finally:
        scheduler.shutdown(wait=False)
