"""A full disk: nothing lost, nothing sent that should not be, and whole again when there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mailbox.support import mail
from tests.scenarios.process import Daemon, config
from tests.servers import Dovecot, Sink

pytestmark = [pytest.mark.dovecot, pytest.mark.timeout(120)]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Two megabytes, on which database, key and log live."""
    where = tmp_path / "small"
    where.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", where], capture_output=True)
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        (where / "imap-password").write_text("secret-support\n")
        yield where
    finally:
        subprocess.run(["umount", where], check=True)


def fill(ballast: Path) -> None:
    """Until there is no room left."""
    with ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_a_request_that_cannot_be_recorded_waits_for_room(small: Path, dovecot: Dovecot, sink: Sink) -> None:
    with Daemon(small, config(sink.port, dovecot)).running() as daemon:
        daemon.cli("suppress", "before@example.com")
        daemon.until(lambda: daemon.events("mailbox_connected"))
        ballast = small / "ballast"
        with pytest.raises(OSError, match="No space left"):
            fill(ballast)
        dovecot.append("support", mail("ann@example.com", "Please remove me from your mailing list.", subject="bye"))
        for _ in range(5):  # the relay goes on: who is known is refused, the others pass
            assert daemon.rcpt("before@example.com").startswith("550 5.7.1")
            assert daemon.rcpt("bob@example.com").startswith("250")
        assert daemon.cli("suppress", "cem@example.com", expect=75).stderr
        with dovecot.connect("support") as client:
            assert client.select_folder("INBOX", readonly=True)[b"EXISTS"] == 1
        ballast.unlink()
        daemon.until(lambda: daemon.rcpt("ann@example.com").startswith("550 5.7.1"))
        assert daemon.cli("audit", "verify").stdout.startswith("ok, 2 rows")
