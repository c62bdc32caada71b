"""The ledger in numbers, in either database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from storage import census, suppressions
from storage.address import keys_of, parse
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import Books, bring

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
ANN = parse("ann@customer.example")
BEFORE = NOW - timedelta(hours=2)


def changed(ledger: Books, evidence: int) -> int:
    with ledger.ledger.connect() as db:
        keys = [key for key, _ in keys_of(ledger.ledger.site_key, ANN)]
        return census.last_change(db, keys, evidence)


def test_an_empty_ledger_has_no_numbers(ledger: Books) -> None:
    with ledger.ledger.connect() as db:
        assert census.numbers(db) == census.Numbers(0, 0, None, {})
        assert census.suppressions(db) == dict.fromkeys(Reason, 0)
    assert changed(ledger, 0) == 0


def test_what_is_there_is_counted(ledger: Books) -> None:
    ledger.suppress("ann@customer.example")
    ledger.suppress("ann@customer.example", "offers", Reason.COMPLAINT)
    with write(ledger.ledger, NOW, "test") as w:
        w.job_ran("expire")
    with ledger.ledger.connect() as db:
        assert census.numbers(db) == census.Numbers(2, 0, None, {"expire": int(NOW.timestamp())})
        found = {reason: n for reason, n in census.suppressions(db).items() if n}
    assert found == {Reason.OPT_OUT: 1, Reason.COMPLAINT: 1}


def test_since_which_row_nothing_has_changed_for_a_person(ledger: Books) -> None:
    with write(ledger.ledger, BEFORE, "test") as w:
        ref = suppressions.add(w, ANN, ALL, Reason.OPT_OUT, "mail", {}).evidence
    assert changed(ledger, ref) == 1
    with write(ledger.ledger, NOW, "test") as w:
        suppressions.add(w, parse("bob@customer.example"), ALL, Reason.OPT_OUT, "mail", {})
    assert changed(ledger, ref) == 1  # that was somebody else
    with write(ledger.ledger, NOW, "import") as w:
        bring(w, [(bytes(16), ALL, int(Reason.OPT_OUT), 0)], "import", {})
    assert changed(ledger, ref) == 3  # whoever was in it
    with ledger.ledger.connect() as db:
        assert census.head(db) == 3
