"""What the desk knows: the house, the ledger, the limits; the message around a reading, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from daemon.config import Bounce as BounceLimits
from daemon.config import Brake as BrakeLimits
from daemon.config import House
from daemon.config import Intake as Allowance
from daemon.mail.reading import OptOut
from storage.address import Address, NotAnAddress, parse
from storage.engine import Ledger
from storage.incoming import Place
from storage.terms import ALL

Shelf = Literal["processed", "machine"]  # what filed messages are filed as


@dataclass(frozen=True, slots=True)
class Envelope:
    """The message around a reading. `sender`: the From address as read; `targets`: where filed messages go ("" = stay).

    `canary`: we wrote it ourselves, to see that a request is honoured; whoever says so has looked at its token.
    """

    place: Place
    digest: bytes
    size: int
    message_id: str
    internaldate: datetime
    sender: str = ""
    excerpt: str = ""
    targets: Mapping[Shelf, str] = field(default_factory=dict)
    trusted_only: bool = False  # of the mailbox: what nobody proved waits for a person at once
    canary: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it: the new suppressions' evidence, the open review, and the folder the message is owed to."""

    label: str
    incoming: int
    refs: tuple[int, ...] = ()
    review: int | None = None
    target: str = ""


@dataclass(frozen=True)
class Desk:
    """`numbers`: list id -> list number, of every list of the house. `notices`: can we write to people?"""

    ledger: Ledger
    house: House
    numbers: Mapping[str, int]
    limits: BounceLimits = field(default_factory=BounceLimits)
    allowance: Allowance = field(default_factory=Allowance)
    notices: bool = False
    brakes: BrakeLimits = field(default_factory=BrakeLimits)

    def scopes(self, reading: OptOut) -> list[int]:
        """The list numbers that a request is about."""
        if reading.token is not None:
            return [reading.token.list_number or ALL]
        return scope_numbers(reading.scope, self.numbers)

    def people(self, written: Sequence[str]) -> list[Address]:
        """Those that are addresses of persons, and not our own."""
        people = []
        for text in written:
            try:
                address = parse(text)
            except NotAnAddress:
                continue
            if not self.house.never_suppresses(text) and not address.is_domain:
                people.append(address)
        return people


def scope_numbers(words: Sequence[str], numbers: Mapping[str, int]) -> list[int]:
    """("list:offers", "list:webinars") -> their numbers; ("all",) -> [ALL]. A list we do not have is everything."""
    found = [ALL if word == "all" else numbers.get(word.removeprefix("list:"), ALL) for word in words]
    return [ALL] if ALL in found or not found else found
