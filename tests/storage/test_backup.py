"""A backup is whole or not there, and nobody waits for it."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event

from storage import backup
from storage.address import parse
from storage.engine import Ledger, Unusable
from storage.sqlite import File
from storage.write import write
from tests.ledgers import Books, books

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.fixture
def ledger(in_file: Books) -> Books:
    """Backups of a list in PostgreSQL are in test_postgres_backup.py."""
    return in_file


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    where = tmp_path / "copies"
    where.mkdir()
    return where


def count(path: Path) -> int:
    with backup.opened(path) as db:
        return int(db.exec_driver_sql("SELECT count(*) FROM suppression").scalar_one())


# ------------------------------------------------------------------ taking one


def test_a_backup_is_a_ledger_of_its_own_and_knows_its_moment(ledger: Books, copies: Path) -> None:
    ledger.suppress("ann@example.com")
    made = backup.take(ledger.ledger, copies / "a.db", NOW)
    assert (made.file, made.taken, made.suppressions, made.head.seq) == (copies / "a.db", NOW, 1, 1)
    assert made.octets == (copies / "a.db").stat().st_size
    assert [p.name for p in copies.iterdir()] == ["a.db"]
    assert backup.verify(copies / "a.db", ledger.ledger.site_key) == (made.head, 1)
    with backup.opened(copies / "a.db") as db:
        assert db.exec_driver_sql("SELECT value FROM meta WHERE name = 'taken'").scalar() == b"1777896000"
    assert [p.name for p in copies.iterdir()] == ["a.db"], "looking at it makes nothing beside it"


def test_opt_outs_and_lookups_go_on_in_the_middle_of_it_and_it_is_of_one_moment(ledger: Books, copies: Path) -> None:
    for n in range(200):
        ledger.suppress(f"a{n}@example.com")
    second, lookup, done = Ledger(File(ledger.ledger.path), ledger.ledger.site_key), ledger.lookup(), list[bool]()

    def in_the_middle() -> int:
        if not done:
            done.append(True)
            Books(second, ledger.numbers).suppress("late@example.com")
            assert len(lookup.rows(parse("late@example.com"))) == 1
        return 0

    ledger.ledger.close()
    event.listen(ledger.ledger.store.engine, "connect", lambda db, _: db.set_progress_handler(in_the_middle, 2000))
    made = backup.take(ledger.ledger, copies / "a.db", NOW)
    assert done == [True]
    assert made.suppressions == count(copies / "a.db") == 200
    second.close()


def test_what_was_deleted_is_not_in_it(ledger: Books, copies: Path) -> None:
    ledger.suppress("erased-person@example.com")
    with write(ledger.ledger, NOW, "test") as w:
        w.db.exec_driver_sql("DELETE FROM person")
        w.db.exec_driver_sql("UPDATE evidence SET salt = NULL, detail = NULL")
    backup.take(ledger.ledger, copies / "a.db", NOW)
    assert b"erased-person" not in (copies / "a.db").read_bytes()


def test_a_name_that_is_taken_is_left_alone(ledger: Books, copies: Path) -> None:
    (copies / "a.db").write_text("mine")
    with pytest.raises(FileExistsError):
        backup.take(ledger.ledger, copies / "a.db", NOW)
    assert (copies / "a.db").read_text() == "mine"


def test_not_even_when_it_is_taken_at_the_last_moment(
    ledger: Books, copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = backup._settle

    def late(part: Path, dest: Path) -> None:
        dest.write_text("mine")
        real(part, dest)

    monkeypatch.setattr(backup, "_settle", late)
    with pytest.raises(FileExistsError):
        backup.take(ledger.ledger, copies / "a.db", NOW)
    assert [(p.name, p.read_text()) for p in copies.iterdir()] == [("a.db", "mine")]


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def torn(path: Path, *_: object) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


@pytest.mark.parametrize(
    ("step", "failure", "error"),
    [("_stamp", full, backup.NotWritten), ("_settle", full, backup.NotWritten), ("_stamp", torn, backup.Damaged)],
)
def test_a_failure_on_the_way_leaves_nothing(
    ledger: Books,
    copies: Path,
    step: str,
    failure: Callable[..., None],
    error: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for n in range(30):
        ledger.suppress(f"a{n}@example.com")
    monkeypatch.setattr(backup, step, failure)
    with pytest.raises(error) as told:
        backup.take(ledger.ledger, copies / "a.db", NOW)
    assert list(copies.iterdir()) == []
    assert getattr(told.value, "full", True) is True


# ------------------------------------------------------------------ looking at one


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'somebody else' WHERE seq = 2",
        "DELETE FROM audit WHERE seq = 3",
        "DELETE FROM audit WHERE seq = 1",
        "DELETE FROM meta WHERE name = 'head'",
        "DELETE FROM meta WHERE name = 'check'",
        "DROP TABLE suppression",
    ],
)
def test_what_was_changed_in_it_is_found(ledger: Books, copies: Path, statement: str) -> None:
    for name in ("ann", "bob", "cem"):
        ledger.suppress(f"{name}@example.com")
    backup.take(ledger.ledger, copies / "a.db", NOW)
    with closing(sqlite3.connect(copies / "a.db")) as db:
        db.execute(statement)
        db.commit()
    with pytest.raises(backup.Damaged, match=r"a\.db: "):
        backup.verify(copies / "a.db", ledger.ledger.site_key)


def test_only_the_end_of_a_long_record_is_verified(
    ledger: Books, copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "_LAST_ROWS", 2)
    for name in ("ann", "bob", "cem", "dee"):
        ledger.suppress(f"{name}@example.com")
    backup.take(ledger.ledger, copies / "a.db", NOW)
    for seq, found in ((1, False), (3, True)):
        with closing(sqlite3.connect(copies / "a.db")) as db:
            db.execute("UPDATE audit SET actor = 'x' WHERE seq = ?", (seq,))
            db.commit()
        with backup.opened(copies / "a.db") as db2:
            if found:
                with pytest.raises(backup.Damaged, match="audit row 3"):
                    backup.verify_end(db2, ledger.ledger.site_key, copies)
            else:
                assert backup.verify_end(db2, ledger.ledger.site_key, copies).seq == 4


def test_another_key_is_told_as_such(ledger: Books, copies: Path, tmp_path: Path) -> None:
    backup.take(ledger.ledger, copies / "a.db", NOW)
    other = books(tmp_path / "other").ledger
    with pytest.raises(Unusable, match="the site key is not the one"):
        backup.verify(copies / "a.db", other.site_key)
    other.close()


@pytest.mark.parametrize("octets", [b"", b"garbled" * 999])
def test_a_file_that_is_none_is_damaged(ledger: Books, copies: Path, octets: bytes) -> None:
    (copies / "a.db").write_bytes(octets)
    with pytest.raises(backup.Damaged):
        backup.verify(copies / "a.db", ledger.ledger.site_key)


# ------------------------------------------------------------------ a directory of them


def test_names_are_the_moment_in_utc_and_sort_as_moments_do() -> None:
    assert backup.name(NOW) == "optoutd-20260504T120000Z.db"
    assert backup.stamp(Path("/x/optoutd-20260504T120000Z.db")) == "20260504T120000Z"
    assert [backup.stamp(Path(n)) for n in ("mine.db", "optoutd.db", "optoutd-20260504T120000Z.db.x")] == ["", "", ""]


@pytest.mark.parametrize(
    ("ages", "due"),
    [
        ([], True),
        ([61], True),
        ([60], True),
        ([59], False),
        ([0], False),
        ([300, 10], False),
        ([-10], True),
        ([-10, 61], True),
        ([-10, 10], False),
    ],
)
def test_one_is_due_when_the_last_is_an_hour_old_or_of_the_future(copies: Path, ages: list[int], due: bool) -> None:
    for minutes in ages:
        (copies / backup.name(NOW - timedelta(minutes=minutes))).touch()
    assert backup.is_due(copies, NOW) is due


def test_the_last_ones_are_kept_and_nothing_of_anybody_else_goes(copies: Path) -> None:
    names = [backup.name(NOW - timedelta(hours=n)) for n in range(50)]
    for name in (*names, "mine.db", "journal.log"):
        (copies / name).touch()
    assert [p.name for p in backup.prune(copies)] == sorted(names[:48])
    assert {p.name for p in copies.iterdir()} == {*names[:48], "mine.db", "journal.log"}


def test_what_a_killed_backup_left_goes_and_what_is_under_way_stays(copies: Path) -> None:
    left = copies / f".{backup.name(NOW)}.1.part"
    left.touch()
    with backup._part(copies / backup.name(NOW)) as part:
        backup.clear(copies)
        assert (left.exists(), part.exists()) == (False, True)
    assert list(copies.iterdir()) == []


def test_a_log_that_was_copied_with_a_database_belongs_to_it(ledger: Books, copies: Path) -> None:
    ledger.suppress("ann@example.com")
    for end in ("", "-wal"):
        octets = ledger.ledger.path.with_name("optoutd.db" + end).read_bytes()
        (copies / f"raw.db{end}").write_bytes(octets)
    assert (copies / "raw.db-wal").stat().st_size > 0
    assert count(copies / "raw.db") == 1
