"""What is wrong, as a value: found by a look, told by mail, page, metric and log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from daemon.vitals import Vitals
from storage.engine import Ledger


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that wants a person. Two looks that find the same `kind` and `about` have found the same alarm.

    `kind`: a word of a closed set, such as `mailbox-silent`; `about`: which one of several (a mailbox, a file), never an
    address; `since`: when it began to be so; `text`: what is wrong, a sentence; `advice`: what to do about it, a sentence.
    """

    kind: str
    about: str
    since: datetime
    text: str
    advice: str


@dataclass(frozen=True, slots=True)
class Look:
    """What a detector has to look at. `db`: a reading connection. A detector is a function `find(look)` that yields alarms."""

    ledger: Ledger
    db: Connection
    vitals: Vitals
    now: datetime
