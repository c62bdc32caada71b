"""The way back: a wish, a link, and the later word that counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from daemon.intake import Intake
from storage.address import parse
from storage.terms import ALL, Reason
from tests.intake.support import (
    ANN,
    DAY,
    HOUSE,
    NOW,
    bounce,
    comeback,
    count,
    envelope,
    notices,
    opt_out,
    queue,
    rows,
    undoing,
)
from tests.ledgers import Books


@pytest.fixture
def desk(ledger: Books) -> Intake:
    return Intake(ledger.ledger, HOUSE, ledger.numbers, notices=True)


# ------------------------------------------------------------------ coming back


def test_a_proven_wish_of_somebody_opted_out_is_asked_back_once(desk: Intake, ledger: Books) -> None:
    ledger.suppress(ANN, since=NOW - timedelta(days=9))
    for uid in (1, 2):
        done = desk.act(comeback(), envelope(uid, message_id="<same@example.com>"), NOW)
    (notice,) = notices(desk)
    assert (notice.kind, notice.language, notice.scopes, done.label) == ("comeback", "de", (ALL,), "resubscribe")
    assert (len(rows(desk)), queue(desk)) == (1, [])  # a wish alone changes nothing


def test_a_second_wish_within_the_month_is_for_a_person(desk: Intake, ledger: Books) -> None:
    """No second notice is sent, and the wish must not be lost."""
    ledger.suppress(ANN, since=NOW - timedelta(days=9))
    for uid in (1, 2):
        desk.act(comeback(), envelope(uid), NOW)
    assert (len(notices(desk)), len(queue(desk))) == (1, 1)


@pytest.mark.parametrize("reason", [Reason.COMPLAINT, Reason.HARD_BOUNCE])
def test_whom_we_do_not_write_to_a_person_decides(desk: Intake, ledger: Books, reason: Reason) -> None:
    ledger.suppress(ANN, since=NOW - timedelta(days=9))
    ledger.suppress(ANN, reason=reason, since=NOW - timedelta(days=9))
    desk.act(comeback(), envelope(), NOW)
    assert (notices(desk), len(queue(desk))) == ([], 1)


@pytest.mark.parametrize("case", ["unproven", "never left", "cannot write", "old"])
def test_any_other_wish_to_come_back_is_for_a_person(desk: Intake, ledger: Books, case: str) -> None:
    if case != "never left":
        ledger.suppress(ANN, since=NOW - timedelta(days=9))
    desk = replace(desk, notices=case != "cannot write")
    date = NOW - timedelta(days=5 if case == "old" else 0)
    desk.act(comeback("none" if case == "unproven" else "dmarc"), envelope(date=date), NOW)
    assert (len(queue(desk)), notices(desk)) == (1, [])


def test_the_undo_link_lifts_the_opt_out_and_nothing_else(desk: Intake, ledger: Books) -> None:
    ledger.suppress(ANN, since=NOW - timedelta(days=1))
    ledger.suppress(ANN, reason=Reason.COMPLAINT, since=NOW - timedelta(days=1))
    ledger.suppress(ANN, "offers", since=NOW - timedelta(days=1))
    desk.act(undoing(desk), envelope(), NOW)
    assert rows(desk) == [(ALL, Reason.COMPLAINT), (ledger.numbers["offers"], Reason.OPT_OUT)]


def test_the_undo_link_of_one_list_exempts_it_from_everything(desk: Intake, ledger: Books) -> None:
    offers = ledger.numbers["offers"]
    ledger.suppress(ANN, since=NOW - timedelta(days=1))
    desk.act(undoing(desk, offers), envelope(), NOW)
    assert sorted(rows(desk)) == [(ALL, Reason.OPT_OUT), (offers, Reason.WANTED)]
    gate = ledger.gate()
    assert type(gate.may(parse(ANN), "offers")).__name__ == "Pass"
    assert type(gate.may(parse(ANN), "newsletter")).__name__ == "Refused"


@pytest.mark.parametrize("day", [DAY - 40, DAY - 32, DAY + 3])
def test_the_undo_link_works_for_thirty_days(desk: Intake, ledger: Books, day: int) -> None:
    ledger.suppress(ANN, since=NOW - timedelta(days=50))
    desk.act(undoing(desk, day=day), envelope(), NOW)
    assert len(rows(desk)) == 1
    (item,) = queue(desk)  # the wish is not lost: a person decides
    desk.decide(item, True, "", NOW, "test")
    assert rows(desk) == []


def test_an_undo_link_of_one_list_that_comes_too_late_waits_for_that_list(desk: Intake, ledger: Books) -> None:
    ledger.suppress(ANN, "offers", since=NOW - timedelta(days=50))
    ledger.suppress(ANN, since=NOW - timedelta(days=50))
    desk.act(undoing(desk, ledger.numbers["offers"], DAY - 40), envelope(), NOW)
    (item,) = queue(desk)
    assert item.scope == "list:offers"
    desk.decide(item, True, "", NOW, "test")
    assert (ALL, Reason.OPT_OUT) in rows(desk)
    assert type(ledger.gate().may(parse(ANN), "offers")).__name__ == "Pass"


def test_who_opts_out_again_is_not_brought_back_by_an_older_undo(desk: Intake, ledger: Books) -> None:
    ledger.suppress(ANN, since=NOW)
    desk.act(undoing(desk), envelope(date=NOW - timedelta(hours=1)), NOW + timedelta(hours=1))
    assert len(rows(desk)) == 1


def test_an_opt_out_after_the_wish_counts_however_late_either_is_read(desk: Intake, ledger: Books) -> None:
    """Out at 0 h, undone by a mail of 2 h, out again at 3 h; the watcher comes back at 10 h and reads both."""
    ledger.suppress(ANN, since=NOW)
    late = NOW + timedelta(hours=10)
    desk.act(undoing(desk), envelope(1, date=NOW + timedelta(hours=2)), late)
    desk.act(opt_out(), envelope(2, date=NOW + timedelta(hours=3)), late)
    assert rows(desk) == [(ALL, Reason.OPT_OUT)]


def test_the_undo_link_of_one_list_that_alone_was_left_leaves_no_exemption(desk: Intake, ledger: Books) -> None:
    ledger.suppress(ANN, "offers", since=NOW - timedelta(days=1))
    desk.act(undoing(desk, ledger.numbers["offers"]), envelope(), NOW)
    assert rows(desk) == []


def test_an_exemption_counts_from_when_it_was_wished(desk: Intake, ledger: Books) -> None:
    """Out of all at 0 h, one list undone by a mail of 2 h, out of all again at 3 h, all read at 10 h: the exemption goes."""
    offers, late = ledger.numbers["offers"], NOW + timedelta(hours=10)
    ledger.suppress(ANN, since=NOW)
    desk.act(undoing(desk, offers), envelope(1, date=NOW + timedelta(hours=2)), late)
    assert (offers, Reason.WANTED) in rows(desk)
    desk.act(opt_out(), envelope(2, date=NOW + timedelta(hours=3)), late)
    assert rows(desk) == [(ALL, Reason.OPT_OUT)]


def test_an_older_opt_out_read_later_does_not_end_an_exemption(desk: Intake, ledger: Books) -> None:
    """Out of all at 0 h, out of one list at 1 h, that list undone at 2 h and read first: it stays wanted."""
    offers, late = ledger.numbers["offers"], NOW + timedelta(hours=10)
    ledger.suppress(ANN, since=NOW)
    desk.act(undoing(desk, offers), envelope(1, date=NOW + timedelta(hours=2)), late)
    desk.act(opt_out(scope=("list:offers",)), envelope(2, date=NOW + timedelta(hours=1)), late)
    assert sorted(rows(desk)) == [(ALL, Reason.OPT_OUT), (offers, Reason.WANTED)]


def test_a_copy_of_the_old_request_read_late_is_no_newer_word(desk: Intake) -> None:
    """Out at 0 h; the copy in another mailbox is read at 10 h; the undo link used at 2 h still gives back."""
    late = NOW + timedelta(hours=10)
    desk.act(opt_out(), envelope(1), NOW)
    desk.act(opt_out(), envelope(1, mailbox="second"), late)
    desk.act(undoing(desk), envelope(2, date=NOW + timedelta(hours=2)), late)
    assert rows(desk) == []


def test_a_repeated_opt_out_outlives_an_older_wish(desk: Intake, ledger: Books) -> None:
    """Two rows of two messages, both asked again in a third: that counts for both."""
    offers, late = ledger.numbers["offers"], NOW + timedelta(hours=10)
    desk.act(opt_out(scope=("list:newsletter",)), envelope(1, date=NOW), late)
    desk.act(opt_out(scope=("list:offers",)), envelope(2, date=NOW), late)
    both = opt_out(scope=("list:newsletter", "list:offers"))
    desk.act(both, envelope(3, date=NOW + timedelta(hours=5)), late)
    desk.act(undoing(desk, offers), envelope(4, date=NOW + timedelta(hours=3)), late)
    assert len(rows(desk)) == 2


def test_a_link_is_not_good_for_a_later_opt_out(desk: Intake, ledger: Books) -> None:
    ledger.suppress(ANN, since=NOW)
    day = timedelta(days=1)
    desk.act(undoing(desk), envelope(1, date=NOW + day), NOW + day)
    desk.act(opt_out(), envelope(2, date=NOW + 5 * day), NOW + 5 * day)
    desk.act(undoing(desk), envelope(3, date=NOW + 6 * day), NOW + 6 * day)
    assert rows(desk) == [(ALL, Reason.OPT_OUT)]


def test_an_older_request_for_one_list_does_not_outlive_a_lift_of_all(desk: Intake, ledger: Books) -> None:
    ledger.suppress(ANN, since=NOW - timedelta(days=50))
    desk.act(undoing(desk), envelope(), NOW)
    desk.act(opt_out(scope=("list:offers",)), envelope(2, date=NOW - timedelta(days=20)), NOW)
    assert rows(desk) == []


def test_a_wish_to_come_back_that_a_person_files_is_no_opt_out(desk: Intake, ledger: Books) -> None:
    ledger.suppress(ANN, "offers", since=NOW - timedelta(days=9))
    desk.act(comeback(), envelope(), NOW)
    desk.filed_by_hand(comeback(), envelope(7), NOW)
    assert rows(desk) == [(ledger.numbers["offers"], Reason.OPT_OUT)]


def test_an_accepted_wish_for_one_list_exempts_it(desk: Intake, ledger: Books) -> None:
    ledger.suppress(ANN, since=NOW - timedelta(days=9))
    desk.act(comeback("none", ("list:offers",)), envelope(), NOW)
    desk.decide(queue(desk)[0], True, "", NOW, "cli root")
    assert (ledger.numbers["offers"], Reason.WANTED) in rows(desk)


def test_one_forged_report_cannot_suppress_a_multitude(desk: Intake) -> None:
    many = [f"p{n}@example.org" for n in range(1500)]
    desk.act(bounce(*many, proof="none"), envelope(sender="mailer-daemon@example.net"), NOW)
    assert (count(desk, "suppression"), len(queue(desk))) == (0, 1)


def test_copies_of_a_message_take_nothing_from_the_allowance(desk: Intake) -> None:
    for uid, mailbox in enumerate(("support", "sales", "info", "office", "desk")):
        desk.act(opt_out(proof="none"), envelope(uid, mailbox=mailbox, message_id="<same@x>"), NOW)
    assert (rows(desk), queue(desk)) == ([(ALL, Reason.OPT_OUT)], [])


def test_in_a_trusted_only_mailbox_the_unchecked_wait(desk: Intake) -> None:
    desk.act(opt_out(proof="unchecked"), replace(envelope(), trusted_only=True), NOW)
    assert (rows(desk), len(queue(desk))) == ([], 1)


def test_undoing_twice_is_harmless(desk: Intake, ledger: Books) -> None:
    ledger.suppress(ANN, since=NOW - timedelta(days=1))
    for uid in (1, 2):
        desk.act(undoing(desk), envelope(uid), NOW)
    assert (rows(desk), count(desk, "audit")) == ([], 2)
