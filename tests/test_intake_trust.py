"""Who is believed, how often, and what people are written: tokens, the hourly allowance, notices and the way back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from daemon.config import Intake as Allowance
from daemon.intake import Intake
from daemon.mail.reading import Complaint, OptOut, Proof, Resubscribe
from daemon.mail.tokens import Token
from storage import audit, outbox, suppressions
from storage.address import parse
from storage.terms import ALL, Reason, seconds
from storage.write import write
from tests.ledgers import Books, books
from tests.test_intake import ANN, BOB, HOUSE, NOW, bounce, complaint, count, envelope, opt_out, queue, rows

DAY = seconds(NOW) // 86_400


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Books]:
    it = books(tmp_path / "ledger")
    yield it
    with it.ledger.reading() as db:
        audit.verify(db, it.ledger.site_key)
    it.ledger.close()


@pytest.fixture
def desk(ledger: Books) -> Intake:
    return Intake(ledger.ledger, HOUSE, ledger.numbers, notices=True)


def key(desk: Intake, address: str) -> bytes:
    return desk.ledger.site_key.address_key(address)


def by_token(desk: Intake, address: str, number: int = 0, *, writer: str = ANN, named: bool = False) -> OptOut:
    token = Token(key(desk, address), number)
    return OptOut((address,) if named else (), ("all",), (), writer, "token", False, "", ("0.3-token",), "", token)


def comeback(proof: Proof = "dmarc", scope: tuple[str, ...] = ("all",)) -> Resubscribe:
    return Resubscribe((ANN,), scope, ANN, proof, "de", ("2-resubscribe",), "wieder aufnehmen")


def undoing(desk: Intake, number: int = 0, day: int = DAY) -> Resubscribe:
    return Resubscribe((), ("all",), ANN, "token", "", ("0.3-token",), "", Token(key(desk, ANN), number, day))


def notices(desk: Intake) -> list[outbox.Notice]:
    with desk.ledger.connect() as db:
        return outbox.due(db, NOW + timedelta(days=400))


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
        assert notices(desk) != []  # still owed
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
