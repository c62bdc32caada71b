"""Old ordinary mail that was forgotten lies where it lay, and is not read again, whoever connects anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from daemon.config import Bounce, Retention
from daemon.jobs import Jobs
from daemon.mail.reading import Reading
from daemon.mail.triage import read
from tests.mailbox.support import HOUSE, QUESTION, Support, mail

pytestmark = pytest.mark.dovecot


def test_forgotten_mail_is_not_read_again_and_new_mail_is(support: Support) -> None:
    seen: list[bytes] = []

    def reader(raw: bytes) -> Reading:
        seen.append(raw)
        return read(raw, HOUSE)

    support.reader = reader
    old = datetime.now(UTC) - timedelta(days=20)
    for n in range(3):
        support.dovecot.append("support", mail(f"old{n}@example.com", QUESTION), when=old)
    with support.watching():
        support.until(lambda: support.read_count() == 3)
        support.dovecot.append("support", mail("moved.in@example.com", QUESTION), when=old)
        support.until(lambda: support.read_count() == 4)
        support.dovecot.append("support", mail("new@example.com", QUESTION))
        support.until(lambda: support.read_count() == 5)
    Jobs(support.books.ledger, Bounce(), lambda: datetime.now(UTC), Retention(ordinary=10)).forget_ordinary()
    assert support.read_count() == 1
    seen.clear()
    with support.watching():
        support.dovecot.append("support", mail("newer@example.com", QUESTION), when=old)
        support.until(lambda: support.read_count() == 2)
    assert [b"newer@example.com" in raw for raw in seen] == [True]
