"""Alarms about the parts of a node: each begins at its limit, and not before."""

from __future__ import annotations

from datetime import timedelta

import pytest

from daemon.duty import parts
from daemon.duty.alarm import Key, Limits
from daemon.vitals import MailboxVitals
from tests.duty.support import DAY, HOUR, MINUTE, NOW, SECOND, STARTED, glance, support, vitals

MB = 1024 * 1024


@pytest.mark.parametrize(
    ("mailbox", "since"),
    [
        (support(), None),
        (support(15 * MINUTE - SECOND), None),
        (support(15 * MINUTE), NOW - 15 * MINUTE),
        (support(HOUR, connected=False, trouble="login: refused"), NOW - HOUR),
        (support(last_success=None), STARTED),
        (support(HOUR, ours=False), None),
    ],
)
def test_a_mailbox_is_silent_after_15_minutes_on_the_node_that_watches_it(
    mailbox: MailboxVitals, since: object
) -> None:
    alarms = list(parts.mailboxes(glance(vitals(mailbox))))
    assert [a.since for a in alarms] == ([since] if since else [])
    for alarm in alarms:
        assert (alarm.kind, alarm.about) == ("mailbox-silent", "support")
        assert mailbox.trouble in alarm.text


def test_a_silence_that_began_before_our_own_start_goes_on() -> None:
    """Nobody is told that it is over because we were started again."""
    fresh = vitals(support(last_success=None), started=NOW - MINUTE)
    standing = {("mailbox-silent", "support"): NOW - 3 * HOUR}
    assert list(parts.mailboxes(glance(fresh))) == []
    (alarm,) = parts.mailboxes(glance(fresh, standing=standing))
    assert alarm.since == NOW - 3 * HOUR


def test_the_operator_says_how_long_is_silent() -> None:
    seen = glance(vitals(support(2 * MINUTE)), limits=Limits(silent=MINUTE))
    assert "for 2 minutes" in next(parts.mailboxes(seen)).text


@pytest.mark.parametrize(
    ("number", "stood", "raised"),
    [(0, None, False), (1, None, True), (0, DAY - SECOND, True), (0, DAY, False), (2, 3 * DAY, True)],
)
def test_a_broken_promise_is_told_for_a_day_at_least(number: int, stood: timedelta | None, raised: bool) -> None:
    standing = {} if stood is None else {("promise-broken", ""): NOW - stood}
    assert bool(list(parts.promise(glance(vitals(promise_broken=number), standing=standing)))) is raised


@pytest.mark.parametrize(("trouble", "raised"), [(None, False), ("", False), ("connect: refused", True)])
def test_an_upstream_that_does_not_answer_ripens(trouble: str | None, raised: bool) -> None:
    alarms = list(parts.upstream(glance(vitals(upstream=trouble))))
    assert [a.ripe for a in alarms] == [timedelta(minutes=15)] * raised


@pytest.mark.parametrize("behind", [False, True])
def test_a_journal_that_misses_something_ripens(behind: bool) -> None:
    alarms = list(parts.journal(glance(vitals(journal_behind=behind))))
    assert [a.kind for a in alarms] == ["journal-failing"] * behind
    assert all(a.ripe for a in alarms)


@pytest.mark.parametrize(
    ("free", "standing", "raised"),
    [(1024, False, False), (1023, False, True), (1100, True, True), (1127, True, False), (0, False, True)],
)
def test_a_disk_is_low_under_the_limit_and_until_there_is_room_again(free: int, standing: bool, raised: bool) -> None:
    stands: dict[Key, object] = {("disk-low", "database"): NOW} if standing else {}
    seen = glance(free={"database": free * MB, "backups": 5000 * MB}, standing=stands)
    assert [a.about for a in parts.disks(seen)] == ["database"] * raised


@pytest.mark.parametrize(
    ("days", "word"), [(14, ""), (13, "ends in 13 days"), (0, "ends in 0 days"), (-1, "has ended")]
)
def test_a_certificate_is_told_two_weeks_before_its_end(days: int, word: str) -> None:
    alarms = list(parts.certificates(glance(vitals(certificates={"relay.pem": days, "other.pem": 90}))))
    assert [word in a.text for a in alarms] == [True] * bool(word)


@pytest.mark.parametrize(
    ("jump", "about"), [(61, "forward"), (-61, "back"), (60, ""), (-60, ""), (0, ""), (86_400 * 900, "forward")]
)
def test_a_clock_that_jumps_more_than_a_minute_is_told(jump: int, about: str) -> None:
    assert [a.about for a in parts.clock(glance(jump=timedelta(seconds=jump)))] == ([about] if about else [])


def test_a_jump_is_told_for_a_day_whatever_the_clock_says_now() -> None:
    for since, stands in ((NOW - DAY + SECOND, True), (NOW - DAY, False), (NOW + HOUR, True), (NOW + 9 * DAY, False)):
        alarms = list(parts.clock(glance(standing={("clock-jumped", "back"): since})))
        assert [a.about for a in alarms] == ["back"] * stands


def test_what_is_of_one_node_of_several_says_which() -> None:
    seen = glance(
        vitals(upstream="x", journal_behind=True, certificates={"c.pem": 1}), free={"log": 1}, beside=" of mx1",
        jump=HOUR,
    )  # fmt: skip
    for detector in (parts.upstream, parts.journal, parts.disks, parts.certificates, parts.clock):
        (alarm,) = detector(seen)
        assert "mx1" in alarm.about
        assert "mx1" in alarm.text
