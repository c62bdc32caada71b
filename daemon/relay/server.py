"""The listening relay: it takes clients in, and sends them away when it must."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from daemon import relay_events
from daemon.config import bound_to, host_port
from daemon.relay.access import BLOCKED, Brake, Policy
from daemon.relay.context import Context
from daemon.relay.protocol import Door, Protocol
from daemon.relay.wire import Wire, template
from daemon.upstream import Pool

_STOP_SECONDS: Final = 30
_HANDSHAKE_SECONDS: Final = 10  # a client in its handshake is not counted yet, and holds a descriptor


@dataclass(frozen=True)
class Listening:
    """An address to listen on, HOST:PORT, and what applies to who comes in by it.

    `tls`: for implicit TLS. `until`: when the certificate ends, of either kind of TLS.
    """

    address: str
    door: Door
    tls: ssl.SSLContext | None = None
    until: datetime | None = None


def plain(context: Context) -> list[Listening]:
    """The listeners of a relay on loopback without TLS or credentials."""
    settings = context.settings
    policy = Policy(settings.mode, None, settings.purpose, settings.senders, "")
    return [Listening(address, Door(policy)) for address in settings.listen]


class Server:
    """The listening relay: its clients, and how it starts and stops."""

    def __init__(self, context: Context, listening: Sequence[Listening] | None = None):
        self.context = context
        self.closing = False
        self.brake = Brake(context.settings.max_per_client)
        self.template: dict[str, Any] = {}
        self.listening = list(plain(context) if listening is None else listening)
        self._sockets: list[asyncio.Server] = []
        self._clients: set[Wire] = set()
        self._turned_away: set[Wire] = set()  # not counted by the brake
        self._empty = asyncio.Event()

    def _client(self, number: int, loop: asyncio.AbstractEventLoop) -> Protocol:
        """Somebody comes in by the listener of this number, as it is now."""
        return Protocol(self, self.listening[number].door, loop)

    def _newest(self, number: int, client: ssl.SSLObject, _name: str | None, _socket: ssl.SSLContext) -> None:
        """A handshake at a socket, which keeps the context it was made with: it goes on with the certificate there is now."""
        client.context = self.listening[number].tls  # type: ignore[assignment]  # a listener with implicit TLS keeps it

    async def start(self) -> list[str]:
        """Listen; returns the bound addresses as HOST:PORT. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._make_template(loop)
        for number, listening in enumerate(self.listening):
            host, port = host_port(listening.address)
            if listening.tls:
                listening.tls.sni_callback = partial(self._newest, number)  # called without a name, too
            tls: dict[str, Any] = {"ssl": listening.tls, "ssl_handshake_timeout": _HANDSHAKE_SECONDS}
            self._sockets.append(
                await loop.create_server(
                    partial(self._client, number, loop),
                    host,
                    port,
                    backlog=1024,
                    **(tls if listening.tls else {}),
                )
            )
        return [bound_to(s.getsockname()) for server in self._sockets for s in server.sockets]

    def _make_template(self, loop: asyncio.AbstractEventLoop) -> None:
        settings = self.context.settings
        self.template = template(loop, settings.hostname, settings.max_size, settings.idle_timeout)

    async def stop(self) -> None:
        """No new connections; goodbye to the idle; up to 30 s for messages under way; then the rest is cut off."""
        self.closing = True
        for server in self._sockets:
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

    def take_over(self, fresh: Context, listening: Sequence[Listening] | None = None) -> None:
        """Use other settings and another pool from the next message on, other rules from the next client on.

        `listening`: the same addresses in the same order.
        """
        self.listening = list(plain(fresh) if listening is None else listening)
        fresh.pool.features = self.pool.features  # until it has asked for itself
        self.pool.close()
        self.context = fresh
        self.brake.per_client = fresh.settings.max_per_client
        self._make_template(asyncio.get_running_loop())

    # ---- what a client's protocol asks

    def connected(self, client: Wire) -> None:
        """A client has come."""
        self._clients.add(client)
        if not self.brake.connected(client.peer):
            self._turned_away.add(client)

    def disconnected(self, client: Wire) -> None:
        """It has gone, and nothing of it is under way any more. May be told twice."""
        if client not in self._clients:
            return
        self._clients.discard(client)
        if client in self._turned_away:
            self._turned_away.discard(client)
        else:
            self.brake.disconnected(client.peer)
        if not self._clients:
            self._empty.set()

    def refusal(self, client: Wire) -> str | None:
        """What to greet with instead of 220, if anything."""
        if self.closing:
            return "421 4.3.2 closing"
        if len(self._clients) > self.context.settings.max_connections:
            return self._turn_away(client, "421 4.3.2 too many connections")
        if client in self._turned_away:
            return self._turn_away(client, "421 4.3.2 too many connections from your network")
        if self.brake.blocked(client.peer, asyncio.get_running_loop().time()):
            return self._turn_away(client, BLOCKED)
        return None

    def _turn_away(self, client: Wire, reply: str) -> str:
        relay_events.client_turned_away(client.peer, reply)
        return reply
