"""What reports of delivery and complaints come to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from daemon.intake import Done, Intake, NobodyNamed
from daemon.mail.reading import (
    AutoReply,
    Bounce,
    Cause,
    Complaint,
    Failed,
    Ordinary,
    Proof,
    Reading,
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
    owed,
    queue,
    rows,
)

# ------------------------------------------------------------------ machines


def test_a_proven_hard_bounce_suppresses(desk: Intake) -> None:
    done = desk.act(bounce(ANN, BOB), envelope(sender=""), NOW)
    assert rows(desk, ANN) == rows(desk, BOB) == [(ALL, Reason.HARD_BOUNCE)]
    assert (done.label, done.target) == ("bounce", "Machines")


@pytest.mark.parametrize("proof", ["none", "dmarc", "unchecked"])
def test_a_bounce_without_our_token_waits_for_a_person(desk: Intake, proof: Proof) -> None:
    desk.act(bounce(proof=proof), envelope(sender=""), NOW)
    assert rows(desk) == []
    (item,) = queue(desk)
    assert item.wish == "hard-bounce"
    desk.decide(item, True, "", NOW, "cli root")
    assert rows(desk) == [(ALL, Reason.HARD_BOUNCE)]
    assert owed(desk) == [(1, "Machines")]


def test_each_recipient_of_a_report_is_judged_by_what_it_says_of_him(desk: Intake) -> None:
    each = (Failed(ANN, True, "address"), Failed(BOB, False, "mailbox"), Failed("c@example.com", False, "policy"))
    report = Bounce((ANN, BOB, "c@example.com"), False, "mailbox", "", "", "token", ("0.1-x",), each=each)
    desk.act(report, envelope(sender=""), NOW)
    assert [rows(desk, f.recipient) for f in each] == [[(ALL, Reason.HARD_BOUNCE)], [], []]
    assert count(desk, "soft_bounce") == 1


@pytest.mark.parametrize("hard", [True, False])
def test_a_policy_bounce_says_nothing_of_the_address(desk: Intake, hard: bool) -> None:
    for uid in range(10):
        desk.act(bounce(hard=hard, cause="policy"), envelope(uid, sender=""), NOW + timedelta(days=uid))
    assert rows(desk) == []
    assert queue(desk) == []
    assert count(desk, "soft_bounce") == 0


@pytest.mark.parametrize("cause", ["mailbox", "policy"])
def test_an_unproven_bounce_that_says_nothing_of_the_address_is_recorded_only(desk: Intake, cause: Cause) -> None:
    for day in range(6):
        reading = bounce(hard=cause == "policy", cause=cause, proof="none")
        desk.act(reading, envelope(day + 1, date=NOW + timedelta(days=day)), NOW + timedelta(days=day))
    assert (rows(desk), queue(desk), count(desk, "incoming")) == ([], [], 6)


def test_soft_bounces_suppress_on_the_fifth_day(desk: Intake) -> None:
    uid = 0
    for day in range(5):
        for _ in range(3):  # many on one day are one
            uid += 1
            desk.act(
                bounce(hard=False, cause="mailbox"), envelope(uid, sender="", date=NOW + timedelta(days=day)), LATE
            )
            assert rows(desk) == ([(ALL, Reason.SOFT_BOUNCE)] if day == 4 else [])


def test_soft_bounces_outside_the_window_do_not_count(desk: Intake) -> None:
    for n in range(8):
        desk.act(bounce(hard=False, cause="mailbox"), envelope(n, sender="", date=NOW + timedelta(days=8 * n)), LATE)
    assert rows(desk) == []


def test_soft_bounces_without_a_date_count_from_today(desk: Intake) -> None:
    never = datetime.fromtimestamp(0, UTC)
    for day in range(5):
        desk.act(bounce(hard=False, cause="mailbox"), envelope(day + 1, date=never), NOW + timedelta(days=day))
    assert rows(desk) == [(ALL, Reason.SOFT_BOUNCE)]


def test_soft_bounces_of_the_spellings_of_one_person_count_together(desk: Intake) -> None:
    for day, spelling in enumerate(
        ("ann@gmail.com", "a.nn@gmail.com", "ann+1@gmail.com", "ann+2@googlemail.com", "ann@gmail.com")
    ):
        date = NOW + timedelta(days=day)
        desk.act(bounce(spelling, hard=False, cause="mailbox"), envelope(day, sender="", date=date), LATE)
    assert rows(desk, "ann@gmail.com") == [(ALL, Reason.SOFT_BOUNCE)]


def test_a_proven_complaint_suppresses(desk: Intake) -> None:
    assert desk.act(complaint(ANN), envelope(sender=""), NOW).target == "Machines"
    assert rows(desk) == [(ALL, Reason.COMPLAINT)]


@pytest.mark.parametrize("reading", [complaint(ANN, proof="none"), complaint()])
def test_a_complaint_without_proof_or_without_a_name_waits_for_a_person(desk: Intake, reading: Complaint) -> None:
    desk.act(reading, envelope(sender=""), NOW)
    assert rows(desk) == []
    (item,) = queue(desk)
    if not reading.recipients:
        with pytest.raises(NobodyNamed):
            desk.decide(item, True, "", NOW, "cli root")
    else:
        desk.decide(item, True, "", NOW, "cli root")
        assert rows(desk) == [(ALL, Reason.COMPLAINT)]


@pytest.mark.parametrize("reading", [AutoReply(("0-auto",)), Ordinary(("9-ordinary",))])
def test_ordinary_mail_leaves_a_sighting_and_nothing_else(desk: Intake, reading: Reading) -> None:
    done = desk.act(reading, envelope(), NOW)
    assert done == Done(done.label, done.incoming)
    assert [count(desk, t) for t in ("incoming", "evidence", "audit", "suppression", "review")] == [1, 0, 0, 0, 0]
