"""What each reading comes to: rows, debts, reviews, and nothing that nobody proved."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from daemon import events
from daemon.config import House, MailingList
from daemon.config import Intake as Allowance
from daemon.intake import AlreadyDecided, Done, Envelope, Intake, NobodyNamed, Outdated, Shelf, scope_numbers
from daemon.mail.reading import (
    AutoReply,
    Bounce,
    Cause,
    Complaint,
    Failed,
    OptOut,
    Ordinary,
    Proof,
    Reading,
    Resubscribe,
    Review,
)
from storage import audit, incoming, suppressions
from storage.address import parse
from storage.engine import Unavailable
from storage.incoming import Item, Place
from storage.terms import ALL, Reason
from tests.ledgers import Books, books

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
ANN, BOB = "ann@example.com", "bob@example.com"
TARGETS: dict[Shelf, str] = {"processed": "Opt-outs", "machine": "Machines"}
HOUSE = House(
    name="Quill",
    domains=("quillpdf.example",),
    addresses=("support@quillpdf.example",),
    form_addresses=("forms@quillpdf.example",),
    lists=(MailingList(id="newsletter", sender="letter@news.quillpdf.example"), MailingList(id="offers")),
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Books]:
    it = books(tmp_path / "ledger")
    yield it
    with it.ledger.reading() as db:
        audit.verify(db, it.ledger.site_key)
    it.ledger.close()


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    """What is logged once the test has configured it; nobody logs into a closed stream afterwards."""
    handlers = list(logging.getLogger().handlers)
    yield capsys
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = handlers


@pytest.fixture
def desk(ledger: Books) -> Intake:
    """Without the hourly allowance: what nobody proved waits for a person (tests/test_intake_trust.py has the rest)."""
    return Intake(ledger.ledger, HOUSE, ledger.numbers, allowance=Allowance(unproven_per_hour=0))


def envelope(
    uid: int = 1, *, mailbox: str = "support", message_id: str = "", sender: str = ANN, date: datetime = NOW
) -> Envelope:
    return Envelope(
        place=Place(mailbox, "INBOX", 1, uid),
        digest=b"%d" % uid,
        size=100,
        message_id=message_id or f"<{uid}@example.com>",
        internaldate=date,
        sender=sender,
        excerpt="Subject: stop",
        targets=TARGETS,
    )  # fmt: skip


def opt_out(
    *addresses: str, proof: Proof = "dmarc", writer: str | None = ANN, scope: tuple[str, ...] = ("all",), stays: bool = False
) -> OptOut:  # fmt: skip
    return OptOut(addresses or (ANN,), scope, (), writer, proof, stays, "en", ("3-stop",), "please stop")


def bounce(*recipients: str, hard: bool = True, cause: Cause = "address", proof: Proof = "token") -> Bounce:
    return Bounce(recipients or (ANN,), hard, cause, "5.1.1", "550 unknown", proof, ("1-dsn",))


def complaint(*recipients: str, proof: Proof = "token") -> Complaint:
    return Complaint(recipients, "abuse", proof, ("2-arf",))


def rows(desk: Intake, address: str = ANN) -> list[tuple[int, Reason]]:
    with desk.ledger.connect() as db:
        return [(r[1], Reason(r[2])) for r in suppressions.standing(db, desk.ledger.site_key, parse(address))]


def queue(desk: Intake, state: str | None = "open") -> list[Item]:
    with desk.ledger.connect() as db:
        return incoming.reviews(db, state)


def owed(desk: Intake, mailbox: str = "support") -> list[tuple[int, str]]:
    with desk.ledger.connect() as db:
        return [(s.place.uid, s.target) for s in incoming.owed(db, mailbox)]


def count(desk: Intake, table: str) -> int:
    with desk.ledger.connect() as db:
        return int(db.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


# ------------------------------------------------------------------ requests


@pytest.mark.parametrize("proof", ["dmarc", "unchecked"])
def test_the_writers_own_address_acts_at_once_and_the_message_is_owed_its_filing(desk: Intake, proof: Proof) -> None:
    done = desk.act(opt_out(proof=proof), envelope(), NOW)
    assert rows(desk) == [(ALL, Reason.OPT_OUT)]
    assert (done.label, done.target, done.review, len(done.refs)) == ("opt-out", "Opt-outs", None, 1)
    assert owed(desk) == [(1, "Opt-outs")]
    assert queue(desk) == []


def test_without_proof_a_person_looks_at_it_and_nobody_is_suppressed(desk: Intake) -> None:
    done = desk.act(opt_out(proof="none"), envelope(), NOW)
    (item,) = queue(desk)
    assert rows(desk) == []
    assert (done.review, done.target, done.refs) == (item.id, "", ())
    assert (item.addresses, item.scope, item.wish, item.words) == ((ANN,), "all", "opt-out", "please stop")
    assert item.rules == ("3-stop", "7.5-unproven")
    assert owed(desk) == []


@pytest.mark.parametrize("proof", ["dmarc", "unchecked"])
def test_addresses_that_are_only_named_wait_for_a_person(desk: Intake, proof: Proof) -> None:
    done = desk.act(opt_out(ANN, BOB, proof=proof), envelope(), NOW)
    assert rows(desk, ANN) == [(ALL, Reason.OPT_OUT)]
    assert rows(desk, BOB) == []
    (item,) = queue(desk)
    assert (item.addresses, done.review) == ((BOB,), item.id)
    assert owed(desk) == []  # not filed before the rest of it is decided


def test_a_request_in_passing_is_honoured_and_the_mail_stays(desk: Intake) -> None:
    assert desk.act(opt_out(stays=True), envelope(), NOW).target == ""
    assert rows(desk) == [(ALL, Reason.OPT_OUT)]
    assert owed(desk) == []


def test_a_request_in_passing_that_is_accepted_stays_too(desk: Intake) -> None:
    desk.act(opt_out(stays=True, proof="none"), envelope(), NOW)
    desk.decide(queue(desk)[0], True, "", NOW, "cli root")
    assert rows(desk) == [(ALL, Reason.OPT_OUT)]
    assert owed(desk) == []


def test_a_request_for_two_lists_is_a_row_each(desk: Intake, ledger: Books) -> None:
    desk.act(opt_out(scope=("list:newsletter", "list:offers")), envelope(), NOW)
    assert {scope for scope, _ in rows(desk)} == {ledger.numbers["newsletter"], ledger.numbers["offers"]}
    assert count(desk, "evidence") == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [(("all",), [ALL]), (("list:a", "list:b"), [1, 2]), (("list:a", "list:gone"), [ALL]), (("list:a", "all"), [ALL]), ((), [ALL])],
)  # fmt: skip
def test_a_list_that_we_do_not_have_is_everything(words: tuple[str, ...], expected: list[int]) -> None:
    assert scope_numbers(words, {"a": 1, "b": 2}) == expected


def test_the_evidence_tells_the_whole_story(desk: Intake) -> None:
    (ref,) = desk.act(opt_out(), envelope(7, message_id="<x@example.com>"), NOW).refs
    with desk.ledger.connect() as db:
        (fact,) = suppressions.by_evidence(db, ref)
    assert fact.detail == {
        "address": ANN,
        "source": "mail",
        "mailbox": "support",
        "folder": "INBOX",
        "uid": 7,
        "message_id": "<x@example.com>",
        "words": "please stop",
        "rules": ["3-stop"],
        "proof": "dmarc",
    }
    assert (fact.actor, fact.source) == ("mailbox support", "mail")


def test_it_counts_from_when_it_was_received(desk: Intake) -> None:
    desk.act(opt_out(), envelope(date=NOW - timedelta(days=3)), NOW)
    with desk.ledger.connect() as db:
        (row,) = suppressions.standing(db, desk.ledger.site_key, parse(ANN))
    assert row[3] == int((NOW - timedelta(days=3)).timestamp())


@pytest.mark.parametrize("date", [datetime(1970, 1, 1, tzinfo=UTC), NOW + timedelta(days=900)])
def test_a_date_that_cannot_be_makes_no_request_outdated_or_later_than_now(
    desk: Intake, ledger: Books, date: datetime
) -> None:
    ledger.suppress(ANN)
    ledger.lift(ANN)
    at = datetime.now(UTC) + timedelta(minutes=1)
    desk.act(opt_out(ANN), envelope(date=date), at)
    with ledger.ledger.reading() as db:
        [since] = db.exec_driver_sql("SELECT since FROM suppression").scalars()
    assert since == int(at.timestamp())


def test_an_old_request_read_after_a_lift_leaves_no_reference(desk: Intake, ledger: Books) -> None:
    ledger.suppress(ANN)
    ledger.lift(ANN)
    done = desk.act(opt_out(), envelope(), NOW - timedelta(days=1))
    assert done.refs == ()
    assert rows(desk) == []


# ------------------------------------------------------------------ our own


@pytest.mark.parametrize(
    "ours", ["support@quillpdf.example", "Support+x@QuillPDF.example", "forms@quillpdf.example", "letter@news.quillpdf.example"]
)  # fmt: skip
@pytest.mark.parametrize("proof", ["token", "dmarc"])
def test_our_own_addresses_are_never_suppressed(desk: Intake, ours: str, proof: Proof) -> None:
    desk.act(opt_out(ours, writer=ours, proof=proof), envelope(sender=ours), NOW)
    desk.act(bounce(ours), envelope(2, sender=""), NOW)
    desk.act(complaint(ours), envelope(3, sender=""), NOW)
    assert count(desk, "suppression") == 0


def test_our_own_addresses_are_not_suppressed_by_a_decision_either(desk: Intake) -> None:
    desk.act(opt_out("support@quillpdf.example", BOB, writer=None, proof="none"), envelope(), NOW)
    (added,) = desk.decide(queue(desk)[0], True, "", NOW, "cli root")
    assert added.outcome == "new"
    assert rows(desk, BOB) == [(ALL, Reason.OPT_OUT)]
    assert count(desk, "suppression") == 1


def test_an_item_that_names_only_ourselves_concerns_nobody(desk: Intake) -> None:
    desk.act(opt_out("support@quillpdf.example", writer=None, proof="none"), envelope(), NOW)
    with pytest.raises(NobodyNamed):
        desk.decide(queue(desk)[0], True, "", NOW, "cli root")
    assert len(queue(desk)) == 1


def test_a_message_cannot_suppress_a_domain(desk: Intake) -> None:
    desk.act(opt_out("@example.com", proof="token"), envelope(), NOW)
    assert count(desk, "suppression") == 0


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


LATE = NOW + timedelta(days=80)  # days count by when the bounce came, not by when we got to read it


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


# ------------------------------------------------------------------ the same message again


def test_one_message_in_two_mailboxes_is_one_evidence_and_two_sightings(desk: Intake) -> None:
    first = desk.act(opt_out(), envelope(1, message_id="<same@x>"), NOW)
    second = desk.act(opt_out(), envelope(9, mailbox="office", message_id="<same@x>"), NOW)
    assert first.refs == second.refs
    assert [count(desk, t) for t in ("incoming", "evidence", "audit")] == [2, 1, 1]
    assert (owed(desk), owed(desk, "office")) == ([(1, "Opt-outs")], [(9, "Opt-outs")])


def test_one_doubtful_message_in_two_mailboxes_is_one_review(desk: Intake) -> None:
    first = desk.act(opt_out(proof="none"), envelope(1, message_id="<same@x>"), NOW)
    second = desk.act(opt_out(proof="none"), envelope(9, mailbox="office", message_id="<same@x>"), NOW)
    assert first.review == second.review
    assert len(queue(desk)) == 1


@pytest.mark.parametrize(
    ("sender", "address"), [(BOB, BOB), (ANN, BOB), (BOB, ANN)], ids=["another person", "another name", "another writer"]
)  # fmt: skip
def test_two_messages_with_one_message_id_are_two_reviews(desk: Intake, sender: str, address: str) -> None:
    """There are mailers whose Message-ID is always the same: nobody's request may be lost in somebody else's."""
    desk.act(opt_out(ANN, proof="none"), envelope(1, message_id="<form@x>"), NOW)
    desk.act(opt_out(address, proof="none", writer=sender), envelope(2, message_id="<form@x>", sender=sender), NOW)
    assert [i.sender for i in queue(desk)] == [ANN, sender]


def test_reading_the_same_place_again_changes_nothing(desk: Intake) -> None:
    one, other = desk.act(opt_out(), envelope(), NOW), desk.act(opt_out(), envelope(), NOW)
    assert (one.incoming, one.refs) == (other.incoming, other.refs)


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


# ------------------------------------------------------------------ doubt, and what is said


@pytest.mark.parametrize("reading", [opt_out(), opt_out(proof="none"), bounce(), complaint(ANN), Ordinary(("9",))])
def test_nothing_is_recorded_or_said_while_the_database_is_away(
    desk: Intake, reading: Reading, said: pytest.CaptureFixture[str]
) -> None:
    events.configure(format="json")
    away = desk.ledger.path.with_name("away")
    desk.ledger.path.rename(away)
    with pytest.raises(Unavailable):
        desk.act(reading, envelope(), NOW)
    away.rename(desk.ledger.path)
    assert [count(desk, t) for t in ("incoming", "evidence", "audit", "suppression", "review")] == [0] * 5
    assert said.readouterr().err == ""


def test_what_is_said_names_nobody(desk: Intake, said: pytest.CaptureFixture[str]) -> None:
    events.configure(format="json")
    desk.act(opt_out(ANN, BOB), envelope(1), NOW)
    desk.act(opt_out(), envelope(2), NOW)
    desk.decide(queue(desk)[0], True, "", NOW, "cli root")
    lines = said.readouterr().err
    assert [json.loads(line)["event"] for line in lines.splitlines()] == [
        "opt_out_recorded",
        "review_opened",
        "opt_out_repeated",
        "review_decided",
    ]
    assert "example.com" not in lines
