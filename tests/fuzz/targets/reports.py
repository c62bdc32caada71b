"""Delivery and feedback reports, machine-readable or not: the same as with any mail, and a bounce is of somebody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.fuzz.driving import One
from tests.fuzz.targets import mime

BASES: Final = tuple(
    octets
    for octets in mime.BASES
    if any(w in octets for w in (b"delivery-status", b"feedback-report", b"MAILER-DAEMON"))
)
WORDS: Final = (
    b"Content-Type: message/feedback-report\r\n\r\n",
    b"Content-Type: message/global-delivery-status\r\n\r\n",
    b"Final-Recipient: rfc822; ",
    b"Original-Recipient: utf-8; \\x{110000}@x.example",
    b"Original-Recipient: rfc822; ann+40customer.example",
    b"Action: failed\r\n",
    b"Action: delayed\r\n",
    b"Status: 5.1.1\r\n",
    b"Status: 9999999999.1.1\r\n",
    b"Diagnostic-Code: smtp; 550-5.1.1 ",
    b"Remote-MTA: dns; ",
    b"Feedback-Type: abuse\r\n",
    b"Original-Rcpt-To: ann@customer.example\r\n",
    b"Reported-Domain: ",
    b"X-HmXmrOriginalRecipient: ",
    b'{"notificationType":"Bounce","bounce":{"bouncedRecipients":[{"emailAddress":',
    b'{"eventType":"Complaint","mail":{"headers":[',
    b"[" * 50,
    b"\r\n\r\n",
    b"Return-Path: <>\r\n",
    *mime.WORDS[:12],
)


@contextmanager
def ready() -> Iterator[One]:
    """Nothing is needed for it."""
    yield mime.one
