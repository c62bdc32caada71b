"""What came in: sightings, debts, first sights, counted bounces and the review queue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from storage import incoming, watched
from storage.incoming import Place, State
from storage.watched import FirstSight
from storage.write import write
from tests.ledgers import Books

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
PLACE = Place("support", "INBOX", 1, 7)


def record(
    it: Books, place: Place = PLACE, *, message_id: str = "<1@x>", digest: bytes = b"d", state: State = "done"
) -> int:
    with write(it.ledger, NOW, "test") as w:
        return incoming.record(
            w, place, digest=digest, size=9, message_id=message_id, internaldate=NOW, label="opt-out", state=state, target="Opt-outs"
        )  # fmt: skip


def review(it: Books, number: int | None) -> int:
    with write(it.ledger, NOW, "test") as w:
        return incoming.open_review(
            w, number, received=NOW, sender="a@example.com", addresses=["a@example.com"], scope="all",
            rules=["1-doubt"], words="stop", wish="review", excerpt="please",
        )  # fmt: skip


def test_attempts_are_counted_and_do_not_end_the_reading(ledger: Books) -> None:
    for expected in (1, 2, 3):
        with write(ledger.ledger, NOW, "test") as w:
            assert incoming.attempt(w, PLACE) == expected
    with ledger.ledger.connect() as db:
        assert {u for u, e in watched.known(db, "support", "INBOX", 1).items() if e} == set()
    record(ledger)
    with ledger.ledger.connect() as db:
        assert {u for u, e in watched.known(db, "support", "INBOX", 1).items() if e} == {7}
        assert {u for u, e in watched.known(db, "support", "INBOX", 2).items() if e} == set()


def test_the_same_place_is_one_row_however_often_it_is_recorded(ledger: Books) -> None:
    assert record(ledger) == record(ledger, state="owed")
    with ledger.ledger.connect() as db:
        (seen,) = incoming.owed(db, "support")
    assert (seen.place, seen.target, seen.internaldate) == (PLACE, "Opt-outs", NOW)


def test_a_debt_is_owed_until_it_is_settled(ledger: Books) -> None:
    number = record(ledger, state="owed")
    with ledger.ledger.connect() as db:
        assert [s.id for s in incoming.owed(db, "support")] == [number]
        assert incoming.owed(db, "other") == []
    with write(ledger.ledger, NOW, "test") as w:
        incoming.settle(w, number, "filed")
    with ledger.ledger.connect() as db:
        assert incoming.owed(db, "support") == []


def test_twins_have_one_message_id_or_without_one_the_same_content(ledger: Books) -> None:
    record(ledger, Place("a", "INBOX", 1, 1))
    record(ledger, Place("b", "INBOX", 1, 1), digest=b"e")
    record(ledger, Place("b", "INBOX", 1, 2), message_id="")
    record(ledger, Place("a", "INBOX", 1, 3), state="reading")
    with ledger.ledger.connect() as db:
        assert [t.place.mailbox for t in incoming.twins(db, "<1@x>", b"")] == ["a", "b"]
        assert [t.place.uid for t in incoming.twins(db, "<1@x>", b"", mailbox="b")] == [1]
        assert [t.place.uid for t in incoming.twins(db, "", b"d")] == [2]


def test_a_review_follows_its_message(ledger: Books) -> None:
    old = record(ledger, state="owed")
    number = review(ledger, old)
    new = record(ledger, Place("support", "INBOX", 1, 8))
    with write(ledger.ledger, NOW, "test") as w:
        incoming.take_over(w, old, new)
    with ledger.ledger.connect() as db:
        item = incoming.review_of(db, new)
        assert item
        assert (item.id, item.place) == (number, Place("support", "INBOX", 1, 8))
        assert incoming.owed(db, "support") == []


def test_an_accepted_message_is_owed_its_filing_and_a_rejected_one_is_not(ledger: Books) -> None:
    for uid, accepted in ((7, True), (8, False)):
        number = review(ledger, record(ledger, Place("support", "INBOX", 1, uid)))
        with write(ledger.ledger, NOW, "test") as w:
            item = incoming.review(w.db, number)
            assert item
            incoming.decide(w, item, accepted, "because")
    with ledger.ledger.connect() as db:
        assert [s.place.uid for s in incoming.owed(db, "support")] == [7]
        assert incoming.reviews(db) == []
        assert [(i.state, i.note) for i in incoming.reviews(db, None)] == [
            ("accepted", "because"),
            ("rejected", "because"),
        ]


def test_a_review_needs_no_message(ledger: Books) -> None:
    number = review(ledger, None)
    with write(ledger.ledger, NOW, "test") as w:
        item = incoming.review(w.db, number)
        assert item
        assert item.place is None
        assert item.addresses == ("a@example.com",)
        incoming.decide(w, item, True, "")
        assert incoming.review(w.db, number + 1) is None


def test_a_folder_is_read_from_thirty_days_back_at_first_sight(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        begun = watched.begin_folder(w, "support", "INBOX", 1, 500, 30)
    assert begun == FirstSight(500, NOW - timedelta(days=30))
    with ledger.ledger.connect() as db:
        assert watched.first_sight(db, "support", "INBOX", 1) == begun
        assert watched.first_sight(db, "support", "INBOX", 2) is None


def test_under_a_new_uidvalidity_all_is_looked_at_back_to_where_it_once_began(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        watched.begin_folder(w, "support", "INBOX", 1, 500, 30)
    with write(ledger.ledger, NOW + timedelta(days=60), "test") as w:
        assert watched.begin_folder(w, "support", "INBOX", 2, 10, 30) == FirstSight(10, NOW - timedelta(days=30))
        assert watched.begin_folder(w, "support", "Opt-outs", 1, 10, None).uidnext == 10


def test_soft_bounces_count_by_the_day_within_the_window(ledger: Books) -> None:
    counts = []
    for day in (0, 0, 1, 5, 29, 30, 31):
        with write(ledger.ledger, NOW + timedelta(days=day), "test") as w:
            counts.append(incoming.count_soft_bounce(w, bytes(16), NOW + timedelta(days=day), 30))
    assert counts == [1, 1, 2, 3, 4, 4, 4]
    with write(ledger.ledger, NOW + timedelta(days=31), "test") as w:
        incoming.forget_soft_bounces(w, 30)
        left = w.db.exec_driver_sql("SELECT count(*) FROM soft_bounce").scalar_one()
    assert left == 4
