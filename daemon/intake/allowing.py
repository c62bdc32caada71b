"""May a reading act by itself? The allowance for what nobody proved, and the brake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from daemon import events
from daemon.intake.desk import Desk
from storage import brake, held, incoming, refusals, suppressions
from storage.terms import ALL, Reason
from storage.write import Write

ONE_WRITER: Final = (3, 20)  # of 20 unproven requests an hour, at most 3 may come from one writer
UNPROVEN: Final = "7.5-unproven"  # the rules that send a clear reading to the queue
BRAKE: Final = held.RULE
TOGETHER: Final = 5  # times as many may come of all causes of a kind together as of one
_MAILED: Final = 24  # hours, whose passed recipients large numbers are held against
_SOURCES: Final = {"bounces": "dsn", "complaints": "arf"}


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

    def is_too_many(self, what: brake.What, written: Sequence[str], reason: Reason) -> bool:
        """Count these people, who would be suppressed now by this cause. Beyond the limit its brake is pulled: they wait."""
        news, kind = self.not_yet(written, [ALL], reason), brake.kind_of(what)
        limits = self.desk.brakes
        per_hour, percent = {
            "bounces": (limits.bounces_per_hour, limits.bounces_percent),
            "complaints": (limits.complaints_per_hour, limits.complaints_percent),
        }[kind]
        if not (news and per_hour):
            return False
        for name, times in ((what, 1), (kind, TOGETHER)):
            many = brake.count(self.w, name, self.asked, news)
            if many > per_hour * times:
                passed = refusals.passed(self.w.db, self.asked, _MAILED)
                limit = max(per_hour, passed * percent // 100) * times
                if many > limit:
                    self._pull(name, many, limit, passed)
                    return True
        return False

    def _pull(self, what: brake.What, many: int, limit: int, passed: int) -> None:
        because = (
            f"{many} people would have been suppressed by {brake.said(what)} in one hour; the limit is {limit}"
            f" ({passed} were mailed in {_MAILED} hours)"
        )
        if brake.pull_by_itself(self.w, what, because, _SOURCES[brake.kind_of(what)]):
            self.w.after_commit(lambda: events.brake_pulled(what, because))
