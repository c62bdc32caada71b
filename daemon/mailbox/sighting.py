"""What is noted of a message that was met: for the desk that acts on it, and when it is met again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from daemon.intake import Envelope, Shelf
from daemon.mail.summary import summary
from daemon.mailbox.session import Fetched
from storage import incoming
from storage.incoming import Seen
from storage.write import Write


def envelope(fetched: Fetched, targets: Mapping[Shelf, str], trusted_only: bool) -> Envelope:
    """A message from outside. The digest is of what was fetched, and of the size of the whole."""
    outside = summary(fetched.raw)
    return Envelope(
        place=fetched.place,
        digest=hashlib.blake2b(b"%d:" % fetched.size + fetched.raw, digest_size=16).digest(),
        size=fetched.size,
        message_id=outside.message_id,
        internaldate=fetched.internaldate,
        sender=outside.sender,
        excerpt=f"Subject: {outside.subject}\n\n{outside.excerpt}",
        targets=targets,
        trusted_only=trusted_only,
    )


def note(w: Write, envelope: Envelope, known: Seen, state: incoming.State) -> int:
    """Record another sighting of a message that we know."""
    return incoming.record(
        w,
        envelope.place,
        digest=envelope.digest,
        size=envelope.size,
        message_id=envelope.message_id,
        internaldate=envelope.internaldate,
        label=known.label,
        state=state,
        target=known.target,
        evidence=known.evidence,
        sender=envelope.sender,
    )
