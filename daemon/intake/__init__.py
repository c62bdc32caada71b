"""What follows from a reading: the one match on it, one transaction, and word of what is to be done with the message.

Used by the watcher, and by whoever else brings a message (the demo, later replay). Commit first: whatever `act` says
has been recorded is on disk when it returns; what is then owed to the message (filing) was committed with it.

Trust: a request acts at once for the writer's own address when dmarc=pass or when no `authserv_id` is
configured and nobody can be proven, and for whomever a token of ours names. Anything else acts too, but only up to an
hourly allowance (a `trusted_only` mailbox has none); what exceeds it waits for a person. The canary, which we have
written ourselves, is as good as proven, and nobody is told of it.
"""

from __future__ import annotations

from datetime import datetime

from daemon import events
from daemon.intake.acting import Act
from daemon.intake.deciding import AlreadyDecided, NobodyNamed, Outdated, close
from daemon.intake.desk import Desk, Done, Envelope, Shelf, scope_numbers
from daemon.mail.reading import OptOut, Reading, Review
from storage import canaries, incoming, suppressions
from storage.incoming import Item
from storage.write import write

__all__ = ["AlreadyDecided", "Done", "Envelope", "Intake", "NobodyNamed", "Outdated", "Shelf", "scope_numbers"]


class Intake(Desk):
    """The desk at work: every method is one transaction."""

    def act(self, reading: Reading, envelope: Envelope, now: datetime) -> Done:
        """Honour a reading. Raises storage.engine.Unavailable: nothing has happened then."""
        actor = canaries.ACTOR if envelope.canary else f"mailbox {envelope.place.mailbox}"
        with write(self.ledger, now, actor) as w:
            return Act(self, w, envelope).do(reading)

    def unread(self, envelope: Envelope, now: datetime) -> Done:
        """A message whose reading did not end twice: a person looks at it, we do not try again."""
        return self.act(Review((), ("all",), None, "", ("attempts-did-not-end",), ""), envelope, now)

    def found_back(self, envelope: Envelope, now: datetime) -> Done:
        """An honoured message that a person moved back to the inbox: what people do wins."""
        return self.act(Review((), ("all",), None, "", ("moved-back-by-a-person",), ""), envelope, now)

    def filed_by_hand(self, reading: Reading, envelope: Envelope, now: datetime) -> Done:
        """A person dragged a message into the folder of honoured requests: that is a decision."""
        with write(self.ledger, now, f"staff of {envelope.place.mailbox}") as w:
            return Act(self, w, envelope).by_hand(reading)

    def honour(self, reading: OptOut | Review, envelope: Envelope, now: datetime, actor: str) -> None:
        """An old request that an operator has found and decided on: recorded with the date at which it was asked."""
        with write(self.ledger, now, actor) as w:
            Act(self, w, envelope).old(reading)

    def decide(self, item: Item, accepted: bool, note: str, now: datetime, actor: str) -> list[suppressions.Added]:
        """Carry out a decision on a doubtful message. Raises NobodyNamed, Outdated, AlreadyDecided."""
        with write(self.ledger, now, actor) as w:
            current = incoming.review(w.db, item.id)
            if current is None or current.state != "open":
                raise AlreadyDecided
            added = close(w, current, self, accepted=accepted, note=note)
        events.review_decided(item.id, accepted)
        return added
