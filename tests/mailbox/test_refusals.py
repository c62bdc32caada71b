"""The watcher where the server or the database refuses: nothing is lost, nothing is held up for long."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from imapclient import IMAPClient
from imapclient.exceptions import IMAPClientError

from daemon.intake import Done, Envelope, Intake
from daemon.mail.reading import Reading
from daemon.mailbox import watcher as watching
from daemon.mailbox.filing import Filing
from daemon.mailbox.session import Failed, Folder, connect
from daemon.mailbox.watcher import longer
from storage import incoming
from storage.engine import Unavailable
from storage.incoming import Place
from storage.write import write
from tests.mailbox.support import HOUSE, PLEASE, Support, mail

pytestmark = pytest.mark.dovecot


# ------------------------------------------------------------------ what a server refuses


def test_moves_that_are_refused_hold_up_no_mail(support: Support, monkeypatch: pytest.MonkeyPatch) -> None:
    full = True
    move = IMAPClient.move

    def over_quota(client: IMAPClient, uids: list[int], folder: str) -> object:
        if full:
            raise IMAPClientError("MOVE failed: [OVERQUOTA] no room")
        return move(client, uids, folder)

    monkeypatch.setattr(IMAPClient, "move", over_quota)
    with support.watching() as watcher:
        for n in range(8):
            support.dovecot.append("support", mail(f"a{n}@example.com", PLEASE, subject="bye"))
            support.until(partial(support.suppressed, f"a{n}@example.com"))
        time.sleep(1.2)
        assert watcher.connected
        full = False
        support.until(lambda: support.subjects("Opt-outs") == ["bye"] * 8)
    assert not support.subjects()
    assert support.suppressed_rows() == 8


def test_a_folder_deleted_under_us_is_made_again(support: Support) -> None:
    with support.watching() as watcher:
        support.until(lambda: watcher.connected)
        with support.dovecot.connect("support") as client:
            client.delete_folder("Opt-outs")
        support.dovecot.append("support", mail("ann@example.com", PLEASE, subject="bye"))
        support.until(lambda: support.subjects("Opt-outs") == ["bye"])


def test_a_watched_folder_that_is_no_more_holds_up_no_other(support: Support) -> None:
    support.options["folders"] = ("INBOX", "Nowhere")
    support.dovecot.append("support", mail("ann@example.com", PLEASE))
    with support.watching():
        support.until(lambda: support.suppressed("ann@example.com"))
        support.dovecot.append("support", mail("bob@example.com", PLEASE), folder="Nowhere")
        support.until(lambda: support.suppressed("bob@example.com"))


def test_a_debt_in_a_folder_that_is_no_more_holds_up_no_mail(support: Support) -> None:
    with write(support.books.ledger, datetime.now(UTC), "test") as w:
        place = Place("support", "Gone", 1, 1)
        what = partial(incoming.record, digest=b"", size=0, message_id="", internaldate=None, label="opt-out")
        what(w, place, state="owed", target="Opt-outs")
    support.dovecot.append("support", mail("ann@example.com", PLEASE))
    with support.watching():
        support.until(lambda: support.suppressed("ann@example.com"))


def test_moved_back_from_a_folder_that_is_no_more(support: Support) -> None:
    support.dovecot.append("support", mail("ann@example.com", PLEASE, subject="bye"))
    with support.watching():
        support.until(lambda: support.subjects("Opt-outs") == ["bye"])
        support.until(lambda: support.read_count() == 2)
    support.move("bye", "Opt-outs", "INBOX")
    with support.dovecot.connect("support") as client:
        client.delete_folder("Opt-outs")
    support.options["processed_folder"] = "Done"
    with support.watching():
        support.until(lambda: support.reviews())
    assert support.reviews()[0].rules == ("moved-back-by-a-person",)
    assert support.subjects() == ["bye"]


def test_a_copy_whose_original_could_not_be_expunged_is_not_made_twice(
    support: Support, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = support.dovecot.append("support", mail("ann@example.com", PLEASE, subject="bye"))
    session = connect(support.settings, "secret-support", Path(support.dovecot.ca_file))
    session._moves = False
    session.ensure("Opt-outs")
    session.enter("INBOX")

    def refused(_: object) -> None:
        raise IMAPClientError("UID EXPUNGE failed: NO")

    with monkeypatch.context() as patch:
        patch.setattr(session._client, "uid_expunge", refused)
        for _ in range(2):
            with pytest.raises(Failed) as failed:
                session.file_away(uid, "Opt-outs")
            assert failed.value.refused
    assert session.file_away(uid, "Opt-outs")
    session.close()
    assert support.subjects("Opt-outs") == ["bye"]
    assert not support.subjects()


def test_a_uid_of_another_uidvalidity_is_not_moved(support: Support) -> None:
    class Renumbered:
        def enter(self, name: str) -> Folder:
            return Folder(name, 2, 9)

    unused: Any = None
    session: Any = Renumbered()  # any other word of a session would be an AttributeError
    filing = Filing(support.settings, unused, unused, threading.Event())
    assert filing.file(session, Place("support", "INBOX", 1, 7), Done("opt-out", 1, target="Opt-outs"))


# ------------------------------------------------------------------ when to try again


def test_a_database_that_fails_is_not_the_fault_of_the_message(
    support: Support, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_RETRY_SECONDS", (0.1, 0.1))
    monkeypatch.setattr(watching, "_SOON", 0.1)
    count = itertools.count()

    class Full(Intake):
        def act(self, reading: Reading, envelope: Envelope, now: datetime) -> Done:
            if next(count) < 4:
                raise Unavailable("database or disk is full")
            return super().act(reading, envelope, now)

    support.means_of = lambda m: dataclasses.replace(m, intake=Full(m.intake.ledger, HOUSE, m.intake.numbers))
    support.dovecot.append("support", mail("ann@example.com", PLEASE))
    with support.watching():
        support.until(lambda: support.suppressed("ann@example.com"))
    assert not support.reviews()


def test_a_message_that_the_database_never_takes_holds_up_the_others_for_a_while_only(
    support: Support, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_RETRY_SECONDS", (0.05, 0.05))
    monkeypatch.setattr(watching, "_SOON", 0.05)

    class Choosy(Intake):
        def act(self, reading: Reading, envelope: Envelope, now: datetime) -> Done:
            if envelope.message_id == "<eve@example.com>":
                raise Unavailable("too much for it")
            return super().act(reading, envelope, now)

    support.means_of = lambda m: dataclasses.replace(m, intake=Choosy(m.intake.ledger, HOUSE, m.intake.numbers))
    support.dovecot.append("support", mail("eve@example.com", PLEASE))
    support.dovecot.append("support", mail("ann@example.com", PLEASE))
    with support.watching():
        support.until(lambda: support.suppressed("ann@example.com"))
    assert support.reviews()


@pytest.mark.parametrize("jitter", [0.75, 1.0])
@pytest.mark.parametrize("connecting", [0.0, 10.0])
def test_after_an_outage_of_under_a_minute_we_are_soon_back(jitter: float, connecting: float) -> None:
    """A connect that hangs finds the server if that is back 3 s before its end: SYNs are repeated after 1, 3 and 7 s."""
    for outage in range(1, 60):
        clock = delay = 0.0
        while clock + max(connecting - 3, 0) < outage:
            clock += connecting
            delay = longer(delay, clock)
            clock += delay * jitter
        assert max(clock - outage, 0) < 10


def test_the_pause_doubles_to_a_minute() -> None:
    delay, pauses, clock = 0.0, [], 0.0
    while clock < 300:
        delay = longer(delay, clock)
        clock += delay
        pauses.append(delay)
    assert pauses[:4] == [1, 2, 4, 5]
    assert [p for p in pauses if p > 5][:4] == [10, 20, 40, 60]
    assert pauses[-1] == 60
