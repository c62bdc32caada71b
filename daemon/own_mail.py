"""A mail that we write ourselves: its header, and its way to the upstream. To people: notices; to the operators: duty, doctor.

Each says that a machine wrote it (`Auto-Submitted`, RFC 3834) and has the null sender (RFC 5321 4.5.5): nobody is to answer,
and a bounce of it goes nowhere, so nothing can go round in circles.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from datetime import datetime
from email.headerregistry import Address as Mailbox
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final

from daemon.delivery import Delivery, Source

_PLAIN: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+\Z")  # what needs no quoting in a header


def compose(
    sender: Mailbox, recipient: str, subject: str, text: str, now: datetime, name: str, *, replied: bool = False
) -> EmailMessage:
    """The whole message, which as octets has CRLF line ends. `name`: what tells its Message-ID from all others of ours.

    `replied`: it answers a mail (RFC 3834 5.1).
    """
    message = EmailMessage(policy=SMTP.clone(utf8=not recipient.isascii()))
    message["From"] = sender
    message["To"] = recipient if _PLAIN.match(recipient) else "undisclosed-recipients:;"  # it would have to be quoted
    message["Subject"] = subject
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<optoutd.{name}@{sender.domain}>"
    message["Auto-Submitted"] = "auto-replied" if replied else "auto-generated"
    message.set_content(text, cte="quoted-printable")
    return message


async def deliver(pool: Source, recipient: str, octets: bytes) -> str:
    """Hand a mail of our own (CRLF line ends) to the upstream, from the null sender: nobody is to answer it.

    Returns the last reply; raises Lost.
    """
    needs = frozenset[str]() if recipient.isascii() else frozenset({"SMTPUTF8"})
    delivery = Delivery(pool, b"MAIL FROM:<>" + b" SMTPUTF8" * bool(needs) + b"\r\n", needs)
    try:
        reply = await delivery.rcpt(f"RCPT TO:<{recipient}>\r\n".encode())
        if not reply.good:
            delivery.forget()
            return str(reply)
        reply = await delivery.data()
        if reply.code == 354:
            await delivery.body(octets.replace(b"\r\n.", b"\r\n.."))
            reply = await delivery.dot()
        return str(reply)
    finally:
        delivery.drop()


async def to_the_end(doing: Coroutine[None, None, None], seconds: float = 10.0) -> None:
    """A cancellation waits until what is in hand (a mail) is sent and noted: for so long at most."""
    task = asyncio.ensure_future(doing)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=seconds)
        raise
