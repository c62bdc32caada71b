"""Who is believed, and how often: tokens, the hourly allowance, and what people are written."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import pytest

from daemon.config import Intake as Allowance
from daemon.intake import Intake
from daemon.mail.reading import Complaint
from daemon.mail.tokens import Token
from storage import outbox, suppressions
from storage.address import parse
from storage.terms import ALL, Reason
from storage.write import write
from tests.intake.support import (
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


# ------------------------------------------------------------------ tokens


def test_a_token_opts_out_whom_it_names_whoever_writes(desk: Intake) -> None:
    done = desk.act(by_token(desk, BOB), envelope(sender=ANN), NOW)
    assert rows(desk, BOB) == [(ALL, Reason.OPT_OUT)]
    assert rows(desk, ANN) == []
    assert (done.target, count(desk, "person"), notices(desk)) == ("Opt-outs", 0, [])  # we do not know who that is


def test_a_token_of_a_list_is_about_that_list(desk: Intake, ledger: Books) -> None:
    offers = ledger.numbers["offers"]
    desk.act(by_token(desk, ANN, offers, named=True), envelope(), NOW)
    assert rows(desk) == [(offers, Reason.OPT_OUT)]
    assert count(desk, "person") == 1


def test_a_redacted_complaint_is_about_whom_our_token_names(desk: Intake) -> None:
    desk.act(Complaint((), "abuse", "token", ("0.2-x",), token=Token(key(desk, ANN), 0)), envelope(sender=""), NOW)
    assert rows(desk) == [(ALL, Reason.COMPLAINT)]


# ------------------------------------------------------------------ what nobody proved


def test_what_nobody_proved_acts_up_to_the_allowance_and_then_waits(desk: Intake) -> None:
    for n in range(25):
        writer = f"p{n}@example.org"
        desk.act(opt_out(writer, writer=writer, proof="none"), envelope(n, sender=writer), NOW)
    assert (count(desk, "suppression"), len(queue(desk))) == (20, 5)
    assert queue(desk)[0].rules[-1] == "7.5-unproven"


def test_one_writer_gets_three_an_hour(desk: Intake) -> None:
    for n in range(5):
        desk.act(opt_out(f"p{n}@example.org", writer=ANN), envelope(n), NOW)
    assert (count(desk, "suppression"), len(queue(desk))) == (3, 2)


@pytest.mark.parametrize(("limit", "few"), [(0, 0), (1, 1), (10, 2), (40, 6)])
def test_the_share_of_one_writer_follows_the_option(desk: Intake, limit: int, few: int) -> None:
    desk = replace(desk, allowance=Allowance(unproven_per_hour=limit))
    for n in range(8):
        desk.act(opt_out(f"p{n}@example.org", writer=ANN), envelope(n), NOW)
    assert count(desk, "suppression") == few


def test_a_backlog_counts_by_the_hour_in_which_it_came(desk: Intake) -> None:
    for n in range(60):
        writer, came = f"p{n}@example.org", NOW - timedelta(hours=n)
        desk.act(opt_out(writer, writer=writer, proof="none"), envelope(n, sender=writer, date=came), NOW)
    assert (count(desk, "suppression"), queue(desk)) == (60, [])


def test_a_trusted_only_mailbox_has_no_allowance(desk: Intake) -> None:
    desk.act(opt_out(BOB), replace(envelope(), trusted_only=True), NOW)
    assert (rows(desk, BOB), len(queue(desk))) == ([], 1)


def test_proven_requests_never_count(desk: Intake) -> None:
    for n in range(60):
        writer = f"p{n}@example.org"
        desk.act(opt_out(writer, writer=writer), envelope(n, sender=writer), NOW)
    assert (count(desk, "suppression"), count(desk, "unproven")) == (60, 0)


def test_unproven_bounces_and_complaints_act_within_the_allowance(desk: Intake) -> None:
    for n in range(12):
        desk.act(bounce(f"b{n}@example.org", proof="none"), envelope(n, sender="mailer-daemon@example.net"), NOW)
        desk.act(complaint(f"c{n}@example.org", proof="none"), envelope(50 + n, sender="fbl@example.com"), NOW)
    assert (count(desk, "suppression"), len(queue(desk))) == (20, 4)


# ------------------------------------------------------------------ notices


def test_who_has_opted_out_is_told_once(desk: Intake) -> None:
    desk.act(opt_out(), envelope(1), NOW)
    desk.act(opt_out(scope=("list:offers",)), envelope(2), NOW)
    (notice,) = notices(desk)
    assert (notice.kind, notice.address, notice.language, notice.scopes) == ("confirm", ANN, "en", (ALL,))


def test_a_notice_is_owed_only_where_a_suppression_is_new(desk: Intake, ledger: Books) -> None:
    ledger.suppress(ANN)
    desk.act(opt_out(), envelope(), NOW)
    assert notices(desk) == []


@pytest.mark.parametrize("age", [timedelta(days=2, minutes=1), timedelta(days=300)])
def test_an_old_request_is_honoured_in_silence(desk: Intake, age: timedelta) -> None:
    desk.act(opt_out(), envelope(date=NOW - age), NOW)
    assert (len(rows(desk)), notices(desk)) == (1, [])


def test_whom_somebody_else_names_is_not_written_to(desk: Intake) -> None:
    desk.act(opt_out(BOB, writer=ANN), envelope(), NOW)
    assert (len(rows(desk, BOB)), notices(desk)) == (1, [])


def test_unproven_writers_get_few_notices_an_hour(desk: Intake) -> None:
    """Nobody can have us flood strangers."""
    for n in range(15):
        writer = f"p{n}@example.org"
        desk.act(opt_out(writer, writer=writer, proof="unchecked"), envelope(n, sender=writer), NOW)
    assert (count(desk, "suppression"), len(notices(desk))) == (15, 5)


def test_without_an_upstream_nothing_is_owed(desk: Intake) -> None:
    replace(desk, notices=False).act(opt_out(), envelope(), NOW)
    assert notices(desk) == []


# ------------------------------------------------------------------ the outbox itself


def test_what_is_sent_keeps_no_address_and_keeps_a_second_one_away(desk: Intake) -> None:
    desk.act(opt_out(), envelope(), NOW)
    (notice,) = notices(desk)
    with write(desk.ledger, NOW, "notices") as w:
        outbox.settle(w, notice, "sent")
        assert w.db.exec_driver_sql("SELECT address, state FROM outbox").all() == [("", "sent")]
        assert not outbox.owe(w, "confirm", parse("ann+x@example.com"), "en", [ALL], proven=True)
        assert outbox.owe(w, "comeback", parse(ANN), "en", [ALL], proven=True)


def test_a_postponed_notice_is_not_due_before_its_time(desk: Intake) -> None:
    desk.act(opt_out(), envelope(), NOW)
    (notice,) = notices(desk)
    with write(desk.ledger, NOW, "notices") as w:
        outbox.postpone(w, notice, NOW + timedelta(minutes=2))
        assert outbox.due(w.db, NOW + timedelta(minutes=1)) == []
        assert [n.attempts for n in outbox.due(w.db, NOW + timedelta(minutes=2))] == [1]


def test_after_thirty_days_nothing_is_remembered_of_it(desk: Intake) -> None:
    desk.act(opt_out(), envelope(), NOW)
    (notice,) = notices(desk)
    with write(desk.ledger, NOW + timedelta(days=31), "job") as w:
        outbox.forget(w)
        assert outbox.due(w.db, NOW + timedelta(days=31)) == [notice]  # still owed
        outbox.settle(w, notice, "dropped")
        outbox.forget(w)
        assert outbox.due(w.db, datetime.max.replace(tzinfo=NOW.tzinfo, year=2100)) == []
        assert w.db.exec_driver_sql("SELECT count(*) FROM outbox").scalar() == 0


def test_the_lift_is_explained(desk: Intake, ledger: Books) -> None:
    ledger.suppress(ANN, since=NOW - timedelta(days=1))
    desk.act(undoing(desk), envelope(), NOW)
    with desk.ledger.connect() as db:
        history = suppressions.history(db, desk.ledger.site_key, parse(ANN))
    assert [(f.event, f.source) for f in history] == [("suppressed", "operator"), ("lifted", "mail")]
    assert (history[-1].detail or {})["because"] == "the person confirmed by the link of our notice"


def test_a_notice_that_was_not_sent_keeps_no_later_one_away(desk: Intake) -> None:
    desk.act(opt_out(), envelope(), NOW)
    (notice,) = notices(desk)
    with write(desk.ledger, NOW, "test") as w:
        again = partial(outbox.owe, w, "confirm", parse(ANN), "en", [ALL], proven=True)
        assert not again()
        outbox.settle(w, notice, "dropped")
        assert again()
