"""Messages that were missed are found and read; a server that was restored gives numbers twice, and no mail is lost by it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon import metrics
from daemon.config import Bounce, Retention
from daemon.jobs import Jobs
from daemon.mailbox.session import Session
from daemon.mailbox.watcher import Watcher
from storage import gaps
from storage.gaps import Gap
from storage.terms import seconds
from storage.write import write
from tests.mailbox.support import PLEASE, QUESTION, Support, mail

pytestmark = pytest.mark.dovecot
Logged = Callable[[], list[dict[str, Any]]]
OF_GAPS = ("messages_missed", "uids_given_again")


def told(logged: Logged) -> list[tuple[Any, ...]]:
    """The events of gaps, without the time."""
    lines = [line for line in logged() if line["event"] in OF_GAPS]
    return [tuple(v for k, v in line.items() if k not in ("ts", "level")) for line in lines]


def found(support: Support) -> dict[str, Gap]:
    with support.books.ledger.connect() as db:
        return gaps.found(db, seconds(datetime.now(UTC)))


def read_all(support: Support, senders: Sequence[str]) -> None:
    """A start, and all that lies there is read."""
    before = support.read_count()
    with support.watching():
        support.until(lambda: support.read_count() >= before + len(senders))


class Backup:
    """The files of the mail server, as an administrator saves them and puts them back."""

    def __init__(self, support: Support, directory: Path):
        self._mail, self._copy = support.dovecot.mail / "support", directory / "saved"
        self._dovecot = support.dovecot
        shutil.copytree(self._mail, self._copy)

    def restore(self) -> None:
        """The server is stopped for it, and its caches go."""
        self._dovecot.kill()
        owner = self._mail.stat()
        shutil.rmtree(self._mail)
        shutil.copytree(self._copy, self._mail)
        for path in (self._mail, *self._mail.rglob("*")):
            shutil.chown(path, owner.st_uid, owner.st_gid)
            if path.name.startswith("dovecot.index"):
                path.unlink()
        self._dovecot.start()


def test_a_message_that_comes_back_below_those_that_were_read_is_read(
    support: Support, tmp_path: Path, logged: Logged
) -> None:
    support.options["processed_folder"] = ""
    for sender in ("one@example.com", "lost@example.com", "three@example.com"):
        support.dovecot.append("support", mail(sender, PLEASE))
    backup = Backup(support, tmp_path)
    with support.dovecot.connect("support") as client:
        client.select_folder("INBOX")
        client.delete_messages([2])
        client.expunge([2])
    read_all(support, ["one", "three"])
    assert not support.suppressed("lost@example.com")
    before = metrics.intake_missed.of("support").value
    backup.restore()
    with support.watching():
        support.until(lambda: support.suppressed("lost@example.com"))
    assert told(logged) == [("messages_missed", "support", "INBOX", 1)]
    assert metrics.intake_missed.of("support").value == before + 1
    assert found(support)["support"].missed == 1


def test_numbers_that_a_restored_server_gives_twice_hide_no_mail(
    support: Support, tmp_path: Path, logged: Logged
) -> None:
    """As many have come already as were lost, so that the next number says nothing."""
    support.options["processed_folder"] = ""
    support.dovecot.append("support", mail("one@example.com", QUESTION))
    backup = Backup(support, tmp_path)
    before = datetime.now(UTC) - timedelta(days=1)
    for sender in ("two@example.com", "three@example.com"):
        support.dovecot.append("support", mail(sender, QUESTION), when=before)
    read_all(support, ["one", "two", "three"])
    backup.restore()
    uids = [support.dovecot.append("support", mail(f"new{n}@example.com", PLEASE)) for n in range(2)]
    assert uids == [2, 3], "this server gives no number twice, and the test says nothing"
    with support.watching():
        support.until(lambda: support.suppressed("new0@example.com") and support.suppressed("new1@example.com"))
    assert support.suppressed_rows() == 2
    assert told(logged) == [("uids_given_again", "support", "INBOX", 2)]


def test_numbers_given_twice_are_told_before_any_mail_bears_them(
    support: Support, tmp_path: Path, logged: Logged
) -> None:
    support.options["processed_folder"] = ""
    support.dovecot.append("support", mail("one@example.com", QUESTION))
    backup = Backup(support, tmp_path)
    for sender in ("two@example.com", "three@example.com"):
        support.dovecot.append("support", mail(sender, QUESTION))
    read_all(support, ["one", "two", "three"])
    backup.restore()
    with support.watching() as watcher:
        support.until(lambda: found(support))
        support.until(lambda: watcher.connected)
        support.dovecot.append("support", mail("new@example.com", PLEASE))
        support.until(lambda: support.suppressed("new@example.com"))
    assert told(logged) == [("uids_given_again", "support", "INBOX", 2)]
    assert found(support)["support"].missed == 0
    with support.watching() as watcher:
        support.until(lambda: watcher.connected)
    assert not told(logged)


def test_what_was_overlooked_on_a_long_connection_is_found_by_the_sweep(support: Support, logged: Logged) -> None:
    support.options["processed_folder"] = ""
    support.sweep_seconds = 1.0
    for sender in ("one@example.com", "two@example.com", "three@example.com"):
        support.dovecot.append("support", mail(sender, PLEASE))
    with support.watching():
        support.until(lambda: support.read_count() == 3)
        with write(support.books.ledger, datetime.now(UTC), "test") as w:
            w.db.exec_driver_sql("DELETE FROM incoming WHERE uid = 2")
        support.until(lambda: support.read_count() == 3)
    assert told(logged) == [("messages_missed", "support", "INBOX", 1)]


def test_nothing_is_missed_where_all_was_read(support: Support, logged: Logged) -> None:
    """First sight, old mail, mail that comes and is moved, forgotten mail, a new start: none of that is a gap."""
    support.sweep_seconds = 0.5
    old = datetime.now(UTC) - timedelta(days=20)
    for n in range(4):
        support.dovecot.append(
            "support", mail(f"old{n}@example.com", QUESTION), when=old - timedelta(days=20 * (n % 2))
        )
    for n in range(3):
        support.dovecot.append("support", mail(f"bye{n}@example.com", PLEASE, subject=f"bye{n}"))
    with support.watching():
        support.until(lambda: len(support.subjects("Opt-outs")) == 3)
        support.move("bye1", "Opt-outs", "INBOX")
        support.until(lambda: support.reviews())
        support.dovecot.append("support", mail("late@example.com", QUESTION), when=old - timedelta(days=300))
    Jobs(support.books.ledger, Bounce(), lambda: datetime.now(UTC), Retention(ordinary=10)).forget_ordinary()
    for _ in range(2):
        with support.watching() as watcher:
            until_connected(support, watcher)
            time.sleep(2.5)  # rounds and sweeps
    support.options["observe"] = True
    with support.watching() as watcher:
        support.until(lambda: watcher.connected)
        support.dovecot.append("support", mail("seen.only@example.com", QUESTION))
        time.sleep(1.5)
    support.options["observe"] = False
    with support.watching():
        support.until(lambda: "seen.only" in read_ids(support))
    assert not told(logged)
    assert not found(support)


def until_connected(support: Support, watcher: Watcher) -> None:
    support.until(lambda: watcher.connected)


def read_ids(support: Support) -> str:
    with support.books.ledger.connect() as db:
        return " ".join(r[0] for r in db.exec_driver_sql("SELECT message_id FROM incoming WHERE state <> 'reading'"))


def test_a_server_that_keeps_uidnext_to_itself_is_not_suspected(
    support: Support, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """The highest message was filed away: what lies there comes to less than what was seen."""
    real = Session._select

    def silent(self: Session, name: str, writable: bool) -> dict[bytes, Any]:
        return {k: v for k, v in real(self, name, writable).items() if k != b"UIDNEXT"}

    monkeypatch.setattr(Session, "_select", silent)
    support.dovecot.append("support", mail("one@example.com", QUESTION))
    support.dovecot.append("support", mail("bye@example.com", PLEASE, subject="bye"))
    with support.watching():
        support.until(lambda: support.subjects("Opt-outs") == ["bye"])
    with support.watching():
        support.dovecot.append("support", mail("two@example.com", PLEASE, subject="too"))
        support.until(lambda: support.suppressed("two@example.com"))
    assert not told(logged)
