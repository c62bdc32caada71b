"""The watcher on servers that lack what others have, or name folders in their own way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.mailbox.session import Session, connect
from tests.ledgers import books
from tests.mailbox.canaries import NOW, failed, passed
from tests.mailbox.support import PLEASE, QUESTION, Support, mail
from tests.servers import Dovecot, dovecot

pytestmark = pytest.mark.dovecot

# As Courier, Cyrus and cPanel have it: everything lies below INBOX.
BELOW_INBOX = """\
namespace inbox {
  inbox = yes
  separator = .
  prefix = INBOX.
}
"""
# As Gmail has it, and anybody else may: a folder in which every message is.
WITH_ALL = """\
namespace inbox {
  inbox = yes
  mailbox "Alle Nachrichten" {
    auto = create
    special_use = \\All
  }
}
"""


def offering(capabilities: str) -> str:
    return f"protocol imap {{\n  imap_capability = IMAP4rev1 {capabilities}\n}}\n"


@pytest.fixture(scope="module")
def below_inbox() -> Iterator[Dovecot]:
    with dovecot(BELOW_INBOX) as server:
        yield server


def box(server: Dovecot, directory: Path, **options: Any) -> Support:
    return Support(server, books(directory / "state"), directory, options)


def session(support: Support) -> Session:
    return connect(support.settings, "secret-support", Path(support.dovecot.ca_file))


# ------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("configured", "real"),
    [
        ("Opt-outs", "INBOX.Opt-outs"),
        ("INBOX.Gone", "INBOX.Gone"),
        ("Support/Left", "INBOX.Support.Left"),
        ("Abgemeldet ä&ö", "INBOX.Abgemeldet ä&ö"),
        ("退订", "INBOX.退订"),
    ],
)
def test_where_everything_lies_below_inbox_the_folder_does_too(
    below_inbox: Dovecot, tmp_path: Path, configured: str, real: str
) -> None:
    below_inbox.clear()
    support = box(below_inbox, tmp_path, processed_folder=configured)
    support.dovecot.append("support", mail("ann@example.com", PLEASE, subject="bye"))
    with support.watching():
        support.until(lambda: support.subjects(real) == ["bye"])
    with support.dovecot.connect("support") as client:
        assert real in [name for _, _, name in client.list_sub_folders()]
    with support.watching():  # and it is found again
        support.dovecot.append("support", mail("bob@example.com", PLEASE, subject="bye 2"))
        support.until(lambda: support.subjects(real) == ["bye", "bye 2"])


def test_a_watched_folder_there_needs_no_prefix_either(below_inbox: Dovecot, tmp_path: Path) -> None:
    below_inbox.clear()
    support = box(below_inbox, tmp_path, folders=("INBOX", "Junk"))
    support.dovecot.append("support", mail("ann@example.com", PLEASE), folder="INBOX.Junk")
    with support.watching():
        support.until(lambda: support.suppressed("ann@example.com"))


def test_the_canary_finds_the_way_into_a_folder_that_is_called_otherwise_there(
    below_inbox: Dovecot, tmp_path: Path
) -> None:
    support = box(below_inbox, tmp_path, folders=("Kunden/Mail",))
    support.rhythm = NOW
    with below_inbox.connect("support") as client:
        client.create_folder("INBOX.Kunden.Mail")
    with support.watching():
        support.until(lambda: passed(support) or failed(support))
    assert failed(support) is None
    with below_inbox.connect("support") as client:
        assert client.select_folder("INBOX.Kunden.Mail")[b"EXISTS"] == 0


def test_a_folder_above_others_that_cannot_be_opened_is_made(dovecot: Dovecot, tmp_path: Path) -> None:
    support = box(dovecot, tmp_path)
    with dovecot.connect("support") as client:
        client.create_folder("Opt-outs.2025")  # Opt-outs itself is only a place in the tree
    support.dovecot.append("support", mail("ann@example.com", PLEASE, subject="bye"))
    with support.watching():
        support.until(lambda: support.subjects() == [])
    assert support.subjects("Opt-outs") == ["bye"]


def test_a_name_with_the_signs_of_a_pattern_is_a_name(dovecot: Dovecot, tmp_path: Path) -> None:
    with dovecot.connect("support") as client:
        client.create_folder("100 x")
    support = box(dovecot, tmp_path, processed_folder="100%")
    support.dovecot.append("support", mail("ann@example.com", PLEASE, subject="bye"))
    with support.watching():
        support.until(lambda: support.suppressed("ann@example.com"))
        support.until(lambda: support.subjects("INBOX") == [])
    assert support.subjects("100 x") == []


# ------------------------------------------------------------------ what is not as it should be


def test_a_folder_that_holds_everything_is_better_not_watched(
    tmp_path: Path, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    with dovecot(WITH_ALL) as server:
        support = box(server, tmp_path, folders=("INBOX", "Alle Nachrichten"))
        with support.watching() as watcher:
            support.until(lambda: watcher.connected)
    (doubt,) = [line for line in logged() if line["event"] == "mailbox_doubtful"]
    assert doubt["advice"].startswith("Alle Nachrichten holds every message")


def test_one_folder_under_two_names_is_noticed(below_inbox: Dovecot, tmp_path: Path) -> None:
    below_inbox.clear()
    support = box(below_inbox, tmp_path, folders=("INBOX", "INBOX.Opt-outs"))
    there = session(support)
    there.ensure("Opt-outs")
    assert there.doubts() == ["INBOX.Opt-outs is watched, and it is where mail is filed to: take it out of folders"]
    there.close()


def test_a_server_that_has_all_we_want_leaves_no_doubt(dovecot: Dovecot, tmp_path: Path) -> None:
    there = session(box(dovecot, tmp_path))
    assert there.doubts() == []
    there.close()


# ------------------------------------------------------------------ what is not there


@pytest.mark.parametrize("has", ["UIDPLUS IDLE", "MOVE", "UIDPLUS"])
def test_filing_does_without_move_and_noticing_without_idle(tmp_path: Path, has: str) -> None:
    with dovecot(offering(has)) as server:
        support = box(server, tmp_path)
        with support.watching() as watcher:
            support.until(lambda: watcher.connected)
            support.dovecot.append("support", mail("ann@example.com", PLEASE, subject="bye"))
            support.dovecot.append("support", mail("bob@example.com", QUESTION, subject="how"))
            support.until(lambda: support.subjects("Opt-outs") == ["bye"])
            support.until(lambda: support.subjects() == ["how"])
        assert support.suppressed("ann@example.com")


def test_where_filing_would_risk_other_mail_it_stays(
    tmp_path: Path, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    with dovecot(offering("")) as server:
        support = box(server, tmp_path)
        support.dovecot.append(
            "support", mail("eve@example.com", QUESTION, subject="marked by a person"), flags=["\\Deleted"]
        )
        support.dovecot.append("support", mail("ann@example.com", PLEASE, subject="bye"))
        with support.watching() as watcher:
            support.until(lambda: support.suppressed("ann@example.com"))
            support.until(lambda: watcher.connected)
        assert support.subjects() == ["marked by a person", "bye"]
    doubts = " ".join(line["advice"] for line in logged() if line["event"] == "mailbox_doubtful")
    assert "neither MOVE nor UIDPLUS" in doubts
    assert "no IDLE: it is asked every 1 seconds" in doubts
