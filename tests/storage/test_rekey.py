"""Several site keys: nothing has to move, and what can be moved is."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from storage import audit, incoming, rekeying, suppressions
from storage.address import SiteKey, parse
from storage.engine import Ledger, Unusable, read_site_key
from storage.journal import Journal, read
from storage.sqlite import File
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import Books, books, bring

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
PEOPLE = ("ann@example.com", "b.ob+x@gmail.com", "@bad.example", "dee@sub.example.org")


@pytest.fixture
def ledger(in_file: Books) -> Books:
    """Backups of a list in PostgreSQL are in test_postgres_backup.py."""
    return in_file


@pytest.fixture(autouse=True)
def _no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rekeying, "_GAP", 0)


@pytest.fixture
def rotated(ledger: Books) -> Books:
    """People under an old key, somebody without an address there, and a new key in front."""
    for person in PEOPLE:
        ledger.suppress(person)
    ledger.suppress("ann@example.com", "offers", Reason.COMPLAINT)
    with write(ledger.ledger, NOW, "test") as w:  # as a token does it
        suppressions.add(
            w, ledger.ledger.site_key.address_key("token@example.com"), ALL, Reason.OPT_OUT, "one-click", {}
        )
    where = ledger.ledger.path.parent
    ledger.ledger.close()
    rekeying.add_key(where / "site.key", NOW)
    it = books(where)
    it.numbers = ledger.numbers
    return it


def rekey(it: Books) -> rekeying.Moved:
    return rekeying.rekey(it.ledger, lambda: NOW, "test")


def under(it: Books, form: str) -> list[int]:
    """How many rows stand under each key of a form, newest key first."""
    with it.ledger.connect() as db:
        return [len(suppressions.rows_of(db, [key])) for key in it.ledger.site_key.address_keys(form)]


def verified(it: Books) -> audit.Head:
    with it.ledger.reading() as db:
        return audit.verify(db, it.ledger.site_key)


def test_rows_of_known_people_move_and_everybody_is_found_before_and_after(rotated: Books) -> None:
    everybody = [parse(p) for p in (*PEOPLE, "bob@googlemail.com", "x@www.bad.example", "token@example.com")]
    before = [sorted(r[1:] for r in rows) for rows in rotated.lookup().rows_of_all(everybody)]
    assert all(before)
    assert under(rotated, "ann@example.com") == [0, 2]
    assert rekey(rotated) == rekeying.Moved(moved=5, people=4, already=0, unknown=1)
    assert [sorted(r[1:] for r in rows) for rows in rotated.lookup().rows_of_all(everybody)] == before
    assert under(rotated, "ann@example.com") == [2, 0]
    assert under(rotated, "bob@gmail.com") == [1, 0]
    assert under(rotated, "@bad.example") == [1, 0]
    assert under(rotated, "token@example.com") == [0, 1]
    with rotated.ledger.connect() as db:
        listed = {row[1] for row in suppressions.listing(db)}
    assert listed == {*PEOPLE, None}
    verified(rotated)


def test_again_there_is_nothing_to_move_and_new_rows_are_under_the_new_key(rotated: Books) -> None:
    rekey(rotated)
    head = verified(rotated)
    rotated.suppress("new@example.com")
    assert under(rotated, "new@example.com") == [1, 0]
    assert rekey(rotated) == rekeying.Moved(moved=0, people=0, already=6, unknown=1)
    assert verified(rotated).seq == head.seq + 1


def test_every_batch_is_audited_as_re_keyed(rotated: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rekeying, "_AT_ONCE", 2)
    before = verified(rotated).seq
    told: list[int] = []
    assert rekeying.rekey(rotated.ledger, lambda: NOW, "test", told.append).moved == 5
    with rotated.ledger.connect() as db:
        events = db.exec_driver_sql("SELECT event FROM audit WHERE seq > ?", (before,)).scalars().all()
    assert set(events) == {"re-keyed"}
    assert len(events) >= 2
    assert told == sorted(told)
    verified(rotated)


def test_two_rows_become_one_that_stands_since_the_earlier_day(rotated: Books) -> None:
    old, new = rotated.ledger.site_key.address_keys("ann@example.com")[::-1]
    for key, at in ((old, 100), (new, 50)):
        with write(rotated.ledger, NOW, "test") as w:
            w.db.exec_driver_sql("INSERT INTO asked_again (key, scope, reason, at) VALUES (?, 0, 2, ?)", (key, at))
    with write(rotated.ledger, NOW, "test") as w:
        later = [(new, ALL, int(Reason.OPT_OUT), 2**40), (new, ALL, int(Reason.HARD_BOUNCE), 7)]
        bring(w, later, "import", {})
    rekey(rotated)
    with rotated.ledger.connect() as db:
        rows = suppressions.standing(db, rotated.ledger.site_key, parse("ann@example.com"))
        again = db.exec_driver_sql("SELECT key, at FROM asked_again").all()
    assert sorted((r[1], r[2]) for r in rows) == [(0, 2), (0, 4), (rotated.numbers["offers"], 1)]
    assert next(r[3] for r in rows if r[2] == 2) < 2**40
    assert [(bytes(key), at) for key, at in again] == [(new, 100)]
    verified(rotated)


def test_a_row_that_stands_longer_under_the_new_key_stays(rotated: Books) -> None:
    new = rotated.ledger.site_key.address_key("ann@example.com")
    with write(rotated.ledger, NOW, "test") as w:
        bring(w, [(new, ALL, int(Reason.OPT_OUT), 5)], "import", {})
    rekey(rotated)
    assert under(rotated, "ann@example.com") == [2, 0]
    with rotated.ledger.connect() as db:
        assert suppressions.standing(db, rotated.ledger.site_key, parse("ann@example.com"))[0][3] == 5
    verified(rotated)


def test_days_of_bounces_go_along(rotated: Books) -> None:
    new, old = rotated.ledger.site_key.address_keys("ann@example.com")
    with write(rotated.ledger, NOW, "test") as w:
        incoming.count_soft_bounce(w, old, NOW, 30)
    rekey(rotated)
    with write(rotated.ledger, NOW, "test") as w:
        assert incoming.count_soft_bounce(w, new, NOW, 30) == 1
        assert w.db.exec_driver_sql("SELECT count(*) FROM soft_bounce").scalar() == 1


def test_an_address_that_is_not_of_its_key_stays(rotated: Books) -> None:
    key = rotated.ledger.site_key.address_key("token@example.com")
    with write(rotated.ledger, NOW, "test") as w:
        w.db.exec_driver_sql("UPDATE person SET address = 'eve@example.com' WHERE address = 'ann@example.com'")
        w.db.exec_driver_sql("INSERT INTO person (key, address) VALUES (?, 'not an address')", (key,))
    assert rekey(rotated).moved == 3
    assert under(rotated, "ann@example.com") == [0, 2]


def test_what_moved_is_in_the_journal(rotated: Books, tmp_path: Path) -> None:
    rotated.ledger.journal = Journal(tmp_path / "kept" / "journal.log", rotated.ledger.site_key)
    rekey(rotated)
    lines = list(read(tmp_path / "kept", rotated.ledger.site_key))
    assert sorted(line.sign for line in lines if line) == ["+"] * 5 + ["-"] * 5


def test_a_ref_still_leads_to_what_stands_on_it(rotated: Books) -> None:
    rekey(rotated)
    with rotated.ledger.connect() as db:
        assert suppressions.standing_by_evidence(db, 1) == []
        (row,) = suppressions.standing_by_evidence(db, 1, rotated.ledger.site_key)
    assert row[4] == 1


def test_live_opt_outs_get_their_turn_between(rotated: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rekeying, "_AT_ONCE", 1)
    other = Books(Ledger(File(rotated.ledger.path), rotated.ledger.site_key), rotated.numbers)
    done: list[str] = []

    def sleeping(_: float) -> None:
        done.append(other.suppress(f"live{len(done)}@example.com").outcome)

    monkeypatch.setattr("storage.rekeying.time.sleep", sleeping)
    assert rekey(rotated).people == 4
    assert done == ["new"] * 4
    other.ledger.close()
    verified(rotated)


# ------------------------------------------------------------------ the key's file


def test_a_new_key_stands_in_front_and_the_file_is_for_its_owner_only(ledger: Books) -> None:
    file = ledger.ledger.path.with_name("site.key")
    before = file.read_text()
    added = rekeying.add_key(file, NOW)
    assert read_site_key(file).keys == added.keys
    assert added.keys[1:] == ledger.ledger.site_key.keys
    assert file.read_text().endswith(before)
    assert file.read_text().startswith("# since 2026-05-04\n")
    assert file.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in file.parent.iterdir() if "new" in p.name] == []


def test_a_file_that_is_no_key_is_not_added_to(tmp_path: Path) -> None:
    file = tmp_path / "site.key"
    file.write_text("nothing")
    file.chmod(0o600)
    with pytest.raises(Unusable):
        rekeying.add_key(file, NOW)
    file.write_text("\n".join(f"{n:02x}" * 32 for n in range(15)))
    with pytest.raises(Unusable, match="15 keys already"):
        rekeying.add_key(file, NOW)
    assert len(SiteKey(tuple(bytes([n]) * 32 for n in range(15))).keys) == len(read_site_key(file).keys)
    assert [p.name for p in tmp_path.iterdir()] == ["site.key"]
