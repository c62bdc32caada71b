"""What people decide, in the queue and by moving messages."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from daemon import events
from daemon.intake import AlreadyDecided, Intake, NobodyNamed, Outdated
from daemon.mail.reading import (
    Ordinary,
    Resubscribe,
    Review,
)
from storage.terms import ALL, Reason
from tests.intake.support import (
    ANN,
    BOB,
    LATE,
    NOW,
    bounce,
    complaint,
    count,
    envelope,
    opt_out,
    owed,
    queue,
    rows,
)
from tests.ledgers import Books

# ------------------------------------------------------------------ decisions


def test_accepting_suppresses_files_and_is_written_down(desk: Intake) -> None:
    desk.act(opt_out(ANN, BOB, proof="none", scope=("list:offers",)), envelope(), NOW)
    added = desk.decide(queue(desk)[0], True, "clear enough", NOW, "cli root")
    assert [a.outcome for a in added] == ["new", "new"]
    assert [r for _, r in rows(desk, ANN) + rows(desk, BOB)] == [Reason.OPT_OUT] * 2
    assert owed(desk) == [(1, "Opt-outs")]
    with desk.ledger.connect() as db:
        events_ = db.exec_driver_sql("SELECT event FROM audit ORDER BY seq").scalars().all()
    assert events_ == ["suppressed", "suppressed", "review-accepted"]
    assert [(i.state, i.note) for i in queue(desk, None)] == [("accepted", "clear enough")]


def test_rejecting_is_written_down_and_does_nothing_else(desk: Intake) -> None:
    desk.act(opt_out(proof="none"), envelope(), NOW)
    assert desk.decide(queue(desk)[0], False, "spam", NOW, "cli root") == []
    assert rows(desk) == []
    assert owed(desk) == []
    assert (count(desk, "audit"), queue(desk)) == (1, [])


def test_a_review_that_names_nobody_concerns_its_sender(desk: Intake) -> None:
    desk.act(Review((), ("all",), ANN, "en", ("h-odd",), ""), envelope(sender=ANN), NOW)
    desk.decide(queue(desk)[0], True, "", NOW, "cli root")
    assert rows(desk) == [(ALL, Reason.OPT_OUT)]


@pytest.mark.parametrize("sender", ["", "not an address", "support@quillpdf.example", "a\udc80@example.com"])
def test_accepting_for_nobody_is_refused_and_leaves_it_open(desk: Intake, sender: str) -> None:
    if sender.isascii():
        desk.act(Review((), ("all",), None, "en", ("h-odd",), ""), envelope(sender=sender), NOW)
        item = queue(desk)[0]
    else:
        desk.act(Review((), ("all",), None, "en", ("h-odd",), ""), envelope(sender=""), NOW)
        item = replace(queue(desk)[0], sender=sender)
    with pytest.raises(NobodyNamed):
        desk.decide(item, True, "", NOW, "cli root")
    assert len(queue(desk)) == 1
    assert count(desk, "audit") == 0


def test_a_wish_to_come_back_waits_and_lifts_opt_outs_only(desk: Intake, ledger: Books) -> None:
    ledger.suppress(ANN, since=NOW - timedelta(days=9))
    ledger.suppress(ANN, reason=Reason.COMPLAINT)
    desk.act(Resubscribe((ANN,), ("all",), ANN, "dmarc", "en", ("4-back",), "again please"), envelope(), NOW)
    assert len(rows(desk)) == 2
    desk.decide(queue(desk)[0], True, "", NOW, "cli root")
    assert rows(desk) == [(ALL, Reason.COMPLAINT)]


def test_an_old_wish_to_come_back_lifts_no_newer_opt_out(desk: Intake) -> None:
    back = Resubscribe((ANN,), ("all",), ANN, "dmarc", "en", ("4-back",), "again please")
    desk.act(opt_out(), envelope(1, date=NOW - timedelta(days=9)), LATE)
    desk.act(back, envelope(2, date=NOW), LATE)
    desk.act(opt_out(), envelope(3, date=NOW + timedelta(days=1)), LATE)  # a repeated request moves no row
    with pytest.raises(Outdated):
        desk.decide(queue(desk)[0], True, "", LATE, "cli root")
    assert rows(desk) == [(ALL, Reason.OPT_OUT)]
    assert len(queue(desk)) == 1


def test_a_second_decision_changes_nothing(desk: Intake) -> None:
    desk.act(opt_out(proof="none"), envelope(), NOW)
    [item] = queue(desk)
    desk.decide(item, False, "", NOW, "cli ann")
    with pytest.raises(AlreadyDecided):
        desk.decide(item, True, "", NOW, "cli bob")
    assert not rows(desk)


def test_bounces_are_not_logged_as_opt_outs(desk: Intake, said: pytest.CaptureFixture[str]) -> None:
    events.configure("json", "info")
    desk.act(bounce(ANN), envelope(1, sender=""), NOW)
    desk.act(bounce(BOB, hard=False, cause="policy", proof="none"), envelope(2, sender=""), NOW)
    desk.act(complaint(ANN), envelope(3, sender=""), NOW)
    told = [json.loads(line)["event"] for line in said.readouterr().err.splitlines()]
    assert told == ["bounce_recorded", "bounce_recorded", "complaint_recorded"]
    assert not queue(desk)


# ------------------------------------------------------------------ what people do


def test_a_message_dragged_into_the_folder_is_a_decision(desk: Intake) -> None:
    done = desk.filed_by_hand(Ordinary(("9-ordinary",)), envelope(sender=ANN), NOW)
    assert rows(desk) == [(ALL, Reason.OPT_OUT)]
    assert done.target == ""
    with desk.ledger.connect() as db:
        assert db.exec_driver_sql("SELECT DISTINCT actor FROM audit").scalars().all() == ["staff of support"]


def test_a_message_dragged_there_counts_for_whom_it_names(desk: Intake) -> None:
    desk.filed_by_hand(opt_out(BOB, proof="none", scope=("list:offers",)), envelope(sender=ANN), NOW)
    assert [r for _, r in rows(desk, BOB)] == [Reason.OPT_OUT]
    assert rows(desk, ANN) == []


def test_a_waiting_message_dragged_there_is_accepted(desk: Intake) -> None:
    desk.act(opt_out(proof="none"), envelope(1, message_id="<x@x>"), NOW)
    desk.filed_by_hand(opt_out(proof="none"), envelope(5, message_id="<x@x>"), NOW)
    assert rows(desk) == [(ALL, Reason.OPT_OUT)]
    assert [i.state for i in queue(desk, None)] == ["accepted"]


@pytest.mark.parametrize("sender", ["", "support@quillpdf.example"])
def test_a_message_of_nobody_dragged_there_is_only_seen(desk: Intake, sender: str) -> None:
    """Staff may file anything there: it must not stop the watcher."""
    desk.act(Review((), ("all",), None, "", ("h-odd",), ""), envelope(1, message_id="<x@x>", sender=sender), NOW)
    done = desk.filed_by_hand(
        Review((), ("all",), None, "", ("h-odd",), ""), envelope(5, message_id="<x@x>", sender=sender), NOW
    )
    assert (done.label, count(desk, "suppression"), count(desk, "audit")) == ("review", 0, 0)


def test_a_message_moved_back_is_for_a_person(desk: Intake) -> None:
    desk.act(opt_out(), envelope(1, message_id="<x@x>"), NOW)
    done = desk.found_back(envelope(5, message_id="<x@x>"), NOW)
    (item,) = queue(desk)
    assert (done.review, item.rules, done.target) == (item.id, ("moved-back-by-a-person",), "")
    assert rows(desk) == [(ALL, Reason.OPT_OUT)]  # nothing is lifted without a stated reason


def test_a_message_whose_reading_did_not_end_is_for_a_person(desk: Intake) -> None:
    done = desk.unread(envelope(), NOW)
    assert (done.label, queue(desk)[0].rules) == ("review", ("attempts-did-not-end",))
