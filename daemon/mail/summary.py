"""What is said of any message, whatever it is read as: who, what about, and a look at its text for the review queue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from daemon.mail import addresses, fields
from daemon.mail.message import Message, take_apart
from daemon.mail.patterns import pattern
from daemon.mail.quoting import clean

EXCERPT: Final = 2000  # characters
_MESSAGE_ID = pattern(r"<[^<>\s]{1,400}>")
_SPACE = pattern(r"\s+")


@dataclass(frozen=True, slots=True)
class Summary:
    """`message_id` with its brackets, "" if there is none; `sender`: the one From address, "" if it is not one.

    `received`: when our own mail server took it (the date of the topmost Received), else what its Date says.
    """

    message_id: str
    sender: str
    subject: str
    excerpt: str
    received: datetime | None


def summary(raw: bytes) -> Summary:
    """Read the outside of a message. Never raises."""
    message = take_apart(raw)
    found = _MESSAGE_ID.search(message.fields.get("message-id")[:1000])
    senders = addresses.specs(message.fields.get("from"))
    subject = _SPACE.sub(" ", fields.words(message.fields.get("subject"))).strip()[:300]
    return Summary(
        found[0] if found else "",
        senders[0] if len(senders) == 1 else "",
        subject,
        _excerpt(message),
        _received(message),
    )


def _received(message: Message) -> datetime | None:
    for value in (message.fields.get("received").rpartition(";")[2], message.fields.get("date")):
        try:
            found = parsedate_to_datetime(value.strip()[:100])
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC) if found.year > 1970 else None
    return None


def _excerpt(message: Message) -> str:
    part = message.root.first("text/plain") or message.root.first("text/html")
    return clean(part.text()[: 4 * EXCERPT]).strip()[:EXCERPT] if part else ""
