"""The ledger a page at a time, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from storage import pages, refusals
from storage.pages import Place, Wanted
from storage.refusals import Refusal
from storage.terms import Reason
from storage.write import write
from tests.ledgers import Books

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def _listed(it: Books, wanted: Wanted, most: int, look: int) -> list[tuple[bytes, int, int]]:
    """Every page, one after the other."""
    found: list[tuple[bytes, int, int]] = []
    place: Place | None = pages.START
    while place is not None:
        with it.ledger.reading() as db:
            rows, place = pages.listing(db, wanted, most, place, look)
        assert len(rows) <= most
        found += [(row[0], row[2], row[3]) for row in rows]
    return found


def test_pages_of_any_size_come_to_the_whole_list(ledger: Books) -> None:
    for n in range(20):
        ledger.suppress(f"p{n}@customer.example", "offers" if n % 3 == 0 else None, since=NOW - timedelta(days=n))
    ledger.suppress("p3@customer.example", None, Reason.COMPLAINT)
    whole = _listed(ledger, Wanted(), 1_000, 1_000)
    assert len(whole) == 21
    assert whole == sorted(whole)
    for most, look in ((1, 1_000), (5, 7), (1_000, 1), (7, 7), (21, 21)):
        assert _listed(ledger, Wanted(), most, look) == whole, (most, look)
    offers = ledger.numbers["offers"]
    assert _listed(ledger, Wanted(scope=offers), 2, 5) == [row for row in whole if row[1] == offers]
    assert _listed(ledger, Wanted(reason=Reason.COMPLAINT), 2, 5) == [r for r in whole if r[2] == Reason.COMPLAINT]
    assert len(_listed(ledger, Wanted(since=NOW - timedelta(days=4)), 2, 5)) == 6
    assert (len(_listed(ledger, Wanted(source="operator"), 4, 9)), _listed(ledger, Wanted(source="mail"), 4, 9)) == (
        21,
        [],
    )


def test_an_empty_list_has_one_empty_page(ledger: Books) -> None:
    with ledger.ledger.reading() as db:
        assert pages.listing(db, Wanted(), 10) == ([], None)
        assert pages.changes(db, 0, 10) == []
        assert pages.refusals(db, None, 10) == ([], 0)
        assert pages.people(db, []) == {}


def test_changes_go_on_where_they_ended(ledger: Books) -> None:
    for name in ("ann", "bob", "cat"):
        ledger.suppress(f"{name}@customer.example")
    with ledger.ledger.reading() as db:
        first = pages.changes(db, 0, 2)
        rest = pages.changes(db, first[-1][0].seq, 2)
    assert [address for *_, address in first + rest] == [f"{n}@customer.example" for n in ("ann", "bob", "cat")]


def test_refusals_that_are_written_down_late_are_not_missed(ledger: Books) -> None:
    """Two nodes: one writes down what it refused a second ago after the other has written what it refused just now."""
    key = ledger.ledger.site_key.address_key("ann@customer.example")

    def refuse(at: datetime) -> None:
        with write(ledger.ledger, NOW, "test") as w:
            refusals.record(w, [Refusal(at, "refused", key, 0, 2, "", "", 0)], {})

    refuse(NOW - timedelta(hours=2))
    refuse(NOW)
    with ledger.ledger.reading() as db:
        found, after = pages.refusals(db, NOW - timedelta(hours=1), 10)
    assert len(found) == 1
    refuse(NOW - timedelta(seconds=1))
    with ledger.ledger.reading() as db:
        late, _ = pages.refusals(db, NOW - timedelta(hours=1), 10, after)
        assert [of.at for _, of in late] == [NOW - timedelta(seconds=1)]
        both, _ = pages.refusals(db, NOW - timedelta(hours=1), 10)
        assert len(both) == 2
