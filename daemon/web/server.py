"""The server around the application: uvicorn, driven by hand in the daemon's own event loop.

`startup`, `main_loop` and `shutdown` are called one by one: uvicorn's `serve` would take the daemon's signals, and on a
taken port it would end the process. It logs no requests: a path has a token in it.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from daemon.config import bound_to, host_port
from daemon.web.app import Outermost, application
from daemon.web.context import Context
from daemon.web.pages import prepare
from daemon.web.workers import Workers

MAX_CONNECTIONS: Final = 500  # each is a file descriptor, of which the relay needs some too
PATIENCE_SECONDS: Final = 10.0  # for a request to arrive, and for an answer to be read
_UNREAD: Final = 3  # times in a row that a look finds nothing of an answer taken; a slow line takes some in between
_STOP_SECONDS: Final = 10  # for the answers under way


class _Patient(H11Protocol):
    """A connection that ends when nothing gets done on it: uvicorn itself waits for ever for the end of a request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._seen: Any = None
        self._unread = 0
        self._look_again()
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()

    def send_400_response(self, msg: str) -> None:
        """To what is no HTTP. Where it comes behind the head of a request that is being answered (a chunk that is none), that
        answer is over, and there can be no other: h11 would raise from both, as if the fault were ours."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._looking.cancel()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread = 0

    def _look_again(self) -> None:
        self._looking = self.loop.call_later(PATIENCE_SECONDS, self._look)

    def _look(self) -> None:
        """Since the last look no request was begun, and none waits for us; or we wait for our answer to be read: the client
        is slow, or dead."""
        idle = self.cycle is self._seen and (self.cycle is None or self.cycle.response_complete)
        self._unread = self._unread + 1 if self.flow.write_paused else 0
        if idle or self._unread >= _UNREAD:
            self.transport.abort()
        else:
            self._seen = self.cycle
            self._look_again()


class Server:
    """The door on one address: how it starts and stops."""

    def __init__(self, listen: str, context: Context):
        self._listen = listen
        self._workers = Workers()
        self._app = application(context, self._workers)
        self._door = Outermost(self._app)
        self._sockets: list[socket.socket] = []
        self._running: asyncio.Task[None] | None = None
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                self._door,
                http=_Patient,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                log_level="error",  # a warning a malformed request would let anybody fill the log
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=_STOP_SECONDS,
            )
        )

    async def start(self) -> list[str]:
        """Listen; returns the bound addresses as HOST:PORT. Raises OSError, and then listens nowhere."""
        prepare()
        host, port = host_port(self._listen)
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, address in dict.fromkeys((info[0], info[4]) for info in found):
                self._sockets.append(_bound(family, address))
        except OSError:
            self._close()
            raise
        server = self._uvicorn
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup(sockets=self._sockets)
        self._running = asyncio.create_task(server.main_loop())
        return [bound_to(s.getsockname()) for s in self._sockets]

    async def stop(self) -> None:
        """No new connections; up to 10 s for the answers under way."""
        if self._running is not None:
            self._running.cancel()  # all it does is to look at the clock
            with suppress(asyncio.CancelledError):
                await self._running
            await self._uvicorn.shutdown(sockets=self._sockets)
        self._close()
        await asyncio.to_thread(self._workers.stop)
        self._door.close()

    def take_over(self, fresh: Context) -> None:
        """Answer by other settings from the next request on; listener and connections stay."""
        self._app.state.context = fresh

    def _close(self) -> None:
        for bound in self._sockets:
            bound.close()
        self._sockets.clear()


def _bound(family: int, address: Any) -> socket.socket:
    """IPPROTO_TCP by name: asyncio sets TCP_NODELAY on connections of such sockets only."""
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.setblocking(False)
        bound.bind(address)
        bound.listen(socket.SOMAXCONN)  # here, not later: two daemons may bind one port, but only one can listen
    except OSError:
        bound.close()
        raise
    return bound
