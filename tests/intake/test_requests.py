"""What a request comes to: rows, debts, reviews, and nothing that nobody proved."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from daemon import events
from daemon.intake import Intake, NobodyNamed, scope_numbers
from daemon.mail.reading import (
    Ordinary,
    Proof,
    Reading,
)
from storage import suppressions
from storage.address import parse
from storage.engine import Unavailable
from storage.terms import ALL, Reason
from tests.intake.support import (
    ANN,
    BOB,
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
