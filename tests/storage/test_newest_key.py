"""A key file without the newest site key: whoever was suppressed since would be told to be clear, so nobody works with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storage import audit, backup, hashes, restoring
from storage.address import SiteKey, parse
from storage.engine import NEWEST, Ledger, Unavailable, Unusable
from storage.journal import Journal
from storage.postgres import Server
from storage.sqlite import File
from storage.write import write
from tests.ledgers import IN_A_FILE, Books, opened

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
ANN, BOB = "ann@example.com", "bob@example.com"
A, B = b"a" * 32, b"b" * 32
LACKING = "lacks a site key .* put the newest key file in place"

With = Callable[..., Ledger]


@pytest.fixture
def keyed(ledger: Books) -> Iterator[With]:
    """The same database under other keys in front of its own; opened, but nothing asked of it yet."""
    made: list[Ledger] = []

    def open_with(*newer: bytes) -> Ledger:
        store = ledger.ledger.store
        again = File(store.path) if isinstance(store, File) else Server(store.url)  # type: ignore[attr-defined]
        made.append(Ledger(again, SiteKey((*newer, *ledger.ledger.site_key.keys))))
        return made[-1]

    yield open_with
    for one in made:
        one.close()


def mark(it: Ledger) -> bytes | None:
    with it.connect() as db:
        found = db.exec_driver_sql(NEWEST).scalar()
        return None if found is None else bytes(found)


def events(it: Ledger) -> Sequence[str]:
    with it.connect() as db:
        return db.exec_driver_sql("SELECT event FROM audit ORDER BY seq").scalars().all()


def touch(it: Ledger) -> None:
    with write(it, NOW, "test"):
        pass


def whole(it: Ledger) -> None:
    with it.reading() as db:
        audit.verify(db, it.site_key)


def test_under_one_key_nothing_is_demanded_but_that_key(ledger: Books) -> None:
    ledger.suppress(ANN)
    assert mark(ledger.ledger) is None
    assert events(ledger.ledger) == ["suppressed"]


def test_the_first_row_under_a_new_key_is_committed_together_with_its_mark(ledger: Books, keyed: With) -> None:
    newer = keyed(A)
    with pytest.raises(RuntimeError), write(newer, NOW, "test"):
        raise RuntimeError("nothing of it happened")
    assert mark(newer) is None
    opened(newer).suppress(ANN)
    assert mark(newer) == newer.site_key.marks()[-1]
    assert events(newer) == ["re-keyed", "suppressed"]
    touch(newer)
    assert events(newer) == ["re-keyed", "suppressed"]
    whole(newer)


def test_without_the_newest_key_it_is_not_opened(ledger: Books, keyed: With) -> None:
    touch(keyed(A))
    older = keyed()
    for act in (lambda: mark(older), lambda: touch(older), lambda: Books(older, {}).lookup().rows(parse(BOB))):
        with pytest.raises(Unusable, match=LACKING):
            act()


def test_whoever_has_it_open_under_the_old_key_writes_no_more(ledger: Books, keyed: With) -> None:
    ledger.suppress(ANN)
    touch(keyed(A))
    with pytest.raises(Unusable, match=LACKING):
        ledger.suppress(BOB)


def test_whoever_has_it_open_under_the_old_key_answers_no_more(
    ledger: Books, keyed: With, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookup = ledger.lookup()
    assert lookup.rows(parse(ANN)) == []
    opened(keyed(A)).suppress(ANN)
    monkeypatch.setattr(hashes, "LOOK_AGAIN", 0.0)
    lookup._known.forget()  # type: ignore[attr-defined]  # a second later
    for _ in range(2):
        with pytest.raises(Unusable, match=LACKING):
            lookup.rows(parse(ANN))
    with pytest.raises(Unusable, match=LACKING):
        lookup.sweep([ANN])


@pytest.mark.postgres
async def test_a_node_that_runs_under_the_old_key_defers(on_server: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    from storage.questions import Questions

    store = on_server.ledger.store
    assert isinstance(store, Server)
    questions = Questions(store, on_server.ledger.site_key)
    assert await questions.rows_of_all([parse(ANN)]) == [[]]
    newer = Ledger(Server(store.url), SiteKey((A, *on_server.ledger.site_key.keys)))
    opened(newer).suppress(ANN)
    questions._known.forget()  # a second later
    for _ in range(2):
        with pytest.raises(Unavailable, match=LACKING):
            await questions.rows_of_all([parse(ANN)])
    await questions.close()
    newer.close()


def test_no_key_between_may_be_missing_either(ledger: Books, keyed: With) -> None:
    touch(keyed(B, A))
    for keys in ((B,), (A,), (A, B)):
        with pytest.raises(Unusable, match=LACKING):
            mark(keyed(*keys))
    assert mark(keyed(B, A)) == mark(keyed(b"c" * 32, B, A)) is not None


def test_a_mark_that_was_removed_shows_in_the_record(ledger: Books, keyed: With) -> None:
    newer = keyed(A)
    touch(newer)
    with newer.connect() as db:
        db.exec_driver_sql("DELETE FROM meta WHERE name = 'newest'")
    with pytest.raises(audit.ChainBroken, match="meta"):
        whole(newer)


# ------------------------------------------------------------------ backups and their journal


@pytest.fixture
def home(ledger: Books, tmp_path: Path) -> Path:
    return tmp_path


def journalled(it: Ledger, home: Path) -> Books:
    it.journal = Journal(home / "kept" / "journal.log", it.site_key)
    return opened(it)


def restored(it: Books, home: Path, *newer: bytes) -> restoring.Restored:
    key = SiteKey((*newer, *it.ledger.site_key.keys))
    return restoring.restore(home / "a.db", home / "restored.db", key, home / "kept", NOW, "test")


@IN_A_FILE
def test_a_backup_made_under_the_new_key_is_not_restored_without_it(ledger: Books, keyed: With, home: Path) -> None:
    newer = keyed(A)
    opened(newer).suppress(ANN)
    backup.take(newer, home / "a.db", NOW)
    with pytest.raises(Unusable, match=r"that .*a\.db was written with: put the newest key file in place"):
        restored(ledger, home)
    assert not (home / "restored.db").exists()
    restored(ledger, home, A)


@IN_A_FILE
def test_what_the_journal_has_under_the_new_key_is_not_restored_without_it(
    ledger: Books, keyed: With, home: Path
) -> None:
    ledger.suppress(BOB)
    backup.take(ledger.ledger, home / "a.db", NOW)
    newer = keyed(A)
    journalled(newer, home).suppress(ANN)
    with pytest.raises(Unusable, match=r"the journal in .*kept was written with: put the newest key file in place"):
        restored(ledger, home)
    assert not (home / "restored.db").exists()
    assert restored(ledger, home, A).added == 1
    again = Ledger(File(home / "restored.db"), newer.site_key)
    assert len(Books(again, {}).lookup().rows(parse(ANN))) == 1
    assert mark(again) == newer.site_key.marks()[-1]
    whole(again)
    again.close()
