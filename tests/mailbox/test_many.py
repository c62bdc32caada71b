"""A folder so full that one search cannot find all of it: a line of the answer may have a million octets at most."""

from __future__ import annotations

import imaplib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daemon.mailbox import session as sessions
from daemon.mailbox.session import Failed, Session, connect
from tests.mailbox.support import QUESTION, Support, mail

pytestmark = pytest.mark.dovecot
MESSAGES = 25
DAY = datetime.now(UTC) - timedelta(days=3)


@pytest.fixture(autouse=True)
def _full(support: Support, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if ten messages were many; with a gap in the numbers."""
    with support.dovecot.connect("support") as client:
        for n in range(MESSAGES + 5):
            client.append("INBOX", mail(f"p{n}@example.com", QUESTION))
        client.select_folder("INBOX")
        client.delete_messages(range(6, 11))
        client.uid_expunge(range(6, 11))
    monkeypatch.setattr(sessions, "_MOST_FOUND", 10)


@pytest.fixture
def session(support: Support, _full: None) -> Iterator[Session]:
    """In the folder."""
    found = connect(support.settings, "secret-support", Path(support.dovecot.ca_file))
    found.enter("INBOX")
    yield found
    found.close()


def test_all_is_found_a_part_at_a_time(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imaplib, "_MAXLINE", 50)  # too little for all at once
    there = [*range(1, 6), *range(11, 31)]
    assert session.uids_from(1) == session.uids_since(DAY) == there
    assert session.uids_from(4) == there[3:]
    assert session.uids_from(25) == there[-6:]
    assert session.uids_from(31) == []
    with pytest.raises(Failed):
        session._search(["ALL"])


@pytest.mark.parametrize("many", [9, 10, 20, 24, 25, 26, 50])
def test_at_every_edge(session: Session, monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    monkeypatch.setattr(sessions, "_MOST_FOUND", many)
    assert session.uids_from(1) == session.uids_since(DAY) == [*range(1, 6), *range(11, 31)]


def test_what_is_removed_meanwhile_hides_nothing(
    support: Support, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, real = list[int](), Session._search

    def removing(self: Session, criteria: list[object]) -> list[int]:
        found = real(self, criteria)
        if not gone:
            gone.extend((1, 2, 3, 11, 12))
            with support.dovecot.connect("support") as client:
                client.select_folder("INBOX")
                client.delete_messages(gone)
                client.uid_expunge(gone)
        return found

    monkeypatch.setattr(Session, "_search", removing)
    found = session.uids_from(1)
    assert set(found) >= {4, 5, *range(13, 31)}
    assert found == sorted(set(found))


def test_the_watcher_reads_all_of_it(support: Support) -> None:
    with support.watching():
        support.until(lambda: support.read_count() == MESSAGES)
        support.dovecot.append("support", mail("new@example.com", QUESTION))
        support.until(lambda: support.read_count() == MESSAGES + 1)
