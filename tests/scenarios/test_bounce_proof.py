"""A bounce is believed when the returned header carries the id of our own Received line, and only then."""

from __future__ import annotations

import asyncio
import re
import smtplib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daemon.config import Intake as Allowance
from daemon.intake import Done, Envelope, Intake
from daemon.mail.reading import Bounce
from daemon.mail.triage import read
from storage import suppressions
from storage.address import parse
from storage.incoming import Place
from storage.terms import Reason
from tests.ledgers import Books, books
from tests.mailbox.support import HOUSE
from tests.relay.desk import relay
from tests.servers import Sink

OURS = (
    b"From: letter@news.quillpdf.example\r\nSubject: spring\r\nMessage-ID: <1@news.quillpdf.example>\r\n\r\nhello\r\n"
)


def report(recipient: str, status: str, said: str, returned: bytes) -> bytes:
    """A delivery report as Postfix writes it."""
    header = returned.partition(b"\r\n\r\n")[0]
    return (
        b"From: MAILER-DAEMON@mx.example.net\r\nTo: letter@news.quillpdf.example\r\nSubject: Undelivered Mail\r\n"
        b"Message-ID: <dsn@mx.example.net>\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n'
        b"--b\r\nContent-Type: text/plain\r\n\r\nI could not deliver your message.\r\n"
        b"--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.net\r\n\r\n"
        + f"Final-Recipient: rfc822; {recipient}\r\nAction: failed\r\nStatus: {status}\r\n".encode()
        + f"Diagnostic-Code: smtp; {said}\r\n\r\n".encode()
        + b"--b\r\nContent-Type: text/rfc822-headers\r\n\r\n"
        + header
        + b"\r\n\r\n--b--\r\n"
    )


async def sent_through(ledger: Books, sink: Sink, recipients: list[str]) -> bytes:
    """The message as the upstream got it, our Received line on top."""
    async with relay(ledger, sink) as desk:

        def send() -> None:
            with smtplib.SMTP("127.0.0.1", desk.port) as client:
                client.sendmail("letter@news.quillpdf.example", recipients, OURS)

        await asyncio.to_thread(send)
    return sink.messages[-1].data


def act(ledger: Books, raw: bytes) -> Done:
    reading = read(raw, HOUSE, ledger.ledger.site_key)
    assert isinstance(reading, Bounce)
    now = datetime.now(UTC)
    envelope = Envelope(Place("bounces", "INBOX", 1, 1), b"d" * 16, len(raw), "<dsn@mx.example.net>", now)
    nothing_unproven = Allowance(unproven_per_hour=0)
    return Intake(ledger.ledger, HOUSE, ledger.numbers, allowance=nothing_unproven).act(reading, envelope, now)


def reasons(ledger: Books, address: str) -> list[Reason]:
    with ledger.ledger.reading() as db:
        return [Reason(r[2]) for r in suppressions.standing(db, ledger.ledger.site_key, parse(address))]


@pytest.fixture
def ledger(tmp_path: Path) -> Books:
    return books(tmp_path / "state")


@pytest.mark.parametrize("address", ["gone@example.net", "Gone.Now+list@gmail.com"])
async def test_our_own_received_line_proves_it(ledger: Books, sink: Sink, address: str) -> None:
    returned = await sent_through(ledger, sink, [address])
    done = act(ledger, report(address, "5.1.1", "550 5.1.1 no such user", returned))
    assert done.review is None
    assert reasons(ledger, address) == [Reason.HARD_BOUNCE]


async def test_the_line_of_a_message_to_several_proves_nothing_of_anybody(ledger: Books, sink: Sink) -> None:
    """Each of them holds it, and could report all the world with it."""
    returned = await sent_through(ledger, sink, ["gone@example.net", "here@example.net"])
    done = act(ledger, report("gone@example.net", "5.1.1", "550 5.1.1 no such user", returned))
    assert done.review is not None
    assert not reasons(ledger, "gone@example.net")


async def test_a_policy_block_suppresses_nobody(ledger: Books, sink: Sink) -> None:
    returned = await sent_through(ledger, sink, ["block@example.net"])
    done = act(ledger, report("block@example.net", "5.7.1", "554 5.7.1 blocked: bad reputation", returned))
    assert done.review is None
    assert not reasons(ledger, "block@example.net")


async def test_without_it_a_person_decides(ledger: Books, sink: Sink) -> None:
    returned = await sent_through(ledger, sink, ["gone@example.net"])
    forged = re.sub(rb"\tid [a-z2-7]{48}", b"\tid " + b"a" * 48, returned)
    assert forged != returned
    for header in (forged, OURS):
        done = act(ledger, report("gone@example.net", "5.1.1", "550 5.1.1 no such user", header))
        assert done.review is not None
    assert not reasons(ledger, "gone@example.net")


async def test_one_persons_proof_is_not_anothers(ledger: Books, sink: Sink) -> None:
    returned = await sent_through(ledger, sink, ["mine@example.net"])
    done = act(ledger, report("victim@example.net", "5.1.1", "550 5.1.1 no such user", returned))
    assert done.review is not None
    assert not reasons(ledger, "victim@example.net")
