"""The operator's hand: who is put onto the list, or taken off it, by a person or a program that may do so.

The same rules and the same words for the command line, the console and the API.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from daemon.config import House
from storage import brake, people, suppressions
from storage.address import PUBLIC_PROVIDERS, Address, NotAnAddress, keys_of, parse
from storage.engine import Ledger
from storage.people import Erased
from storage.suppressions import Added, RawRow, Whom
from storage.terms import ALL, REASONS, SOURCES, Reason, joined
from storage.write import Write, write

Why = Literal["address", "ours", "provider", "list", "reason", "source"]


class Refused(Exception):
    """It is not done. `why`: what of the request is wrong; the message is a sentence for whoever asked."""

    def __init__(self, why: Why, sentence: str):
        super().__init__(sentence)
        self.why = why


@dataclass(frozen=True)
class Hand:
    """`actor`: whose hand it is, for the record. `force`: a whole public mail provider may be meant."""

    ledger: Ledger
    house: House
    now: datetime
    actor: str
    force: bool = False

    def suppress(self, persons: Sequence[Address], wish: Wish) -> list[Added]:
        """Put people onto the list, in one transaction. Raises Refused, Unavailable, Unusable."""
        with write(self.ledger, self.now, self.actor) as w:
            return [self.add(w, person, wish) for person in persons]

    def add(self, w: Write, person: Address, wish: Wish) -> Added:
        """The same for one, in a transaction that has begun."""
        self._may_be_suppressed(person)
        detail = {"note": wish.note, **wish.detail}
        return suppressions.add(w, person, self.scope(w, wish.list_id), REASONS[wish.reason], wish.source, detail)

    def brake(
        self, pull: Collection[brake.What], release: Collection[brake.What], because: str
    ) -> Collection[brake.What]:
        """Let these wait for a person, and those act again. Returns what is changed by that. Raises as above."""
        with write(self.ledger, self.now, self.actor) as w:
            return brake.set_to(w, pull, release, because)

    def erase(self, person: Address, progress: Callable[[], object] = lambda: None) -> Erased:
        """Forget a person, who is never mailed all the same. Reads everything, so it takes its time. Raises as above."""
        return people.erase_everywhere(self.ledger, person, self.now, self.actor, progress)

    def lift(self, person: Whom, list_id: str | None, because: str) -> list[RawRow]:
        """End what stands for everything (or for this list). Returns the rows that went. Raises Refused and as above."""
        with write(self.ledger, self.now, self.actor) as w:
            return self.end(w, person, list_id, because)

    def end(self, w: Write, person: Whom, list_id: str | None, because: str, source: str = "operator") -> list[RawRow]:
        """The same in a transaction that has begun."""
        numbers = suppressions.list_numbers(w.db)
        if list_id is not None and list_id not in numbers:
            self._known(list_id, numbers)
            return []  # a list of the config that the ledger has not met yet
        return suppressions.lift(w, person, ALL if list_id is None else numbers[list_id], because, source)

    def scope(self, w: Write, list_id: str | None) -> int:
        """The number to write: a list of the config has one from now on. Raises Refused."""
        if list_id is None:
            return ALL
        numbers = suppressions.list_numbers(w.db)
        if list_id not in numbers:
            self._known(list_id, numbers)
            numbers = suppressions.number_lists(w, [x.id for x in self.house.lists])
        return numbers[list_id]

    def _known(self, list_id: str, numbers: Mapping[str, int]) -> None:
        known = {*numbers, *(x.id for x in self.house.lists)}
        if list_id not in known:
            raise Refused("list", no_such_list(list_id, known))

    def _may_be_suppressed(self, person: Address) -> None:
        if self.house.never_suppresses(str(person)):
            sentence = "is one of our own addresses (house.addresses, or the sender of a list): it is never suppressed"
            raise Refused("ours", f"{person} {sentence}")
        if person.is_domain and person.domain in PUBLIC_PROVIDERS and not self.force:
            raise Refused(
                "provider", f"{person} is a public mail provider, and all its users would be suppressed: nothing done"
            )


@dataclass(frozen=True, slots=True)
class Wish:
    """How somebody is to be suppressed: words as in the contract. `list_id`: None for everything."""

    list_id: str | None = None
    reason: str = "operator"
    source: str = "operator"
    note: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises Refused."""
        if self.reason not in REASONS:
            raise Refused("reason", f"{self.reason!r}: must be one of {', '.join(REASONS)}")
        if self.source not in SOURCES:
            raise Refused("source", f"{self.source!r}: must be one of {', '.join(SOURCES)}")
        if REASONS[self.reason] == Reason.WANTED and self.list_id is None:
            raise Refused("reason", "`wanted` exempts one list: name the list")


def person(text: str) -> Address:
    """Somebody who may be suppressed: a person, or a domain (`@example.com`). Raises NotAnAddress."""
    found = parse(text)
    if found.is_domain and "." not in found.domain.strip("[]"):
        raise NotAnAddress("a top-level domain cannot be suppressed as a whole")
    return found


def no_such_list(list_id: str, known: set[str]) -> str:
    """The sentence about a list that neither the config nor the ledger knows."""
    return f"no list {list_id!r}; known: {', '.join(sorted(known)) or 'none (see [[list]] in the config)'}"


def left_standing(ledger: Ledger, of: Whom) -> list[str]:
    """What still stands against somebody: `all`, `list:ID as part of a whole domain`. Raises Unavailable."""
    kinds = {} if isinstance(of, bytes) else dict(reversed(keys_of(ledger.site_key, of)))
    with ledger.connect() as db:
        rows = suppressions.standing(db, ledger.site_key, of)
        ids = {number: list_id for list_id, number in suppressions.list_numbers(db).items()}
    through = {key: " as part of a whole domain" for key, kind in kinds.items() if kind == "domain"}
    left = [joined([r[1]], ids) + through.get(r[0], "") for r in rows if r[2] != Reason.WANTED]
    return list(dict.fromkeys(left))
