"""What the parts of a watcher work with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime

from daemon.gate import Answer
from daemon.intake import Intake
from daemon.mail.reading import Reading
from daemon.mailbox.session import Session
from storage.address import Address
from storage.engine import Ledger
from storage.write import Write, write


@dataclass(frozen=True)
class Means:
    """Of one mailbox; fakes for time and failure come in here. `ask`: the gate, as the relay asks it of everything."""

    connect: Callable[[], Session]
    read: Callable[[bytes], Reading]
    intake: Intake
    now: Callable[[], datetime]
    ask: Callable[[Address], Answer]
    interrupt: Callable[[], None] = lambda: None  # from another thread: whatever `connect` waits for

    @property
    def ledger(self) -> Ledger:
        """Where it is written down."""
        return self.intake.ledger

    def writing(self, mailbox: str) -> AbstractContextManager[Write]:
        """A transaction of the mailbox. Raises Unavailable, Unusable."""
        return write(self.ledger, self.now(), f"mailbox {mailbox}")
