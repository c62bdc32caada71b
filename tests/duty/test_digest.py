"""The digest: its numbers are those of a ledger that the real desks have made, and its first sentence is true."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from daemon.duty import digest
from daemon.duty.keeping import LATE_AFTER
from daemon.intake import Intake
from storage import alarms, canaries, refusals, sights, watched, week
from storage.alarms import Noted
from storage.canaries import State
from storage.refusals import Tally
from storage.terms import seconds
from storage.week import Week
from storage.write import write
from tests.duty.support import DAY, HOUR, MINUTE, NOW, SECOND
from tests.intake.support import HOUSE, bounce, envelope, opt_out, queue
from tests.ledgers import Books, queued

START = NOW - 7 * DAY


def of(ledger: Books) -> Week:
    return week.week(ledger.ledger, START, NOW)


def lines(found: Week) -> dict[str, str]:
    """Name -> value, as an operator reads them."""
    block = digest.text(found, timedelta(hours=48)).split("\n\n")[2]
    return {line[:22].strip(): line[22:] for line in block.splitlines()}


def test_an_empty_ledger_has_kept_its_promise(ledger: Books) -> None:
    found = of(ledger)
    assert digest.text(found, timedelta(hours=48)).startswith("The promise was kept.\n")
    assert (found.opt_outs, found.seconds, found.refused, found.reviews, found.open) == ({}, None, 0, 0, 0)
    assert lines(found)["last backup"] == "never"


def test_opt_outs_are_counted_by_way_within_the_week(ledger: Books) -> None:
    desk = Intake(ledger.ledger, HOUSE, ledger.numbers)
    with write(ledger.ledger, START, "test") as w:
        watched.begin_folder(w, "support", "INBOX", 1, uidnext=1, days=30)
    ages = {1: 8 * DAY, 2: 7 * DAY + SECOND, 3: 7 * DAY, 4: 2 * DAY, 5: HOUR}
    for uid, ago in ages.items():
        writer = f"p{uid}@example.com"
        mail = envelope(uid, sender=writer, date=NOW - ago - uid * MINUTE)
        desk.act(opt_out(writer, writer=writer), mail, NOW - ago)
    desk.act(bounce("gone@example.com"), envelope(9, date=NOW - DAY), NOW - DAY)
    desk.act(opt_out("p5@example.com", writer="p5@example.com"), envelope(10, date=NOW), NOW)  # asked once more
    ledger.suppress("old@example.com")  # now, by the real clock: after the week
    found = of(ledger)
    assert found.opt_outs == {"mail": 3}
    assert found.whole
    assert found.seconds == (4 * 60.0, 5 * 60.0)
    assert found.suppressions == 7
    assert lines(found)["opt-outs"] == "3 (mail 3)"
    assert lines(found)["from mail to the list"] == "half of them within 4 minutes, all within 5 minutes"


def test_mail_that_lay_there_before_we_watched_is_not_held_against_us(ledger: Books) -> None:
    desk = Intake(ledger.ledger, HOUSE, ledger.numbers)
    with write(ledger.ledger, NOW - DAY, "test") as w:
        watched.begin_folder(w, "support", "INBOX", 1, uidnext=2, days=30)
    desk.act(opt_out(), envelope(1, date=NOW - 20 * DAY), NOW - DAY)
    assert of(ledger).seconds is None
    assert of(ledger).opt_outs == {"mail": 1}


def test_reviews_and_the_oldest_that_is_open(ledger: Books) -> None:
    desk = Intake(ledger.ledger, HOUSE, ledger.numbers)
    with write(ledger.ledger, NOW, "test") as w:
        for ago in (9 * DAY, 49 * HOUR, HOUR):
            queued(w, NOW - ago)
    desk.decide(queue(desk)[0], False, "", NOW - 3 * DAY, "cli root")
    found = of(ledger)
    assert (found.reviews, found.open, found.review_oldest) == (1, 2, NOW - 49 * HOUR)
    assert lines(found)["doubtful mail"] == "1 decided, 2 open"
    assert lines(found)["the oldest open"].endswith("60 minutes late")
    assert week.week(ledger.ledger, NOW - DAY, NOW).reviews == 0


def test_what_the_relay_did(ledger: Books) -> None:
    hour = int(NOW.timestamp()) // 3600
    tallies = {
        Tally(hour - 1, 0, "", "refused", 1): 2,
        Tally(hour - 1, 0, "", "stripped", 1): 3,
        Tally(hour - 100, 0, "", "withdrawn", 1): 4,
        Tally(hour - 2, 0, "", "passed", 0): 1000,
        Tally(hour - 2, 0, "", "deferred", 0): 7,
        Tally(hour - 169, 0, "", "refused", 1): 50,
        Tally(hour, 0, "", "refused", 1): 60,
    }
    with write(ledger.ledger, NOW, "test") as w:
        refusals.record(w, [], tallies)
    found = of(ledger)
    assert (found.refused, found.passed) == (9, 1000)
    assert lines(found)["relay"] == "9 recipients refused, 1,000 passed"


def test_the_end_of_the_record_is_in_it_for_the_archive(ledger: Books) -> None:
    ledger.suppress("ann@example.com")
    found = of(ledger)
    assert found.head.startswith("1:")
    assert found.head in digest.text(found, timedelta(hours=48))


ALARM = Noted("promise-broken", "", "", "parts.promise", NOW - DAY, NOW, "Somebody was mailed", "Stop")


@pytest.mark.parametrize(
    ("kind", "since", "ended", "sentence"),
    [
        ("promise-broken", DAY, None, "The promise was not kept: somebody was mailed who had opted out."),
        ("promise-broken", 9 * DAY, 7 * DAY, "The promise was not kept: somebody was mailed who had opted out."),
        ("promise-broken", 9 * DAY, 7 * DAY + SECOND, "The promise was kept."),
        (
            "request-overdue",
            DAY,
            HOUR,
            "It is in doubt whether the promise was kept: a request waited longer than it may.",
        ),
        ("disk-low", DAY, None, "The promise was kept."),
    ],
)
def test_the_first_sentence_is_that_of_the_alarms_of_the_week(
    ledger: Books, kind: str, since: timedelta, ended: timedelta | None, sentence: str
) -> None:
    noted = replace(ALARM, kind=kind, since=NOW - since, ended=None if ended is None else NOW - ended)
    with write(ledger.ledger, NOW, "test") as w:
        alarms.save(w, [noted])
    found = of(ledger)
    assert digest.verdict(found) == sentence
    assert digest.fact(found)["kept"] is (sentence == "The promise was kept.")
    assert digest.text(found, timedelta(hours=48)).startswith(sentence)


def test_a_broken_promise_is_not_hidden_behind_a_thousand_small_alarms(ledger: Books) -> None:
    """A mailbox that comes and goes for days: no list of them is told, but the verdict is of all."""
    small = [
        replace(ALARM, kind="mailbox-silent", since=START + n * MINUTE, seen=NOW, ended=NOW, closed=NOW)
        for n in range(1_100)
    ]
    with write(ledger.ledger, NOW, "test") as w:
        for alarm in small:
            alarms.save(w, [alarm])
        alarms.save(w, [replace(ALARM, since=NOW - HOUR, seen=NOW)])
    assert digest.verdict(of(ledger)).startswith("The promise was not kept")
    assert lines(of(ledger))["alarms"] == "1,101"


def test_a_record_that_was_cut_is_in_doubt(ledger: Books) -> None:
    assert "the record does not end as we left it" in digest.verdict(replace(of(ledger), as_left=False))


def test_when_jobs_last_ended_well(ledger: Books) -> None:
    for job, ago in (("back_up", HOUR), ("note_head", 2 * HOUR), ("verify_audit", DAY)):
        with write(ledger.ledger, NOW - ago, "test") as w:
            w.job_ran(job)
    found = lines(of(ledger))
    assert found["last backup"] == "2026-05-04T11:00:00Z"
    assert found["last found whole"] == "2026-05-04T10:00:00Z"


def test_when_the_canary_of_each_mailbox_came_through_if_it_has_one(ledger: Books) -> None:
    assert "canary" not in digest.text(of(ledger), timedelta(hours=48))
    passed = seconds(NOW - 3 * HOUR)
    with write(ledger.ledger, NOW, "test") as w:
        canaries.put(w, "support", State(first=1, due=2, passed=passed))
        canaries.put(w, "hilfe", State(first=1, due=2))
        canaries.put(w, "files", State(first=1, due=2, skipped="no UIDPLUS"))
    assert lines(of(ledger))["canary last through"] == "hilfe never, support 2026-05-04T09:00:00Z"
    assert digest.fact(of(ledger))["canaries"] == {"hilfe": None, "support": "2026-05-04T09:00:00Z"}


def test_the_canary_is_nobody_who_opted_out(ledger: Books) -> None:
    """It asks once a day in each mailbox: a week in which nobody asked is a week of none."""
    desk = Intake(ledger.ledger, HOUSE, ledger.numbers)
    canary = "canary-abc@optoutd.invalid"
    mail = replace(envelope(1, sender=canary, date=NOW - HOUR), canary=True)
    desk.act(opt_out(canary, writer=canary), mail, NOW - HOUR)
    assert of(ledger).opt_outs == {}
    with ledger.ledger.connect() as db:
        assert sights.suppressed(db, START, NOW, 1000) == {}
        assert sights.suppressed_before(db, NOW, 3600, 24, 1000) == {}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (datetime(2026, 5, 4, 7, 59, tzinfo=UTC), datetime(2026, 4, 27, 8, tzinfo=UTC)),
        (datetime(2026, 5, 4, 8, tzinfo=UTC), datetime(2026, 5, 4, 8, tzinfo=UTC)),
        (datetime(2026, 5, 10, 23, tzinfo=UTC), datetime(2026, 5, 4, 8, tzinfo=UTC)),
    ],
)
def test_it_is_mondays_at_eight(now: datetime, expected: datetime) -> None:
    assert digest.moment_before(now, 0) == expected


def test_it_can_be_told_as_json(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        alarms.save(w, [replace(ALARM, ended=NOW)])
    assert json.loads(json.dumps(digest.fact(of(ledger))))["alarms"][0]["kind"] == "promise-broken"


def test_its_job_is_none_of_the_timetable() -> None:
    """An alarm about a digest that is switched off would stand for ever."""
    assert "digest" not in LATE_AFTER
