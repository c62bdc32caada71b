"""What most scenarios begin with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory for the daemon, with the mailbox's password in it; its name is short, for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="oo") as name:
        (Path(name) / "imap-password").write_text("secret-support\n")
        yield Path(name)
