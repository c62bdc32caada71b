"""The listening relay: it takes clients in, and sends them away when it must."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any, Final

from daemon.config import host_port
from daemon.relay.protocol import Protocol
from daemon.relay.transaction import Context
from daemon.upstream import Pool

_STOP_SECONDS: Final = 30


class Server:
    """The listening relay: its clients, and how it starts and stops."""

    def __init__(self, context: Context):
        self.context = context
        self.closing = False
        self._clients: set[Protocol] = set()
        self._empty = asyncio.Event()
        self._listening: list[asyncio.Server] = []

    async def start(self) -> list[str]:
        """Listen; returns the bound addresses as HOST:PORT. Raises OSError."""
        loop = asyncio.get_running_loop()
        for listen in self.context.settings.listen:
            host, port = host_port(listen)
            self._listening.append(await loop.create_server(lambda: Protocol(self, loop), host, port, backlog=1024))
        return [_shown(s.getsockname()) for server in self._listening for s in server.sockets]

    async def stop(self) -> None:
        """No new connections; goodbye to the idle; up to 30 s for messages under way; then the rest is cut off."""
        self.closing = True
        for server in self._listening:
            server.close()
        for client in list(self._clients):
            client.leave()
        await self._all_gone(_STOP_SECONDS)
        for client in list(self._clients):
            client.leave(at_once=True)
        await self._all_gone(1)  # what they held of the pool is back before it is closed
        self.context.pool.close()

    async def _all_gone(self, seconds: float) -> None:
        self._empty.clear()
        if self._clients:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._empty.wait()

    @property
    def pool(self) -> Pool:
        """The connections to the upstream."""
        return self.context.pool

    def take_over(self, fresh: Context) -> None:
        """Use other settings from the next message on; listeners and pool stay."""
        self.pool.timeout = fresh.pool.timeout
        self.context = replace(fresh, pool=self.pool)

    # ---- what a Protocol asks

    def connected(self, client: Protocol) -> None:
        """A client has come."""
        self._clients.add(client)

    def disconnected(self, client: Protocol) -> None:
        """It has gone, and nothing of it is under way any more."""
        self._clients.discard(client)
        if not self._clients:
            self._empty.set()

    def refusal(self) -> str | None:
        """What to greet with instead of 220, if anything."""
        if self.closing:
            return "421 4.3.2 closing"
        return "421 4.3.2 too many connections" if len(self._clients) > self.context.settings.max_connections else None


def _shown(address: Any) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
