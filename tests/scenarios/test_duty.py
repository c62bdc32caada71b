"""The clock of duty in the whole daemon: a mailbox server dies, somebody is told, and told again when it is back."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.scenarios.process import Daemon, config
from tests.servers import Dovecot, Sink

pytestmark = [pytest.mark.dovecot, pytest.mark.timeout(240)]

# Minutes become fractions of a second: a round is a minute of the real daemon.
FASTER = """
import sys
from dataclasses import replace
from datetime import timedelta
from daemon import building
from daemon.duty import letters, watching
real = building.limits
building.limits = lambda config: replace(real(config), silent=timedelta(seconds=4))
letters.APART = timedelta(seconds=1)
watching.EVERY_SECONDS = 0.2
watching._RETRY_SECONDS = (0.2, 1.0)
from daemon.cli import invoke
sys.exit(invoke(sys.argv[1:]))
"""


@dataclass
class Hurried(Daemon):
    """A daemon whose clock of duty goes fast."""

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", FASTER, "-c", str(self.file), *arguments]


@pytest.fixture
def daemon(dovecot: Dovecot, sink: Sink) -> Iterator[Hurried]:
    with tempfile.TemporaryDirectory(prefix="oo") as name:
        (Path(name) / "imap-password").write_text("secret-support\n")
        text = config(sink.port, dovecot).replace("[house]\n", '[house]\noperators_mail = "ops@quillpdf.example"\n')
        yield Hurried(Path(name), text)


def mails(sink: Sink) -> list[EmailMessage]:
    parsed = [message_from_bytes(m.data, policy=policy.default) for m in sink.messages]
    return [message for message in parsed if isinstance(message, EmailMessage)]


def subjects(sink: Sink) -> list[str]:
    return [str(message["Subject"]) for message in mails(sink)]


def test_a_mailbox_server_that_dies_is_told_and_its_return_too(daemon: Hurried, dovecot: Dovecot, sink: Sink) -> None:
    with daemon.running():
        daemon.until(lambda: daemon.events("mailbox_connected"))
        dovecot.kill()
        daemon.until(lambda: subjects(sink))
        assert subjects(sink)[0].startswith("[optoutd] alarm: mailbox support has been silent for ")
        (alarm,) = daemon.events("alarm_raised")
        assert (alarm["level"], alarm["kind"], alarm["which"]) == ("error", "mailbox-silent", "support")
        # restarted while it stands: it is told no second time
        daemon.until(lambda: daemon.events("alarms_mailed"))
        assert daemon.stop() == 0
        daemon.start()
        daemon.until(lambda: len(daemon.events("mailbox_lost")) > 1)
        dovecot.start()
        daemon.until(lambda: len(subjects(sink)) > 1)
        assert [s.partition(":")[0] for s in subjects(sink)] == ["[optoutd] alarm", "[optoutd] over"]
        assert sink.messages[0].rcpt_to == ("<ops@quillpdf.example>",)
        assert {str(m["Auto-Submitted"]) for m in mails(sink)} == {"auto-generated"}
        assert len(daemon.events("alarm_raised")) == 1
        digest = daemon.cli("digest").stdout
    assert "quillpdf.example" not in daemon.log_file.read_text().replace("relay.quillpdf.example", "")
    assert digest.startswith("The promise was kept.")
    assert "mailbox-silent" in digest


def test_an_upstream_that_is_away_then_only_delays_the_mail(daemon: Hurried, dovecot: Dovecot, sink: Sink) -> None:
    with daemon.running():
        daemon.until(lambda: daemon.events("mailbox_connected"))
        sink.stop()
        try:
            dovecot.kill()
            daemon.until(lambda: daemon.events("alarm_mail_failed"))
        finally:
            sink.start()
        daemon.until(lambda: subjects(sink))
        assert "mailbox support" in subjects(sink)[0]
        dovecot.start()
