"""Alarms that are read out of the ledger: each begins at its limit, and not before."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection

from daemon import jobs
from daemon.config import Bounce
from daemon.duty import keeping, requests
from daemon.duty.alarm import Key, Limits, Look
from daemon.intake import Intake
from daemon.vitals import MailboxVitals
from storage import deferral, hooks, incoming, outbox
from storage.address import parse
from storage.incoming import Place
from storage.journal import Journal
from storage.terms import ALL, seconds
from storage.write import write
from tests.duty.support import DAY, HOUR, MINUTE, NOW, SECOND, STARTED, found, support, vitals
from tests.intake.support import HOUSE, envelope, opt_out
from tests.ledgers import Books, queued

HERE = Place("support", "INBOX", 1, 7)


def behind_our_back(ledger: Books, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(ledger.ledger.path)) as db:
        db.execute(statement, values)
        db.commit()


def ran(ledger: Books, job: str, at: datetime) -> None:
    with write(ledger.ledger, at, "test") as w:
        w.job_ran(job)


# ------------------------------------------------------------------ requests


@pytest.mark.parametrize(
    ("waited", "old", "overdue"),
    [
        (24 * HOUR, False, False),
        (24 * HOUR + SECOND, True, False),
        (48 * HOUR, True, False),
        (48 * HOUR + SECOND, True, True),
    ],
)
def test_a_review_is_old_after_a_day_and_overdue_after_two(
    ledger: Books, waited: timedelta, old: bool, overdue: bool
) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        queued(w, NOW - waited)
        queued(w, NOW)
    assert [a.since for a in found(requests.reviews, ledger)] == [NOW - waited] * old
    assert [a.since for a in found(requests.overdue, ledger)] == [NOW - waited] * overdue


def test_limits_are_the_operators(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        queued(w, NOW - 3 * HOUR)
    limits = Limits(due=2 * HOUR, review=HOUR)
    assert "60 minutes past" in found(requests.overdue, ledger, limits=limits)[0].text
    assert found(requests.reviews, ledger, limits=limits)


def test_a_decided_review_is_no_alarm(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        queued(w, NOW - 9 * DAY)
    behind_our_back(ledger, "UPDATE review SET state = 'rejected'")
    assert found(requests.reviews, ledger) == found(requests.overdue, ledger) == []


def test_a_mailbox_that_is_down_bounds_what_we_know(ledger: Books) -> None:
    """Somebody may have written right after it fell silent."""
    with ledger.ledger.connect() as db:
        assert requests.oldest(_look(ledger, db, support())) is None
        assert requests.oldest(_look(ledger, db, support(14 * MINUTE))) is None
        assert requests.oldest(_look(ledger, db, support(3 * HOUR, ours=False))) is None
        oldest = requests.oldest(_look(ledger, db, support(3 * HOUR)))
    assert oldest is not None
    assert (oldest.since, "support" in oldest.what) == (NOW - 3 * HOUR, True)
    assert found(requests.overdue, ledger, vitals(support(48 * HOUR))) == []
    assert [a.kind for a in found(requests.overdue, ledger, vitals(support(49 * HOUR)))] == ["request-overdue"]


def _look(ledger: Books, db: Connection, mailbox: MailboxVitals) -> Look:
    return Look(ledger.ledger, db, vitals(mailbox), NOW)


def test_the_oldest_of_all_counts(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        queued(w, NOW - 3 * HOUR)
    with ledger.ledger.connect() as db:
        for silent, expected in ((HOUR, NOW - 3 * HOUR), (4 * HOUR, NOW - 4 * HOUR)):
            oldest = requests.oldest(_look(ledger, db, support(silent)))
            assert oldest is not None
            assert oldest.since == expected


def test_a_message_whose_reading_does_not_end_ripens(ledger: Books) -> None:
    assert found(requests.stuck, ledger) == []
    with write(ledger.ledger, NOW, "test") as w:
        incoming.attempt(w, HERE)
    (alarm,) = found(requests.stuck, ledger)
    assert (alarm.kind, alarm.about, alarm.ripe) == ("reading-stuck", "support UID 7", HOUR)


@pytest.mark.parametrize(("ago", "raised"), [(24 * HOUR, False), (24 * HOUR + SECOND, True)])
def test_filing_that_is_owed_for_a_day_is_told(ledger: Books, ago: timedelta, raised: bool) -> None:
    """Since it was committed, not since the mail came: an inbox read for the first time has old mail."""
    desk = Intake(ledger.ledger, HOUSE, ledger.numbers)
    desk.act(opt_out(), envelope(date=NOW - 20 * DAY), NOW - ago)
    assert [a.since for a in found(requests.stuck, ledger)] == [NOW - ago] * raised


def test_a_mailbox_that_no_node_watches_ripens(ledger: Books) -> None:
    away = vitals(support(ours=False))
    (alarm,) = found(requests.unwatched, ledger, away)
    assert (alarm.kind, alarm.about, alarm.ripe) == ("mailbox-unwatched", "support", 5 * MINUTE)
    assert found(requests.unwatched, ledger) == []
    until = seconds(datetime.now(UTC)) + 600
    behind_our_back(ledger, "INSERT INTO lease VALUES ('mailbox support', 'b', ?)", until)
    assert found(requests.unwatched, ledger, away) == []


@pytest.mark.parametrize(("ago", "raised"), [(2 * HOUR, False), (2 * HOUR + SECOND, True)])
def test_notices_that_do_not_go_out_are_told(ledger: Books, ago: timedelta, raised: bool) -> None:
    with write(ledger.ledger, NOW - ago, "test") as w:
        assert outbox.owe(w, "confirm", parse("ann@example.com"), "en", [ALL], proven=True)
    assert [a.since for a in found(requests.notices, ledger)] == [NOW - ago] * raised


# ------------------------------------------------------------------ what we keep


def test_a_record_that_was_changed_is_told_until_it_is_found_whole(ledger: Books) -> None:
    broken = vitals(record_broken=True)
    (alarm,) = found(keeping.record, ledger, broken)
    assert (alarm.kind, alarm.about) == ("record-broken", "")
    stands: dict[Key, datetime] = {("record-broken", ""): NOW - HOUR}
    assert found(keeping.record, ledger) == []
    assert [a.since for a in found(keeping.record, ledger, standing=stands)] == [NOW - HOUR]  # after a restart
    ran(ledger, "verify_audit", NOW - 2 * HOUR)
    assert found(keeping.record, ledger, standing=stands) != []
    ran(ledger, "verify_audit", NOW)
    assert found(keeping.record, ledger, standing=stands) == []


def test_a_record_whose_end_was_cut_is_told(ledger: Books) -> None:
    ledger.suppress("ann@example.com")
    ledger.suppress("bob@example.com")
    assert found(keeping.record, ledger) == []
    behind_our_back(ledger, "DELETE FROM audit WHERE seq = 2")
    assert [(a.kind, a.about) for a in found(keeping.record, ledger)] == [("record-broken", "end")]


def test_suppressions_without_evidence_are_told_until_a_check_finds_none(ledger: Books) -> None:
    assert found(keeping.unexplained, ledger) == []
    assert [a.kind for a in found(keeping.unexplained, ledger, vitals(unexplained=True))] == [
        "suppressions-unexplained"
    ]
    stands: dict[Key, datetime] = {("suppressions-unexplained", ""): NOW - HOUR}
    assert len(found(keeping.unexplained, ledger, standing=stands)) == 1
    ran(ledger, "check_evidence", NOW)
    assert found(keeping.unexplained, ledger, standing=stands) == []


@pytest.mark.parametrize(
    ("job", "ago", "raised"),
    [
        ("note_head", 4 * HOUR, False),
        ("note_head", 4 * HOUR + SECOND, True),
        ("verify_audit", 3 * DAY, False),
        ("verify_audit", 3 * DAY + SECOND, True),
        ("digest", 400 * DAY, False),
    ],
)
def test_a_job_that_does_not_end_well_is_told(ledger: Books, job: str, ago: timedelta, raised: bool) -> None:
    ran(ledger, job, NOW - ago)
    assert [a.about for a in found(keeping.jobs, ledger)] == [job] * raised


def test_a_daemon_that_was_down_catches_up_first_unless_it_was_told_already(ledger: Books) -> None:
    ran(ledger, "note_head", NOW - 2 * DAY)
    fresh, later = vitals(started=NOW - 30 * MINUTE + SECOND), vitals(started=NOW - 30 * MINUTE)
    assert found(keeping.jobs, ledger, fresh) == []
    assert len(found(keeping.jobs, ledger, later)) == 1
    assert len(found(keeping.jobs, ledger, fresh, standing={("job-late", "note_head"): NOW - DAY})) == 1


def test_every_job_of_the_timetable_may_be_late(ledger: Books) -> None:
    timetable = {job.id for job in jobs.schedule(jobs.Jobs(ledger.ledger, Bounce())).get_jobs()}
    assert timetable == set(keeping.LATE_AFTER)


@pytest.mark.parametrize(
    ("made", "started", "raised"),
    [
        (NOW - 3 * HOUR, STARTED, False),
        (NOW - 3 * HOUR - SECOND, STARTED, True),
        (None, NOW - 3 * HOUR, False),
        (None, NOW - 4 * HOUR, True),
        (NOW - DAY, NOW - MINUTE, False),
    ],
)
def test_a_backup_is_old_after_three_hours(
    ledger: Books, tmp_path: Path, made: datetime | None, started: datetime, raised: bool
) -> None:
    if made:
        ran(ledger, "back_up", made)
    assert found(keeping.backups, ledger) == []  # where none are made
    ledger.ledger.journal = Journal(tmp_path / "journal.log", ledger.ledger.site_key)
    assert bool(found(keeping.backups, ledger, vitals(started=started))) is raised


def test_a_list_with_a_gap_is_told(ledger: Books) -> None:
    assert found(keeping.deferring, ledger) == []
    with write(ledger.ledger, NOW, "test") as w:
        deferral.begin(w, seconds(NOW - HOUR))
    (alarm,) = found(keeping.deferring, ledger)
    assert (alarm.kind, alarm.since) == ("lookups-deferred", NOW - HOUR)


def test_a_program_that_is_not_told_is_told_of(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        hooks.begin(w, "crm")
    assert found(keeping.webhooks, ledger) == []
    behind_our_back(ledger, "UPDATE hook SET failures = 1, trouble = 'refused'")
    assert found(keeping.webhooks, ledger) == []  # it is gone from the config
    configured = vitals(hooks=("crm",))
    (failing,) = found(keeping.webhooks, ledger, configured)
    assert (failing.kind, failing.about, failing.ripe) == ("webhook-failing", "crm", 6 * HOUR)
    behind_our_back(ledger, "INSERT INTO undelivered (hook, seq, at, trouble) VALUES ('crm', 1, 1, 'x')")
    assert [a.kind for a in found(keeping.webhooks, ledger, configured)] == ["webhook-failing", "webhook-gave-up"]
