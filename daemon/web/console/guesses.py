"""How often somebody may guess a password.

A client that failed ten times within a minute waits. When a great many clients guess together, those that come from
elsewhere take turns, and slowly; whoever sits at this machine has turns of their own, so that no crowd can keep the
operator out.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

FAILURES: Final = 10  # of one client within
SECONDS: Final = 60.0  # ; then it waits
CROWD: Final = 100  # failures of all clients together within the same time; then each turn takes
SLOWLY: Final = 1.0  # seconds
QUEUE: Final = 20  # who wait for a turn; it takes a hash of tens of milliseconds and of memory
_MOST_CLIENTS: Final = 10_000


class TooMany(Exception):
    """Too many wait for their turn already."""


class Guesses:
    """The tries of the last minute, by client. For one event loop."""

    def __init__(self) -> None:
        self._tries: OrderedDict[str, list[float]] = OrderedDict()
        self._turns = {True: asyncio.Semaphore(1), False: asyncio.Semaphore(1)}  # from this machine; from elsewhere
        self._waiting = {True: 0, False: 0}

    def too_many(self, client: str) -> bool:
        """Must this client wait?"""
        return len(self._recent(_whole(client))) >= FAILURES

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """While a password is looked at. Raises TooMany.

        The try counts as a failure until `forgive` says that it was none: a hundred at once are not one.
        """
        here = _is_here(client)
        if self._waiting[here] >= QUEUE:
            raise TooMany
        self._count(_whole(client))
        self._waiting[here] += 1
        try:
            async with self._turns[here]:
                if not here and self._of_all() > CROWD:
                    await asyncio.sleep(SLOWLY)
                yield
        finally:
            self._waiting[here] -= 1

    def forgive(self, client: str) -> None:
        """Who knows the password has not guessed."""
        client = _whole(client)
        self._tries[client] = self._recent(client)[:-1]
        if not self._tries[client]:
            del self._tries[client]

    def _count(self, client: str) -> None:
        self._tries[client] = [*self._recent(client), time.monotonic()]
        self._tries.move_to_end(client)
        while len(self._tries) > _MOST_CLIENTS:
            self._tries.popitem(last=False)

    def _of_all(self) -> int:
        """How many tries there were lately, as far as that must be known."""
        found = 0
        for client in reversed(self._tries):
            recent = len(self._recent(client))
            found += recent
            if not recent or found > CROWD:
                break
        return found

    def _recent(self, client: str) -> list[float]:
        since = time.monotonic() - SECONDS
        return [at for at in self._tries.get(client, ()) if at > since]


def _is_here(client: str) -> bool:
    try:
        return ipaddress.ip_address(client).is_loopback
    except ValueError:
        return False


def _whole(client: str) -> str:
    """Who has one address of an IPv6 network of 64 bits has them all."""
    try:
        found = ipaddress.ip_address(client)
    except ValueError:
        return client
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else client
