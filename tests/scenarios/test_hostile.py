"""Hostile mail is the normal input: the daemon reads it all, nobody is suppressed by it, and the relay does not notice."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.mailbox.support import mail
from tests.scenarios.process import Daemon, config
from tests.servers import Dovecot, Sink

pytestmark = [pytest.mark.dovecot, pytest.mark.timeout(180)]

HEADER = b"From: Eve <eve@example.com>\r\nTo: support@quillpdf.example\r\nSubject: hello\r\n"


def nested(depth: int) -> bytes:
    """multipart in multipart in multipart."""
    head = b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (n, n) for n in range(depth))
    tail = b"".join(b"\r\n--b%d--\r\n" % n for n in reversed(range(depth)))
    return HEADER + head + b"Content-Type: text/plain\r\n\r\nmerge?\r\n" + tail


HOSTILE = {
    "ten megabytes of lines": HEADER + b"\r\n" + b"all work and no play makes unsubscribe a dull word\r\n" * 200_000,
    "ten megabytes in one line": HEADER + b"\r\n" + b"x" * 10_000_000 + b"\r\n",
    "nested 400 deep": nested(400),
    "nested 4000 deep": nested(4000),
    "20,000 parts": HEADER
    + b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
    + b"--b\r\n\r\nx\r\n" * 20_000
    + b"--b--\r\n",
    "a header of 1 MB": HEADER + b"X-Long: " + b"y" * 1_000_000 + b"\r\n\r\nmerge?\r\n",
    "60,000 header fields": HEADER + b"X: y\r\n" * 60_000 + b"\r\nmerge?\r\n",
    "30,000 recipients": HEADER + b"Cc: " + b"a@example.com, " * 30_000 + b"b@example.com\r\n\r\nmerge?\r\n",
    "parentheses": HEADER + b"Reply-To: " + b"(" * 30_000 + b"\r\n\r\nmerge?\r\n",
    "no From": b"Subject: please remove me\r\n\r\nplease remove me\r\n",
    "two From": b"From: a@example.com\r\nFrom: b@example.com\r\n\r\nplease remove me\r\n",
    "a charset that is none": HEADER + b"Content-Type: text/plain; charset=\x00\xff\r\n\r\n\xff\xfe\x00\x80\r\n",
    "octets": bytes(range(256)) * 200,
    "no header": b"\r\n\r\nhello",
    "utf-7": HEADER + b"Content-Type: text/plain; charset=utf-7\r\n\r\n+AGEAYgBj" + b"+" * 100_000 + b"\r\n",
    "encoded words": HEADER + b"Subject: " + b"=?utf-8?q?=41?= " * 10_000 + b"\r\n\r\nx\r\n",
    "near misses": HEADER + b"\r\n" + b"please un sub scribe re move not me " * 60_000 + b"\r\n",
    "nested html": HEADER + b"Content-Type: text/html\r\n\r\n" + b"<div>" * 50_000 + b"merge?\r\n",
    "escape sequences": HEADER + b"\r\n\x1b]0;owned\x07\x1b[2J merge?\r\n",
}


def test_hostile_mail_is_read_and_the_relay_does_not_notice(home: Path, dovecot: Dovecot, sink: Sink) -> None:
    for raw in HOSTILE.values():
        dovecot.append("support", raw)
    dovecot.append("support", mail("ann@example.com", "Please remove me from your mailing list."))
    slowest = 0.0
    with Daemon(home, config(sink.port, dovecot)).running() as daemon:
        while len(daemon.events("message_read")) <= len(HOSTILE):
            began = time.monotonic()
            assert daemon.rcpt("bob@example.com").startswith("250")
            slowest = max(slowest, time.monotonic() - began)
            daemon.until(lambda: True)
        assert daemon.rcpt("ann@example.com").startswith("550")
        assert daemon.rcpt("eve@example.com").startswith("250")
        listed = daemon.cli("list", "--json").stdout.splitlines()
        assert len(listed) == 1
        assert daemon.cli("review", "list").returncode == 0
        for number in range(1, len(HOSTILE)):
            shown = daemon.cli("review", "show", str(number), expect=None).stdout
            assert "\x1b" not in shown
        assert not daemon.events("failed")
        assert not daemon.events("mailbox_lost")
    print(f"slowest RCPT dialogue beside hostile mail: {slowest:.3f} s")
    assert slowest < 1.0
