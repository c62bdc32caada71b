"""SMTP on the wire: aiosmtpd's protocol with its traps cured (each is named where it is cured).

Lines and octets in, replies out, timers, and the switch to TLS. What the commands mean stands in protocol.py. Replies
are held while a further pipelined command is waiting (RFC 2920 3.2), so a pipelined envelope costs one packet back.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final, Protocol

from aiosmtpd.smtp import SMTP

from daemon.relay.body import Gone
from daemon.steps import Steps, pause

MAX_COMMAND: Final = 4096  # octets of a command line; RFC 5321 4.5.3.1.4 asks for 512, SMTPUTF8 and ORCPT for more
MAX_HELD: Final = 50  # replies held, and commands taken, at a time: then others get their turn
_LINGER_SECONDS: Final = 10  # for the client to read our last words
_FULL: Final = 65_536  # octets that a client may send ahead; asyncio's next piece, of up to 256 KB, may come on top
_HANDSHAKE_SECONDS: Final = 30
_TICK_SECONDS: Final = 10  # how often we look at a client, at least
_PATIENCE_SECONDS: Final = 300  # for a body at any speed; then it must have come at _SLOWEST octets a second
_SLOWEST: Final = 100


def template(loop: asyncio.AbstractEventLoop, hostname: str, max_size: int, timeout: float) -> dict[str, Any]:
    """What aiosmtpd makes in __init__: the same for every client, by reflection, and so made once (90 us each)."""
    made = SMTP(
        None,
        hostname=hostname,  # given, or every connection asks DNS
        data_size_limit=max_size,
        enable_SMTPUTF8=True,
        timeout=timeout,
        loop=loop,
    )
    return vars(made)


class Host(Protocol):
    """What a client's wire needs of the server that it belongs to."""

    template: dict[str, Any]

    def connected(self, client: Wire) -> None:
        """A client has come."""

    def disconnected(self, client: Wire) -> None:
        """It has gone, and nothing of it is under way any more."""


class Wire(SMTP):
    """One client, as octets. `session` (what a subclass does with them) is run as Steps: no task, no StreamReader."""

    _steps: Steps

    def __init__(self, server: Host, loop: asyncio.AbstractEventLoop):
        self.__dict__.update(server.template)  # instead of super().__init__: see `template`
        self.server: Any = server
        self.loop = loop
        self.peer = ""  # the client's IP address
        self._inbox = bytearray()
        self._out: list[bytes] = []
        self._handing_over = False
        self._waiting = False  # for the client to say something
        self._reading = False  # octets of a body, not a command line
        self._full = False  # the client reads more slowly than we write
        self._held_up = False  # it sends more than we take
        self._ended = False  # it has shut its sending side
        self._closing = False
        self._half_open = True  # may it shut its sending side and still hear us? Not under TLS, nor on the way there
        self._active = 0.0
        self._began = 0.0  # when it began to send a body
        self._came = 0  # octets of that body

    # ------------------------------------------------------------ the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client: take it in. aiosmtpd would begin a task here, and log the client's address."""
        self.transport = transport
        self.session = self._create_session()
        self.session.peer = transport.get_extra_info("peername")
        self.session.ssl = transport.get_extra_info("ssl_object")
        self._half_open = self.session.ssl is None
        self.peer = str(self.session.peer[0]) if isinstance(self.session.peer, tuple) else ""
        self._active = self.loop.time()
        self._timeout_handle = self.loop.call_later(min(self._timeout_duration, _TICK_SECONDS), self._timeout_cb)
        self.server.connected(self)
        self._steps = Steps(self._handle_client(), self._part)
        self._steps.resume()

    def connection_lost(self, error: Exception | None) -> None:
        """aiosmtpd's own cancels the handler even in the middle of a hand-over, which must end and be told of."""
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
        self.transport = None
        self._ended = True
        if not self._handing_over:
            self._steps.cancel()
        self._part()

    def _part(self) -> None:
        """Until the socket is closed and the steps have ended we count as a client, and the server waits for us."""
        if self.transport is None and self._steps.done:
            self.server.disconnected(self)

    def eof_received(self) -> bool | None:
        """aiosmtpd cancels the handler; but a client that shuts its sending side still waits for our replies."""
        self._ended = True
        if self._waiting:
            self._steps.resume()
        return self._half_open

    def data_received(self, data: bytes) -> None:
        """aiosmtpd's timer is not set again while DATA flows: a steady upload was cut after 300 s."""
        self._inbox += data
        if self._reading:
            self._came += len(data)
            self._active = self.loop.time()
        if self._waiting:
            self._steps.resume()
        if len(self._inbox) > _FULL and not self._held_up and self.transport is not None:
            self._held_up = True
            self._of_socket().pause_reading()

    def pause_writing(self) -> None:
        """The client does not read its replies."""
        self._full = True

    def resume_writing(self) -> None:
        """It does again."""
        self._full = False
        if self._waiting:
            self._steps.resume()

    def _of_socket(self) -> asyncio.Transport:
        assert isinstance(self.transport, asyncio.Transport)
        return self.transport

    @property
    def encrypted(self) -> bool:
        """Does the client speak TLS?"""
        return self.session is not None and self.session.ssl is not None

    # ------------------------------------------------------------ timers

    def _timeout_cb(self) -> None:
        """Look after the client: one lazy timer a connection, not a new one for every command."""
        now = self.loop.time()
        left = self._active + self._timeout_duration - now
        if self._closing:
            self._of_socket().abort()
        elif self._waiting and left <= 0:
            self._turn_out("421 4.4.2 nothing said for too long, closing")
        elif self._reading and self._too_slow(now):
            self._turn_out("421 4.4.2 too slow, closing")
        else:
            self._linger(now - self._active)
            self._timeout_handle = self.loop.call_later(min(max(left, 1.0), _TICK_SECONDS), self._timeout_cb)

    def _too_slow(self, now: float) -> bool:
        """A body that trickles holds an upstream connection for as long as it likes."""
        took = now - self._began
        return self._waiting and took > _PATIENCE_SECONDS and self._came < took * _SLOWEST

    def _linger(self, silent: float) -> None:
        """Called now and then: `silent` seconds have passed since the client last said something."""

    def _turn_out(self, reply: str) -> None:
        self._say(reply)
        self._close()

    def leave(self, *, at_once: bool = False) -> None:
        """The server is closing: say goodbye now if nothing is under way, else after the message."""
        if at_once:
            self._steps.cancel()
            if self.transport is not None:
                self._of_socket().abort()
        elif self._waiting and self._is_idle():
            self._turn_out("421 4.3.2 closing")

    def _is_idle(self) -> bool:
        """Is nothing under way that closing would break off?"""
        return True

    def _close(self) -> None:
        """Send what there is to send and close; a client that does not read it would keep us open for ever."""
        self._flush()
        if self.transport is not None and not self._closing:
            self._closing = True
            self.transport.close()
            if self._timeout_handle is not None:
                self._timeout_handle.cancel()
            self._timeout_handle = self.loop.call_later(_LINGER_SECONDS, self._timeout_cb)

    # ------------------------------------------------------------ replies

    def _say(self, reply: str) -> None:
        """Queue a reply; sent when no further command waits."""
        self._out.append(reply.encode("utf-8", "surrogateescape"))

    async def push(self, status: str | bytes) -> None:
        """aiosmtpd's name for it."""
        self._say(status if isinstance(status, str) else status.decode("utf-8", "surrogateescape"))

    def _flush(self) -> None:
        out = self._out
        if out:
            if self.transport is not None:
                self._of_socket().write(out[0] + b"\r\n" if len(out) == 1 else b"\r\n".join([*out, b""]))
            out.clear()

    async def _send(self) -> None:
        """Flush, and wait for a client that does not read: its replies must not pile up."""
        self._flush()
        while self._full:
            await self._wait()

    # ------------------------------------------------------------ input

    async def _wait(self) -> None:
        """For the client to do something. From now on it is the client who is silent. Raises Gone."""
        if self._held_up and len(self._inbox) <= _FULL:
            self._held_up = False
            self._of_socket().resume_reading()
        self._waiting = True
        try:
            await pause()
        finally:
            self._waiting = False
        if self.transport is None or self._closing:
            raise Gone

    async def _line(self, limit: int = MAX_COMMAND) -> bytes | None:
        """The next line without its end; None for one that is longer than `limit` octets. Raises Gone.

        Only whole lines count as signs of life: a client that sends an octet a minute is silent.
        """
        inbox = self._inbox
        if (end := inbox.find(b"\n")) < 0:
            self._active = self.loop.time()
            while (end := inbox.find(b"\n")) < 0:
                await self._more_of_line(limit)
        line = bytes(inbox[:end])
        del inbox[: end + 1]
        return line.rstrip(b"\r\n") if end < limit else None

    async def _more_of_line(self, limit: int) -> None:
        """Wait for the client; of a line that is too long only as much is kept as shows it."""
        inbox = self._inbox
        if len(inbox) > limit:
            del inbox[limit:]
        if self._out:
            self._flush()
        if self._full:
            await self._send()
        if self._ended:
            raise Gone
        await self._wait()

    def _take_line(self) -> bytes | None:
        """The next line if it is here already and not too long."""
        end = self._inbox.find(b"\n", 0, MAX_COMMAND)
        if end < 0:
            return None
        line = bytes(self._inbox[:end])
        del self._inbox[: end + 1]
        return line.rstrip(b"\r\n")

    def _begin_body(self) -> None:
        """From here on octets come, not lines."""
        self._reading, self._began, self._came = True, self.loop.time(), 0

    async def _octets(self) -> bytes:
        """What has come of a body. Raises Gone."""
        while not self._inbox and not self._ended:  # a client that reads its replies again wakes us, too
            self._active = self.loop.time()
            await self._wait()
        if not self._inbox:
            raise Gone
        data = bytes(self._inbox)
        self._inbox.clear()
        return data

    # ------------------------------------------------------------ TLS

    async def _start_tls(self, context: ssl.SSLContext) -> None:
        """Switch to TLS (RFC 3207). What came in clear behind STARTTLS is forgotten, never obeyed. Raises Gone."""
        transport = self._of_socket()
        self._half_open = False
        transport.pause_reading()  # what comes now is the handshake's
        self._flush()
        self._inbox.clear()
        starting = self.loop.start_tls(
            transport, self, context, server_side=True, ssl_handshake_timeout=_HANDSHAKE_SECONDS
        )
        upgraded = None
        try:
            upgraded = await self.loop.create_task(starting)
        except (OSError, ssl.SSLError):
            raise Gone from None
        finally:
            if upgraded is None:
                transport.abort()
                self.connection_lost(None)  # asyncio tells nobody of a connection that is lost in its handshake
        if upgraded is None or self.transport is None or self.session is None:  # the client has left meanwhile
            raise Gone
        self.transport = upgraded
        self.session.ssl = upgraded.get_extra_info("ssl_object")
