"""The whole promise: the daemon as a process between a real Dovecot and a real Postfix."""

from __future__ import annotations

import re
import sqlite3
from functools import partial
from pathlib import Path

import pytest

from tests.mailbox.support import mail
from tests.scenarios.process import Daemon, config
from tests.servers import Dovecot, Postfix, Sink, Transaction

pytestmark = [pytest.mark.dovecot, pytest.mark.postfix, pytest.mark.timeout(180)]

CAMPAIGN = (
    b"From: The Quill Letter <letter@news.quillpdf.example>\r\nTo: undisclosed-recipients:;\r\n"
    b"Subject: =?utf-8?q?Spring=E2=80=94new_inks?=\r\nMessage-ID: <spring@news.quillpdf.example>\r\n"
    b"Date: Sun, 22 Nov 2026 09:00:00 +0000\r\nX-Odd:   spaces  kept\r\n\tand folds\r\n\r\n"
    b"Dear reader,\r\n.\r\n..two dots\r\n\r\ntrailing blanks   \r\n8-bit: \xc3\xa9\r\n"
)


def below_our_received(data: bytes) -> bytes:
    """What the sink got, from the first original octet on: below Postfix's and our own Received, and our stamp."""
    _, _, rest = data.partition(b"(optoutd)")
    ours = re.match(rb"[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*List-Unsubscribe: <mailto:[^\r\n]*>\r\n", rest)
    assert ours
    return rest[ours.end() :]


def campaigns(sink: Sink) -> list[Transaction]:
    """What was sent, without our own notices to those who left, which may come at any moment."""
    return [m for m in sink.messages if not m.mail_from.startswith("<>")]


def test_a_customer_says_stop_and_the_next_campaign_is_refused(
    home: Path, dovecot: Dovecot, postfix: Postfix, sink: Sink
) -> None:
    everybody = ["ann@example.com", "bob@example.org", "carla@example.net"]
    with Daemon(home, config(postfix.port, dovecot)).running() as daemon:
        assert daemon.send(everybody, CAMPAIGN) == {}
        sink.wait_for(lambda: len(campaigns(sink)) == 1)
        dovecot.lmtp("support", mail("Ann <ann@example.com>", "Please stop sending me e-mails. Thank you, Ann"))
        dovecot.lmtp("support", mail("Bob <bob@example.org>", "How do I merge two files into one?"))
        daemon.until(lambda: daemon.rcpt("ann@example.com").startswith("550 5.7.1"))
        answer = daemon.rcpt("Ann+news@EXAMPLE.com")
        found = re.fullmatch(r"550 5\.7\.1 <Ann\+news@EXAMPLE\.com> has opted out \(ref (\d+)\)", answer)
        assert found
        refused = daemon.send(everybody, CAMPAIGN)
        assert list(refused) == ["ann@example.com"]
        sink.wait_for(lambda: len(campaigns(sink)) == 2)
        shown = daemon.cli("show", "--ref", found[1]).stdout
        assert "stop sending me e-mails" in shown
        daemon.until(lambda: len(daemon.events("message_filed")) == 1)
        assert daemon.cli("audit", "verify").stdout.startswith("ok, 1 rows, head 1:")
        assert daemon.stop() == 0
    reached = [r.split()[0] for m in campaigns(sink)[1:] for r in m.rcpt_to]  # Postfix adds an ORCPT
    assert sorted(reached) == ["<bob@example.org>", "<carla@example.net>"]
    for message in campaigns(sink):
        assert below_our_received(message.data) == CAMPAIGN
    log = daemon.log_file.read_text()
    assert "example.com" not in log
    assert "example.org" not in log
    assert "ann@" not in log


def test_kill_in_the_middle_of_three_hundred_mails(home: Path, dovecot: Dovecot, sink: Sink) -> None:
    with dovecot.connect("support") as client:
        for n in range(300):
            text = "Please unsubscribe me." if n % 3 == 0 else "How do I merge two files?"
            raw = mail(f"person{n}@example.com", text, subject=f"number {n:03}")
            client.append("INBOX", raw, flags=["\\Seen"] if n % 2 else [])
    with dovecot.connect("support") as client:
        client.select_folder("INBOX", readonly=True)
        before = {u: f[b"FLAGS"] for u, f in client.fetch(client.search(), ["FLAGS"]).items()}
    daemon = Daemon(home, config(sink.port, dovecot))
    for wanted in (40, 90, 200):  # killed three times on the way
        daemon.start()
        daemon.until(partial(_has_read, daemon, wanted))
        daemon.kill()
    with daemon.running():
        daemon.until(lambda: b"done" if _filed(dovecot) == 100 else b"")
        daemon.until(lambda: "300" in _read(daemon))
        facts = [line for line in daemon.cli("audit", "export").stdout.splitlines() if '"suppressed"' in line]
        assert len(facts) == 100  # each recorded once
        people = [f"person{n}@example.com" for n in range(300)]
        checked = daemon.cli("check", *people, expect=1).stdout.splitlines()
        assert [": suppressed" in line for line in checked] == [n % 3 == 0 for n in range(300)]
        assert daemon.cli("review", "list", "--json").stdout == ""
        daemon.cli("audit", "verify")
    with dovecot.connect("support") as client:
        client.select_folder("INBOX", readonly=True)
        left = client.fetch(client.search(), ["FLAGS"])
        assert {u: set(f[b"FLAGS"]) - {b"\\Recent"} for u, f in left.items()} == {
            u: set(flags) - {b"\\Recent"} for u, flags in before.items() if u in left
        }
        assert len(left) == 200
        client.select_folder("Opt-outs", readonly=True)
        subjects = [f[b"ENVELOPE"].subject.decode() for f in client.fetch(client.search(), ["ENVELOPE"]).values()]
    assert sorted(subjects) == [f"number {n:03}" for n in range(0, 300, 3)]  # each filed once


def _has_read(daemon: Daemon, messages: int) -> bool:
    return len(daemon.events("message_read")) >= messages


def _filed(dovecot: Dovecot) -> int:
    with dovecot.connect("support") as client:
        if not client.folder_exists("Opt-outs"):
            return 0
        return int(client.select_folder("Opt-outs", readonly=True)[b"EXISTS"])


def _read(daemon: Daemon) -> str:
    with sqlite3.connect(f"file:{daemon.directory}/optoutd.db?mode=ro", uri=True) as db:
        [(count,)] = db.execute(
            "SELECT count(*) FROM incoming WHERE state <> 'reading' AND folder = 'INBOX'"
        ).fetchall()
    db.close()
    return str(count)
