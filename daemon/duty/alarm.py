"""What is wrong, as a value: found by a look, told by mail, page, metric and log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal, get_args

from sqlalchemy import Connection

from daemon.vitals import Vitals
from storage.engine import Ledger

# The closed set; docs/monitoring.md says of each what it means and what to do (tests hold the two together).
Kind = Literal[
    "promise-broken",
    "record-broken",
    "suppressions-unexplained",
    "request-overdue",
    "review-old",
    "reading-stuck",
    "filing-stuck",
    "mailbox-silent",
    "mailbox-unwatched",
    "uid-gap",
    "canary-failed",
    "brake-pulled",
    "unusual",
    "database-away",
    "lookups-deferred",
    "upstream-down",
    "notices-late",
    "webhook-failing",
    "webhook-gave-up",
    "backup-old",
    "journal-failing",
    "disk-low",
    "certificate-ending",
    "job-late",
    "clock-jumped",
    "detector-failed",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
Key = tuple[str, str]  # (kind, about)


@dataclass(frozen=True, slots=True)
class Limits:
    """From when on something is an alarm: section [duty]. `disk_free`: octets."""

    due: timedelta = timedelta(hours=48)
    silent: timedelta = timedelta(minutes=15)
    review: timedelta = timedelta(hours=24)
    disk_free: int = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that wants a person. Two looks that find the same `kind` and `about` have found the same alarm.

    `kind`: a word of a closed set, such as `mailbox-silent`; `about`: which one of several (a mailbox, a file), never an
    address; `since`: when it began to be so; `text`: what is wrong, a sentence; `advice`: what to do about it, a sentence.
    `ripe`: it is raised only when it was found again and again for so long.
    """

    kind: Kind
    about: str
    since: datetime
    text: str
    advice: str
    ripe: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Glance:
    """What can be seen without the database: on every node, and while the database is away.

    `standing`: key -> since when, of the alarms that stand already: what is only known since our start goes on with them.
    `free`: where -> octets left on its disk. `jump`: how much further our wall clock went since the last look than time
    did; below zero: it was set back. `beside`: "" or " of NODE", where there are several.
    """

    vitals: Vitals
    now: datetime
    limits: Limits = field(default_factory=Limits)
    standing: Mapping[Key, datetime] = field(default_factory=dict)
    free: Mapping[str, int] = field(default_factory=dict)
    jump: timedelta = timedelta(0)
    beside: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What a detector has to look at. `db`: a reading connection. A detector is a function `find(look)` that yields alarms."""

    ledger: Ledger
    db: Connection
    vitals: Vitals
    now: datetime
    limits: Limits = field(default_factory=Limits)
    standing: Mapping[Key, datetime] = field(default_factory=dict)
