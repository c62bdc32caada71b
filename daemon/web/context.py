"""What every answer of the HTTP door is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from daemon.config import House, MailingList
from storage.engine import Ledger


@dataclass(frozen=True)
class Context:
    """`numbers`: list id -> list number, of all lists there ever were. `public_url`: the https base of stamped links.

    `colour`: the house's, as "#rrggbb"; "" = ours. `trusted_proxies`: addresses and networks whose word on who asks counts.
    """

    ledger: Ledger
    house: House
    numbers: Mapping[str, int]
    public_url: str
    now: Callable[[], datetime]
    colour: str = ""
    trusted_proxies: tuple[str, ...] = ()

    @property
    def base(self) -> str:
        """The path that stamped links begin with: "" or "/mail"."""
        return urlsplit(self.public_url).path

    def lists(self) -> dict[int, MailingList]:
        """List number -> list, of those the house has now."""
        return {self.numbers[x.id]: x for x in self.house.lists if x.id in self.numbers}

    def title(self, list_number: int) -> str | None:
        """What people know a list by; None if the config has none of this number (any more)."""
        found = self.lists().get(list_number)
        return None if found is None else found.title or found.id
