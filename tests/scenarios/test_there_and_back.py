"""A customer leaves by mail, is told so, and comes back by the link of the notice: the whole daemon, real servers."""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.mailbox.support import mail
from tests.scenarios.process import Daemon, config
from tests.servers import Dovecot
from tests.sink import sink

pytestmark = [pytest.mark.dovecot, pytest.mark.timeout(180)]

ANN = "ann@example.com"


def test_leaving_being_told_and_coming_back(dovecot: Dovecot, home: Path) -> None:
    with sink() as upstream:
        daemon = Daemon(home, config(upstream.port, dovecot))
        with daemon.running():
            dovecot.lmtp("support", mail(ANN, "Bitte nehmen Sie mich aus Ihrem Verteiler.", subject="Abmeldung"))
            daemon.until(lambda: upstream.messages)
            notice = upstream.messages[0]
            assert (notice.mail_from, notice.rcpt_to) == ("<>", (f"<{ANN}>",))
            told = message_from_bytes(notice.data, policy=policy.default)
            assert told["Subject"] == "Sie bekommen keine E-Mails mehr von Quill PDF"
            assert daemon.rcpt(ANN).startswith("550 5.7.1")

            link = re.search(r"mailto:support@quillpdf.example\?subject=(\S+)", told.get_content())
            assert link is not None
            dovecot.lmtp("support", mail(ANN, "", subject=unquote(link[1]), message_id="<back@example.com>"))
            daemon.until(lambda: daemon.events("suppression_lifted"))
            assert daemon.rcpt(ANN).startswith("250")
            assert daemon.events("notice_sent")
        assert len(upstream.messages) == 1  # coming back is not confirmed by another mail
        assert ANN not in daemon.log_file.read_text()
        assert link[1].partition("%20")[2] not in daemon.log_file.read_text()


def test_a_notice_survives_a_crash_and_an_upstream_that_is_away(dovecot: Dovecot, home: Path) -> None:
    with sink() as upstream:
        port = upstream.port
        upstream.stop()
        daemon = Daemon(home, config(port, dovecot))
        daemon.start()
        dovecot.lmtp("support", mail(ANN, "Please unsubscribe me."))
        daemon.until(lambda: daemon.events("opt_out_recorded"))
        daemon.kill()
        upstream.start()
        with daemon.running():
            daemon.until(lambda: upstream.messages)
        assert [m.rcpt_to for m in upstream.messages] == [(f"<{ANN}>",)]


def test_an_unsubscribe_link_by_mail_works_whoever_sends_it(dovecot: Dovecot, home: Path) -> None:
    with sink() as upstream:
        daemon = Daemon(home, config(upstream.port, dovecot))
        with daemon.running():
            fact = daemon.cli("token", ANN, "--json").stdout
            subject = re.search(r"subject=(unsubscribe%20[a-z2-7]{48})", fact)
            assert subject is not None
            dovecot.lmtp("support", mail("somebody.else@example.net", "", subject=unquote(subject[1])))
            daemon.until(lambda: daemon.events("opt_out_recorded"))
            assert daemon.rcpt(ANN).startswith("550 5.7.1")
            assert daemon.rcpt("somebody.else@example.net").startswith("250")
        assert upstream.messages == []  # whose address it is we do not know, and the sender it is not
