"""Short words for what detectors see, and a clock that goes when it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from daemon.duty.alarm import Alarm, Glance, Look
from daemon.vitals import MailboxVitals, Vitals
from storage import alarms
from storage.alarms import Noted
from tests.ledgers import Books

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)  # a Monday
SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
STARTED = NOW - 10 * DAY


def support(silent: timedelta = timedelta(0), **other: Any) -> MailboxVitals:
    """The mailbox `support`, which has not answered for so long."""
    return MailboxVitals("support", **{"ours": True, "connected": True, "last_success": NOW - silent, **other})


def vitals(*mailboxes: MailboxVitals, **other: Any) -> Vitals:
    """Of a daemon that has run for ten days."""
    return Vitals(**{"started": STARTED, "mailboxes": mailboxes or (support(),), "upstream": "", **other})


def glance(of: Vitals | None = None, **other: Any) -> Glance:
    """What is seen without the ledger."""
    return Glance(of or vitals(), NOW, **other)


def found(
    detector: Callable[[Look], Iterator[Alarm]], ledger: Books, of: Vitals | None = None, **other: Any
) -> list[Alarm]:
    """What a detector finds in a ledger."""
    with ledger.ledger.connect() as db:
        return list(detector(Look(ledger.ledger, db, of or vitals(), NOW, **other)))


def rows(ledger: Books) -> list[Noted]:
    """All alarms there ever were."""
    with ledger.ledger.connect() as db:
        return alarms.between(db, datetime(1970, 1, 2, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))


@dataclass
class Clock:
    """Wall clock and monotonic clock of a test."""

    at: datetime = NOW
    ticked: float = 1000.0

    def now(self) -> datetime:
        """The wall clock."""
        return self.at

    def monotonic(self) -> float:
        """The other one."""
        return self.ticked

    def goes(self, time: timedelta) -> None:
        """Both go on."""
        self.at += time
        self.ticked += time.total_seconds()
