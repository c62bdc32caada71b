"""What one brake holds, decided together. On both databases."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from daemon.intake import Intake, bulk
from storage import brake, suppressions
from storage.terms import ALL, Reason
from storage.undo import Cause, undo
from storage.write import write
from tests.intake.support import ANN, BOB, HOUSE, NOW, bounce, complaint, count, envelope, opt_out, owed, queue, rows
from tests.ledgers import Books

EXAMPLE = "bounces:example.com/5.1.1"


@pytest.fixture
def desk(anywhere: Books) -> Intake:
    """All that nobody asked for waits: seven bounces, one complaint, one request."""
    desk = Intake(anywhere.ledger, HOUSE, anywhere.numbers)
    with write(desk.ledger, NOW, "test") as w:
        brake.set_to(w, brake.WHAT, [], "a test")
    for n in range(7):
        desk.act(bounce(f"p{n}@example.com"), envelope(n + 1, sender=""), NOW)
    desk.act(complaint("c@example.com"), envelope(50, sender="fbl@reporter.example"), NOW)
    desk.act(opt_out(BOB, writer=BOB, proof="none"), envelope(51, sender=BOB), NOW)
    return desk


def decide(desk: Intake, what: str, accepted: bool = True) -> bulk.Tally:
    """As was counted before."""
    expected = bulk.survey(desk, what)
    done = bulk.decide(desk, what, accepted, "looked at some", lambda: NOW + timedelta(hours=1), "cli root")
    assert (done.items, done.people) == (expected.items, expected.people)
    return done


def test_accepted_they_are_suppressed_as_what_they_are_and_no_others(desk: Intake) -> None:
    tally = decide(desk, EXAMPLE)
    assert (tally.items, tally.people, tally.left) == (Counter({"hard-bounce": 7}), 7, 0)
    assert tally.first == [f"p{n}@example.com" for n in range(7)]
    assert all(rows(desk, f"p{n}@example.com") == [(ALL, Reason.HARD_BOUNCE)] for n in range(7))
    assert {i.wish for i in queue(desk)} == {"complaint", "opt-out"}
    assert owed(desk) == [(n + 1, "Machines") for n in range(7)]
    assert not bulk.survey(desk, EXAMPLE).items


def test_rejected_nobody_is_suppressed_and_each_has_its_row_in_the_record(desk: Intake) -> None:
    assert decide(desk, "bounces", accepted=False).items.total() == 7
    assert (count(desk, "suppression"), len(queue(desk, "rejected"))) == (0, 7)
    with desk.ledger.reading() as db:
        query = "SELECT count(*) FROM audit WHERE event = 'review-rejected' AND actor = 'cli root'"
        assert db.exec_driver_sql(query).scalar_one() == 7


def test_each_kind_has_its_own(desk: Intake) -> None:
    assert decide(desk, "complaints:reporter.example").items == Counter({"complaint": 1})
    assert decide(desk, "unproven").items == Counter({"opt-out": 1})
    assert rows(desk, BOB) == [(ALL, Reason.OPT_OUT)]
    assert decide(desk, "complaints:other.example").items == Counter()


def test_in_many_transactions_and_only_what_waited_when_it_began(desk: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "BATCH", 2)
    monkeypatch.setattr(bulk, "GAP", 0)
    told: list[int] = []

    def one_more(done: int) -> None:
        told.append(done)
        desk.act(bounce(f"later{done}@example.com"), envelope(100 + done, sender=""), NOW)

    tally = bulk.decide(desk, "bounces", True, "", lambda: NOW, "cli root", one_more)
    assert (tally.items.total(), told) == (7, [2, 4, 6, 7])
    assert len(bulk.survey(desk, "bounces").first) == 4


def test_what_names_nobody_of_ours_is_left(desk: Intake) -> None:
    desk.act(bounce("support@quillpdf.example", ANN), envelope(60, sender=""), NOW)
    with write(desk.ledger, NOW, "test") as w:
        w.db.exec_driver_sql("UPDATE review SET addresses = '[]', sender = '' WHERE addresses LIKE ?", ("%p3@%",))
    tally = bulk.decide(desk, "bounces", True, "", lambda: NOW, "cli root")
    assert (tally.items.total(), tally.left) == (7, 1)
    assert rows(desk) == [(ALL, Reason.HARD_BOUNCE)]


def test_what_was_accepted_can_be_undone_by_its_cause(desk: Intake) -> None:
    decide(desk, EXAMPLE)
    decide(desk, "complaints")
    gone = undo(desk.ledger, Cause(domain="example.com", diagnostic="5.1.1"), "they are there", lambda: NOW, "cli root")
    assert gone.lifted == {(Reason.HARD_BOUNCE, ALL): 7}
    with desk.ledger.reading() as db:
        facts = suppressions.by_keys(db, [desk.ledger.site_key.address_key("p0@example.com")])
    assert [f.event for f in facts] == ["suppressed", "lifted"]
    assert rows(desk, "c@example.com") == [(ALL, Reason.COMPLAINT)]
