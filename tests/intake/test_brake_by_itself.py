"""The brake that is pulled by itself: one cause suppresses too many in an hour. On both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon import events
from daemon.config import Brake
from daemon.intake import Intake
from daemon.mail.reading import Bounce, Failed, Proof
from storage import brake, suppressions
from storage.refusals import Tally, record
from storage.terms import ALL, Reason, seconds
from storage.write import write
from tests.intake.support import (  # fmt: skip
    HOUSE,
    NOW,
    by_token,
    complaint,
    count,
    envelope,
    opt_out,
    queue,
    rows,
)
from tests.ledgers import Books

LIMIT = 4
LIMITS = Brake(bounces_per_hour=LIMIT, complaints_per_hour=LIMIT)
OUTLOOK = "bounces:outlook.com/5.1.1"


@pytest.fixture
def desk(anywhere: Books) -> Intake:
    return Intake(anywhere.ledger, HOUSE, anywhere.numbers, brakes=LIMITS)


def gone(number: int, host: str = "mx.outlook.com", status: str = "5.1.1") -> Bounce:
    return Bounce(
        (f"p{number}@example.com",), True, "address", status, f"550 {status} unknown", "token", ("0.1-x",), host=host
    )


def flood(desk: Intake, many: int, host: str = "mx.outlook.com", *, first: int = 0, at: datetime = NOW) -> int:
    """So many bounces of one host; how many suppressed somebody."""
    before = count(desk, "suppression")
    for n in range(first, first + many):
        desk.act(gone(n, host), envelope(n + 1, sender="", date=at), at)
    return count(desk, "suppression") - before


def pulled(desk: Intake) -> dict[str, brake.Pulled]:
    with desk.ledger.reading() as db:
        return dict(brake.pulled(db))


def passed(desk: Intake, many: int, at: datetime = NOW) -> None:
    with write(desk.ledger, NOW, "relay") as w:
        record(w, [], {Tally(seconds(at) // 3600, 0, "", "passed", 0): many})


# ------------------------------------------------------------------ bounces


def test_a_flood_of_one_cause_trips_its_own_brake_and_no_other(desk: Intake) -> None:
    assert flood(desk, 10) == LIMIT
    assert list(pulled(desk)) == [OUTLOOK]
    assert [(i.addresses, i.rules[-1]) for i in queue(desk)] == [
        ((f"p{n}@example.com",), "7.9-brake") for n in range(LIMIT, 10)
    ]
    assert {i.words for i in queue(desk)} == {f"{OUTLOOK}: 550 5.1.1 unknown"}
    assert flood(desk, 3, "mx.other.example", first=20) == 3
    desk.act(gone(30, status="5.1.2"), envelope(31, sender=""), NOW)
    assert rows(desk, "p30@example.com") == [(ALL, Reason.HARD_BOUNCE)]


def test_it_says_that_nobody_pulled_it_and_why(desk: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, str]] = []
    monkeypatch.setattr(events, "brake_pulled", lambda what, because: heard.append((what, because)))
    flood(desk, 7)
    it = pulled(desk)[OUTLOOK]
    because = (
        "5 people would have been suppressed by bounces of outlook.com with 5.1.1 in one hour; the limit is 4"
        " (0 were mailed in 24 hours)"
    )
    assert (it.since, it.actor, it.because) == (NOW, "brake", because)
    assert heard == [(OUTLOOK, because)]  # once, however many followed
    with desk.ledger.reading() as db:
        facts = suppressions.by_evidence(db, it.evidence)
    assert [(f.event, f.actor, f.source) for f in facts] == [("brake", "brake", "dsn")]


def test_policy_bounces_suppress_nobody_and_pull_nothing(desk: Intake) -> None:
    for n in range(3 * LIMIT):
        report = replace(gone(n, status="5.7.1"), hard=False, cause="policy")
        desk.act(report, envelope(n + 1, sender=""), NOW)
    assert (count(desk, "suppression"), pulled(desk), queue(desk)) == (0, {}, [])


def test_of_much_mail_more_may_come_back(desk: Intake) -> None:
    passed(desk, 150, NOW - timedelta(hours=20))
    passed(desk, 10_000, NOW - timedelta(hours=30))  # too long ago
    assert flood(desk, 10) == 7  # five of a hundred
    assert "the limit is 7 (150 were mailed in 24 hours)" in (pulled(desk)[OUTLOOK].because or "")


def test_many_causes_together_are_too_many_as_well(desk: Intake) -> None:
    came = sum(flood(desk, 2, f"mx.host{n}.example", first=2 * n) for n in range(13))
    assert (came, list(pulled(desk))) == (5 * LIMIT, ["bounces"])


def test_hours_are_counted_as_they_came_and_each_for_itself(desk: Intake) -> None:
    later = NOW + timedelta(hours=1)
    assert flood(desk, LIMIT) + flood(desk, LIMIT, first=10, at=later) == 2 * LIMIT
    assert pulled(desk) == {}
    desk.act(gone(30), envelope(31, sender="", date=NOW), later)  # read late: of the first hour
    assert list(pulled(desk)) == [OUTLOOK]


def test_who_is_suppressed_already_is_not_counted(desk: Intake) -> None:
    for _ in range(5):
        flood(desk, LIMIT)
    assert (pulled(desk), queue(desk)) == ({}, [])


def test_released_it_is_counted_from_nothing(desk: Intake) -> None:
    flood(desk, LIMIT + 1)
    with write(desk.ledger, NOW, "cli root") as w:
        brake.set_to(w, [], [OUTLOOK], "they are gone indeed")
    assert flood(desk, 9, first=20) == LIMIT
    assert next(i.addresses[0] for i in queue(desk)) == f"p{LIMIT}@example.com"  # still waits


def test_a_wider_brake_holds_and_nothing_is_counted(desk: Intake) -> None:
    with write(desk.ledger, NOW, "cli root") as w:
        brake.set_to(w, ["bounces:outlook.com"], [], "a test")
    assert flood(desk, 9) == 0
    assert (list(pulled(desk)), count(desk, "unproven")) == (["bounces:outlook.com"], 0)


def test_with_0_it_is_never_pulled(desk: Intake) -> None:
    never = replace(desk, brakes=Brake(bounces_per_hour=0))
    assert flood(never, 30) == 30
    assert (pulled(desk), count(desk, "unproven")) == ({}, 0)


def test_what_nobody_proved_counts_only_as_far_as_it_acts(desk: Intake) -> None:
    """Or a forger could let the true bounces of anybody wait."""
    few = replace(desk, allowance=desk.allowance.model_copy(update={"unproven_per_hour": 2}))
    for n in range(10):
        few.act(replace(gone(n), proof="none"), envelope(n + 1, sender="x@forger.example"), NOW)
    assert (count(desk, "suppression"), pulled(desk)) == (2, {})
    assert {i.rules[-1] for i in queue(desk)} == {"7.5-unproven"}


def test_of_a_report_on_many_only_those_of_the_cause_wait(desk: Intake) -> None:
    flood(desk, LIMIT + 1)
    each = (
        Failed("a@example.com", True, "address", "5.1.1", "mx.outlook.com"),
        Failed("b@example.com", True, "address", "5.1.1", "mx.other.example"),
        Failed("c@example.com", True, "policy", "5.7.1", "mx.outlook.com"),
    )
    report = Bounce(("a@example.com", "b@example.com"), True, "address", "5.1.1", "", "token", ("0.1-x",), each=each)
    done = desk.act(report, envelope(50, sender=""), NOW)
    assert (rows(desk, "a@example.com"), rows(desk, "b@example.com")) == ([], [(ALL, Reason.HARD_BOUNCE)])
    (item,) = [i for i in queue(desk) if i.id == done.review]
    assert (item.addresses, item.wish) == (("a@example.com",), "hard-bounce")


def test_in_the_midst_of_a_report_the_rest_of_it_waits(desk: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    monkeypatch.setattr(events, "brake_pulled", lambda what, because: heard.append(what))
    people = tuple(f"p{n}@example.com" for n in range(7))
    report = replace(gone(0), recipients=people)
    done = desk.act(report, envelope(1, sender=""), NOW)
    assert count(desk, "suppression") == LIMIT
    (item,) = queue(desk)
    assert (item.id, item.addresses) == (done.review, people[LIMIT:])
    assert heard == [OUTLOOK]  # once


def test_full_mailboxes_are_of_a_cause_too(desk: Intake) -> None:
    for day in range(5):
        at = NOW + timedelta(days=day)
        for n in range(LIMIT + 2):
            report = replace(gone(n, status="4.2.2"), hard=False, cause="mailbox")
            desk.act(report, envelope(day * 100 + n + 1, sender="", date=at), at)
    assert count(desk, "suppression") == LIMIT
    assert list(pulled(desk)) == ["bounces:outlook.com/4.2.2"]
    assert {i.wish for i in queue(desk)} == {"soft-bounce"}


# ------------------------------------------------------------------ complaints


def test_complaints_are_counted_by_who_reports_them(desk: Intake) -> None:
    def report(n: int, reporter: str) -> None:
        desk.act(complaint(f"p{n}@example.com"), envelope(n + 1, sender=f"fbl@{reporter}"), NOW)

    for n in range(8):
        report(n, "mail.reporter.example")
    report(20, "another.example")
    assert list(pulled(desk)) == ["complaints:reporter.example"]
    assert count(desk, "suppression") == LIMIT + 1
    assert rows(desk, "p20@example.com") == [(ALL, Reason.COMPLAINT)]
    assert {(i.wish, i.words) for i in queue(desk)} == {("complaint", "complaints:reporter.example: abuse")}


def test_a_pulled_brake_holds_only_its_reporter(desk: Intake) -> None:
    with write(desk.ledger, NOW, "cli root") as w:
        brake.set_to(w, ["complaints:reporter.example"], [], "a test")
    desk.act(complaint("a@example.com"), envelope(1, sender="fbl@reporter.example"), NOW)
    desk.act(complaint("b@example.com"), envelope(2, sender="fbl@other.example"), NOW)
    assert (rows(desk, "a@example.com"), rows(desk, "b@example.com")) == ([], [(ALL, Reason.COMPLAINT)])


# ------------------------------------------------------------------ what is never held

NAMES = st.sampled_from((*brake.WHAT, "bounces:example.com", OUTLOOK, "complaints:example.com", "complaints:unknown"))


@pytest.mark.parametrize("anywhere", ["file"], indirect=True)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.sets(NAMES),
    proof=st.sampled_from(["token", "dmarc"]),
    limit=st.integers(0, 3),
    number=st.integers(0, 10**9),
    bounced=st.integers(0, 5),
)
def test_a_proven_request_is_never_held_whatever_is_pulled(
    desk: Intake, names: set[str], proof: Proof, limit: int, number: int, bounced: int
) -> None:
    desk = replace(desk, brakes=Brake(bounces_per_hour=limit, complaints_per_hour=limit))
    with write(desk.ledger, NOW, "test") as w:
        brake.set_to(w, names, [*brake.WHAT], "a test")
    person = f"q{number}@example.com"
    for n in range(bounced):  # may trip one more
        desk.act(gone(n), envelope(n + 1, sender=""), NOW)
    held = count(desk, "review")
    reading = by_token(desk, person) if proof == "token" else opt_out(person, writer=person)
    done = desk.act(reading, envelope(1_000_000 + number, sender=person), NOW)
    assert (done.review, count(desk, "review")) == (None, held)
    assert (ALL, Reason.OPT_OUT) in rows(desk, person)
