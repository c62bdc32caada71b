"""How the parts of the running daemon are, as the service sees them: for the console, /metrics and /readyz. A snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class MailboxVitals:
    """A mailbox of the config. `ours`: this node watches it (of several nodes one does).

    `trouble`: `STEP: reason (advice)`, with addresses masked, while it is not connected; `last_success`: when it last answered us.
    """

    name: str
    ours: bool
    connected: bool
    last_success: datetime | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class AlarmVitals:
    """An alarm that stands (daemon.duty.alarm.Alarm): `kind`, which one of several, since when, what is wrong, what to do."""

    kind: str
    about: str
    since: datetime
    text: str
    advice: str


@dataclass(frozen=True, slots=True)
class DutyVitals:
    """What the clock of duty saw last. `alarms`: those that stand, the newest first, of all nodes.

    `open_since`: since when the oldest request that may be open has waited; `waits`: which, in words; `due`: by when it
    must have been dealt with. `notices`: how many mails of our own are owed; `oldest_notice`: since when the oldest is.
    """

    alarms: tuple[AlarmVitals, ...] = ()
    open_since: datetime | None = None
    waits: str = ""
    due: datetime | None = None
    notices: int = 0
    oldest_notice: datetime | None = None


@dataclass(frozen=True, slots=True)
class Vitals:
    """`bound`: door (`relay web public policy`) -> the addresses it listens on. `upstream`: "" if it answered last, else
    why not; None: there is none. `duties`: what of `jobs`, `notices` and `hooks` this node does. `record_broken`: the last check
    of the record found it so; `promise_broken`: how many were mailed who had opted out, as far as the witness has seen.
    `unexplained`: the last check of the suppressions found some without evidence. `journal_behind`: the journal misses what no
    backup has yet. `certificates`: file -> whole days that our certificate in it lasts. `hooks`: those of the config.
    `duty`: None until there was a look."""

    started: datetime
    bound: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mailboxes: tuple[MailboxVitals, ...] = ()
    upstream: str | None = None
    duties: tuple[str, ...] = ()
    record_broken: bool = False
    promise_broken: int = 0
    unexplained: bool = False
    journal_behind: bool = False
    certificates: Mapping[str, int] = field(default_factory=dict)
    hooks: tuple[str, ...] = ()
    duty: DutyVitals | None = None
