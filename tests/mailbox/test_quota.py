"""A mailbox that is full: what people ask for is honoured all the same, and the canary says that there is no room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from imapclient.exceptions import IMAPClientError

from tests.mailbox.canaries import NOW, failed
from tests.mailbox.support import PLEASE, Support, mail
from tests.servers import Dovecot
from tests.servers import dovecot as running

pytestmark = [pytest.mark.dovecot, pytest.mark.timeout(120)]
QUOTA = """
mail_plugins = quota
plugin {
  quota = maildir:User quota
  quota_rule = *:storage=64K
  quota_grace = 0
}
"""


@pytest.fixture(scope="module")
def small() -> Iterator[Dovecot]:
    """A server that keeps 64 KB for each."""
    with running(QUOTA) as server:
        yield server


@pytest.fixture
def full(support: Support, small: Dovecot) -> Support:
    """A request, and as much other mail as the mailbox takes."""
    support.dovecot = small
    small.append("support", mail("ann@example.com", PLEASE, subject="a request"))
    for size in (16_000, 2_000, 200):
        with pytest.raises(IMAPClientError, match="OVERQUOTA"):
            fill(small, size)
    return support


def fill(server: Dovecot, size: int) -> None:
    """With messages of so many octets, until it takes no more."""
    for number in range(1000):
        server.append("support", mail(f"p{number}@example.com", "How? " * (size // 5), subject="a question"))


def test_a_full_mailbox_hinders_no_opt_out_and_fails_the_canary(full: Support) -> None:
    full.rhythm = NOW
    with full.watching() as watcher:
        full.until(lambda: full.suppressed("ann@example.com"))
        full.until(lambda: failed(full))
        assert watcher.connected
    result = failed(full)
    assert result is not None
    assert result.step == "append"
    everywhere = full.subjects() + full.subjects("Opt-outs")
    assert everywhere.count("a request") == 1
    assert full.suppressed_rows() == 1
