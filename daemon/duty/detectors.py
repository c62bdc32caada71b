"""All that is looked for: a new detector is a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from daemon.duty import canary, gaps, keeping, parts, requests, unusual
from daemon.duty.alarm import Alarm, Glance, Look

# Looked for by every node, also while the database is away.
OF_THE_PARTS: Final[tuple[Callable[[Glance], Iterator[Alarm]], ...]] = (
    parts.mailboxes,
    parts.promise,
    parts.upstream,
    parts.journal,
    parts.disks,
    parts.certificates,
    parts.clock,
)
# Looked for by the node with the jobs.
OF_THE_LEDGER: Final[tuple[Callable[[Look], Iterator[Alarm]], ...]] = (
    requests.overdue,
    requests.reviews,
    requests.stuck,
    requests.unwatched,
    requests.notices,
    keeping.record,
    keeping.unexplained,
    keeping.jobs,
    keeping.backups,
    keeping.deferring,
    keeping.webhooks,
    canary.find,
    gaps.find,
    unusual.find,
)


def name_of(detector: Callable[..., object]) -> str:
    """What a detector is called in rows and logs: `requests.overdue`."""
    return f"{detector.__module__.rpartition('.')[2]}.{detector.__name__}"
