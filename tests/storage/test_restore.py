"""Restoring: the old state or the new one, at whatever moment it is killed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daemon.gate import Pass, Refused
from storage import audit, backup, deferral, hashes, journal, restoring
from storage.address import SiteKey, parse
from storage.engine import REVISION, Ledger, Unavailable, Unusable
from storage.journal import Journal
from storage.sqlite import File, open_ledger
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import LISTS, Books, books, bring

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def ledger(in_file: Books) -> Books:
    """Backups of a list in PostgreSQL are in test_postgres_backup.py."""
    return in_file


@pytest.fixture
def kept(ledger: Books) -> Books:
    """A ledger with a journal, and ann and bob in a backup."""
    ledger.ledger.journal = Journal(home(ledger) / "kept" / "journal.log", ledger.ledger.site_key)
    ledger.suppress("ann@example.com")
    ledger.suppress("bob@example.com")
    backup.take(ledger.ledger, home(ledger) / "a.db", datetime.now(UTC))
    return ledger


def home(it: Books) -> Path:
    return it.ledger.path.parent


def lose(it: Books) -> None:
    it.ledger.close()
    for path in home(it).glob("optoutd.db*"):
        path.unlink()


def restored(it: Books, *, defer: bool = False) -> restoring.Restored:
    where = home(it)
    key = it.ledger.site_key
    return restoring.restore(where / "a.db", it.ledger.path, key, where / "kept", NOW, "test", defer=defer)


def rows(it: Books) -> set[tuple[bytes, int, int, int]]:
    with it.ledger.connect() as db:
        found = db.exec_driver_sql("SELECT key, scope, reason, since FROM suppression")
        return {(bytes(r[0]), r[1], r[2], r[3]) for r in found}


def verified(it: Books) -> audit.Head:
    with it.ledger.reading() as db:
        return audit.verify(db, it.ledger.site_key)


# ------------------------------------------------------------------ what comes back


def test_backup_and_journal_are_the_ledger_that_was_lost(kept: Books) -> None:
    kept.lift("bob@example.com")
    kept.suppress("cem@example.com", "offers", Reason.COMPLAINT)
    kept.suppress("dee@example.com", reason=Reason.SOFT_BOUNCE)
    kept.lift("dee@example.com")
    before, last = rows(kept), verified(kept)
    lose(kept)
    found = restored(kept)
    again = books(home(kept))
    assert rows(again) == before
    assert (found.lines, found.added, found.ended, found.whole) == (4, 1, 1, True)
    assert verified(again).seq > 2
    assert last.seq == 6
    with again.ledger.connect() as db:
        events = db.exec_driver_sql("SELECT event, evidence FROM audit WHERE seq > 2 ORDER BY seq").all()
        assert [e for e, _ in events] == ["restored", "restored", "lifted"]
        assert len({number for event, number in events if event == "restored"}) == 1
    again.ledger.close()


def test_what_somebody_wrote_after_a_lift_of_the_journal_still_counts(kept: Books) -> None:
    """The journal does not say when a lift was wished; read at the restore, it must not outdate the mail that is replayed."""
    kept.lift("bob@example.com")
    lose(kept)
    restored(kept)
    again = books(home(kept))
    assert again.gate().may(parse("bob@example.com")) == Pass()
    assert again.suppress("bob@example.com", since=NOW - timedelta(hours=1)).outcome == "new"
    again.ledger.close()


def test_a_list_of_hashes_that_came_after_the_backup_is_asked_for(kept: Books) -> None:
    key = hashlib.sha256(b"zed@example.com").digest()[:16]
    hashes.announce(kept.ledger, "sha256", NOW, "test", lambda _: None)
    with write(kept.ledger, NOW, "test") as w:
        bring(w, [(key, ALL, int(Reason.OPT_OUT), 1)], "import", {"file": "h.txt"})
    lose(kept)
    restored(kept)
    again = books(home(kept))
    assert isinstance(again.gate().may(parse("zed@example.com")), Refused)
    verified(again)
    again.ledger.close()


def test_twice_lost_is_twice_restored_from_the_same_backup(kept: Books) -> None:
    """After the first restore audit numbers are given a second time; the journal keeps the two apart."""
    for n in range(5):
        kept.suppress(f"a{n}@example.com")
    lose(kept)
    restored(kept)
    again = books(home(kept))
    again.ledger.journal = kept.ledger.journal
    again.lift("a3@example.com")
    again.suppress("late@example.com")
    before = rows(again)
    lose(again)
    found = restored(again)
    third = books(home(kept))
    assert (rows(third), found.whole) == (before, True)
    verified(third)
    third.ledger.close()


def test_a_list_that_is_younger_than_the_backup_gets_the_number_that_its_links_carry(kept: Books) -> None:
    with write(kept.ledger, NOW, "test") as w:
        w.db.exec_driver_sql("INSERT INTO list_number (number, id) VALUES (17, 'offers-2027')")
    kept.numbers["offers-2027"] = 17
    kept.suppress("cem@example.com", "offers-2027")
    lose(kept)
    restored(kept)
    again = books(home(kept))
    with again.ledger.connect() as db:
        assert db.exec_driver_sql("SELECT number FROM list_number WHERE id = 'offers-2027'").scalar() == 17
    assert [r.scope for r in again.lookup().rows(parse("cem@example.com"))] == [17]
    assert again.numbers.keys() >= LISTS.keys()
    again.ledger.close()


def test_whoever_was_erased_after_the_backup_stays_erased(kept: Books) -> None:
    key, other = (kept.ledger.site_key.address_key(f"ann{tag}@example.com") for tag in ("", "+x"))
    with write(kept.ledger, NOW, "test") as w:
        w.db.exec_driver_sql("DELETE FROM person WHERE key = ?", (key,))
        w.audit("erased", key=key)
        w.erased([key, other])
    lose(kept)
    assert restored(kept).erased == 2
    assert b"ann@example.com" not in kept.ledger.path.read_bytes()
    again = books(home(kept))
    with again.ledger.connect() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM forgotten WHERE key = ?", (key,)).scalar() == 1
    assert len(again.lookup().rows(parse("ann@example.com"))) == 1
    verified(again)
    again.ledger.close()


def test_more_rows_than_a_transaction_takes(kept: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "_AT_ONCE", 3)
    for n in range(10):
        kept.suppress(f"a{n}@example.com")
    before = rows(kept)
    lose(kept)
    assert restored(kept).added == 10
    again = books(home(kept))
    assert rows(again) == before
    verified(again)
    again.ledger.close()


def test_without_a_journal_the_gap_begins_with_the_backup(kept: Books) -> None:
    kept.suppress("cem@example.com")
    lose(kept)
    shutil.rmtree(home(kept) / "kept")
    found = restored(kept, defer=True)
    assert (found.uncovered, found.lines, found.deferred) == (found.taken, 0, True)
    again = books(home(kept))
    with pytest.raises(Unavailable, match="not replayed yet"):
        again.lookup().rows(parse("ann@example.com"))
    with again.ledger.connect() as db:
        gap = deferral.deferred(db)
    assert gap == deferral.Deferred(found.taken, frozenset())
    again.suppress("cem@example.com")  # whoever writes goes on
    lookup = again.lookup()
    with write(again.ledger, NOW, "test") as w:
        assert deferral.end(w, "test")
        assert not deferral.end(w, "test")
    assert len(lookup.rows(parse("cem@example.com"))) == 1
    verified(again)
    again.ledger.close()


def test_a_backup_of_an_older_schema_is_brought_up_to_date(kept: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    with backup.opened(home(kept) / "a.db", writable=True) as db:
        db.exec_driver_sql("UPDATE alembic_version SET version_num = '0003'")
    lose(kept)

    def migrated(path: Path, _key: SiteKey) -> tuple[str, str]:
        with backup.opened(path, writable=True) as db:
            db.exec_driver_sql("UPDATE alembic_version SET version_num = ?", (REVISION,))
        return "0003", REVISION

    monkeypatch.setattr(restoring, "migrate", migrated)
    restored(kept)
    again = books(home(kept))
    assert len(rows(again)) == 2
    again.ledger.close()


def test_a_backup_of_a_newer_version_is_left_to_that(kept: Books) -> None:
    with backup.opened(home(kept) / "a.db", writable=True) as db:
        db.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    lose(kept)
    with pytest.raises(Unusable, match="newer version"):
        restored(kept)
    assert not kept.ledger.path.exists()


def test_a_copy_that_somebody_made_of_the_files_is_a_backup_too(kept: Books) -> None:
    kept.suppress("cem@example.com")
    (home(kept) / "a.db").unlink()
    for end in ("", "-wal"):
        shutil.copy(f"{kept.ledger.path}{end}", home(kept) / f"a.db{end}")
    before = rows(kept)
    lose(kept)
    shutil.rmtree(home(kept) / "kept")
    restored(kept)
    again = books(home(kept))
    assert rows(again) == before
    again.ledger.close()


# ------------------------------------------------------------------ kill -9

KILLED = """
import os, signal, shutil, sys
from datetime import UTC, datetime
from pathlib import Path
from storage import restoring
from storage.engine import read_site_key
template, into = Path(sys.argv[1]), Path(sys.argv[2])
WATCHED = ("os.", "open", "shutil.", "sqlite3.", "fcntl.")

def run(where, limit):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if limit is not None and event.startswith(WATCHED):
            seen += 1
            if seen == limit:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    restoring.restore(where / "a.db", where / "optoutd.db", read_site_key(where / "site.key"), where / "kept",
                      datetime(2026, 5, 4, 12, tzinfo=UTC), "test", force=True)

limit = 1
while True:
    where = into / str(limit)
    shutil.copytree(template, where)
    child = os.fork()
    if child == 0:
        run(where, limit)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    limit += int(sys.argv[3])
print(limit)
"""


def test_killed_at_any_point_it_is_the_old_state_or_the_new_one(kept: Books, tmp_path: Path) -> None:
    kept.lift("bob@example.com")
    kept.ledger.journal = None
    kept.suppress("only-old@example.com")  # not in the journal, and in the log of the database
    old = rows(kept)
    template = tmp_path / "template"
    shutil.copytree(home(kept), template)  # as a crash leaves it: with its log
    assert (template / "optoutd.db-wal").stat().st_size > 0
    command = [sys.executable, "-c", KILLED, str(template), str(tmp_path / "runs"), "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    states = {"old": 0, "new": 0}
    for where in sorted((tmp_path / "runs").iterdir()):
        ledger = open_ledger(where / "optoutd.db", where / "site.key")
        it = Books(ledger, {})
        verified(it)
        with ledger.connect() as db:
            state = "new" if journal.epoch_of(db) == 2 else "old"
        states[state] += 1
        expected = old if state == "old" else {r for r in old if r[0] == ledger.site_key.address_key("ann@example.com")}
        assert rows(it) == expected, where.name
        ledger.close()
        # and it can be done again
        key = ledger.site_key
        if state == "old":
            restoring.restore(where / "a.db", where / "optoutd.db", key, where / "kept", NOW, "test", force=True)
            assert not list(where.glob("*.restoring*"))
            again = Ledger(File(where / "optoutd.db"), key)
            assert len(rows(Books(again, {}))) == 1
            again.close()
    assert states["old"] > 10, states
    assert states["new"] > 0, states
