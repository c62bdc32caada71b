"""The watcher on a real Dovecot: what it does to a mailbox, what it must never do, and what survives a crash."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon import events, replay
from daemon.config import Config, Loaded
from daemon.intake import Done, Envelope, Intake
from daemon.mail.reading import Reading
from daemon.mail.triage import read
from daemon.mailbox import watcher
from daemon.mailbox.means import Means
from daemon.mailbox.session import Failed, Session, connect
from daemon.mailbox.watcher import Watcher
from storage import suppressions
from storage.address import parse
from storage.incoming import Seen
from tests.mailbox.support import HOUSE, PLEASE, QUESTION, Support, mail

pytestmark = pytest.mark.dovecot
Logged = Callable[[], list[dict[str, Any]]]


def test_a_request_is_honoured_and_filed_with_flags_and_date_kept(support: Support) -> None:
    recent = datetime.now(UTC).replace(microsecond=0) - timedelta(days=3)
    support.dovecot.append("support", mail("ann@example.com", PLEASE, subject="bye"), flags=["\\Flagged"], when=recent)
    with support.watching():
        support.until(lambda: support.subjects("Opt-outs") == ["bye"])
    assert support.suppressed("ann@example.com")
    [(_, flags, date)] = support.messages("Opt-outs")
    assert flags == {b"\\Flagged"}
    assert date == recent
    assert not support.subjects()


def test_ordinary_mail_is_untouched(support: Support) -> None:
    for n, flags in enumerate(([], ["\\Seen"], ["\\Answered", "\\Seen"])):
        support.dovecot.append("support", mail(f"bob{n}@example.com", QUESTION, subject=f"q{n}"), flags=flags)
    before = support.messages()
    with support.watching():
        support.until(lambda: support.read_count() == 3)
    assert support.messages() == before


def test_mail_that_people_have_read_already_counts_too(support: Support) -> None:
    support.dovecot.append("support", mail("ann@example.com", PLEASE), flags=["\\Seen"])
    with support.watching():
        support.until(lambda: support.suppressed("ann@example.com"))


def test_news_arrive_by_idle(support: Support) -> None:
    support.options["poll_seconds"] = 60
    with support.watching() as watcher:
        support.until(lambda: watcher.connected)
        time.sleep(0.5)
        began = time.monotonic()
        support.dovecot.lmtp("support", mail("ann@example.com", PLEASE))
        support.until(lambda: support.suppressed("ann@example.com"))
        assert time.monotonic() - began < 3


def test_first_sight_looks_thirty_days_back(support: Support) -> None:
    old, recent = datetime.now(UTC) - timedelta(days=60), datetime.now(UTC) - timedelta(days=10)
    support.dovecot.append("support", mail("old@example.com", PLEASE), when=old)
    support.dovecot.append("support", mail("recent@example.com", PLEASE), when=recent)
    with support.watching():
        support.until(lambda: support.suppressed("recent@example.com"))
        support.dovecot.append(
            "support", mail("moved.in@example.com", PLEASE), when=old
        )  # later: new to us, whatever its date
        support.until(lambda: support.suppressed("moved.in@example.com"))
    assert not support.suppressed("old@example.com")


class _Stop(BaseException):
    """The process dies here."""


class _DiesAfterCommit(Intake):
    """kill -9 between the commit and the filing."""

    def act(self, reading: Reading, envelope: Envelope, now: datetime) -> Done:
        super().act(reading, envelope, now)
        raise _Stop


def test_a_crash_after_the_commit_only_delays_the_filing(support: Support, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threading.excepthook", lambda args: None)
    support.dovecot.append("support", mail("ann@example.com", PLEASE, subject="bye"))

    def dying(means: Means) -> Means:
        return dataclasses.replace(means, intake=_DiesAfterCommit(means.intake.ledger, HOUSE, means.intake.numbers))

    support.means_of = dying
    with support.watching():
        support.until(lambda: support.suppressed("ann@example.com"))
    assert support.subjects() == ["bye"]
    support.means_of = lambda means: means
    with support.watching():
        support.until(lambda: support.subjects("Opt-outs") == ["bye"])
    assert support.suppressed_rows() == 1
    assert not support.reviews()


def test_a_crash_while_reading_is_tried_again_once_then_left_to_a_person(support: Support) -> None:
    calls: list[bytes] = []

    def fails(raw: bytes) -> Reading:
        calls.append(raw)
        raise RuntimeError("a bug of ours")

    support.reader = fails
    support.dovecot.append("support", mail("ann@example.com", PLEASE, subject="poison"))
    with support.watching():
        support.until(lambda: support.reviews())
        support.reader = lambda raw: read(raw, HOUSE)
    assert len(calls) == 2
    assert support.reviews()[0].rules == ("attempts-did-not-end",)
    assert support.subjects() == ["poison"]


def test_messages_that_break_the_reading_hold_up_the_others_for_moments_only(
    support: Support, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is begun twice, and after each time we connect anew: pauses that grew would be an hour for some dozens of them."""
    monkeypatch.setattr(watcher, "_SOON", 0.05)
    monkeypatch.setattr(watcher, "_SHORT_OUTAGE", 0.0)
    monkeypatch.setattr(watcher, "_RETRY_SECONDS", (0.05, 600.0))

    def fails_on_poison(raw: bytes) -> Reading:
        if b"poison" in raw:
            raise ValueError
        return read(raw, HOUSE)

    support.reader = fails_on_poison
    for n in range(8):
        support.dovecot.append("support", mail(f"mallory{n}@example.com", "poison"))
    support.dovecot.append("support", mail("ann@example.com", PLEASE))
    with support.watching():
        support.until(lambda: support.suppressed("ann@example.com"))


def test_what_cannot_be_recorded_stays_and_is_read_later(support: Support) -> None:
    away = support.books.ledger.path.with_name("away.db")
    support.dovecot.append("support", mail("ann@example.com", PLEASE, subject="bye"))
    support.books.ledger.path.rename(away)
    with support.watching():
        time.sleep(1.5)
        assert support.subjects() == ["bye"]
        away.rename(support.books.ledger.path)
        support.until(lambda: support.subjects("Opt-outs") == ["bye"])


def test_an_outage_of_the_server(support: Support) -> None:
    with support.watching() as watcher:
        support.until(lambda: watcher.connected)
        support.dovecot.kill()
        support.until(lambda: not watcher.connected)
        support.dovecot.start()
        support.dovecot.append("support", mail("ann@example.com", PLEASE))
        began = time.monotonic()
        support.until(lambda: support.suppressed("ann@example.com"))
        assert time.monotonic() - began < 10


def test_a_message_that_a_person_moves_back_is_not_moved_again(support: Support) -> None:
    support.dovecot.append("support", mail("ann@example.com", PLEASE, subject="bye"))
    with support.watching():
        support.until(lambda: support.subjects("Opt-outs") == ["bye"])
        support.move("bye", "Opt-outs", "INBOX")
        support.until(lambda: support.reviews())
        time.sleep(1.5)
    assert support.reviews()[0].rules == ("moved-back-by-a-person",)
    assert support.subjects() == ["bye"]


def test_a_message_that_a_person_files_is_a_decision(support: Support) -> None:
    support.dovecot.append("support", mail("ann@example.com", QUESTION, subject="odd"))
    with support.watching():
        support.until(lambda: support.read_count() == 1)
        assert not support.suppressed("ann@example.com")
        support.move("odd", "INBOX", "Opt-outs")
        support.until(lambda: support.suppressed("ann@example.com"))
    assert support.subjects("Opt-outs") == ["odd"]


def test_poison_that_a_person_files_does_not_hold_up_the_inbox(support: Support) -> None:
    def fails_on_poison(raw: bytes) -> Reading:
        if b"poison" in raw:
            raise RuntimeError("a bug of ours")
        return read(raw, HOUSE)

    support.reader = fails_on_poison
    with support.watching() as watcher:
        support.until(lambda: watcher.connected)
        time.sleep(0.5)  # the folder has been looked at once
        support.dovecot.append("support", mail("eve@example.com", "poison"), folder="Opt-outs")
        support.dovecot.append("support", mail("ann@example.com", PLEASE))
        support.until(lambda: support.suppressed("ann@example.com"))
        support.until(lambda: support.reviews())  # the person's decision is not forgotten either
    assert support.reviews()[0].rules == ("attempts-did-not-end",)


def test_what_lay_in_the_folder_before_us_is_no_decision(support: Support) -> None:
    support.dovecot.append("support", mail("ann@example.com", QUESTION), folder="Opt-outs")
    support.dovecot.append("support", mail("bob@example.com", PLEASE))
    with support.watching():
        support.until(lambda: support.suppressed("bob@example.com"))
        time.sleep(1.5)
    assert not support.suppressed("ann@example.com")


def test_an_accepted_review_is_filed_by_the_watcher(support: Support) -> None:
    support.dovecot.append("support", mail("ann@example.com", "Please cancel my subscription.", subject="hm"))
    with support.watching():
        support.until(lambda: support.reviews())
        assert support.subjects() == ["hm"]
        intake = Intake(support.books.ledger, HOUSE, support.books.numbers)
        intake.decide(support.reviews()[0], True, "clear enough", datetime.now(UTC), "test")
        assert support.suppressed("ann@example.com")
        support.until(lambda: support.subjects("Opt-outs") == ["hm"])


def test_the_same_request_twice_is_recorded_once_and_both_are_filed(support: Support) -> None:
    when = datetime.now(UTC).replace(microsecond=0)
    for _ in range(2):
        support.dovecot.append("support", mail("ann@example.com", PLEASE, subject="bye"), when=when)
    with support.watching():
        support.until(lambda: support.subjects("Opt-outs") == ["bye", "bye"])
    assert support.suppressed_rows() == 1
    assert not support.reviews()


def test_nothing_is_filed_where_the_operator_wants_that(support: Support) -> None:
    support.options["processed_folder"] = ""
    support.dovecot.append("support", mail("ann@example.com", PLEASE, subject="bye"))
    with support.watching():
        support.until(lambda: support.suppressed("ann@example.com"))
        time.sleep(1.2)
    assert support.subjects() == ["bye"]


def test_several_folders(support: Support) -> None:
    support.options["folders"] = ("INBOX", "Other")
    support.dovecot.append("support", mail("ann@example.com", PLEASE), folder="Other")
    support.dovecot.append("support", mail("bob@example.com", PLEASE))
    with support.watching():
        support.until(lambda: len(support.subjects("Opt-outs")) == 2)
    assert support.suppressed("ann@example.com")
    assert support.suppressed("bob@example.com")


def test_a_new_uidvalidity_repeats_nothing(support: Support) -> None:
    when = datetime.now(UTC).replace(microsecond=0)
    support.dovecot.append("support", mail("bob@example.com", QUESTION, subject="q"), when=when)
    support.dovecot.append(
        "support", mail("eve@example.com", "Please cancel my subscription.", subject="hm"), when=when
    )
    support.dovecot.append("support", mail("ann@example.com", PLEASE, subject="bye"), when=when)
    with support.watching():
        support.until(lambda: support.subjects("Opt-outs") == ["bye"])
    assert len(support.reviews()) == 1
    support.dovecot.stop()
    time.sleep(1)  # or the next UIDVALIDITY is the same second's
    for name in support.dovecot.mail.rglob("dovecot*"):
        name.unlink()
    support.dovecot.start()
    support.dovecot.append("support", mail("new@example.com", PLEASE, subject="new"))
    with support.watching():
        support.until(lambda: "new" in support.subjects("Opt-outs"))
        [item] = support.reviews()
        intake = Intake(support.books.ledger, HOUSE, support.books.numbers)
        intake.decide(item, True, "", datetime.now(UTC), "test")
        support.until(lambda: "hm" in support.subjects("Opt-outs"))  # filed from its new place
    assert support.suppressed_rows() == 3
    assert support.subjects() == ["q"]


def test_a_decision_that_comes_in_while_its_message_is_met_again_is_carried_out(
    support: Support, monkeypatch: pytest.MonkeyPatch
) -> None:
    support.dovecot.append("support", mail("eve@example.com", "Please cancel my subscription.", subject="hm"))
    with support.watching():
        support.until(lambda: support.reviews())
    support.dovecot.stop()
    time.sleep(1)  # or the next UIDVALIDITY is the same second's
    for name in support.dovecot.mail.rglob("dovecot*"):
        name.unlink()
    support.dovecot.start()
    is_still_there = Watcher._is_still_there

    def decided_meanwhile(watcher: Watcher, session: Session, known: Seen) -> bool:
        found = is_still_there(watcher, session, known)
        for item in support.reviews():
            intake = Intake(support.books.ledger, HOUSE, support.books.numbers)
            intake.decide(item, True, "", datetime.now(UTC), "test")
        return found

    monkeypatch.setattr(Watcher, "_is_still_there", decided_meanwhile)
    with support.watching():
        support.until(lambda: support.subjects("Opt-outs") == ["hm"])


def test_an_early_message_left_over_by_a_crash_does_not_have_later_ones_read_again(support: Support) -> None:
    for n in range(4):
        support.dovecot.append("support", mail(f"bob{n}@example.com", QUESTION))
    with support.watching():
        support.until(lambda: support.read_count() == 4)
    with support.books.ledger.connect() as db:
        db.exec_driver_sql("UPDATE incoming SET state = 'reading' WHERE uid = 1")
    calls: list[bytes] = []

    def counting(raw: bytes) -> Reading:
        calls.append(raw)
        return read(raw, HOUSE)

    support.reader = counting
    with support.watching():
        support.until(lambda: support.read_count() == 4)
        time.sleep(2.5)  # two more rounds
    assert len(calls) == 1
    assert not support.reviews()


@pytest.mark.parametrize("message_id", [None, ""])
def test_a_restart_reads_nothing_twice(support: Support, message_id: str | None) -> None:
    for n in range(5):
        support.dovecot.append(
            "support", mail(f"a{n}@example.com", PLEASE if n % 2 else QUESTION, message_id=message_id)
        )
    with support.watching():
        support.until(lambda: len(support.subjects("Opt-outs")) == 2 and support.read_count() >= 5)
    calls: list[bytes] = []

    def counting(raw: bytes) -> Reading:
        calls.append(raw)
        return read(raw, HOUSE)

    support.reader = counting
    with support.watching():
        support.dovecot.append("support", mail("z@example.com", PLEASE))
        support.until(lambda: support.suppressed("z@example.com"))
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("options", "step"),
    [({"username": "nobody"}, "login"), ({"port": 1}, "connect"), ({"host": "localhost.localdomain"}, "connect")],
)
def test_failures_are_named_by_their_step(
    support: Support, capsys: pytest.CaptureFixture[str], options: dict[str, object], step: str
) -> None:
    events.configure("json", "info")
    support.options |= options
    with support.watching() as watcher:
        time.sleep(1.5)
        assert not watcher.connected
    assert f'"step": "{step}"' in capsys.readouterr().err


def test_a_certificate_that_is_not_trusted_is_not_used(
    support: Support, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    events.configure("json", "info")
    with pytest.raises(Failed) as failed:
        connect(support.settings, "secret-support", None)
    assert failed.value.step == "tls"
    support.options |= {"tls": "starttls", "port": support.dovecot.imap_port}
    with pytest.raises(Failed) as failed:
        connect(support.settings, "secret-support", None)
    assert failed.value.step == "tls"
    connect(support.settings, "secret-support", Path(support.dovecot.ca_file)).close()


def test_an_observed_mailbox_is_read_and_nothing_is_done(support: Support, capsys: pytest.CaptureFixture[str]) -> None:
    support.dovecot.append("support", mail("ann@example.com", PLEASE, subject="bye"))
    support.options["observe"] = True
    before = support.messages()
    seen: list[bytes] = []
    reader = support.reader

    def noting(raw: bytes) -> Reading:
        seen.append(raw)
        return reader(raw)

    support.reader = noting
    with support.watching():
        support.until(lambda: seen)
        support.dovecot.append("support", mail("bob@example.com", PLEASE, subject="me too"))
        support.until(lambda: len(seen) == 2)
    assert (support.messages()[:1], support.subjects("Opt-outs")) == (before, [])
    assert support.read_count() == 0
    support.options["observe"] = False  # in earnest: what was only observed is read
    with support.watching():
        support.until(lambda: support.subjects("Opt-outs") == ["bye", "me too"])


def test_what_was_owed_before_is_not_moved_while_observed(support: Support) -> None:
    support.dovecot.append("support", mail("ann@example.com", "Please cancel my subscription.", subject="hm"))
    with support.watching():
        support.until(lambda: support.reviews())
    intake = Intake(support.books.ledger, HOUSE, support.books.numbers)
    intake.decide(support.reviews()[0], True, "clear enough", datetime.now(UTC), "test")
    support.options |= {"observe": True, "poll_seconds": 1}
    with support.watching() as watcher:
        support.until(lambda: watcher.connected)
        time.sleep(2.5)  # two rounds
    assert (support.subjects(), support.subjects("Opt-outs")) == (["hm"], [])


def test_old_mail_of_a_live_folder_is_found_and_left_as_it_is(support: Support, tmp_path: Path) -> None:
    long_ago = datetime.now(UTC).replace(microsecond=0) - timedelta(days=900)
    support.dovecot.append("support", mail("old@example.com", PLEASE, subject="bye"), when=long_ago)
    support.dovecot.append("support", mail("q@example.com", QUESTION))
    secret = tmp_path / "password"
    secret.write_text("secret-support\n")
    settings = support.settings.model_copy(
        update={"password_file": str(secret), "ca_file": str(support.dovecot.ca_file)}
    )
    loaded = Loaded(Config(house=HOUSE, mailbox=(settings,)), tmp_path / "optoutd.toml")
    before = support.messages()
    intake = Intake(support.books.ledger, HOUSE, support.books.numbers)
    for expected in ("missing", "suppressed"):
        source = replay.folder(loaded, settings, settings.folders, None)
        (found,) = replay.search(source, support.books.ledger, intake, mailbox="support")
        assert (found.state, found.received, source.total) == (expected, long_ago, 2)
        replay.apply([found], intake, lambda: datetime.now(UTC), "test")
    assert support.messages() == before
    with support.books.ledger.connect() as db:
        (row,) = suppressions.standing(db, support.books.ledger.site_key, parse("old@example.com"))
    assert row[3] == int(long_ago.timestamp())


def test_half_a_character_in_a_request_does_not_keep_it_from_being_honoured(support: Support, logged: Logged) -> None:
    """UTF-7 can spell one (RFC 2152), and no database takes it: the reading ended the connection, and all others waited."""
    raw = mail("ann@example.com", f"{PLEASE[:-1]} +2AA-.", subject="bye")
    odd = raw.replace(b"\r\n\r\n", b"\r\nContent-Type: text/plain; charset=utf-7\r\n\r\n", 1)
    support.dovecot.append("support", odd)
    with support.watching():
        support.until(lambda: support.suppressed("ann@example.com"))
        support.until(lambda: support.subjects("Opt-outs") == ["bye"])
    assert not {line["event"] for line in logged()} & {"failed", "mailbox_lost"}
