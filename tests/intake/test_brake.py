"""What waits for a person while the brake is pulled, and what it never holds up. On both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from daemon.intake import Intake
from daemon.mail.reading import Bounce, Complaint, Failed, Proof
from daemon.mail.tokens import Token
from storage import brake
from storage.brake import What
from storage.terms import ALL, Reason
from storage.write import write
from tests.intake.support import (  # fmt: skip
    ANN,
    BOB,
    HOUSE,
    NOW,
    bounce,
    by_token,
    complaint,
    count,
    envelope,
    key,
    opt_out,
    owed,
    queue,
    rows,
)
from tests.ledgers import Books


@pytest.fixture
def desk(anywhere: Books) -> Intake:
    return Intake(anywhere.ledger, HOUSE, anywhere.numbers)


def pull(desk: Intake, *what: What) -> None:
    with write(desk.ledger, NOW, "test") as w:
        brake.set_to(w, what, [], "a test")


def release(desk: Intake, *what: What) -> None:
    with write(desk.ledger, NOW, "test") as w:
        brake.set_to(w, [], what, "a test")


@pytest.mark.parametrize("proof", ["token", "none"])
def test_a_bounce_waits_whoever_proves_it_and_acts_again_afterwards(desk: Intake, proof: Proof) -> None:
    pull(desk, "bounces")
    done = desk.act(bounce(ANN, BOB, proof=proof), envelope(1, sender=""), NOW)
    assert (rows(desk), rows(desk, BOB), done.target) == ([], [], "")
    (item,) = queue(desk)
    assert (item.addresses, item.wish, item.rules) == ((ANN, BOB), "hard-bounce", ("1-dsn", "7.9-brake"))
    release(desk, "bounces")
    desk.act(bounce(ANN, proof=proof), envelope(2, sender=""), NOW)
    assert rows(desk) == [(ALL, Reason.HARD_BOUNCE)]


def test_what_waited_is_decided_as_ever(desk: Intake) -> None:
    pull(desk, "bounces")
    desk.act(bounce(), envelope(sender=""), NOW)
    desk.decide(queue(desk)[0], True, "really gone", NOW, "cli root")
    assert (rows(desk), owed(desk)) == ([(ALL, Reason.HARD_BOUNCE)], [(1, "Machines")])


def test_each_is_pulled_by_itself(desk: Intake) -> None:
    pull(desk, "complaints")
    desk.act(bounce(ANN), envelope(1, sender=""), NOW)
    desk.act(complaint(BOB), envelope(2, sender=""), NOW)
    assert (rows(desk), rows(desk, BOB)) == ([(ALL, Reason.HARD_BOUNCE)], [])
    (item,) = queue(desk)
    assert (item.wish, item.rules[-1]) == ("complaint", "7.9-brake")


def test_nothing_waits_that_would_change_nothing(desk: Intake) -> None:
    desk.act(bounce(), envelope(1, sender=""), NOW)
    desk.act(opt_out(BOB, writer=BOB), envelope(2, sender=BOB), NOW)
    pull(desk, *brake.WHAT)
    desk.act(bounce(), envelope(3, sender=""), NOW)
    desk.act(opt_out(BOB, writer=BOB, proof="unchecked"), envelope(4, sender=BOB), NOW)
    assert queue(desk) == []


def test_full_mailboxes_are_counted_and_the_last_day_waits(desk: Intake) -> None:
    pull(desk, "bounces")
    for day in range(5):
        at = NOW + timedelta(days=day)
        desk.act(bounce(hard=False, cause="mailbox"), envelope(day + 1, sender="", date=at), at)
        assert len(queue(desk)) == (day == 4)
    assert (rows(desk), count(desk, "soft_bounce")) == ([], 5)
    assert (queue(desk)[0].wish, queue(desk)[0].addresses) == ("soft-bounce", (ANN,))
    release(desk, "bounces")
    later = NOW + timedelta(days=5)
    desk.act(bounce(hard=False, cause="mailbox"), envelope(9, sender="", date=later), later)
    assert rows(desk) == [(ALL, Reason.SOFT_BOUNCE)]


def test_of_a_report_on_many_only_the_full_mailbox_waits(desk: Intake) -> None:
    pull(desk, "bounces")
    each = (Failed(ANN, True, "policy"), Failed(BOB, False, "mailbox"))
    report = Bounce((ANN, BOB), False, "mailbox", "", "", "token", ("0.1-x",), each=each)
    for day in range(5):
        at = NOW + timedelta(days=day)
        desk.act(report, envelope(day + 1, sender="", date=at), at)
    (item,) = queue(desk)
    assert (item.wish, item.addresses) == ("soft-bounce", (BOB,))


def test_a_complaint_of_somebody_whom_only_a_token_names_cannot_wait(desk: Intake) -> None:
    pull(desk, "complaints")
    desk.act(Complaint((), "abuse", "token", ("0.2-x",), token=Token(key(desk, ANN), 0)), envelope(sender=""), NOW)
    assert (rows(desk), queue(desk)) == ([(ALL, Reason.COMPLAINT)], [])


# ------------------------------------------------------------------ requests


@pytest.mark.parametrize("proof", ["none", "unchecked"])
def test_a_request_that_nobody_proved_waits(desk: Intake, proof: Proof) -> None:
    pull(desk, "unproven")
    desk.act(opt_out(proof=proof), envelope(), NOW)
    assert (rows(desk), count(desk, "unproven")) == ([], 0)
    assert [i.rules[-1] for i in queue(desk)] == ["7.9-brake"]


def test_a_proven_request_is_never_held_up(desk: Intake) -> None:
    pull(desk, *brake.WHAT)
    desk.act(opt_out(), envelope(1), NOW)
    desk.act(by_token(desk, BOB), envelope(2), NOW)
    assert (rows(desk), rows(desk, BOB)) == ([(ALL, Reason.OPT_OUT)], [(ALL, Reason.OPT_OUT)])
    assert queue(desk) == []


def test_a_proof_is_good_for_the_writers_own_address_only(desk: Intake) -> None:
    pull(desk, "unproven")
    desk.act(opt_out(ANN, BOB), envelope(), NOW)
    assert (rows(desk), rows(desk, BOB)) == ([(ALL, Reason.OPT_OUT)], [])
    (item,) = queue(desk)
    assert (item.addresses, item.rules[-1]) == ((BOB,), "7.9-brake")


def test_what_a_person_does_is_not_held_up(desk: Intake) -> None:
    pull(desk, *brake.WHAT)
    desk.filed_by_hand(opt_out(proof="none"), envelope(1), NOW)
    desk.honour(opt_out(BOB, writer=BOB, proof="none"), envelope(2, sender=BOB), NOW, "cli root")
    assert (rows(desk), rows(desk, BOB)) == ([(ALL, Reason.OPT_OUT)], [(ALL, Reason.OPT_OUT)])


def test_a_mailbox_that_trusts_nobody_is_as_before(desk: Intake) -> None:
    pull(desk, "bounces")
    desk.act(opt_out(proof="none"), replace(envelope(), trusted_only=True), NOW)
    assert [i.rules[-1] for i in queue(desk)] == ["7.5-unproven"]
