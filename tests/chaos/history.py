"""What everybody saw, and when: lines of JSON in one file, so that a run can be judged again long after it.

Times are seconds of this machine's monotonic clock, which all its processes share and no fault of ours moves.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

ALL: Final = "all"  # the scope of everything; else the id of a list


@dataclass(frozen=True, slots=True)
class Asked:
    """A person's wish is about to be told for the first time, in this way. From here on they may be suppressed."""

    kind: ClassVar[str] = "asked"
    person: str
    way: str  # mail click api cli import bounce complaint
    scope: str
    reason: str  # as the contract has it: opt-out operator complaint hard-bounce
    at: float


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """It was taken: a 200, an exit code 0, a filed mail, a committed row that a stranger could read."""

    kind: ClassVar[str] = "acknowledged"
    person: str
    by: str  # answer filed row
    at: float  # after we knew


@dataclass(frozen=True, slots=True)
class Lift:
    """An operator ends it. `began`: before the first try; `ended`: when it was acknowledged, 0: it never was."""

    kind: ClassVar[str] = "lift"
    person: str
    way: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one message. `answers`: (recipient, when RCPT was sent, the reply or "" for none).

    `dot`: just before the octets of the final dot were handed to the kernel, 0: they never were. `reply`: to the dot, or what
    stood against it; "": none came.
    """

    kind: ClassVar[str] = "attempt"
    message: str
    number: int
    mode: str  # refuse strip
    list: str  # "" none
    known: bool  # is the list known at RCPT, by the credential?
    answers: tuple[tuple[str, float, str], ...]
    dot: float
    reply: str
    at: float  # when it was over


@dataclass(frozen=True, slots=True)
class Given:
    """The last that a client knows of a message and a recipient: sent, refused, deferred (it has given up)."""

    kind: ClassVar[str] = "given"
    message: str
    person: str
    state: str


@dataclass(frozen=True, slots=True)
class Posted:
    """A mail was put into the support mailbox. `sure`: did the server say so? If not it may be there, or not."""

    kind: ClassVar[str] = "posted"
    mail: str  # what its X-Chaos field says
    what: str  # opt-out ordinary review bounce complaint
    person: str
    way: str  # append lmtp
    flags: tuple[str, ...]
    digest: str  # SHA-256 of its octets
    octets: int
    sure: bool
    at: float


@dataclass(frozen=True, slots=True)
class Fault:
    """Something was broken from `began` to `ended`."""

    kind: ClassVar[str] = "fault"
    name: str
    told: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Note:
    """Anything else worth knowing: a restart of the daemon, a restore."""

    kind: ClassVar[str] = "note"
    name: str
    told: str
    at: float


Record = Asked | Acknowledged | Lift | Attempt | Given | Posted | Fault | Note
_KINDS: Final = {c.kind: c for c in (Asked, Acknowledged, Lift, Attempt, Given, Posted, Fault, Note)}


class History:
    """The file, written by many threads."""

    def __init__(self, path: Path):
        self._file = path.open("a", buffering=1)
        self._lock = threading.Lock()
        self.counts: dict[str, int] = {}

    def add(self, record: Record) -> None:
        """Write it down."""
        line = json.dumps({"kind": record.kind, **asdict(record)}) + "\n"
        with self._lock:
            self._file.write(line)
            self.counts[record.kind] = self.counts.get(record.kind, 0) + 1

    def note(self, name: str, told: str = "") -> None:
        """Write a Note."""
        self.add(Note(name, told, time.monotonic()))

    def close(self) -> None:
        """No more will come."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class Arrival:
    """What the upstream's end took: `attempt` is what the X-Attempt field says ("" in what we did not send)."""

    attempt: str
    mail_from: str
    rcpt_to: tuple[str, ...]
    at: float
    head: str  # the header, if it went to one recipient


def read(path: Path) -> Iterator[Record]:
    """The records of a file, in the order in which they were written."""
    for line in path.read_text().splitlines():
        fields: dict[str, Any] = json.loads(line)
        kind = _KINDS[fields.pop("kind")]
        if "answers" in fields:
            fields["answers"] = tuple((a, b, c) for a, b, c in fields["answers"])
        if "flags" in fields:
            fields["flags"] = tuple(fields["flags"])
        yield kind(**fields)


def arrivals(path: Path, skip: int = 0) -> Iterator[Arrival]:
    """What the upstream wrote down; a last line that was cut off by a kill was not answered either."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(skip)
        for line in file:
            if line.endswith(b"\n"):
                fields = json.loads(line)
                yield Arrival(**(fields | {"rcpt_to": tuple(fields["rcpt_to"])}))
