"""A ledger that moves from one database to another: all of it, and equal."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from daemon.gate import Refused
from daemon.opening import lookup_of
from storage import audit, incoming, postgres, refusals, transfer
from storage.address import parse
from storage.engine import Ledger, Unusable
from storage.incoming import Place
from storage.postgres import Server, move_in
from storage.refusals import Refusal, Tally
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import Books
from tests.storage.another import another, hear

pytestmark = pytest.mark.postgres

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
ANN = "ann@example.com"


@pytest.fixture
def full(in_file: Books) -> Books:
    """Something in most tables, ends and odd characters included."""
    in_file.suppress(ANN)
    in_file.suppress("bob@example.com", "offers")
    in_file.suppress("käthe@bücher.example", reason=Reason.COMPLAINT)
    in_file.lift("bob@example.com", in_file.numbers["offers"])
    key = in_file.ledger.site_key.address_key(ANN)
    with write(in_file.ledger, NOW, "test") as w:
        place = Place("support", 'IN"BOX\\\t', 7, 1)
        incoming.attempt(w, place)
        number = incoming.record(
            w, place, digest=b"\0\xff", size=1, message_id="<1@x>", internaldate=NOW, label="ordinary", state="done"
        )
        incoming.open_review(
            w,
            number,
            received=NOW,
            sender="x@y.example",
            addresses=[ANN],
            scope="all",
            rules=["r"],
            words="a\nb\\N\0c",
            wish="review",
        )
        incoming.count_soft_bounce(w, key, NOW, 30)
        kept = Refusal(NOW, "refused", key, ALL, int(Reason.OPT_OUT), "crm", "<m@x>", 1)
        refusals.record(w, [kept], {Tally(1, 1, "crm", "passed", 0): 3})
        w.job_ran("expire")
    return in_file


def test_everything_arrives_and_is_the_same_ledger(full: Books, empty: Server) -> None:
    told: list[int] = []
    copied = move_in(empty, full.ledger, told.append)
    assert copied["suppression"] == 2
    assert copied["audit"] == 4
    assert sum(copied.values()) == told[-1] == _size(full.ledger)
    moved = Ledger(empty, full.ledger.site_key)
    with full.ledger.reading() as there, moved.reading() as here:
        key = full.ledger.site_key
        assert str(audit.verify(here, key)) == str(audit.verify(there, key))
    with closing(lookup_of(moved)) as lookup:
        assert [r.reason for r in lookup.rows(parse("ANN+x@example.com"))] == [Reason.OPT_OUT]
    # new rows get numbers that no old one has
    again = Books(moved, full.numbers).suppress("dee@example.com")
    assert again == full.suppress("dee@example.com")
    with write(moved, NOW, "test") as w:
        assert incoming.attempt(w, Place("support", "INBOX", 7, 2)) == 1


def _size(ledger: Ledger) -> int:
    with ledger.reading() as db:
        return transfer.size(db)


def test_a_database_that_is_not_empty_is_left_alone(full: Books, on_server: Books) -> None:
    with pytest.raises(Unusable, match="is not empty"):
        move_in(Server(on_server.where[0]), full.ledger)
    assert not isinstance(on_server.gate().may(parse(ANN)), Refused)


def test_a_copy_that_differs_leaves_nothing(full: Books, empty: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    faithful = transfer._copy_in

    def forgetful(db: Any, table: Any, rows: Any) -> None:
        faithful(db, table, rows[1:] if table.name == "suppression" else rows)

    monkeypatch.setattr(transfer, "_copy_in", forgetful)
    with pytest.raises(transfer.NotEqual, match="table suppression: 1 rows of 2 arrived"):
        move_in(empty, full.ledger)
    assert postgres.revision(empty) is None


def test_a_ledger_that_was_tampered_with_is_not_moved(full: Books, empty: Server, tmp_path: Path) -> None:
    with full.ledger.connect() as db:
        db.exec_driver_sql("UPDATE suppression SET since = since + 1")
    with pytest.raises(audit.ChainBroken):
        move_in(empty, full.ledger)
    assert postgres.revision(empty) is None


def test_killed_in_the_middle_nothing_is_there(full: Books, empty: Server) -> None:
    """One transaction: the schema, the rows, the proof."""
    script = (
        "from storage.postgres import Server, move_in\n"
        f"ledger = open_again().ledger\nmove_in(Server({empty.url!r}), ledger, lambda rows: (say('moving'), time.sleep(60)))\n"
    )
    with another(full, script) as process:
        hear(process, "moving")
        process.kill()
        process.wait()
    assert postgres.revision(empty) is None
    move_in(empty, full.ledger)
    assert postgres.revision(empty) is not None
