"""Site key, database, record, backups, clock: what is wrong with them is named, and nothing is changed."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daemon.doctor import clock as of_clock
from daemon.doctor import ledger as of_ledger
from storage import backup, deferral
from storage.write import write
from tests.doctor.patient import HOUSE, Patient, failures
from tests.scenarios.test_disk_full import fill
from tests.servers import Postgres

BACKUPS = '\n[storage]\nbackup_dir = "backups"\n'


def everything(directory: Path) -> dict[str, bytes]:
    """All that lies there, but for what SQLite keeps beside an open file."""
    files = (p for p in directory.rglob("*") if p.is_file() and not p.name.endswith(("-wal", "-shm")))
    return {str(p): p.read_bytes() for p in files}


@pytest.fixture
def well(patient: Patient) -> Patient:
    """With somebody on the list."""
    books = patient.books()
    books.suppress("ann@example.com")
    books.close()
    return patient


# ------------------------------------------------------------------ all well


def test_a_ledger_that_is_well(well: Patient) -> None:
    lines = well.told("site key")
    assert [x.partition(":")[0] for x in lines] == ["ok site key", "ok database", "ok audit chain"]
    assert "site.key: 1 key, the database's; is a copy of it kept apart" in lines[0]
    assert "optoutd.db: 1 suppression, schema " in lines[1]
    assert "whole up to row 1" in lines[2]


def test_nothing_is_changed(well: Patient) -> None:
    before = everything(well.directory)
    well.told("site key")
    assert {k: v for k, v in everything(well.directory).items() if not k.endswith(".toml")} == before


def test_with_probe_a_row_is_written(well: Patient) -> None:
    assert "ok database: a row was written (job_run `doctor`)" in well.told("site key", traces=True)
    with closing(sqlite3.connect(well.directory / "optoutd.db")) as db:
        assert db.execute("SELECT count(*) FROM job_run WHERE name = 'doctor'").fetchone() == (1,)


# ------------------------------------------------------------------ key and database


def test_before_the_first_start(patient: Patient) -> None:
    (line,) = patient.told("site key")
    assert line.startswith("warn database: neither ")
    assert "is the disk mounted that has them?" in line
    assert sorted(p.name for p in patient.directory.iterdir()) == ["optoutd.toml"]
    (line,) = patient.told("site key", "[storage]\ncreate = false")
    assert line.startswith("FAIL database: ")


def test_the_wrong_site_key(well: Patient) -> None:
    well.file("site.key", "ab" * 32 + "\n")
    (line,) = well.told("site key")
    assert line.startswith("FAIL site key: the site key is not the one this database was made with")
    assert "Never make a new one in its place" in line
    assert "ab" * 16 not in line


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda key: key.unlink(), "FAIL site key: site key "),
        (lambda key: key.chmod(0o644), "others can read it -> run: chmod 600 "),
        (lambda key: key.write_text("no key\n"), "must have one or more lines of 64 hex digits"),
    ],
    ids=["gone", "open", "garbled"],
)
def test_a_site_key_that_cannot_be_used(well: Patient, spoil: object, said: str) -> None:
    spoil(well.directory / "site.key")  # type: ignore[operator] # one of those above
    (line,) = well.told("site key")
    assert line.startswith("FAIL site key: ")
    assert said in line


def test_a_database_that_went_away(well: Patient) -> None:
    (well.directory / "optoutd.db").unlink()
    lines = well.told("site key")
    assert [x.partition(":")[0] for x in lines] == ["ok site key", "FAIL database"]
    assert "is gone, and its site key is there -> if it was moved, or its disk is not mounted" in lines[1]
    assert "Until then every recipient is answered 451" in lines[1]


def test_a_schema_of_another_version(well: Patient) -> None:
    for version, said in (
        ("0004", "-> run `optoutd migrate`"),
        ("9999", "-> it belongs to a newer version of optoutd"),
    ):
        with closing(sqlite3.connect(well.directory / "optoutd.db")) as db:
            db.execute("UPDATE alembic_version SET version_num = ?", (version,))
            db.execute("UPDATE meta SET value = ? WHERE name = 'needs'", (version.encode(),))
            db.commit()
        (failure,) = failures(well.told("site key"))
        assert f"the database schema is {version}, this version needs " in failure
        assert failure.endswith(said)


def test_a_garbled_database(well: Patient) -> None:
    (well.directory / "optoutd.db").write_bytes(b"this was a database once" * 1000)
    (failure,) = failures(well.told("site key"))
    assert failure.startswith("FAIL database: ")
    assert "not a database" in failure


def test_a_damaged_page(well: Patient) -> None:
    database = well.directory / "optoutd.db"
    with closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'person'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * 64)
    assert any("is damaged: " in x for x in failures(well.told("site key")))


def test_a_file_that_takes_too_long_is_no_failure(well: Patient) -> None:
    well.monkeypatch.setattr(of_ledger, "PAGES_SECONDS", 0.0)
    well.monkeypatch.setattr(of_ledger, "RECORD_SECONDS", -1.0)
    with closing(sqlite3.connect(well.directory / "optoutd.db")) as db:  # so many that there is a time to interrupt it
        rows = [(n.to_bytes(16, "big"), 0, 2, 0, 0) for n in range(400_000)]
        db.executemany("INSERT INTO suppression VALUES (?, ?, ?, ?, ?)", rows)
        db.commit()
    lines = well.told("site key")
    assert failures(lines) == []
    assert "not all of it was read within 0 s" in lines[1]


def test_a_database_that_is_held_by_another_program(well: Patient) -> None:
    well.monkeypatch.setattr("storage.sqlite.WRITE_SECONDS", 0.2)
    with closing(sqlite3.connect(well.directory / "optoutd.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        (failure,) = failures(well.told("site key"))
    assert "cannot be written: " in failure
    assert "does another program hold it?" in failure


def test_after_a_restore_with_a_gap(patient: Patient) -> None:
    books = patient.books()
    with write(books.ledger, datetime.now(UTC), "test") as w:
        deferral.begin(w, 1_700_000_000)
        w.audit("restored", source="operator", evidence=w.evidence(file="x"))
    books.close()
    (failure,) = failures(patient.told("site key"))
    assert "restored from a backup, with a gap since 2023-11-14 22:13 UTC" in failure
    assert "`optoutd restore --status`" in failure


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_database_that_root_has_made(well: Patient) -> None:
    os.chown(well.directory, 65534, 65534)
    os.chown(well.directory / "site.key", 65534, 65534)
    (failure,) = failures(well.told("site key"))
    assert "belongs to root, its directory to nobody" in failure
    assert "run: chown nobody " in failure


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    where = tmp_path / "small"
    where.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", where], capture_output=True)
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    yield where
    subprocess.run(["umount", where], check=True)


def test_a_full_disk(patient: Patient, small: Path) -> None:
    patient.directory = small
    patient.books().close()
    patient.file("optoutd.toml", HOUSE)
    with pytest.raises(OSError, match="No space left"):
        fill(small / "ballast")
    patient.monkeypatch.setattr(Patient, "file", lambda self, name, *_: self.directory / name)
    lines = failures(patient.told("site key"))
    assert any("the disk is full: 0 octets free" in x and "make room" in x for x in lines)
    assert lines[-1].endswith("-> make room first")  # nothing is to be restored for that


# ------------------------------------------------------------------ the record


def test_a_record_that_somebody_changed(well: Patient) -> None:
    with closing(sqlite3.connect(well.directory / "optoutd.db")) as db:
        db.execute("UPDATE audit SET actor = 'nobody' WHERE seq = 1")
        db.commit()
    (failure,) = failures(well.told("site key"))
    assert failure.startswith("FAIL audit chain: somebody changed the record, or the list, from outside: audit row 1")
    assert "keep a copy of this database" in failure


def test_a_record_that_was_not_verified_for_long(patient: Patient) -> None:
    books = patient.books()
    with write(books.ledger, datetime.now(UTC) - timedelta(days=5), "test") as w:
        w.job_ran("verify_audit")
    books.close()
    assert any("the whole record was last verified 5 days ago" in x for x in patient.told("site key"))


# ------------------------------------------------------------------ backups


@pytest.fixture
def backed(patient: Patient) -> Patient:
    """With a backup of now."""
    books = patient.books()
    books.suppress("ann@example.com")
    directory = patient.directory / "backups"
    directory.mkdir(mode=0o700)
    backup.take(books.ledger, directory / backup.name(datetime.now(UTC)), datetime.now(UTC))
    books.close()
    return patient


def newest(at: Patient) -> Path:
    return backup.kept(at.directory / "backups")[-1]


def test_a_backup_that_could_be_restored(backed: Patient) -> None:
    first, second = backed.told("backups", BACKUPS)
    assert first.startswith(f"ok backups: {newest(backed).name} could be restored")
    assert second.startswith("warn backups: they lie on the same file system as the database")


def test_no_backups(patient: Patient) -> None:
    (line,) = patient.told("backups")
    assert line.startswith("warn backups: there are none: storage.backup_dir is not set")
    (line,) = patient.told("backups", BACKUPS)
    assert "yet -> the daemon makes one within an hour" in line


def test_a_backup_that_could_not_be_restored(backed: Patient) -> None:
    newest(backed).write_bytes(b"x" * 5000)
    (failure,) = failures(backed.told("backups", BACKUPS))
    assert "the newest could not be restored: " in failure


def test_a_backup_under_another_key(backed: Patient) -> None:
    backed.file("site.key", "cd" * 32 + "\n")
    (failure,) = failures(backed.told("backups", BACKUPS))
    assert "the site key is not the one this database was made with" in failure


def test_an_old_backup(backed: Patient) -> None:
    at = newest(backed)
    at.rename(at.with_name(backup.name(datetime.now(UTC) - timedelta(hours=30))))
    assert any("warn backups: the newest is 30 hours old" in x for x in backed.told("backups", BACKUPS))


def test_backups_that_lie_open_and_beside_their_key(backed: Patient) -> None:
    (backed.directory / "backups").chmod(0o755)
    shutil.copy(backed.directory / "site.key", newest(backed).with_suffix(".key"))
    lines = backed.told("backups", BACKUPS)
    assert any("others can get at " in x for x in lines)
    assert any("a site key lies beside them" in x for x in lines)


# ------------------------------------------------------------------ the clock


@pytest.mark.parametrize(("kept", "said"), [(True, "kept by NTP"), (False, "UTC"), (None, "cannot be told here")])
def test_the_clock(patient: Patient, kept: bool | None, said: str) -> None:
    patient.monkeypatch.setattr(of_clock, "is_kept", lambda: kept)
    lines = patient.told("clock")
    assert said in lines[0]
    assert any("nothing keeps it" in x for x in lines) == (kept is False)


def test_the_kernel_can_be_asked() -> None:
    assert of_clock.is_kept() in (True, False, None)


@pytest.mark.parametrize("year", [1970, 2200])
def test_a_year_that_cannot_be(patient: Patient, year: int) -> None:
    patient.monkeypatch.setattr("daemon.opening.now", lambda: datetime(year, 5, 4, tzinfo=UTC))
    (failure,) = patient.told("clock")
    assert failure.startswith(f"FAIL clock: it says {year}-05-04 00:00 UTC")


def test_a_record_of_a_time_to_come(patient: Patient) -> None:
    books = patient.books()
    with write(books.ledger, datetime.now(UTC) + timedelta(days=1), "test") as w:
        w.audit("restored", source="operator", evidence=w.evidence(file="x"))
    books.close()
    (failure,) = failures(patient.told("site key"))
    assert failure.startswith("FAIL clock: it is ")


# ------------------------------------------------------------------ PostgreSQL


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    """Of an empty database."""
    database = postgres.new_database()
    yield postgres.url(database)
    postgres.drop(database)


@pytest.mark.postgres
def test_a_postgresql_that_is_well(patient: Patient, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    from daemon.cli import invoke

    on = f'\n[storage]\nurl = "{url}"\n'
    patient.file("site.key", "ab" * 32 + "\n")
    assert "FAIL database: the database has no schema yet -> run `optoutd migrate`" in patient.told("site key", on)
    (patient.directory / "site.key").unlink()
    patient.file("optoutd.toml", HOUSE + on)
    assert invoke(["-c", str(patient.directory / "optoutd.toml"), "migrate"]) == 0
    lines = patient.told("site key", on)
    assert failures(lines) == []
    assert "ok database: PostgreSQL " in lines[1]
    assert "in clear, " in lines[1]
    assert "ms a question: 0 suppressions" in lines[1]
    assert "ok daemon: no node runs" in patient.told("daemon", on)


@pytest.mark.postgres
def test_a_postgresql_that_is_away(patient: Patient) -> None:
    patient.file("site.key", "ab" * 32 + "\n")
    lines = patient.told("site key", '\n[storage]\nurl = "postgresql://optoutd@127.0.0.1:1/none"\n')
    (failure,) = failures(lines)
    assert failure.startswith("FAIL database: ")
    assert "refused" in failure
    assert "is PostgreSQL running" in failure


@pytest.mark.postgres
@pytest.mark.timeout(180)
def test_a_postgresql_that_hangs(patient: Patient, postgres: Postgres, url: str) -> None:
    from daemon.cli import invoke

    on = f'\n[storage]\nurl = "{url}"\n'
    patient.file("optoutd.toml", HOUSE + on)
    assert invoke(["-c", str(patient.directory / "optoutd.toml"), "migrate"]) == 0
    with postgres.frozen():
        began = time.monotonic()
        (failure,) = failures(patient.told("site key", on, seconds=2))
        assert time.monotonic() - began < 20
    assert failure.startswith("FAIL database: open the database: no answer within 2 s")


def test_findings_can_be_written_as_json(well: Patient) -> None:
    from dataclasses import asdict

    for finding in well.found("site key"):
        assert json.loads(json.dumps(asdict(finding)))["part"] in ("site key", "database", "audit chain")
