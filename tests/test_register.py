"""The register against a real ledger: gathered on the relay's path, committed off it, and what each kind of end costs."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon import register
from daemon.register import Register
from storage import audit, refusals, sqlite
from storage.refusals import Refusal
from storage.write import write
from tests.ledgers import Books, books
from tests.storage.another import another, hear, tell

NOW = datetime(2026, 11, 27, 12, 30, tzinfo=UTC)


def refusal(number: int = 7, **other: Any) -> Refusal:
    return Refusal(NOW, "refused", bytes(16), 1, 2, "crm", "<1@crm.example>", number)._replace(**other)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Books]:
    it = books(tmp_path / "ledger")
    yield it
    it.ledger.close()


@asynccontextmanager
async def running(ledger: Books, now: Callable[[], datetime] = lambda: NOW, **other: Any) -> AsyncIterator[Register]:
    it = Register(ledger.ledger, now, **{"every": 0.05, **other})
    it.start()
    try:
        yield it
    finally:
        await it.stop()
        assert not it._thread.is_alive()


def kept(ledger: Books) -> list[int]:
    """The evidence numbers of all refusals, in order."""
    with closing(sqlite3.connect(ledger.ledger.path)) as db:
        return [row[0] for row in db.execute("SELECT evidence FROM refusal ORDER BY id")]


def counted(ledger: Books) -> dict[str, int]:
    with closing(sqlite3.connect(ledger.ledger.path)) as db:
        return dict(db.execute("SELECT outcome, sum(count) FROM tally GROUP BY outcome"))


async def until(is_so: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():
            await asyncio.sleep(0.02)


def commits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many refusals each transaction has from now on."""
    sizes: list[int] = []
    record = refusals.record

    def counting(w: Any, some: Any, tallies: Any) -> None:
        sizes.append(len(some))
        record(w, some, tallies)

    monkeypatch.setattr(refusals, "record", counting)
    return sizes


# ------------------------------------------------------------------ the usual


async def test_what_is_noted_is_written_within_its_time(ledger: Books) -> None:
    async with running(ledger) as it:
        it.note("passed", 1, "crm", 0, 40)
        it.note("passed", 1, "crm", 0)
        it.keep(refusal())
        await until(lambda: kept(ledger) == [7])
        assert counted(ledger) == {"passed": 41, "refused": 1}, "a refusal that is kept is counted, too"


async def test_many_are_committed_together(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register, "_AT_ONCE", 400)
    sizes = commits(monkeypatch)
    async with running(ledger, every=0.3) as it:
        for n in range(1000):
            it.keep(refusal(n))
        await until(lambda: len(kept(ledger)) == 1000)
    assert sizes == [400, 400, 200]
    assert kept(ledger) == list(range(1000))
    assert counted(ledger) == {"refused": 1000}


async def test_where_nothing_happens_nothing_is_written(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = commits(monkeypatch)
    async with running(ledger, every=0.01):
        await asyncio.sleep(0.2)
    assert sizes == []


async def test_the_others_of_a_transaction_are_told_once(ledger: Books) -> None:
    async with running(ledger) as it:
        it.keep(*(refusal(n, others=98) for n in range(3)))
        it.keep(refusal(others=4))
    with ledger.ledger.reading() as db:
        (line,) = refusals.report(db, None, "message-id")
    assert (line.counts["passed"], line.counts["refused"]) == (102, 4)


async def test_an_hour_is_counted_as_that_hour(ledger: Books) -> None:
    clock = [NOW]
    async with running(ledger, lambda: clock[0]) as it:
        it.note("passed", 1, "crm", 0)
        await until(lambda: bool(counted(ledger)))
        clock[0] += timedelta(hours=1)
        it.note("passed", 1, "crm", 0)
    with ledger.ledger.connect() as db:
        hours = db.exec_driver_sql("SELECT hour FROM tally ORDER BY hour").scalars().all()
    assert hours == [int(NOW.timestamp()) // 3600, int(NOW.timestamp()) // 3600 + 1]


async def test_from_several_threads_nothing_is_lost(ledger: Books) -> None:
    async with running(ledger, every=0.005) as it:

        def work() -> None:
            for n in range(2000):
                it.note("passed", 1, "crm", 0)
                it.keep(refusal(n))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        await asyncio.gather(*(asyncio.to_thread(t.join) for t in threads))
    assert counted(ledger) == {"passed": 8000, "refused": 8000}
    assert len(kept(ledger)) == 8000


@pytest.mark.alone
async def test_noting_costs_the_path_next_to_nothing(ledger: Books) -> None:
    """About 0.3 and 0.5 us; twenty times that is still far from what a commit would cost."""
    it = Register(ledger.ledger, lambda: NOW, most=10**6)
    one, turns = refusal(), 20_000
    began = time.perf_counter()
    for _ in range(turns):
        it.note("passed", 1, "crm", 0)
        it.keep(one)
    assert (time.perf_counter() - began) / turns < 20e-6


# ------------------------------------------------------------------ stopping


async def test_stopping_writes_what_is_left(ledger: Books) -> None:
    async with running(ledger, every=60) as it:
        it.keep(refusal())
        it.note("passed", 1, "crm", 0)
        began = time.monotonic()
    assert time.monotonic() - began < 3
    assert (kept(ledger), counted(ledger)) == ([7], {"refused": 1, "passed": 1})


async def test_one_that_was_never_started_stops(ledger: Books) -> None:
    await Register(ledger.ledger, lambda: NOW).stop()


async def test_stopping_does_not_wait_for_a_ledger_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    monkeypatch.setattr(sqlite, "WRITE_SECONDS", 1)
    monkeypatch.setattr(register, "_STOP_SECONDS", 0.2)
    ledger = books(tmp_path / "impatient")
    it = Register(ledger.ledger, lambda: NOW, every=60)
    it.start()
    it.keep(refusal())
    with another(ledger, _LOCK) as other:
        hear(other, "locked")
        began = time.monotonic()
        await it.stop()
        assert time.monotonic() - began < 0.8
        await asyncio.to_thread(it._thread.join)
    lines = [(line["event"], line["number"]) for line in logged()]
    assert lines == [("refusals_waiting", 1), ("refusals_not_kept", 1)]
    assert kept(ledger) == []
    ledger.ledger.close()


# ------------------------------------------------------------------ a ledger that is away

_LOCK = """
db = sqlite3.connect(directory / "optoutd.db", isolation_level=None)
db.execute("BEGIN IMMEDIATE")
say("locked")
sys.stdin.readline()
db.execute("COMMIT")
say("open")
sys.stdin.readline()
"""


async def test_another_writer_blocks_nobody_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    monkeypatch.setattr(sqlite, "WRITE_SECONDS", 0.5)  # so that it is away, not only slow
    monkeypatch.setattr(register, "_LAST_DELAY", 0.4)
    ledger = books(tmp_path / "impatient")
    async with running(ledger) as it:
        with another(ledger, _LOCK) as other:
            await asyncio.to_thread(hear, other, "locked")
            longest, sent, end = 0.0, 0, time.monotonic() + 2.5
            while time.monotonic() < end:
                began = time.perf_counter()
                it.keep(refusal(sent))
                it.note("passed", 1, "crm", 0)
                longest = max(longest, time.perf_counter() - began)
                sent += 1
                await asyncio.sleep(0.005)
            assert kept(ledger) == []
            tell(other)
            await asyncio.to_thread(hear, other, "open")
            await until(lambda: len(kept(ledger)) == sent)
    assert longest < 0.25, "a commit that waits would have taken half a second"
    assert kept(ledger) == list(range(sent))
    assert counted(ledger) == {"refused": sent, "passed": sent}
    assert [line["event"] for line in logged()] == ["refusals_waiting"], "once, not at every attempt"
    ledger.ledger.close()


async def test_a_database_that_is_gone_and_comes_back(
    ledger: Books, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    monkeypatch.setattr(register, "_LAST_DELAY", 0.1)
    ledger.ledger.close()
    path, aside = ledger.ledger.path, ledger.ledger.path.with_name("aside")
    async with running(ledger) as it:
        path.rename(aside)
        it.keep(refusal(1))
        await asyncio.sleep(0.3)
        it.keep(refusal(2))
        aside.rename(path)
        await until(lambda: kept(ledger) == [1, 2] and not it._held)  # the writer, too, has seen that it is committed
        path.rename(aside)
        it.keep(refusal(3))
        await asyncio.sleep(0.3)
        aside.rename(path)
    assert kept(ledger) == [1, 2, 3]
    assert [line["event"] for line in logged()] == ["refusals_waiting"] * 2, "a second outage is told again"


async def test_memory_is_bounded_and_the_counts_stay_true(
    ledger: Books, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    monkeypatch.setattr(register, "_LAST_DELAY", 0.1)
    ledger.ledger.close()
    path, aside = ledger.ledger.path, ledger.ledger.path.with_name("aside")
    async with running(ledger, most=100) as it:
        path.rename(aside)
        for n in range(250):
            it.keep(refusal(n))
            if n == 50:
                await asyncio.sleep(0.3)  # some wait with the thread, some before it
        assert len(it._held) + len(it._fresh) == 100
        aside.rename(path)
        await until(lambda: len(kept(ledger)) == 100)
        it.keep(refusal(1000))
    assert kept(ledger) == [*range(100), 1000], "the newest go; afterwards there is room again"
    assert counted(ledger) == {"refused": 251}
    lines = logged()
    assert sum(line["number"] for line in lines if line["event"] == "refusals_not_kept") == 150


async def test_a_bug_ends_neither_the_thread_nor_what_comes_after(
    ledger: Books, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    async with running(ledger) as it:
        it.keep(refusal(at=NOW.replace(tzinfo=None)))  # a naive time is a bug of ours
        await asyncio.sleep(0.2)
        it.keep(refusal(8))
        await until(lambda: kept(ledger) == [8])
    assert [line["event"] for line in logged()] == ["failed", "refusals_not_kept"]


# ------------------------------------------------------------------ killed

_RELAY = """
from datetime import UTC, datetime
from daemon.register import Register
from storage.refusals import Refusal
it = Register(open_again().ledger, lambda: datetime.now(UTC))
it.start()
say("begun")
for n in range(1_000_000):
    it.keep(Refusal(datetime.now(UTC), "refused", bytes(16), 1, 2, "crm", "<1@crm.example>", n))
    say(f"{n} {time.monotonic()}")
    time.sleep(0.002)
"""


def test_a_kill_loses_the_last_second_of_the_report_and_nothing_else(ledger: Books) -> None:
    ledger.suppress("ann@example.com")
    with another(ledger, _RELAY) as relay:
        hear(relay, "begun")
        assert relay.stdout
        heard = []
        began = time.monotonic()
        while time.monotonic() - began < 3.7:
            heard.append(relay.stdout.readline())
        relay.kill()
        killed = time.monotonic()
        heard += relay.stdout.readlines()
    noted = {int(n): float(at) for n, at in (m.groups() for m in map(_LINE.fullmatch, heard) if m)}
    there = kept(ledger)
    assert there == list(range(len(there)))
    last = max(at for n, at in noted.items() if n < len(there))
    assert killed - last < 2, "a second, and the time of a commit on a busy machine"
    assert counted(ledger) == {"refused": len(there)}, "the counts are of the same commit"
    with closing(sqlite3.connect(ledger.ledger.path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with write(ledger.ledger, NOW, "test") as w:
        refusals.record(w, [refusal()], {})
    with ledger.ledger.reading() as db:
        assert audit.verify(db, ledger.ledger.site_key).seq == 1


_LINE = re.compile(r"(\d+) ([\d.]+)\n")
