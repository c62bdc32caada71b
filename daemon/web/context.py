"""What every answer of the HTTP door is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from daemon.config import House
from storage.engine import Ledger


@dataclass(frozen=True)
class Context:
    """`numbers`: list id -> list number, of all lists there ever were. `public_url`: the https base of stamped links."""

    ledger: Ledger
    house: House
    numbers: Mapping[str, int]
    public_url: str
    now: Callable[[], datetime]

    @property
    def base(self) -> str:
        """The path that stamped links begin with: "" or "/mail"."""
        return urlsplit(self.public_url).path

    def title(self, list_number: int) -> str | None:
        """What people know a list by; None if the config has none of this number (any more)."""
        found = (x.title or x.id for x in self.house.lists if self.numbers.get(x.id) == list_number)
        return next(found, None)
