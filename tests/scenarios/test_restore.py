"""The day on which the disk is gone, with the daemon, a mailbox and a campaign."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.mailbox.support import mail
from tests.scenarios.process import Daemon, config
from tests.servers import Dovecot, Sink

pytestmark = [pytest.mark.dovecot, pytest.mark.timeout(120)]


def test_nobody_who_opted_out_after_the_backup_is_mailed(tmp_path: Path, dovecot: Dovecot, sink: Sink) -> None:
    (tmp_path / "imap-password").write_text("secret-support\n")
    daemon = Daemon(tmp_path, config(sink.port, dovecot, more='[storage]\nbackup_dir = "backups"'))
    with daemon.running():
        daemon.cli("backup", "early.db")
        daemon.until(lambda: daemon.events("mailbox_connected"))
        dovecot.append("support", mail("ann@example.com", "Please remove me from your mailing list.", subject="bye"))
        daemon.until(lambda: daemon.events("message_filed"))
        assert daemon.rcpt("ann@example.com").startswith("550 5.7.1")
        assert daemon.cli("restore", "early.db", expect=75).stderr.endswith("stop it first\n")
    for path in tmp_path.glob("optoutd.db*"):
        path.unlink()
    assert daemon.cli("restore", "early.db").stdout.startswith("restored as of ")
    daemon.cli("check", "ann@example.com", expect=1)  # the journal knew her
    for path in [*tmp_path.glob("optoutd.db*"), *tmp_path.glob("backups/journal*")]:
        path.unlink()
    told = daemon.cli("restore", "--defer", "early.db").stderr
    (command,) = [line.split() for line in told.splitlines() if line.startswith("    optoutd replay support --since")]
    # her request lies among the honoured ones, where only a replay (or a daemon that sees it anew) finds it
    with daemon.running():
        assert daemon.events("lookups_deferred")
        assert daemon.rcpt("ann@example.com").startswith("451 4.3.0")
        assert daemon.rcpt("bob@example.com").startswith("451 4.3.0")
        assert "the gap of the restore is closed" in daemon.cli(*command[1:]).stderr
        assert daemon.rcpt("ann@example.com").startswith("550 5.7.1")
        assert daemon.rcpt("bob@example.com").startswith("250")
    assert daemon.cli("audit", "verify").stdout.startswith("ok, ")


@pytest.mark.parametrize("kept", [0, 4152])  # octets: nothing of the log, or its first page only
def test_a_database_that_lost_its_log_mails_nobody_and_is_restored(tmp_path: Path, sink: Sink, kept: int) -> None:
    (tmp_path / "backups").mkdir()
    daemon = Daemon(tmp_path, config(sink.port, more='[storage]\nbackup_dir = "backups"'))
    daemon.start()
    daemon.cli("backup", "backups")
    daemon.cli("suppress", "ann@example.com")
    daemon.kill()
    os.truncate(tmp_path / "optoutd.db-wal", kept)
    for command in (("run",), ("check", "ann@example.com"), ("suppress", "bob@example.com"), ("backup", "backups")):
        assert "is older than the journal" in daemon.cli(*command, expect=78).stderr
    daemon.cli("restore", "--force", "backups")
    with daemon.running():
        assert daemon.rcpt("ann@example.com").startswith("550 5.7.1")
        assert daemon.rcpt("bob@example.com").startswith("250")
