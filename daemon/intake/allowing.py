"""May a reading act by itself? The allowance for what nobody proved, and the brake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from daemon.intake.desk import Desk
from storage import brake, incoming, suppressions
from storage.terms import Reason
from storage.write import Write

ONE_WRITER: Final = (3, 20)  # of 20 unproven requests an hour, at most 3 may come from one writer
UNPROVEN: Final = "7.5-unproven"  # the rules that send a clear reading to the queue
BRAKE: Final = "7.9-brake"


@dataclass(frozen=True, slots=True)
class Allowing:
    """Asked within the transaction that would act. `asked`: when the message came; `trusted_only`: of its mailbox."""

    desk: Desk
    w: Write
    asked: datetime
    trusted_only: bool

    def not_yet(self, written: Sequence[str], scopes: Sequence[int], reason: Reason) -> int:
        """How many of these people are not suppressed yet: a copy of a message takes nothing from the allowance."""
        db, site_key = self.w.db, self.w.ledger.site_key
        standing = [
            {(r[1], r[2]) for r in suppressions.standing(db, site_key, person)} for person in self.desk.people(written)
        ]
        return sum(any((scope, reason) not in rows for scope in scopes) for rows in standing)

    def is_within(self, people: int, writer: str, *, machine: bool = False) -> bool:
        """May so many people more be suppressed though nobody proved it? Counts them if so."""
        limit = self.desk.allowance.unproven_per_hour
        if self.trusted_only or not limit:
            return False
        few, of = ONE_WRITER
        one_writer = limit if machine else -(-limit * few // of)  # a provider's bounces all come from one address
        key = self.w.ledger.site_key.address_key(writer.lower())
        return not people or incoming.allow_unproven(self.w, key, self.asked, people, limit, one_writer)

    def is_held(self, what: brake.What, written: Sequence[str], scopes: Sequence[int], reason: Reason) -> bool:
        """Does the brake keep these people from being suppressed? What changes nothing is not worth a person's time."""
        return bool(written) and brake.is_pulled(self.w.db, what) and self.not_yet(written, scopes, reason) > 0
