"""The support mailbox."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ledgers import books
from tests.mailbox.canaries import NOW
from tests.mailbox.support import Support
from tests.servers import Dovecot


@pytest.fixture
def support(dovecot: Dovecot, tmp_path: Path) -> Support:
    return Support(dovecot, books(tmp_path / "state"), tmp_path)


@pytest.fixture
def at_once(support: Support) -> None:
    """Its canary does not wait for its time."""
    support.rhythm = NOW
