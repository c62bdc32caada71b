"""When somebody is told of a canary, and of gaps in what was read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daemon.duty import canary, gaps
from daemon.duty.alarm import Alarm, Look
from daemon.vitals import MailboxVitals, Vitals
from storage import canaries
from storage import gaps as noted
from storage.canaries import Result, State
from storage.terms import seconds
from storage.write import write
from tests.ledgers import Books, books

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
SUPPORT = MailboxVitals("support", ours=True, connected=True)


@pytest.fixture
def ledger(tmp_path: Path) -> Books:
    return books(tmp_path / "ledger")


def ago(**how_long: int) -> int:
    return seconds(NOW - timedelta(**how_long))


def look(
    ledger: Books,
    find: Callable[[Look], Iterable[Alarm]],
    mailboxes: Sequence[MailboxVitals] = (SUPPORT,),
    started: datetime = NOW - timedelta(days=30),
) -> list[Alarm]:
    with ledger.ledger.reading() as db:
        return list(find(Look(ledger.ledger, db, Vitals(started, mailboxes=tuple(mailboxes)), NOW)))


def put(ledger: Books, state: State, mailbox: str = "support") -> None:
    with write(ledger.ledger, NOW, "test") as w:
        canaries.put(w, mailbox, state)


PASSED = State(first=ago(days=9), due=ago(hours=-1), passed=ago(hours=23), result=Result(ago(hours=23)))


def test_one_that_came_through_is_no_alarm(ledger: Books) -> None:
    put(ledger, PASSED)
    assert look(ledger, canary.find) == []


@pytest.mark.parametrize("step", ["append", "noticed", "read", "committed", "refused", "removed"])
def test_one_that_failed_is(ledger: Books, step: str) -> None:
    put(ledger, replace(PASSED, failed=ago(hours=3), result=Result(ago(hours=1), step, "because")))
    (alarm,) = look(ledger, canary.find)
    assert (alarm.kind, alarm.about, alarm.since) == ("canary-failed", "support", NOW - timedelta(hours=3))
    assert f"{step}: because" in alarm.text
    assert alarm.advice != canary._LATE


def test_no_canary_for_26_hours_is(ledger: Books) -> None:
    put(ledger, replace(PASSED, passed=ago(hours=26)))
    assert look(ledger, canary.find) == []
    put(ledger, replace(PASSED, passed=ago(hours=26, seconds=1)))
    (alarm,) = look(ledger, canary.find)
    assert (alarm.kind, alarm.about) == ("canary-failed", "support")
    assert alarm.since == NOW - timedelta(hours=26, seconds=1)


def test_one_that_has_never_passed_is_waited_for_as_long(ledger: Books) -> None:
    put(ledger, State(first=ago(hours=25), due=0))
    assert look(ledger, canary.find) == []
    put(ledger, State(first=ago(hours=27), due=0))
    assert [a.kind for a in look(ledger, canary.find)] == ["canary-failed"]


def test_while_we_did_not_run_there_could_be_none(ledger: Books) -> None:
    put(ledger, replace(PASSED, passed=ago(days=5)))
    assert look(ledger, canary.find, started=NOW - timedelta(hours=1)) == []
    assert look(ledger, canary.find, started=NOW - timedelta(hours=27))


@pytest.mark.parametrize(
    ("mailbox", "alarms"),
    [
        (MailboxVitals("support", ours=True, connected=False), 0),  # which has an alarm of its own
        (MailboxVitals("support", ours=False, connected=False), 1),  # another node watches it
        (MailboxVitals("another", ours=True, connected=True), 0),  # not in the config any more
    ],
)
def test_a_mailbox_that_is_not_watched_can_have_none(ledger: Books, mailbox: MailboxVitals, alarms: int) -> None:
    put(ledger, replace(PASSED, passed=ago(days=2)))
    assert len(look(ledger, canary.find, [mailbox])) == alarms


def test_a_mailbox_that_cannot_have_one_is_no_alarm(ledger: Books) -> None:
    put(ledger, replace(PASSED, passed=None, result=None, skipped="no UIDPLUS"))
    assert look(ledger, canary.find) == []


def test_each_mailbox_has_its_own(ledger: Books) -> None:
    put(ledger, replace(PASSED, passed=ago(days=2)))
    put(ledger, PASSED, "hilfe")
    put(ledger, replace(PASSED, passed=ago(days=3)), "ayuda")
    of = [MailboxVitals(name, ours=True, connected=True) for name in ("support", "hilfe", "ayuda")]
    assert [alarm.about for alarm in look(ledger, canary.find, of)] == ["support", "ayuda"]


def test_a_gap_is_told_for_seven_days_after_the_last(ledger: Books) -> None:
    for days, missed in ((20, 5), (7, 2), (6, 1)):
        with write(ledger.ledger, NOW - timedelta(days=days), "test") as w:
            noted.note(w, "support", "INBOX", missed)
    (alarm,) = look(ledger, gaps.find)
    assert (alarm.kind, alarm.about, alarm.since) == ("uid-gap", "support", NOW - timedelta(days=7))
    assert "3 messages lay unread" in alarm.text
    with ledger.ledger.reading() as db:
        assert noted.found(db, seconds(NOW + timedelta(days=1)))
        assert not noted.found(db, seconds(NOW + timedelta(days=1, seconds=1)))


def test_numbers_given_twice_are_told_as_well(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        noted.note(w, "support", "INBOX", 0)
        noted.note(w, "another", "INBOX", 1)
    (alarm,) = look(ledger, gaps.find)
    assert "gone back in its numbers" in alarm.text
    assert alarm.advice != gaps._ADVICE
