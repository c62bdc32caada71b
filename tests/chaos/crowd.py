"""The people: who is mailed, who will ask, who was heard; shared by all who make the load."""

from __future__ import annotations

import random
import re
import threading
from collections import deque
from pathlib import Path
from typing import Final

from tests.chaos.history import Arrival, arrivals

_LINK: Final = re.compile(r"<https://[^/>]+(/u/[a-z0-9]+)>", re.IGNORECASE)
_HOT: Final = 24  # people who are just asking: mailed all the time, for that is the race


class Crowd:
    """People by number. A third never asks; the others do so in the end, each once."""

    def __init__(self, size: int, dice: random.Random):
        self.people = [_address(n) for n in range(size)]
        self._willing = deque(dice.sample([p for n, p in enumerate(self.people) if n % 3], size * 2 // 3))
        self._hot: deque[str] = deque(maxlen=_HOT)
        self._lock = threading.Lock()
        self.done = 0

    def asks(self) -> str | None:
        """Somebody who has not asked yet, and now will; None: all have."""
        with self._lock:
            if not self._willing:
                return None
            person = self._willing.popleft()
            self._hot.append(person)
            self.done += 1
            return person

    def asks_this(self, person: str) -> bool:
        """The same of somebody in particular. False: they have asked, or never will."""
        with self._lock:
            try:
                self._willing.remove(person)
            except ValueError:
                return False
            self._hot.append(person)
            self.done += 1
            return True

    def soon(self, person: str) -> None:
        """They are about to ask: mail them more."""
        with self._lock:
            self._hot.append(person)

    def recipients(self, dice: random.Random, number: int) -> list[str]:
        """Some people, many of whom are just asking."""
        with self._lock:
            hot = list(self._hot)
        chosen = {dice.choice(hot) if hot and dice.random() < 0.4 else dice.choice(self.people) for _ in range(number)}
        return sorted(chosen)


def _address(number: int) -> str:
    """Every seventh has a tag, which makes no other person of them; many domains, so that nothing is about a domain."""
    tag = "+news" if number % 7 == 0 else ""
    return f"p{number}{tag}@d{number % 97}.example"


class Mailroom:
    """What people got: the links and headers of mail that went to one person only, as the upstream wrote it down."""

    def __init__(self, record: Path):
        self._record, self._read = record, 0
        self._lock = threading.Lock()
        self._letters: dict[str, Arrival] = {}

    def look(self) -> None:
        """Read what has come since."""
        with self._lock:
            if not self._record.exists():
                return
            size = self._record.stat().st_size
            for arrival in arrivals(self._record, self._read):
                if arrival.head and arrival.attempt:
                    self._letters[arrival.rcpt_to[0]] = arrival
            with self._record.open("rb") as file:  # up to the last whole line that was there before we looked
                file.seek(self._read)
                octets = file.read(size - self._read)
            self._read += octets.rfind(b"\n") + 1

    def take(self) -> tuple[str, str] | None:
        """(person, header) of somebody's newest letter; it is gone then."""
        with self._lock:
            if not self._letters:
                return None
            person, arrival = self._letters.popitem()
            return person, arrival.head


def link(head: str) -> str | None:
    """The path of the one-click link in a header."""
    found = _LINK.search(head)
    return found[1] if found else None
