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
class Vitals:
    """`bound`: door (`relay web public policy`) -> the addresses it listens on. `upstream`: "" if it answered last, else
    why not; None: there is none. `duties`: what of `jobs`, `notices` and `hooks` this node does. `record_broken`: the last check
    of the record found it so; `promise_broken`: how many were mailed who had opted out, as far as the witness has seen."""

    started: datetime
    bound: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mailboxes: tuple[MailboxVitals, ...] = ()
    upstream: str | None = None
    duties: tuple[str, ...] = ()
    record_broken: bool = False
    promise_broken: int = 0
