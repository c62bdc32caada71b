"""Unusual numbers are told with what to do, and brakes that wait. On both databases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daemon.duty import unusual
from daemon.duty.alarm import Alarm, Look
from daemon.vitals import Vitals
from storage import brake, held, suppressions
from storage.refusals import Tally, record
from storage.terms import ALL, Reason, seconds
from storage.write import write
from tests.ledgers import Books, queued, verified, verified_on

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture(params=["file", pytest.param("postgres", marks=pytest.mark.postgres)])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Books]:
    in_file = request.param == "file"
    with verified(tmp_path / "ledger") if in_file else verified_on(request.getfixturevalue("postgres"), tmp_path) as it:
        yield it


def found(it: Books, now: datetime = NOW) -> list[Alarm]:
    with it.ledger.reading() as db:
        return list(unusual.find(Look(it.ledger, db, Vitals(now), now)))


def leave(it: Books, many: int, at: datetime, source: str = "one-click", reason: Reason = Reason.OPT_OUT) -> None:
    """So many people more, each by an address key of its own, as a click writes it."""
    with write(it.ledger, at, "test") as w:
        for n in range(many):
            key = it.ledger.site_key.address_key(f"{at.timestamp()}-{n}@{source}.example")
            suppressions.add(w, key, ALL, reason, source, {})


def passed(it: Books, many: int, at: datetime) -> None:
    with write(it.ledger, at, "relay") as w:
        record(w, [], {Tally(seconds(at) // 3600, 0, "", "passed", 0): many})


def kinds(alarms: Sequence[Alarm]) -> list[tuple[str, str]]:
    return [(a.kind, a.about) for a in alarms]


# ------------------------------------------------------------------ numbers


def test_nothing_is_unusual_in_an_empty_or_a_quiet_house(ledger: Books) -> None:
    assert found(ledger) == []
    leave(ledger, 49, NOW - HOUR / 2)
    assert found(ledger) == []


def test_an_hour_like_none_before_says_how_many_and_what_to_do(ledger: Books) -> None:
    for day in range(1, 30):
        for hour in (3, 7, 11):
            leave(ledger, 3, NOW - day * DAY + hour * HOUR)
    begin = NOW - HOUR / 2
    leave(ledger, 120, begin)
    (alarm,) = found(ledger)
    assert (alarm.kind, alarm.about, alarm.since) == ("unusual", "one-click", begin)
    assert alarm.text.startswith("120 one-click opt-outs in an hour; usual is 3 at most.")
    assert "never held up" in alarm.text
    undo = "optoutd lift --source one-click --even-opt-outs --from 2026-05-04T12:00:00Z --to 2026-05-04T12:30:00Z --dry-run"
    assert f"`{undo}`" in alarm.advice
    assert kinds(found(ledger, NOW + HOUR)) == []  # over, and no unusual day
    leave(ledger, 90, NOW + HOUR)
    assert kinds(found(ledger, NOW + HOUR)) == [("unusual", "one-click")]


def test_what_happens_every_week_is_usual(ledger: Books) -> None:
    for week in range(1, 5):
        for hour in range(3):
            leave(ledger, 60, NOW - week * 7 * DAY + hour * HOUR - HOUR / 2)
    leave(ledger, 120, NOW - HOUR / 2)
    assert found(ledger) == []
    leave(ledger, 190, NOW - HOUR / 3)
    assert kinds(found(ledger)) == [("unusual", "one-click")]


def test_one_accident_does_not_make_the_next_one_usual(ledger: Books) -> None:
    for hour in range(6):
        leave(ledger, 300, NOW - 9 * DAY + hour * HOUR)
    leave(ledger, 80, NOW - HOUR / 2)
    assert kinds(found(ledger)) == [("unusual", "one-click")]


def test_what_a_mailing_explains_is_not_unusual(ledger: Books) -> None:
    leave(ledger, 120, NOW - HOUR / 2)
    passed(ledger, 11_900, NOW - 2 * DAY)
    assert kinds(found(ledger)) == [("unusual", "one-click")]
    passed(ledger, 200, NOW - HOUR)
    assert found(ledger) == []


def test_a_slow_trickle_shows_by_the_day(ledger: Books) -> None:
    for hour in range(20):
        leave(ledger, 15, NOW - 21 * HOUR + hour * HOUR, "mail")
    (alarm,) = found(ledger)
    assert alarm.text.startswith("300 opt-outs by mail in a day; usual is 0 at most.")
    assert alarm.since == NOW - 21 * HOUR


def test_each_source_for_itself_and_no_list_that_was_imported(ledger: Books) -> None:
    leave(ledger, 60, NOW - HOUR / 2, "dsn", Reason.HARD_BOUNCE)
    leave(ledger, 60, NOW - HOUR / 3, "page")
    leave(ledger, 500, NOW - HOUR / 3, "import")
    alarms = found(ledger)
    assert sorted(kinds(alarms)) == [("unusual", "dsn"), ("unusual", "page")]
    bounces = next(a for a in alarms if a.about == "dsn")
    assert "--even-opt-outs" not in bounces.advice
    assert "honoured" not in bounces.text


def test_a_long_record_is_looked_at_from_its_end(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(ledger, 300, NOW - 3 * DAY)
    leave(ledger, 100, NOW - HOUR / 2)
    monkeypatch.setattr(unusual, "MOST_ROWS", 60)
    (alarm,) = found(ledger)
    assert alarm.text.startswith("60 ")


# ------------------------------------------------------------------ brakes

NAME = "bounces:outlook.com/5.1.1"


def test_a_brake_that_was_pulled_by_itself_wants_a_person_at_once(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "mailbox bounces") as w:
        brake.pull_by_itself(w, NAME, "201 people", "dsn")
        for _ in range(3):
            queued(w, wish="hard-bounce", rules=[held.RULE], words=held.words_of(NAME, "550 no"))
        queued(w, wish="hard-bounce", rules=[held.RULE], words=held.words_of("bounces:other.example/5.1.1", "550 no"))
    (alarm,) = found(ledger)
    assert (alarm.kind, alarm.about, alarm.since) == ("brake-pulled", NAME, NOW)
    assert "bounces of outlook.com with 5.1.1 was pulled by itself: 201 people." in alarm.text
    assert alarm.text.endswith("So many mails wait for a person: 3.")
    for command in (
        f"optoutd review list --cause {NAME}",
        f"optoutd review accept --cause {NAME} --dry-run",
        "optoutd lift --source dsn --domain outlook.com --diagnostic 5.1.1 --from 2026-05-04T11:30:00Z",
        f"optoutd brake --release {NAME}",
    ):
        assert command in alarm.advice


def test_one_that_a_person_pulled_only_when_it_was_perhaps_forgotten(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "cli root") as w:
        brake.set_to(w, ["unproven", "complaints:reporter.example"], [], "a storm")
    assert found(ledger, NOW + 23 * HOUR) == []
    alarms = found(ledger, NOW + 25 * HOUR)
    assert kinds(alarms) == [("brake-pulled", "complaints:reporter.example"), ("brake-pulled", "unproven")]
    assert "by cli root more than a day ago: a storm." in alarms[0].text
    assert "--source arf --domain reporter.example" in alarms[0].advice
    assert "--source mail --even-opt-outs" in alarms[1].advice
