"""Is the promise kept? Each thing that can be wrong, by itself, and what it comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from daemon.duty.alarm import KINDS, Limits
from daemon.texts import lasted
from daemon.vitals import AlarmVitals, DutyVitals, MailboxVitals, Vitals
from daemon.web.console.promise import _BAD, judged
from storage.sights import HookSight, Record, Sight

NOW = datetime(2026, 11, 27, 12, 30, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
WELL = Sight(
    reviews=0,
    oldest_review=None,
    begun=0,
    to_be_filed=0,
    record=Record(100, 100, True),
    jobs={"note_head": NOW - HOUR, "back_up": NOW - HOUR},
    deferring_since=None,
    holders={},
)
SUPPORT = MailboxVitals("support", ours=True, connected=True, last_success=NOW - MINUTE)
RUNNING = Vitals(NOW - 100 * HOUR, {"relay": ("127.0.0.1:2525",)}, (SUPPORT,), "")
SAVED = {"storage.backup_dir": '"backups"'}


def test_when_all_is_well_it_says_so() -> None:
    verdict = judged(WELL, RUNNING, SAVED, NOW)
    assert (verdict.level, verdict.findings) == ("good", ())
    assert verdict.headline.startswith("Yes")


@pytest.mark.parametrize(
    ("sight", "vitals", "settings", "level", "word"),
    [
        ({"reviews": 1, "oldest_review": NOW - 23 * HOUR}, {}, {}, "good", ""),
        ({"reviews": 1, "oldest_review": NOW - 25 * HOUR}, {}, {}, "doubt", "25 hours"),
        ({"reviews": 1, "oldest_review": NOW - 49 * HOUR}, {}, {}, "bad", "longer than the 48 hours"),
        ({"record": Record(100, 100, False)}, {}, {}, "bad", "not as we left it"),
        ({"jobs": {"note_head": NOW - 4 * HOUR}}, {}, {}, "bad", "not been found whole for 4 hours"),
        ({"jobs": {"verify_audit": NOW - HOUR, "note_head": NOW - 90 * HOUR}}, {}, {}, "good", ""),
        ({"jobs": {}}, {}, {}, "bad", "not been found whole"),
        ({"jobs": {}}, {"started": NOW - HOUR}, {}, "good", ""),
        ({"jobs": {"note_head": NOW, "back_up": NOW - 3 * HOUR}}, {}, SAVED, "doubt", "no backup for 3 hours"),
        ({"jobs": {"note_head": NOW, "back_up": NOW - 80 * HOUR}}, {}, SAVED, "bad", "no backup for 3 days"),
        ({"jobs": {"note_head": NOW}}, {}, {}, "good", ""),
        ({"deferring_since": NOW - HOUR}, {}, {}, "doubt", "2026-11-27 11:30"),
        ({}, {"upstream": "connect: refused"}, {}, "doubt", "connect: refused"),
        ({}, {"upstream": None}, {}, "good", ""),
        ({}, {"record_broken": True}, {}, "bad", "changed behind our back"),
        ({}, {"promise_broken": 2}, {}, "bad", "2 were mailed who had opted out"),
        ({"pulled": {"bounces": NOW - 3 * HOUR}}, {}, {}, "doubt", "the brake has been pulled for 3 hours"),
        ({"pulled": {"complaints": NOW - 3 * HOUR}}, {}, {}, "doubt", "who complained is mailed meanwhile"),
        (
            {"pulled": {"bounces:a.example/5.1.1": NOW}},
            {},
            {},
            "doubt",
            "person (bounces of a.example with 5.1.1): the",
        ),
        ({"hooks": {"crm": HookSight("connect: refused", 0)}}, {}, {}, "doubt", "connect: refused"),
        ({"hooks": {"crm": HookSight("", 7)}}, {}, {}, "doubt", "never told of 7 changes"),
        ({"hooks": {"crm": HookSight("", 0)}}, {}, {}, "good", ""),
        ({}, {}, {"relay.mode": '"observe"'}, "doubt", "only observes"),
        ({}, {}, {"relay.credential[3].mode": '"observe"'}, "doubt", "relay.credential[3].mode"),
        ({}, {}, {"relay.mode": '"strip"'}, "good", ""),
        ({}, {}, {"mailbox[0].observe": "true"}, "doubt", "only observed"),
        ({}, {}, {"mailbox[0].observe": "false"}, "good", ""),
    ],
)
def test_what_is_wrong_is_said(
    sight: dict[str, Any], vitals: dict[str, Any], settings: Mapping[str, str], level: str, word: str
) -> None:
    verdict = judged(replace(WELL, **sight), replace(RUNNING, **vitals), settings, NOW)
    assert verdict.level == level
    assert [word in finding.sentence for finding in verdict.findings] == ([] if level == "good" else [True])


@pytest.mark.parametrize(
    ("mailbox", "level"),
    [
        (replace(SUPPORT, connected=False, trouble="login: no"), "doubt"),
        (replace(SUPPORT, connected=False, last_success=NOW - 16 * MINUTE, trouble="login: no"), "bad"),
        (replace(SUPPORT, connected=False, last_success=None), "bad"),
        (replace(SUPPORT, last_success=NOW - 16 * MINUTE), "bad"),
        (replace(SUPPORT, ours=False), "bad"),
        (replace(SUPPORT, ours=False, name="bounces"), "good"),
    ],
)
def test_a_mailbox_that_does_not_answer_is_named(mailbox: MailboxVitals, level: str) -> None:
    sight = replace(WELL, holders={"mailbox bounces": "node-b"})
    verdict = judged(sight, replace(RUNNING, mailboxes=(mailbox,)), SAVED, NOW)
    assert verdict.level == level
    assert all(mailbox.name in finding.sentence and mailbox.trouble in finding.sentence for finding in verdict.findings)


def test_a_daemon_that_has_just_started_has_some_minutes_to_connect() -> None:
    young = replace(RUNNING, started=NOW - MINUTE, mailboxes=(replace(SUPPORT, connected=False, last_success=None),))
    assert judged(WELL, young, SAVED, NOW).level == "doubt"


def test_what_is_worst_comes_first() -> None:
    sight = replace(WELL, reviews=1, oldest_review=NOW - 25 * HOUR, record=Record(1, 1, False))
    assert [finding.level for finding in judged(sight, RUNNING, SAVED, NOW).findings] == ["bad", "doubt"]


@pytest.mark.parametrize(
    ("time", "said"),
    [
        (0, "0 seconds"),
        (-5, "0 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7199, "119 minutes"),
        (7200, "2 hours"),
        (48 * 3600, "48 hours"),
        (72 * 3600, "3 days"),
    ],
)
def test_times_are_said_in_words(time: int, said: str) -> None:
    assert lasted(timedelta(seconds=time)) == said


# ------------------------------------------------------------------ beside the alarms that stand


def alarm(kind: str, about: str = "", ago: timedelta = HOUR) -> AlarmVitals:
    return AlarmVitals(kind, about, NOW - ago, f"Told of {kind}", "Do something")


def running(*alarms: AlarmVitals, **other: Any) -> Vitals:
    return replace(RUNNING, duty=DutyVitals(alarms), **other)


def test_an_alarm_is_shown_with_what_to_do() -> None:
    verdict = judged(WELL, running(alarm("disk-low", "database")), SAVED, NOW)
    (finding,) = verdict.findings
    assert (verdict.level, finding.sentence, finding.advice) == ("doubt", "Told of disk-low.", "Do something")
    assert finding.since == NOW - HOUR


@pytest.mark.parametrize(
    ("kind", "about", "sight", "vitals", "settings", "level"),
    [
        ("mailbox-silent", "support", {}, {"mailboxes": (replace(SUPPORT, last_success=NOW - HOUR),)}, {}, "bad"),
        ("mailbox-unwatched", "support", {}, {"mailboxes": (replace(SUPPORT, ours=False),)}, {}, "bad"),
        ("review-old", "", {"reviews": 1, "oldest_review": NOW - 25 * HOUR}, {}, {}, "doubt"),
        ("review-old", "", {"reviews": 1, "oldest_review": NOW - 49 * HOUR}, {}, {}, "bad"),
        ("record-broken", "", {}, {"record_broken": True}, {}, "bad"),
        ("record-broken", "end", {"record": Record(100, 100, False)}, {}, {}, "bad"),
        ("job-late", "note_head", {"jobs": {}}, {}, {}, "bad"),
        ("promise-broken", "", {}, {"promise_broken": 2}, {}, "bad"),
        ("lookups-deferred", "", {"deferring_since": NOW}, {}, {}, "doubt"),
        ("upstream-down", " of mx1", {}, {"upstream": "connect: refused"}, {}, "doubt"),
        ("brake-pulled", "bounces", {"pulled": {"bounces": NOW}}, {}, {}, "doubt"),
        ("webhook-failing", "crm", {"hooks": {"crm": HookSight("refused", 0)}}, {}, {}, "doubt"),
        ("webhook-gave-up", "crm", {"hooks": {"crm": HookSight("", 3)}}, {}, {}, "doubt"),
        ("backup-old", "", {"jobs": {"note_head": NOW, "back_up": NOW - 80 * HOUR}}, {}, SAVED, "bad"),
    ],
)
def test_the_same_thing_is_not_said_twice(
    kind: str, about: str, sight: dict[str, Any], vitals: dict[str, Any], settings: Mapping[str, str], level: str
) -> None:
    """And is as bad as it is seen to be at this moment."""
    seen = replace(WELL, **sight)
    assert len(judged(seen, replace(RUNNING, **vitals), settings, NOW).findings) == 1
    verdict = judged(seen, running(alarm(kind, about), **vitals), settings, NOW)
    assert [(f.level, f.sentence) for f in verdict.findings] == [(level, f"Told of {kind}.")]
    another = judged(seen, running(alarm("unusual", "x"), **vitals), settings, NOW)
    assert len(another.findings) == 2


def test_what_is_worst_comes_first_and_then_what_is_new() -> None:
    alarms = [alarm("disk-low", "log", MINUTE), alarm("canary-failed", "", HOUR), alarm("disk-low", "database", HOUR)]
    verdict = judged(WELL, running(*alarms), SAVED, NOW)
    assert [f.since for f in verdict.findings] == [NOW - HOUR, NOW - MINUTE, NOW - HOUR]


def test_how_long_things_may_take_is_the_operators_to_say() -> None:
    sight = replace(WELL, reviews=1, oldest_review=NOW - 3 * HOUR)
    assert judged(sight, RUNNING, SAVED, NOW).level == "good"
    assert judged(sight, RUNNING, SAVED, NOW, Limits(review=2 * HOUR)).level == "doubt"
    assert judged(sight, RUNNING, SAVED, NOW, Limits(due=2 * HOUR, review=HOUR)).level == "bad"
    assert judged(WELL, RUNNING, SAVED, NOW, Limits(silent=30 * timedelta(seconds=1))).level == "bad"


def test_every_kind_that_is_bad_is_a_kind() -> None:
    assert set(KINDS) > _BAD
