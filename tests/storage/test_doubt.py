"""The database is taken away, replaced or garbled while it is open: doubt, and never an old snapshot."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storage.address import parse
from storage.engine import Ledger, Unavailable, Unusable
from storage.lookup import Lookup
from storage.sqlite import File, open_ledger
from storage.write import write
from tests.ledgers import Books, books

CLEAR, SUPPRESSED = parse("clear@example.com"), parse("ann@example.com")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Books]:
    """A ledger with enough in it to fill some pages, all written back into the one file; opened by nobody."""
    it = books(tmp_path / "ledger")
    for n in range(40):
        it.suppress(f"somebody{n}@example.com")
    it.suppress(str(SUPPRESSED))
    it.ledger.close()
    yield it
    it.ledger.close()


@pytest.fixture
def saved(ledger: Books, tmp_path: Path) -> Path:
    """A copy of the right file."""
    return Path(shutil.copy(ledger.ledger.path, tmp_path / "saved.db"))


def remove(path: Path, tmp_path: Path) -> None:
    path.rename(tmp_path / "away.db")


def empty(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"")


def cut_in_half(path: Path, tmp_path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def garble(path: Path, tmp_path: Path) -> None:
    """Every page overwritten in place: same inode, same size."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(b"\xa5" * size)


def garble_behind_the_header(path: Path, tmp_path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def put_text_there(path: Path, tmp_path: Path) -> None:
    path.unlink()
    path.write_text("this is no database\n" * 1000)


def put_an_empty_file_there(path: Path, tmp_path: Path) -> None:
    path.unlink()
    path.touch()


DISASTERS = [
    remove,
    empty,
    cut_in_half,
    garble,
    garble_behind_the_header,
    put_text_there,
    put_an_empty_file_there,
]
disasters = pytest.mark.parametrize("disaster", DISASTERS, ids=lambda d: d.__name__)


def put_back(saved: Path, path: Path) -> None:
    for beside in ("-wal", "-shm"):
        path.with_name(path.name + beside).unlink(missing_ok=True)
    shutil.copy(saved, path.with_name("restored"))
    path.with_name("restored").rename(path)


@disasters
def test_a_lookup_is_in_doubt_about_everybody_and_heals(
    ledger: Books, saved: Path, tmp_path: Path, disaster: Callable[[Path, Path], None]
) -> None:
    lookup = ledger.lookup()
    assert lookup.rows(CLEAR) == []
    assert len(lookup.rows(SUPPRESSED)) == 1
    disaster(ledger.ledger.path, tmp_path)
    for who in (CLEAR, SUPPRESSED, CLEAR):
        with pytest.raises(Unavailable):
            lookup.rows(who)
    with pytest.raises(Unavailable):
        lookup.rows_of_all([CLEAR, SUPPRESSED])
    put_back(saved, ledger.ledger.path)
    assert lookup.rows(CLEAR) == []
    assert len(lookup.rows(SUPPRESSED)) == 1
    lookup.close()


@disasters
def test_an_open_ledger_neither_reads_nor_writes_and_heals(
    ledger: Books, saved: Path, tmp_path: Path, disaster: Callable[[Path, Path], None]
) -> None:
    it = open_ledger(ledger.ledger.path, ledger.ledger.path.with_name("site.key"))
    count = "SELECT count(*) FROM suppression"
    with it.connect() as db:
        assert db.exec_driver_sql(count).scalar() == 41
    disaster(it.path, tmp_path)
    with pytest.raises(Unavailable), it.connect() as db:
        db.exec_driver_sql(count).scalar()
    with pytest.raises(Unavailable), write(it, datetime.now(UTC), "test") as w:
        w.job_ran("test")
    it.close()
    put_back(saved, it.path)
    with write(it, datetime.now(UTC), "test") as w:
        w.job_ran("test")
    with it.connect() as db:
        assert db.exec_driver_sql(count).scalar() == 41
    it.close()


def test_an_older_copy_put_in_place_is_what_counts_from_then_on(ledger: Books, saved: Path) -> None:
    it = ledger.ledger
    ledger.suppress(str(CLEAR))
    lookup = ledger.lookup()
    assert len(lookup.rows(CLEAR)) == 1
    lookup.close()
    it.close()
    put_back(saved, it.path)
    assert lookup.rows(CLEAR) == []
    assert ledger.suppress(str(CLEAR)).outcome == "new"
    assert len(lookup.rows(CLEAR)) == 1
    lookup.close()


def test_a_newer_copy_written_over_the_open_file_is_seen(ledger: Books, tmp_path: Path) -> None:
    """As `cp` does it: the inode stays, and our page cache must not go on saying that nobody opted out."""
    it = ledger.ledger
    older = Path(shutil.copy(it.path, tmp_path / "older.db"))
    ledger.suppress(str(CLEAR))
    it.close()
    newer = Path(shutil.copy(it.path, tmp_path / "newer.db"))
    it.path.write_bytes(older.read_bytes())
    lookup = ledger.lookup()
    assert lookup.rows(CLEAR) == []
    it.path.write_bytes(newer.read_bytes())
    assert len(lookup.rows(CLEAR)) == 1
    lookup.close()


def test_the_database_of_another_site_put_in_place_is_refused(ledger: Books, tmp_path: Path) -> None:
    other = books(tmp_path / "other").ledger
    other.close()
    lookup = ledger.lookup()
    assert lookup.rows(CLEAR) == []
    other.path.rename(ledger.ledger.path)
    for _ in range(2):
        with pytest.raises(Unusable):
            lookup.rows(CLEAR)


def write_while(ledger: Books, happens: Callable[[], object], said: list[str]) -> None:
    """Something happens before the commit."""
    with write(ledger.ledger, datetime.now(UTC), "test") as w:
        w.job_ran("test")
        w.after_commit(lambda: said.append("done"))
        happens()


def test_a_write_into_a_file_that_is_taken_away_meanwhile_is_not_acknowledged(ledger: Books, tmp_path: Path) -> None:
    said = list[str]()
    with pytest.raises(Unavailable):
        write_while(ledger, lambda: remove(ledger.ledger.path, tmp_path), said)
    assert said == []


def test_a_write_into_a_file_that_is_replaced_meanwhile_is_not_acknowledged(ledger: Books, saved: Path) -> None:
    """The copy in its place is a good one, but what was committed is not in it."""
    said = list[str]()
    copy = Path(shutil.copy(saved, saved.with_name("copy")))
    with pytest.raises(Unavailable, match="took its place"):
        write_while(ledger, lambda: copy.rename(ledger.ledger.path), said)
    assert said == []


def test_a_lookup_creates_nothing(tmp_path: Path) -> None:
    it = books(tmp_path / "gone").ledger
    it.close()
    shutil.rmtree(it.path.parent)
    lookup = Lookup(it.path, it.site_key)
    with pytest.raises(Unavailable):
        lookup.rows(CLEAR)
    with pytest.raises(Unavailable), Ledger(File(it.path), it.site_key).connect():
        pass
    assert not it.path.parent.exists()
