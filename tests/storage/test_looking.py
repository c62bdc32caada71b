"""What people look at page by page: the queue, the record, the imports; of either database."""

from __future__ import annotations

from datetime import UTC, datetime

from storage import audit, imports, incoming, trail
from storage.write import write
from tests.ledgers import Books, queued

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def several(books: Books, number: int) -> list[int]:
    with write(books.ledger, NOW, "test") as w:
        return [queued(w, NOW, sender=f"p{n}@x.example") for n in range(number)]


def test_the_queue_comes_in_pages(ledger: Books) -> None:
    numbers = several(ledger, 5)
    with write(ledger.ledger, NOW, "test") as w:
        for number in (numbers[1], numbers[3]):
            item = incoming.review(w.db, number)
            assert item is not None
            incoming.decide(w, item, True, "")
    one, two, three, four, five = numbers
    with ledger.ledger.connect() as db:

        def page(state: str | None, beyond: int | None = None) -> list[int]:
            return [item.id for item in incoming.queue(db, state, beyond, 2)]

        assert (page("open"), page("open", three), page("open", five)) == ([one, three], [five], [])
        assert (page("accepted"), page("accepted", two)) == ([four, two], [])
        assert (page(None), page(None, four)) == ([five, four], [three, two])
        assert incoming.open_items(db) == 3
        assert incoming.beside(db, three) == (one, five)
        assert incoming.beside(db, two) == (one, three)
        assert incoming.beside(db, one) == (None, three)
        found = incoming.review(db, two)
    assert found is not None
    assert found.decided == NOW


def test_the_record_is_looked_through_backwards(ledger: Books) -> None:
    for n in range(6):
        ledger.suppress(f"p{n}@x.example")
    ledger.lift("p0@x.example")
    with ledger.ledger.connect() as db:
        found = trail.backwards(db, None, most=2)
        assert ([f.seq for f in found.facts], found.reached) == ([7, 6], 6)
        assert sorted(found.addresses.values()) == ["p0@x.example", "p5@x.example"]
        assert [f.seq for f in trail.backwards(db, 6, event="suppressed", actor="te", most=9).facts] == [
            5,
            4,
            3,
            2,
            1,
        ]
        assert trail.backwards(db, None, actor="TEST").facts == []
        assert trail.backwards(db, None, event="lifted", wide=3).reached == 5
        assert trail.backwards(db, 5, event="lifted", wide=10).reached is None


def test_imports_are_listed_newest_first(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        runs = [imports.begin(w, bytes([n]), f"{n}.csv") for n in range(3)]
        imports.finish(w, runs[1])
    with ledger.ledger.connect() as db:
        listed = imports.runs(db, None, 2)
        assert [(run.file, over) for run, over in listed] == [("2.csv", False), ("1.csv", True)]
        assert [run.file for run, _ in imports.runs(db, listed[-1][0].id, 2)] == ["0.csv"]


def test_when_the_record_was_checked_is_known(ledger: Books) -> None:
    ledger.suppress("ann@x.example")
    with ledger.ledger.reading() as db:
        assert audit.last_verified(db, ledger.ledger.site_key) is None
        assert audit.last_run(db, "verify_audit") is None
        head = audit.verify(db, ledger.ledger.site_key)
    with write(ledger.ledger, NOW, "test") as w:
        audit.remember_verified(w.db, ledger.ledger.site_key, head)
        w.job_ran("verify_audit")
    with ledger.ledger.connect() as db:
        assert str(audit.last_verified(db, ledger.ledger.site_key)) == str(head)
        assert audit.last_run(db, "verify_audit") == int(NOW.timestamp())
