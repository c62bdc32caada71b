"""The record cannot be changed unseen."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from storage import audit, bulk, suppressions
from storage.address import SiteKey, parse
from storage.audit import ChainBroken, Head
from storage.engine import Ledger
from storage.sqlite import File
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import Books, books, bring

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.fixture
def ledger(in_file: Books) -> Books:
    """What is changed behind our back here is changed in the words of SQLite; test_postgres.py has the other ones."""
    return in_file


@pytest.fixture
def kept(ledger: Books) -> Books:
    """Five audit rows, four suppressions: one lifted, one with several reasons."""
    ledger.suppress("ann@example.com")
    ledger.suppress("bob@example.com", "offers")
    ledger.suppress("bob@example.com", reason=Reason.HARD_BOUNCE)
    ledger.suppress("cem@example.com")
    ledger.lift("cem@example.com")
    ledger.suppress("dee@example.com")
    return ledger


def tamper(it: Books, *statements: str, values: tuple[Any, ...] = ()) -> None:
    """As somebody with the file, but without the key."""
    with closing(sqlite3.connect(it.ledger.path)) as db:
        for statement in statements:
            db.execute(statement, values)
        db.commit()


def verify(it: Books, head: tuple[int, str] | None = None) -> Head:
    with it.ledger.reading() as db:
        return audit.verify(db, it.ledger.site_key, head)


def broken(it: Books, head: tuple[int, str] | None = None) -> tuple[int, str]:
    with pytest.raises(ChainBroken) as found:
        verify(it, head)
    return found.value.seq, str(found.value)


# ------------------------------------------------------------------ whole


def test_a_new_ledger_is_whole(ledger: Books) -> None:
    assert verify(ledger).seq == 0


def test_a_record_is_whole_and_says_where_it_ends(kept: Books) -> None:
    head = verify(kept)
    assert head.seq == 6
    assert str(head) == f"6:{head.mac.hex()}"


def test_a_head_noted_earlier_is_still_in_it(kept: Books) -> None:
    noted = verify(kept)
    kept.suppress("eve@example.com")
    assert verify(kept, (noted.seq, noted.mac.hex())).seq == 7


def test_the_record_stays_whole_when_a_key_is_added(kept: Books) -> None:
    before = verify(kept)
    rotated = SiteKey((b"\x11" * 32, *kept.ledger.site_key.keys))
    with kept.ledger.reading() as db:
        assert audit.verify(db, rotated) == before


def test_another_key_verifies_nothing(kept: Books) -> None:
    with kept.ledger.reading() as db, pytest.raises(ChainBroken):
        audit.verify(db, SiteKey((bytes(32),)))


def test_progress_is_told_every_thousand_rows(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        for _ in range(2500):
            w.audit("exported")
    told = list[int]()
    with ledger.ledger.reading() as db:
        audit.verify(db, ledger.ledger.site_key, progress=told.append)
    assert told == [1000, 2000]


# ------------------------------------------------------------------ audit rows

COLUMNS = {
    "at": "at + 1",
    "actor": "'somebody else'",
    "event": "'imported'",
    "key": "zeroblob(16)",
    "scope": "7",
    "reason": "5",
    "source": "'api'",
    "evidence": "evidence + 1",
    "digest": "zeroblob(32)",
    "standing": "zeroblob(16)",
    "mac": "zeroblob(16)",
}


def test_every_column_is_among_those_tampered_with(ledger: Books) -> None:
    with ledger.ledger.connect() as db:
        columns = [row[1] for row in db.exec_driver_sql("PRAGMA table_info(audit)")]
    assert columns == ["seq", *COLUMNS]


@pytest.mark.parametrize("row", [1, 3, 6])
@pytest.mark.parametrize(("column", "value"), COLUMNS.items())
def test_a_changed_row_is_found(kept: Books, column: str, value: str, row: int) -> None:
    tamper(kept, f"UPDATE audit SET {column} = {value} WHERE seq = {row}")
    assert broken(kept) == (row, f"audit row {row}: changed, or not written by us")


@pytest.mark.parametrize("value", ["NULL", "'text'", "3.5", "x'00'"])
@pytest.mark.parametrize("column", COLUMNS)
def test_a_value_of_another_kind_is_found_too(kept: Books, column: str, value: str) -> None:
    try:
        tamper(kept, f"UPDATE audit SET {column} = {value} WHERE seq = 2")
    except sqlite3.IntegrityError:
        return  # NULL where the schema does not have it
    assert broken(kept)[0] == 2


@pytest.mark.parametrize("row", [1, 3])
def test_a_deleted_row_is_found(kept: Books, row: int) -> None:
    tamper(kept, f"DELETE FROM audit WHERE seq = {row}")
    assert broken(kept) == (row, f"audit row {row}: missing")


def test_a_deleted_row_is_found_though_the_numbers_close_up(kept: Books) -> None:
    tamper(kept, "DELETE FROM audit WHERE seq = 3", "UPDATE audit SET seq = seq - 1 WHERE seq > 3")
    assert broken(kept)[0] == 3


def test_an_inserted_row_is_found(kept: Books) -> None:
    tamper(
        kept,
        "INSERT INTO audit SELECT 7, at, actor, event, key, scope, reason, source, evidence, digest, standing, mac FROM audit WHERE seq = 6",
    )
    assert broken(kept)[0] == 7


def test_swapped_rows_are_found(kept: Books) -> None:
    tamper(
        kept,
        "UPDATE audit SET seq = 99 WHERE seq = 2",
        "UPDATE audit SET seq = 2 WHERE seq = 3",
        "UPDATE audit SET seq = 3 WHERE seq = 99",
    )
    assert broken(kept)[0] == 2


# ------------------------------------------------------------------ the end

CUT = (
    "DELETE FROM suppression WHERE evidence = (SELECT evidence FROM audit WHERE seq = 6)",
    "DELETE FROM audit WHERE seq = 6",
)


def test_a_cut_tail_is_found_by_a_head_kept_elsewhere(kept: Books) -> None:
    noted = verify(kept)
    tamper(kept, *CUT)
    assert broken(kept, (noted.seq, noted.mac.hex()))[0] == 6


def test_a_cut_tail_is_found_without_a_head(kept: Books) -> None:
    tamper(kept, *CUT)
    assert broken(kept) == (6, "audit row 6: the end of the log is missing, or was added without the site key")


@pytest.mark.parametrize("value", ["NULL", "'text'", "x''", "zeroblob(40)"])
def test_the_record_of_the_head_cannot_be_forged(kept: Books, value: str) -> None:
    try:
        tamper(kept, *CUT, f"UPDATE meta SET value = {value} WHERE name = 'head'")
    except sqlite3.IntegrityError:
        return
    assert broken(kept)[0] == 6


def test_a_cut_tail_with_the_record_of_the_head_gone_is_found(kept: Books) -> None:
    tamper(kept, *CUT, "DELETE FROM meta WHERE name = 'head'")
    assert broken(kept)[0] == 6


def test_a_cut_tail_is_still_found_after_we_have_written_again(kept: Books) -> None:
    """The next writer must not put its seal on what somebody cut."""
    tamper(kept, *CUT)
    kept.suppress("eve@example.com")
    kept.suppress("fay@example.com")
    assert "the end of the log is missing" in broken(kept)[1]


def test_a_head_from_another_history_is_found(kept: Books) -> None:
    assert broken(kept, (3, "00" * 16)) == (3, "audit row 3: not the one of the given head")


def test_a_head_beyond_the_end_is_found(kept: Books) -> None:
    assert broken(kept, (9, "00" * 16)) == (7, "audit row 7: missing: the log ends before the given head 9")


def test_an_emptied_ledger_is_found_by_a_head_kept_elsewhere(kept: Books) -> None:
    noted = verify(kept)
    tamper(kept, "DELETE FROM audit", "DELETE FROM suppression", "DELETE FROM meta WHERE name = 'head'")
    assert broken(kept, (noted.seq, noted.mac.hex()))[0] == 1


def test_an_emptied_log_is_found(kept: Books) -> None:
    tamper(kept, "DELETE FROM audit", "DELETE FROM meta WHERE name = 'head'")
    assert broken(kept)[0] == 1


# ------------------------------------------------------------------ suppression rows

ROW = "(SELECT key FROM suppression ORDER BY key LIMIT 1)"


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE suppression SET scope = 9 WHERE key = {ROW}",
        f"UPDATE suppression SET reason = 6 WHERE key = {ROW}",
        f"UPDATE suppression SET since = since - 1 WHERE key = {ROW}",
        f"UPDATE suppression SET since = since + 0.5 WHERE key = {ROW}",
        f"UPDATE suppression SET evidence = evidence + 1 WHERE key = {ROW}",
        f"UPDATE suppression SET key = zeroblob(16) WHERE key = {ROW}",
        f"UPDATE suppression SET key = 'text' WHERE key = {ROW}",
        f"UPDATE suppression SET since = 'text' WHERE key = {ROW}",
        f"DELETE FROM suppression WHERE key = {ROW}",
        "DELETE FROM suppression",
        "INSERT INTO suppression VALUES (zeroblob(16), 0, 2, 0, 0)",
    ],
)
def test_a_suppression_row_changed_behind_our_back_is_found(kept: Books, statement: str) -> None:
    tamper(kept, statement)
    assert broken(kept)[0] == 0


def test_two_rows_that_change_places_are_found(kept: Books) -> None:
    """Nothing is added and nothing is missing: only who it concerns differs."""
    tamper(
        kept,
        "UPDATE suppression SET evidence = (SELECT max(evidence) + min(evidence) FROM suppression) - evidence"
        " WHERE evidence IN ((SELECT max(evidence) FROM suppression), (SELECT min(evidence) FROM suppression))",
    )
    assert broken(kept)[0] == 0


def test_a_batch_is_covered_row_by_row(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "import") as w:
        rows = [(n.to_bytes(16), ALL, int(Reason.OPT_OUT), n) for n in range(25_000)]
        assert bulk.add_many(w, bulk.Batch(rows), 1, {"file": "list.csv"}).new == 25_000
    assert verify(ledger).seq == 1
    tamper(ledger, "UPDATE suppression SET since = 1 WHERE key = ?", values=((12_345).to_bytes(16),))
    assert broken(ledger)[0] == 0


# ------------------------------------------------------------------ evidence

FIRST = "id = (SELECT evidence FROM audit WHERE seq = 1)"


@pytest.mark.parametrize(
    "change",
    [
        "detail = replace(detail, 'ann', 'bob')",
        "detail = detail || ' '",
        "detail = NULL",
        "detail = CAST(detail AS BLOB)",
        "salt = zeroblob(16)",
        "salt = NULL",
        "salt = NULL, detail = '{}'",
        "salt = 'text'",
    ],
)
def test_changed_evidence_is_found(kept: Books, change: str) -> None:
    tamper(kept, f"UPDATE evidence SET {change} WHERE {FIRST}")
    assert broken(kept) == (1, "evidence row 1: changed or removed (it is that of audit row 1)")


def test_evidence_may_be_forgotten_by_us_and_by_nobody_else(kept: Books) -> None:
    before = verify(kept)
    with write(kept.ledger, NOW, "test") as w:
        w.forget_evidence([1, 3])
    with kept.ledger.connect() as db:
        forgotten = db.exec_driver_sql("SELECT id FROM evidence WHERE detail IS NULL ORDER BY id").scalars().all()
    assert forgotten == [1, 3]
    assert verify(kept) == before
    tamper(kept, "UPDATE evidence SET detail = NULL, salt = (SELECT salt FROM evidence WHERE id = 3) WHERE id = 2")
    assert broken(kept)[0] == 2, "the mark of one is not that of another"


def test_evidence_that_was_removed_is_found(kept: Books) -> None:
    tamper(kept, "DELETE FROM evidence WHERE id = 2")
    assert broken(kept) == (2, "evidence row 2: changed or removed (it is that of audit row 2)")


def test_evidence_that_was_added_or_dated_anew_is_found(kept: Books) -> None:
    tamper(kept, "INSERT INTO evidence VALUES (70, 0, zeroblob(16), '{}')")
    assert broken(kept) == (0, "evidence row 70: belongs to no audit row")
    tamper(kept, "DELETE FROM evidence WHERE id = 70", "UPDATE evidence SET at = at - 1 WHERE id = 2")
    assert broken(kept) == (0, "evidence row 2: its time was changed")


def test_evidence_has_an_audit_row_or_is_not_written(ledger: Books) -> None:
    with pytest.raises(AssertionError, match="no audit row"), write(ledger.ledger, NOW, "test") as w:
        w.evidence(note="of nothing")
    assert verify(ledger).seq == 0


def test_no_personal_data_is_in_the_audit_rows(ledger: Books) -> None:
    ledger.suppress("ann@example.com")
    ledger.lift("ann@example.com")
    with ledger.ledger.connect() as db:
        rows = db.exec_driver_sql("SELECT * FROM audit").all()
    assert len(rows) == 2
    assert not any(b"ann" in str(value).encode() for row in rows for value in row)


# ------------------------------------------------------------------ size


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    it = books(tmp_path_factory.mktemp("large"))
    with write(it.ledger, NOW, "test") as w:
        number = w.evidence(note="all of them")
        rows = [(n.to_bytes(16), ALL, int(Reason.OPT_OUT), n, number[0]) for n in range(100_000)]
        w.db.exec_driver_sql("INSERT INTO suppression VALUES (?, ?, ?, ?, ?)", rows)
        w.rows_added(rows)
        for row in rows:
            w.audit("suppressed", key=row[0], scope=ALL, reason=2, source="mail", evidence=number)
    yield it
    it.ledger.close()


def test_a_hundred_thousand_rows_are_verified_in_seconds(large: Books) -> None:
    began = time.process_time()
    assert verify(large).seq == 100_000
    assert time.process_time() - began < 10


def test_a_file_copied_elsewhere_verifies_there(kept: Books, tmp_path: Path) -> None:
    head = verify(kept)
    with closing(sqlite3.connect(kept.ledger.path)) as source, closing(sqlite3.connect(tmp_path / "copy")) as target:
        source.backup(target)
    copy = Ledger(File(tmp_path / "copy"), kept.ledger.site_key)
    with copy.reading() as db:
        assert audit.verify(db, copy.site_key) == head
    copy.close()


def test_an_address_is_found_in_its_evidence(kept: Books) -> None:
    with kept.ledger.connect() as db:
        facts = suppressions.history(db, kept.ledger.site_key, parse("ann@example.com"))
    assert [f.detail and f.detail["address"] for f in facts] == ["ann@example.com"]


def test_an_emptied_ledger_is_not_a_new_one(kept: Books) -> None:
    tamper(
        kept,
        "DELETE FROM audit",
        "DELETE FROM suppression",
        "DELETE FROM evidence",
        "DELETE FROM meta WHERE name = 'head'",
    )
    assert "end of the log is missing" in broken(kept)[1]


def test_head_zero_is_the_beginning_of_this_log_and_no_other(kept: Books) -> None:
    verify(kept, (0, audit.Chain(kept.ledger.site_key).start.mac.hex()))
    assert "beginning" in broken(kept, (0, "00" * 16))[1]


# ------------------------------------------------------------------ which row it was


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("INSERT INTO suppression VALUES (zeroblob(16), 0, 2, 0, 1)", f"the row of key {'00' * 16} (ref 1) is of no audit row"),
        ("UPDATE suppression SET scope = 9 WHERE evidence = 1", "(ref 1) is of no audit row: it was added or changed"),
        ("UPDATE suppression SET evidence = 2 WHERE evidence = 1", "(ref 2) is of no audit row: it was added or changed"),
        ("DELETE FROM suppression WHERE evidence = 1", "(ref 1), put there by audit row 1, is gone"),
        ("UPDATE suppression SET since = 1 WHERE evidence = 1", "which one cannot be told"),
    ],
)  # fmt: skip
def test_the_suppression_row_is_named(kept: Books, statement: str, sentence: str) -> None:
    assert verify(kept)
    tamper(kept, statement)
    found = broken(kept)[1]
    assert found.startswith("suppression: ")
    assert sentence in found


def test_a_row_of_an_import_is_not_taken_for_the_one(kept: Books) -> None:
    with write(kept.ledger, NOW, "import") as w:
        bring(w, [(bytes([n]) * 16, ALL, 2, 1) for n in range(9)], "import", {})
    tamper(kept, "UPDATE suppression SET since = 2 WHERE key = ?", values=(bytes([3]) * 16,))
    assert "which one cannot be told" in broken(kept)[1]


# ------------------------------------------------------------------ what rows mean


def test_lists_that_change_their_names_are_found(ledger: Books) -> None:
    swap = "UPDATE list_number SET id = CASE number WHEN 1 THEN 'b' ELSE 'a' END"
    ledger.suppress("ann@example.com", "offers")
    tamper(ledger, swap)
    assert "list_number" in broken(ledger)[1]


def test_a_list_that_is_added_by_us_is_fine_and_seals_nobody_elses_edit(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "service") as w:
        suppressions.number_lists(w, ["webinars"])
    assert verify(ledger).seq == 0
    tamper(ledger, "UPDATE list_number SET id = 'other' WHERE number = 1")
    with write(ledger.ledger, NOW, "service") as w:
        suppressions.number_lists(w, ["fairs"])
    assert "list_number" in broken(ledger)[1]


def test_a_ledger_without_a_seal_is_not_sealed_by_the_next_writer(ledger: Books) -> None:
    tamper(ledger, "DELETE FROM meta WHERE name = 'sealed'")
    ledger.suppress("ann@example.com")
    assert "list_number" in broken(ledger)[1]
