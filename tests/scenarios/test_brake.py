"""A flood of delivery reports against the real daemon: the brake stops it, and nothing that people ask for."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.mailbox.support import mail
from tests.scenarios.process import Daemon, config
from tests.servers import Dovecot, Sink

pytestmark = [pytest.mark.dovecot, pytest.mark.timeout(400)]

FLOOD, LIMIT = 150, 30
CAUSE = "bounces:outlook.com/5.1.1"
MORE = f"""
[intake]
unproven_per_hour = 100000

[brake]
bounces_per_hour = {LIMIT}
"""


def report(number: int, host: str = "company-com.mail.protection.outlook.com", status: str = "5.1.1") -> bytes:
    """A delivery report as Postfix writes it."""
    return (
        "Return-Path: <>\r\nFrom: MAILER-DAEMON@mx.quillpdf.example\r\nTo: support@quillpdf.example\r\n"
        f"Subject: Undelivered Mail Returned to Sender\r\nMessage-ID: <dsn{number}@mx.quillpdf.example>\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n'
        "--b\r\nContent-Type: text/plain\r\n\r\nI could not deliver your message.\r\n"
        "--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.quillpdf.example\r\n\r\n"
        f"Final-Recipient: rfc822; p{number}@company{number % 50}.example\r\nAction: failed\r\nStatus: {status}\r\n"
        f"Remote-MTA: dns; {host}\r\nDiagnostic-Code: smtp; 550 {status} no such user\r\n\r\n"
        "--b\r\nContent-Type: message/rfc822\r\n\r\nFrom: news@quillpdf.example\r\nSubject: spring\r\n\r\n--b--\r\n"
    ).encode()


def fact(daemon: Daemon, *arguments: str, expect: int | None = 0) -> dict[str, object]:
    found: dict[str, object] = json.loads(daemon.cli(*arguments, "--json", expect=expect).stdout)
    return found


def test_a_flood_of_bounces_trips_one_brake_and_can_be_undone(home: Path, dovecot: Dovecot, sink: Sink) -> None:
    with dovecot.connect("support") as client:
        for n in range(FLOOD):
            client.append(
                "INBOX", report(n), msg_time=datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
            )  # one hour, whenever this runs
        client.append("INBOX", report(1000, "mx.other.example"))
        client.append("INBOX", mail("ann@example.com", "Please remove me from your mailing list."))
    with Daemon(home, config(sink.port, dovecot, mailbox="first_days = 3650", more=MORE)).running() as daemon:
        daemon.until(lambda: len(daemon.events("message_read")) >= FLOOD // 3)
        daemon.kill()
        daemon.start()
        daemon.until(lambda: daemon.events("opt_out_recorded"))
        assert daemon.rcpt("ann@example.com").startswith("550")
        (pulled,) = daemon.events("brake_pulled")
        assert (pulled["what"], pulled["level"]) == (CAUSE, "error")

        refused = [
            n
            for n in (0, LIMIT - 1, LIMIT, FLOOD - 1, 1000)
            if daemon.rcpt(f"p{n}@company{n % 50}.example")[:3] == "550"
        ]
        assert refused == [0, LIMIT - 1, 1000]
        states = [json.loads(line) for line in daemon.cli("brake", "--json").stdout.splitlines()]
        assert [(s["what"], s["actor"]) for s in states if s["pulled"]] == [(CAUSE, "brake")]

        assert fact(daemon, "review", "reject", "--cause", CAUSE, "--dry-run")["items"] == FLOOD - LIMIT
        assert fact(daemon, "review", "reject", "--cause", CAUSE, "--yes")["items"] == FLOOD - LIMIT
        undone = fact(
            daemon, "lift", "--domain", "outlook.com", "--diagnostic", "5.1.1", "--because", "a block", "--yes"
        )
        assert undone["lifted"] == LIMIT
        daemon.cli("brake", "--release", CAUSE, "--because", "over")
        assert daemon.rcpt("p0@company0.example").startswith("250")
        assert daemon.rcpt("p1000@company0.example").startswith("550")
        assert daemon.rcpt("ann@example.com").startswith("550")
        daemon.cli("audit", "verify")
