"""What only one of several nodes does: watching a mailbox, the jobs, sending notices, telling webhooks.

In an SQLite file there is one daemon, and everything is its own. In PostgreSQL each node asks every few seconds for the
leases of all that it could do, and does what it gets (storage/leases.py).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final

from daemon import events
from storage import leases
from storage.engine import Ledger, Unavailable, Unusable
from storage.sqlite import File

JOBS: Final = "jobs"
NOTICES: Final = "notices"
HOOKS: Final = "hooks"
EVERY_SECONDS: Final = 4.0  # three tries within a lease; a node that dies is replaced within SECONDS + EVERY_SECONDS


def mailbox(name: str) -> str:
    """The role of watching this mailbox."""
    return f"mailbox {name}"


class Duties:
    """What this node does now, as far as it may not be done twice."""

    def __init__(self, ledger: Ledger, every: float = EVERY_SECONDS):
        self._ledger, self._every = ledger, every
        self.alone = isinstance(ledger.store, File)
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"  # not mistaken for its forerunner
        self._held: frozenset[str] = frozenset()
        self._renewed = 0.0

    def ours(self, role: str) -> bool:
        """Is this for us to do?"""
        return self.alone or role in self._held

    async def keep(self, roles: Callable[[], Iterable[str]], changed: Callable[[], Awaitable[None]]) -> None:
        """Ask for the leases of all `roles()` now and then, and call `changed` when we have others; until cancelled."""
        while True:
            before = self._held
            await self._ask(roles())
            if self._held != before:
                events.duties_changed(sorted(self._held - before), sorted(before - self._held))
                try:
                    await changed()
                except Exception as error:  # noqa: BLE001 - told in our log; without renewing, others would take over all we do
                    events.failed("duties", error)
            await asyncio.sleep(self._every)

    async def _ask(self, roles: Iterable[str]) -> None:
        began = time.monotonic()
        try:
            self._held = await asyncio.to_thread(leases.take, self._ledger, self.holder, sorted(roles))
            self._renewed = began
        except Exception as error:  # noqa: BLE001 - whatever it is, the leases are not renewed: we must stop in time
            if not isinstance(error, Unavailable | Unusable):  # those are told by whoever needs the database
                events.failed("leases", error)
            if time.monotonic() - self._renewed > leases.SECONDS - self._every:
                self._held = frozenset()  # another node has taken over by now, or will in a moment

    async def give_up(self) -> None:
        """Let the other nodes take over at once."""
        self._held = frozenset()
        if not self.alone:
            with suppress(Unavailable, Unusable):
                await asyncio.to_thread(leases.release, self._ledger, self.holder)
