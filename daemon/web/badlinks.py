"""Whoever tries many links that are none: made to wait, then sent away, so that a flood of them costs us little.

A token cannot be guessed (88 bits), so this guards the machine, not the person. It is asked only of a bad link: whoever
has a good one never waits for what neighbours do.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

SECONDS_EACH: Final = 0.05  # so much of a network's time does a bad link cost
AT_ONCE: Final = 100  # so many may come together
PATIENCE_SECONDS: Final = 2.0  # so long we make somebody wait; who would have to wait longer is sent away
WAITING: Final = 50  # so many wait at a time, of all networks: each holds a connection
NETWORKS: Final = 4096  # so many are remembered


class BadLinks:
    """Those of each network: a token bucket, kept as the time at which it will be full again (as GCRA has it)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._waiting = clock, 0
        self._full_at: OrderedDict[str, float] = OrderedDict()  # by last use

    async def wait(self, client: str) -> bool:
        """One more bad link of this client (an IP address). Returns when it may be answered; False: send it away."""
        seconds = self.delay(client)
        if seconds is None or (seconds and self._waiting >= WAITING):
            return False
        if seconds:
            self._waiting += 1
            try:
                await asyncio.sleep(seconds)
            finally:
                self._waiting -= 1
        return True

    def delay(self, client: str) -> float | None:
        """Count it; how many seconds it has to wait, or None: too many, and not counted."""
        now, network = self._clock(), network_of(client)
        full_at = max(self._full_at.get(network, now), now) + SECONDS_EACH
        wait = full_at - now - AT_ONCE * SECONDS_EACH
        if wait > PATIENCE_SECONDS:
            return None
        self._full_at[network] = full_at
        self._full_at.move_to_end(network)
        if len(self._full_at) > NETWORKS:
            self._full_at.popitem(last=False)
        return wait if wait > 0.001 else 0.0  # less is what floating point makes of nothing


def network_of(client: str) -> str:
    """Whose doing it is taken for: /24 of IPv4, /48 of IPv6, which one customer has; "" if it is no address."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return ""
    return str(ipaddress.ip_network((int(address), 24 if address.version == 4 else 48), strict=False))
