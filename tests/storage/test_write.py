"""A writing transaction: all of it on disk when the block ends, or nothing of it; beside other processes, and killed."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storage import audit, engine, suppressions
from storage.address import parse
from storage.engine import Unavailable
from storage.terms import ALL, Reason
from storage.write import Write, write
from tests.ledgers import IN_A_FILE, Books, books
from tests.storage.another import another, hear, tell

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def counts(it: Books) -> dict[str, int]:
    tables = ("suppression", "evidence", "audit", "person")
    with it.ledger.connect() as db:
        return {t: db.exec_driver_sql(f"SELECT count(*) FROM {t}").scalar_one() for t in tables}


def verified(it: Books) -> audit.Head:
    with it.ledger.reading() as db:
        return audit.verify(db, it.ledger.site_key)


def add_ann_and(it: Books, then: Callable[[Write], object]) -> None:
    """A transaction that suppresses somebody, and then..."""
    with write(it.ledger, NOW, "test") as w:
        suppressions.add(w, parse("ann@example.com"), ALL, Reason.OPT_OUT, "mail", {})
        then(w)


def holding_the_lock(seconds: float) -> str:
    """Another process in the middle of a writing transaction."""
    return f"""
db = sqlite3.connect(directory / "optoutd.db", isolation_level=None)
db.execute("BEGIN IMMEDIATE")
db.execute("INSERT INTO job_run VALUES ('other', 1)")
say("holding")
time.sleep({seconds})
db.execute("ROLLBACK")
db.close()
say("released")
input()
"""


# ------------------------------------------------------------------ all or nothing


def test_an_exception_undoes_all_of_it_and_nothing_is_said(ledger: Books) -> None:
    before, said = counts(ledger), list[str]()

    def interrupted(w: Write) -> None:
        w.after_commit(lambda: said.append("recorded"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_ann_and(ledger, interrupted)
    assert counts(ledger) == before
    assert said == []
    assert ledger.suppress("ann@example.com").outcome == "new"


def test_what_is_said_is_said_after_the_commit(ledger: Books) -> None:
    said = []
    with write(ledger.ledger, NOW, "test") as w:
        suppressions.add(w, parse("ann@example.com"), ALL, Reason.OPT_OUT, "mail", {})
        w.after_commit(lambda: said.append(len(ledger.lookup().rows(parse("ann@example.com")))))
        assert said == []
    assert said == [1]


@IN_A_FILE
def test_an_error_of_the_database_in_the_middle_undoes_all_of_it(ledger: Books) -> None:
    before = counts(ledger)
    with pytest.raises(Unavailable, match="no such table"):
        add_ann_and(ledger, lambda w: w.db.exec_driver_sql("INSERT INTO nowhere VALUES (1)"))
    assert counts(ledger) == before


def test_rows_cannot_change_without_an_audit_row(ledger: Books) -> None:
    before = counts(ledger)
    with pytest.raises(AssertionError, match="without an audit row"), write(ledger.ledger, NOW, "test") as w:
        w.rows_added([(bytes(16), ALL, int(Reason.OPT_OUT), 0, 0)])
    assert counts(ledger) == before


def test_a_naive_clock_is_refused(ledger: Books) -> None:
    with (
        pytest.raises(ValueError, match="without a time zone"),
        write(ledger.ledger, NOW.replace(tzinfo=None), "t") as w,
    ):
        suppressions.add(w, parse("ann@example.com"), ALL, Reason.OPT_OUT, "mail", {})


def test_every_audit_row_says_when_and_who(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "cli root") as w:
        suppressions.add(w, parse("ann@example.com"), ALL, Reason.OPT_OUT, "mail", {})
    with ledger.ledger.connect() as db:
        row = db.exec_driver_sql("SELECT at, actor, event FROM audit").one()
    assert tuple(row) == (int(NOW.timestamp()), "cli root", "suppressed")


def test_a_job_is_noted_once(ledger: Books) -> None:
    for second in (1, 2):
        with write(ledger.ledger, NOW.replace(second=second), "job") as w:
            w.job_ran("expire")
    with ledger.ledger.connect() as db:
        rows = db.exec_driver_sql("SELECT name, at FROM job_run").all()
    assert [tuple(r) for r in rows] == [("expire", int(NOW.timestamp()) + 2)]


# ------------------------------------------------------------------ beside others


def test_two_processes_and_two_threads_write_at_once(ledger: Books) -> None:
    script = """
it = open_again()
say("ready")
input()
for n in range(100):
    it.suppress(f"{sys.argv[0]}{n}@other.example")
say("done")
input()
"""
    with another(ledger, script) as one, another(ledger, script.replace("other.example", "third.example")) as two:
        hear(one, "ready")
        hear(two, "ready")
        tell(one)
        tell(two)
        threads = [
            threading.Thread(target=lambda t=t: [ledger.suppress(f"{t}-{n}@example.com") for n in range(50)])
            for t in "ab"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        hear(one, "done")
        hear(two, "done")
    assert counts(ledger)["suppression"] == 300
    assert verified(ledger).seq == 300


@IN_A_FILE
def test_a_short_lock_is_waited_for(ledger: Books) -> None:
    with another(ledger, holding_the_lock(1)) as other:
        hear(other, "holding")
        assert ledger.suppress("ann@example.com").outcome == "new"


@IN_A_FILE
def test_a_lock_held_for_long_is_doubt_within_six_seconds_and_heals(ledger: Books) -> None:
    with another(ledger, holding_the_lock(60)) as other:
        hear(other, "holding")
        began = time.monotonic()
        with pytest.raises(Unavailable, match="locked"):
            ledger.suppress("ann@example.com")
        assert 4.5 < time.monotonic() - began < 6.5
    assert ledger.suppress("ann@example.com").outcome == "new"


def test_a_thread_that_writes_for_long_is_doubt_too(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.write.WRITE_SECONDS", 0.2)
    ledger.ledger.writer.acquire()
    with pytest.raises(Unavailable, match="another thread"):
        ledger.suppress("ann@example.com")
    ledger.ledger.writer.release()
    assert ledger.suppress("ann@example.com").outcome == "new"


@IN_A_FILE
def test_readers_do_not_wait_for_a_writer(ledger: Books) -> None:
    """A writer's lock delays no RCPT."""
    ledger.suppress("ann@example.com")
    lookup = ledger.lookup()
    with another(ledger, holding_the_lock(60)) as other:
        hear(other, "holding")
        took = []
        for _ in range(200):
            began = time.perf_counter()
            assert len(lookup.rows(parse("ann@example.com"))) == 1
            assert lookup.rows(parse("bob@example.com")) == []
            took.append(time.perf_counter() - began)
    assert sorted(took)[100] < 0.01
    assert max(took) < 0.25
    lookup.close()


def test_a_reader_sees_nothing_of_a_transaction_before_its_end(ledger: Books) -> None:
    lookup = ledger.lookup()
    with write(ledger.ledger, NOW, "test") as w:
        suppressions.add(w, parse("ann@example.com"), ALL, Reason.OPT_OUT, "mail", {})
        assert lookup.rows(parse("ann@example.com")) == []
    assert len(lookup.rows(parse("ann@example.com"))) == 1
    lookup.close()


# ------------------------------------------------------------------ killed, and out of space


def test_what_was_acknowledged_before_a_kill_is_there(ledger: Books) -> None:
    script = """
it = open_again()
for n in range(100_000):
    it.suppress(f"person{n}@example.com")
    say(n)
"""
    for _ in range(4):
        with another(ledger, script.replace("person", f"p{time.monotonic_ns()}-")) as other:
            assert other.stdout
            acknowledged = -1
            for line in other.stdout:
                acknowledged = int(line)
                if acknowledged >= 20:
                    break
            other.kill()
            acknowledged = max([acknowledged, *(int(x) for x in other.stdout.read().split("\n")[:-1] if x)])
        lookup, prefix = ledger.lookup(), _prefix(other)
        assert all(lookup.rows(parse(f"{prefix}{n}@example.com")) for n in range(acknowledged + 1))
        lookup.close()
        head = verified(ledger)
        assert head.seq == counts(ledger)["suppression"]


def _prefix(process: subprocess.Popen[str]) -> str:
    assert isinstance(process.args, list)
    return str(process.args[2]).partition('f"')[2].partition("{")[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "small"
    directory.mkdir()
    mounted = (
        os.geteuid() == 0
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)], capture_output=True
        ).returncode
        == 0
    )
    if not mounted:
        pytest.skip("cannot mount a small file system here")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def test_a_full_disk_is_doubt_writes_no_half_and_heals(small_disk: Path) -> None:
    it = books(small_disk / "ledger")
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            for size in (65536, 4096, 512):
                while file.write(bytes(size)) == size:
                    pass
        except OSError:
            pass
    done = list[int]()

    def fill() -> None:
        for n in range(10_000):
            it.suppress(f"person{n}@example.com")
            done.append(n)

    with pytest.raises(Unavailable, match=r"full|disk I/O"):
        fill()
    stood = len(done)
    lookup = it.lookup()
    assert all(lookup.rows(parse(f"person{n}@example.com")) for n in range(stood))
    assert lookup.rows(parse(f"person{stood}@example.com")) == []
    ballast.unlink()
    assert verified(it).seq == stood
    assert it.suppress(f"person{stood}@example.com").outcome == "new"
    assert verified(it).seq == stood + 1
    lookup.close()
    it.ledger.close()


@IN_A_FILE
def test_a_full_database_is_doubt_and_heals(ledger: Books) -> None:
    """The same without root: SQLite is told that the file may not grow."""
    before = counts(ledger)

    def fill(w: Write) -> None:
        pages = w.db.exec_driver_sql("PRAGMA page_count").scalar_one()
        w.db.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        for n in range(10_000):
            suppressions.add(w, parse(f"person{n}@example.com"), ALL, Reason.OPT_OUT, "mail", {})

    with pytest.raises(Unavailable, match="full"):
        add_ann_and(ledger, fill)
    assert counts(ledger) == before
    ledger.ledger.store.engine.dispose()
    assert ledger.suppress("bob@example.com").outcome == "new"
    verified(ledger)


@IN_A_FILE
def test_what_is_committed_is_synchronised_to_disk(ledger: Books) -> None:
    with ledger.ledger.connect() as db:
        assert db.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert db.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    assert engine.WRITE_SECONDS == 5
