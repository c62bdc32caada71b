"""One round after the other: what is raised once, what goes on, what ends, and what nobody can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from daemon.duty import rounds as module
from daemon.duty.alarm import KINDS, Alarm, Look
from daemon.duty.rounds import Rounds
from daemon.vitals import Vitals
from storage import alarms
from storage.write import write
from tests.duty.support import DAY, HOUR, MINUTE, NOW, Clock, rows, support, vitals
from tests.ledgers import Books, queued

Logged = Callable[[], list[dict[str, Any]]]
WELL, SILENT = vitals(), vitals(support(HOUR))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(ledger: Books, clock: Clock, **other: Any) -> Rounds:
    return Rounds(ledger.ledger, clock.now, **{"monotonic": clock.monotonic, "quiet": False, **other})


@pytest.fixture
def rounds(ledger: Books, clock: Clock) -> Rounds:
    return made(ledger, clock)


def looked(rounds: Rounds, of: Vitals = WELL, *, everything: bool = True) -> list[tuple[str, str]]:
    """A round; what stands after it."""
    rounds.look(of, everything=everything)
    return [alarm.key for alarm in rounds.known if alarm.ended is None]


def kinds(logged: Logged) -> list[tuple[str, str]]:
    return [(x["event"], x["kind"]) for x in logged() if x["event"] in ("alarm_raised", "alarm_ended")]


class Aside:
    """The database file, taken away and put back."""

    def __init__(self, ledger: Books):
        self.path, self.aside = ledger.ledger.path, ledger.ledger.path.with_name("aside.db")
        with ledger.ledger.connect() as db:
            db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def take(self) -> None:
        self.path.rename(self.aside)

    def put_back(self) -> None:
        self.aside.rename(self.path)


# ------------------------------------------------------------------ raised once, ended once


def test_an_alarm_is_raised_once_goes_on_and_ends_once(
    ledger: Books, clock: Clock, rounds: Rounds, logged: Logged
) -> None:
    assert looked(rounds) == []
    assert looked(rounds, SILENT) == [("mailbox-silent", "support")]
    clock.goes(MINUTE)
    assert looked(rounds, SILENT) == [("mailbox-silent", "support")]
    (row,) = rows(ledger)
    assert (row.since, row.seen, row.detector, row.told, row.ended) == (
        NOW - HOUR,
        NOW + MINUTE,
        "parts.mailboxes",
        None,
        None,
    )
    assert looked(rounds) == []
    assert looked(rounds) == []
    assert rows(ledger)[0].ended == NOW + MINUTE
    assert kinds(logged) == [("alarm_raised", "mailbox-silent"), ("alarm_ended", "mailbox-silent")]


def test_the_same_trouble_later_is_another_alarm(ledger: Books, clock: Clock, rounds: Rounds) -> None:
    for seen in (SILENT, WELL, SILENT):
        looked(rounds, seen)
        clock.goes(MINUTE)
    assert [row.ended is None for row in rows(ledger)] == [False, True]


def test_a_restart_goes_on_with_what_stands(ledger: Books, clock: Clock, rounds: Rounds, logged: Logged) -> None:
    looked(rounds, SILENT)
    fresh = vitals(support(last_success=None), started=NOW)
    assert looked(made(ledger, clock), fresh) == [("mailbox-silent", "support")]
    assert kinds(logged) == [("alarm_raised", "mailbox-silent")]
    assert len(rows(ledger)) == 1


def test_what_ripens_is_raised_when_it_was_found_all_the_time(clock: Clock, rounds: Rounds) -> None:
    reached = support(-DAY)
    down, up = vitals(reached, upstream="connect: refused"), vitals(reached)
    assert looked(rounds, down) == []
    clock.goes(14 * MINUTE)
    assert looked(rounds, up) == []  # it answered once
    clock.goes(MINUTE)
    assert looked(rounds, down) == []
    clock.goes(15 * MINUTE)
    assert looked(rounds, down) == [("upstream-down", "")]
    assert rounds.known[0].since == NOW + 15 * MINUTE


def test_the_ledger_is_looked_into_by_the_node_with_the_jobs_only(ledger: Books, rounds: Rounds) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        queued(w, NOW - 30 * HOUR)
    assert looked(rounds, everything=False) == []
    assert looked(rounds) == [("review-old", "")]
    assert looked(rounds, everything=False) == [("review-old", "")]  # who does not look cannot say that it is over


def test_what_console_and_metrics_show_is_of_the_last_round(ledger: Books, clock: Clock, rounds: Rounds) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        queued(w, NOW - 30 * HOUR)
    looked(rounds, SILENT)
    duty = rounds.duty
    assert [a.kind for a in duty.alarms] == ["mailbox-silent", "review-old"]  # the newest first
    assert (duty.open_since, duty.due, duty.waits) == (NOW - 30 * HOUR, NOW + 18 * HOUR, "a doubtful mail")
    assert (duty.notices, duty.oldest_notice) == (0, None)


# ------------------------------------------------------------------ what nobody can tell


def test_a_detector_that_fails_stops_no_other_and_ends_no_alarm(
    ledger: Books, clock: Clock, rounds: Rounds, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        queued(w, NOW - 30 * HOUR)
    assert looked(rounds) == [("review-old", "")]

    def failing(look: Look) -> Iterator[Alarm]:
        raise KeyError("ann@example.com")

    def broken_sql(look: Look) -> Iterator[Alarm]:
        look.db.exec_driver_sql("SELECT nothing FROM nowhere")
        return iter(())

    def last(look: Look) -> Iterator[Alarm]:
        yield Alarm("unusual", "", look.now, "Odd", "Look")

    failing.__module__, failing.__name__ = "daemon.duty.requests", "reviews"
    monkeypatch.setattr(module, "OF_THE_LEDGER", (failing, broken_sql, last))
    for _ in range(11):
        clock.goes(MINUTE)
        looked(rounds)
    names = [key for key in looked(rounds) if key[0] == "detector-failed"]
    assert names == [("detector-failed", "requests.reviews"), ("detector-failed", "test_rounds.broken_sql")]
    assert {("review-old", ""), ("unusual", "")} < set(looked(rounds))
    assert "ann@example.com" not in str(logged()) + str(rows(ledger))
    monkeypatch.undo()
    assert looked(rounds) == [("review-old", "")]  # the others are looked for no more


def test_a_database_that_is_away_is_an_alarm_and_nothing_is_lost_over_it(
    ledger: Books, clock: Clock, rounds: Rounds
) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        queued(w, NOW - 30 * HOUR)
    looked(rounds)
    file = Aside(ledger)
    file.take()
    assert looked(rounds, SILENT) == [("review-old", ""), ("mailbox-silent", "support")]
    assert not rounds.reachable
    clock.goes(2 * MINUTE)
    assert looked(rounds, SILENT)[2:] == [("database-away", "")]
    rounds.keep([replace(alarm, told=clock.at) for alarm in rounds.known])  # they were mailed
    clock.goes(MINUTE)
    looked(rounds, SILENT)
    assert [alarm.told for alarm in rounds.known] == [NOW + 2 * MINUTE] * 3
    file.put_back()
    assert set(looked(rounds)) == {("review-old", "")}
    written = {row.kind: row for row in rows(ledger)}
    assert written.keys() == {"review-old", "mailbox-silent", "database-away"}
    assert all(row.told == NOW + 2 * MINUTE for row in written.values())
    assert (written["review-old"].ended, written["mailbox-silent"].ended) == (None, NOW + 3 * MINUTE)
    looked(rounds)
    assert rounds.last_told == NOW + 2 * MINUTE


def test_an_alarm_that_came_and_went_while_the_database_was_away_is_written_down(
    ledger: Books, clock: Clock, rounds: Rounds
) -> None:
    looked(rounds)
    file = Aside(ledger)
    file.take()
    for seen in (SILENT, WELL, SILENT):
        looked(rounds, seen)
        clock.goes(MINUTE)
    file.put_back()
    looked(rounds, SILENT)
    assert [row.ended is None for row in rows(ledger) if row.kind == "mailbox-silent"] == [False, True]


# ------------------------------------------------------------------ clocks


@pytest.mark.parametrize(("jump", "about"), [(400 * DAY, "forward"), (-400 * DAY, "back"), (-5 * MINUTE, "back")])
def test_a_clock_that_jumps_is_told_and_the_rounds_go_on(
    ledger: Books, clock: Clock, rounds: Rounds, jump: timedelta, about: str
) -> None:
    looked(rounds)
    clock.goes(MINUTE)
    looked(rounds)
    assert rounds.jump == timedelta(0)
    clock.at += jump
    clock.goes(MINUTE)
    now = clock.at
    fresh = vitals(support(last_success=now), started=now)
    assert looked(rounds, fresh) == [("clock-jumped", about)]
    assert rounds.jump == jump
    clock.goes(MINUTE)
    assert looked(rounds, fresh) == [("clock-jumped", about)]
    assert "at once" in rounds.known[0].text  # still as it was told
    clock.goes(DAY)
    assert looked(rounds, vitals(support(last_success=clock.at), started=now)) == []


def test_what_a_server_said_of_a_person_is_kept_nowhere(ledger: Books, rounds: Rounds, logged: Logged) -> None:
    looked(rounds, vitals(support(HOUR, connected=False, trouble="login: ann@customer.example is locked")))
    assert "is locked" in rows(ledger)[0].text
    assert "customer.example" not in f"{rows(ledger)}{rounds.known}{rounds.duty}{logged()}"


def test_nor_is_it_kept_where_the_log_may_show_people(
    ledger: Books, rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log goes when its time comes; an alarm stands in the database for a year, and whoever is erased in it."""
    monkeypatch.setattr("daemon.log.plain", True)
    looked(rounds, vitals(support(HOUR, connected=False, trouble="login: ann@customer.example is locked")))
    assert "is locked" in rows(ledger)[0].text
    assert "customer.example" not in rows(ledger)[0].text


def test_the_limit_of_the_disk_is_that_of_the_config(ledger: Books, rounds: Rounds) -> None:
    rounds.limits = replace(rounds.limits, disk_free=1 << 60)
    assert ("disk-low", "database") in looked(rounds)
    rounds.limits = replace(rounds.limits, disk_free=0)
    assert looked(rounds) == []


# ------------------------------------------------------------------ several nodes


def test_what_one_node_finds_the_other_does_not_end_while_it_is_seen(ledger: Books, clock: Clock) -> None:
    watcher, worker = (made(ledger, clock, node=node, host=node) for node in ("a", "b"))
    other = vitals(support(ours=False), duties=("jobs",))
    looked(watcher, SILENT, everything=False)
    for _ in range(3):
        clock.goes(4 * MINUTE)
        assert ("mailbox-silent", "support") in looked(worker, other)
        looked(watcher, SILENT, everything=False)
    clock.goes(4 * MINUTE)
    assert ("mailbox-silent", "support") in looked(worker, other)
    clock.goes(2 * MINUTE)  # the watcher is gone
    assert ("mailbox-silent", "support") not in looked(worker, other)


def test_a_mailbox_that_moves_to_another_node_keeps_its_alarm(ledger: Books, clock: Clock) -> None:
    first, second = (made(ledger, clock, node=node, host=node) for node in ("a", "b"))
    looked(first, SILENT, everything=False)
    clock.goes(MINUTE)
    looked(second, SILENT)
    looked(first, vitals(support(ours=False)), everything=False)
    (row,) = [row for row in rows(ledger) if row.kind == "mailbox-silent"]
    assert (row.node, row.ended) == ("b", None)


# ------------------------------------------------------------------ keeping


def test_where_nobody_is_mailed_nobody_waits_for_an_end(ledger: Books, clock: Clock) -> None:
    rounds = made(ledger, clock, quiet=True)
    looked(rounds, SILENT)
    looked(rounds)
    with ledger.ledger.connect() as db:
        assert alarms.unsettled(db) == []


def test_what_was_over_long_ago_is_forgotten(ledger: Books, clock: Clock, rounds: Rounds) -> None:
    looked(rounds, SILENT)
    looked(rounds)
    clock.goes(400 * DAY + HOUR)
    fresh = vitals(support(last_success=clock.at - HOUR), started=clock.at)
    looked(rounds, fresh)
    assert [row.since for row in rows(ledger)] == [clock.at - HOUR]


def test_kinds_are_words_each_once() -> None:
    assert len(set(KINDS)) == len(KINDS)
    assert all(kind.replace("-", "").isalpha() and kind.islower() for kind in KINDS)


@pytest.mark.parametrize("said", ["\ud800 no", "no\x00body", "\x1b[2J", "of us\u202etnuocca"], ids=ascii)
def test_what_a_server_says_in_no_characters_of_a_text_does_not_end_the_rounds(
    ledger: Books, rounds: Rounds, said: str
) -> None:
    """A token server may say any half of a character in JSON; no database takes that, and PostgreSQL no NUL."""
    heard = vitals(support(HOUR, trouble=said))
    assert looked(rounds, heard) == [("mailbox-silent", "support")]
    (kept,) = rows(ledger)
    assert kept.text.isprintable()
