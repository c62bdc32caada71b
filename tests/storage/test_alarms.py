"""Alarms written down: by one node or several, and never taken back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from storage import alarms, explained, waiting, week
from storage.alarms import Noted
from storage.write import write
from tests.ledgers import Books

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ONE = Noted("mailbox-silent", "support", "a", "parts.mailboxes", NOW - MINUTE, NOW, "Silent", "Look")


def save(ledger: Books, *of: Noted, at: datetime = NOW) -> list[Noted]:
    with write(ledger.ledger, at, "test") as w:
        alarms.save(w, of)
        alarms.forget(w)
    with ledger.ledger.connect() as db:
        return alarms.unsettled(db)


def test_what_stands_is_written_once_and_gone_on_with(ledger: Books) -> None:
    (first,) = save(ledger, ONE)
    assert first == replace(ONE, id=first.id)
    (again,) = save(ledger, replace(ONE, node="b", seen=NOW + MINUTE, since=NOW, text="Still silent"))
    assert again == replace(first, node="b", seen=NOW + MINUTE, text="Still silent")
    (ended,) = save(ledger, replace(again, ended=NOW))
    assert ended.ended == NOW
    assert len(save(ledger, ONE)) == 2  # the same later is another one
    with ledger.ledger.connect() as db:
        assert [row.ended for row in alarms.unsettled(db) if row.ended is None] == [None]


def test_what_one_node_wrote_an_older_view_of_another_does_not_take_back(ledger: Books) -> None:
    (seen,) = save(ledger, ONE)
    save(ledger, replace(seen, told=NOW, ended=NOW, closed=NOW))
    assert save(ledger, replace(seen, seen=NOW + MINUTE)) == []
    with ledger.ledger.connect() as db:
        (row,) = alarms.between(db, NOW - MINUTE, NOW + MINUTE)
        assert (row.told, row.ended, row.closed) == (NOW, NOW, NOW)
        assert alarms.last_told(db) == NOW


def test_when_somebody_was_mailed_last(ledger: Books) -> None:
    with ledger.ledger.connect() as db:
        assert alarms.last_told(db) is None
    save(ledger, ONE, replace(ONE, about="quiet", ended=NOW, closed=NOW + 9 * MINUTE))  # nobody was told of that one
    with ledger.ledger.connect() as db:
        assert alarms.last_told(db) is None
    save(ledger, replace(ONE, told=NOW), replace(ONE, about="x", told=NOW, ended=NOW, closed=NOW + MINUTE))
    with ledger.ledger.connect() as db:
        assert alarms.last_told(db) == NOW + MINUTE


def test_those_of_a_span_are_those_that_stood_in_it(ledger: Books) -> None:
    ended = replace(ONE, about="ended", ended=NOW, closed=NOW)
    save(ledger, ONE, ended)
    for start, end, expected in (
        (NOW, NOW + MINUTE, {"support", "ended"}),
        (NOW + MINUTE, NOW + 2 * MINUTE, {"support"}),
        (NOW - 9 * MINUTE, NOW - MINUTE, set()),
        (NOW - 9 * MINUTE, NOW, {"support", "ended"}),
    ):
        with ledger.ledger.connect() as db:
            assert {row.about for row in alarms.between(db, start, end)} == expected


def test_what_was_over_long_ago_goes(ledger: Books) -> None:
    save(ledger, ONE, replace(ONE, about="ended", ended=NOW))
    assert len(save(ledger, at=NOW + timedelta(days=400))) == 2
    assert [row.about for row in save(ledger, at=NOW + timedelta(days=400, seconds=1))] == ["support"]


def test_every_question_of_the_clock_of_duty_is_one_for_both_databases(ledger: Books) -> None:
    ledger.suppress("ann@example.com")
    with ledger.ledger.connect() as db:
        assert waiting.oldest_reading(db, "support") is None
        assert waiting.to_be_filed(db, "support") == waiting.notices(db) == waiting.Owed(0, None)
        assert explained.missing(db) == (0, None)
        assert week.last_sent(db) is None
    found = week.week(ledger.ledger, NOW, datetime.now(UTC) + MINUTE)
    assert (found.opt_outs, found.suppressions, found.as_left) == ({"operator": 1}, 1, True)


def test_evidence_that_is_missing_is_found_in_whatever_piece(ledger: Books) -> None:
    for n in range(7):
        ledger.suppress(f"p{n}@example.com")
    with ledger.ledger.connect() as db:
        db.exec_driver_sql("DELETE FROM evidence WHERE id IN (2, 5)")
        for piece in (1, 2, 3, 7, 8):
            after: bytes | None = b""
            found = 0
            while after is not None:
                number, after = explained.missing(db, after, piece)
                found += number
            assert found == 2, piece
