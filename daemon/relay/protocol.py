"""SMTP on the wire: aiosmtpd's protocol with its traps cured (each is named where it is cured).

What a message goes through stands in transaction.py; here are lines, replies, timers, and octets of a body. Replies are
held while a further pipelined command is waiting (RFC 2920 3.2), so a pipelined envelope costs one packet back.
"""

from __future__ import annotations

import asyncio
from typing import Final
from typing import Protocol as Interface

from aiosmtpd.smtp import SMTP

from daemon import events
from daemon.relay.body import Body, Gone
from daemon.relay.envelope import Syntax
from daemon.relay.transaction import Context, Transaction

MAX_COMMAND: Final = 4096  # octets of a command line; RFC 5321 4.5.3.1.4 asks for 512, SMTPUTF8 and ORCPT for more
MAX_ERRORS: Final = 50  # bad commands before 421
_MAX_HELD: Final = 50  # replies held for pipelined commands: then others get their turn
_LINGER_SECONDS: Final = 10  # for the client to read our last words
_CHUNK: Final = 65_536

_BUFFER: Final = "_buffer"  # asyncio.StreamReader's buffer: aiosmtpd itself reaches for it


class Host(Interface):
    """What a client's protocol needs of the server that it belongs to."""

    context: Context
    closing: bool

    def connected(self, client: Protocol) -> None:
        """A client has come."""

    def disconnected(self, client: Protocol) -> None:
        """It has gone, and nothing of it is under way any more."""

    def refusal(self) -> str | None:
        """What to greet with instead of 220, if anything."""


class Protocol(SMTP):
    """One client. aiosmtpd reads its own state from `session` and `envelope`; ours is `transaction`."""

    line_length_limit = _CHUNK  # the reader's limit too: at 1001 the transport is paused all the time
    _handler_coroutine: asyncio.Task[None]  # set by connection_made

    def __init__(self, server: Host, loop: asyncio.AbstractEventLoop):
        super().__init__(
            None,
            hostname=server.context.hostname,  # given, or every connection asks DNS
            data_size_limit=server.context.settings.max_size,
            enable_SMTPUTF8=True,  # only: decode arguments as UTF-8 with surrogates
            timeout=server.context.settings.idle_timeout,
            loop=loop,
        )
        self.server = server
        self.helo = ""
        self.extended = False
        self.transaction: Transaction | None = None
        self._out: list[bytes] = []
        self._bad = 0
        self._handing_over = False
        self._waiting = False
        self._active = loop.time()

    # ------------------------------------------------------------ the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client: take it in, or say that there are too many."""
        super().connection_made(transport)
        self.server.connected(self)
        self._handler_coroutine.add_done_callback(lambda _: self._part())

    def connection_lost(self, error: Exception | None) -> None:
        """aiosmtpd's own cancels the handler even in the middle of a hand-over, which must end and be told of."""
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self.transport = None
        if not self._handing_over:
            self._handler_coroutine.cancel()
        self._part()

    def _part(self) -> None:
        """Until the socket is closed and the task has ended we count as a client, and the server waits for us."""
        if self.transport is None and self._handler_coroutine.done():
            self.server.disconnected(self)

    def eof_received(self) -> bool | None:
        """aiosmtpd cancels the handler; but a client that shuts its sending side still waits for our replies."""
        return asyncio.StreamReaderProtocol.eof_received(self)

    def data_received(self, data: bytes) -> None:
        """aiosmtpd's timer is not set again while DATA flows: a steady upload was cut after 300 s."""
        self._active = self.loop.time()
        super().data_received(data)

    def _reset_timeout(self, duration: float | None = None) -> None:
        """One lazy timer a connection, not a new one for every command."""
        self._active = self.loop.time()
        if self._timeout_handle is None:
            self._timeout_handle = self.loop.call_later(self._timeout_duration, self._timeout_cb)

    def _timeout_cb(self) -> None:
        left = self._active + self._timeout_duration - self.loop.time()
        if left > 0 or not self._waiting:  # while we work, the client has nothing to say
            self._timeout_handle = self.loop.call_later(max(left, 1.0), self._timeout_cb)
        else:
            self._say("421 4.4.2 nothing said for too long, closing")
            self._close()

    def leave(self, *, at_once: bool = False) -> None:
        """The server is closing: say goodbye now if nothing is under way, else after the message."""
        if at_once:
            self._handler_coroutine.cancel()
            self._writer.transport.abort()
        elif self.transaction is None and self._waiting:
            self._say("421 4.3.2 closing")
            self._close()

    def _close(self) -> None:
        """Send what there is to send and close; a client that does not read it would keep us open for ever."""
        self._flush()
        if self.transport is not None:
            self.transport.close()
            if self._timeout_handle is not None:
                self._timeout_handle.cancel()
            self._timeout_handle = self.loop.call_later(_LINGER_SECONDS, self._writer.transport.abort)

    # ------------------------------------------------------------ replies

    def _say(self, reply: str) -> None:
        self._out.append(reply.encode("utf-8", "surrogateescape") + b"\r\n")

    async def push(self, status: str | bytes) -> None:
        """Queue a reply; sent when no further command waits in the buffer."""
        self._say(status if isinstance(status, str) else status.decode("utf-8", "surrogateescape"))

    def _flush(self) -> None:
        if self._out and self.transport is not None:
            self._writer.write(b"".join(self._out))
        self._out.clear()

    async def _send(self) -> None:
        """Flush, and wait for a client that does not read: its replies must not pile up."""
        self._flush()
        self._turn_to_client()
        try:
            await self._writer.drain()
        finally:
            self._waiting = False

    def _turn_to_client(self) -> None:
        """From now on it is the client who is silent; what the upstream took before does not count."""
        self._waiting = True
        self._active = self.loop.time()

    # ------------------------------------------------------------ the session

    async def _handle_client(self) -> None:
        try:
            await self._session()
        except (Gone, OSError, asyncio.IncompleteReadError):
            pass  # the client left; `finally` forgets what was under way
        except Exception as error:  # noqa: BLE001 - a bug costs this client 421, not the relay; told in our log
            events.failed("relay", error)
            self._say("421 4.3.0 internal error, try again later")
        finally:
            self._end_transaction()
            self._close()

    async def _session(self) -> None:
        refusal = self.server.refusal()
        self._say(refusal or f"220 {self.hostname} ESMTP optoutd")
        if refusal:
            return
        while not self.server.closing or self.transaction is not None:
            line = await self._command()
            if line is not None and not await self._obey(line):
                return
            if self._bad >= MAX_ERRORS:
                self._say("421 4.7.0 too many errors")
                return
        self._say("421 4.3.2 closing")

    async def _command(self) -> bytes | None:
        """The next command line without its end; None if there was something wrong with it (and it was told)."""
        if b"\n" not in getattr(self._reader, _BUFFER):
            await self._send()
        elif len(self._out) >= _MAX_HELD:
            await self._send()
            await asyncio.sleep(0)
        self._turn_to_client()
        try:
            line: bytes = await self._reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            await self._skip_line()
            line = b"x" * (MAX_COMMAND + 1)
        finally:
            self._waiting = False
        if len(line) > MAX_COMMAND:
            self._complain("500 5.5.2 command line too long")
            return None
        return line.rstrip(b"\r\n")

    async def _skip_line(self) -> None:
        while True:
            try:
                await self._reader.readuntil(b"\n")
            except asyncio.LimitOverrunError as more:
                await self._reader.readexactly(more.consumed)
            else:
                return

    def _complain(self, reply: str) -> None:
        self._bad += 1
        self._say(reply)

    async def _obey(self, line: bytes) -> bool:
        """Carry out one command. False: the session is over."""
        verb, _, argument = line.decode("utf-8", "surrogateescape").partition(" ")
        verb, argument = verb.upper(), argument.strip()
        try:
            match verb:
                case "MAIL":
                    self._mail(argument)
                case "RCPT":
                    await self._rcpt(argument)
                case "DATA":
                    await self._data(argument)
                case "QUIT":
                    self._say("221 2.0.0 bye")
                    return False
                case "RSET":
                    self._end_transaction()
                    self._say("250 2.0.0 ok")
                case "EHLO" | "HELO":
                    self._hello(verb, argument)
                case _:
                    self._other(verb)
        except Syntax as problem:
            # A list with many addresses that are none is the sender's misfortune, not an attack on us.
            (self._say if verb == "RCPT" and self.transaction else self._complain)(str(problem))
        return True

    def _hello(self, verb: str, name: str) -> None:
        if not name or not name.isprintable() or len(name) > 255 or not name.isascii():
            raise Syntax(f"501 5.5.4 syntax: {verb} hostname")
        self._end_transaction()
        self.helo, self.extended = name, verb == "EHLO"
        if self.extended:
            offered = self.server.context.offers()
            lines = [self.hostname, *(f"{k} {v}".rstrip() for k, v in offered.items())]
            self._say("\r\n".join(f"250{' ' if n == len(lines) - 1 else '-'}{x}" for n, x in enumerate(lines)))
        else:
            self._say(f"250 {self.hostname}")

    def _other(self, verb: str) -> None:
        match verb:
            case "NOOP":
                self._say("250 2.0.0 ok")
            case "VRFY":
                self._say("252 2.5.0 cannot verify, but will try to deliver")
            case "HELP":
                self._say("214 2.0.0 EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY HELP")
            case "EXPN" | "BDAT" | "STARTTLS" | "AUTH" | "ETRN" | "TURN":
                self._complain("502 5.5.1 command not implemented")
            case _:
                self._complain("500 5.5.2 command not recognized")

    # ------------------------------------------------------------ a message

    def _mail(self, argument: str) -> None:
        if not self.helo:
            raise Syntax("503 5.5.1 send EHLO first")
        if self.transaction is not None:
            raise Syntax("503 5.5.1 nested MAIL command")
        peer = self.session.peer if self.session else None
        self.transaction = Transaction.begin(self.server.context, argument, self.helo, peer, extended=self.extended)
        self._say("250 2.1.0 ok")

    async def _rcpt(self, argument: str) -> None:
        if self.transaction is None:
            raise Syntax("503 5.5.1 need MAIL before RCPT")
        self._say(await self.transaction.rcpt(argument))

    async def _data(self, argument: str) -> None:
        if self.transaction is None:
            raise Syntax("503 5.5.1 need MAIL before DATA")
        if argument:
            raise Syntax("501 5.5.4 syntax: DATA")
        refusal = self.transaction.before_data()
        if refusal is not None:
            self._say(refusal)
            return
        self._say("354 end data with <CR><LF>.<CR><LF>")
        self._flush()
        try:
            self._say(await self._message(self.transaction))
            self._flush()  # at once: what follows may be slow, and a client that does not know sends it again
        finally:
            self._end_transaction()

    async def _message(self, transaction: Transaction) -> str:
        try:
            refusal = await transaction.message(Body(self._read, self._past_the_dot))
            return await transaction.finish() if refusal is None else refusal
        finally:
            self._handing_over = False

    async def _read(self) -> bytes:
        """Octets of a body; the idle timer runs meanwhile. Raises Gone."""
        self._turn_to_client()
        try:
            data = await self._reader.read(_CHUNK)
        finally:
            self._waiting = False
        if not data:
            raise Gone
        return data

    def _past_the_dot(self, rest: bytes) -> None:
        """From here a client that leaves changes nothing. `rest`: commands pipelined behind the dot."""
        self._handing_over = True
        if rest:
            buffer: bytearray = getattr(self._reader, _BUFFER)
            buffer[:0] = rest

    def _end_transaction(self) -> None:
        if self.transaction is not None:
            self.transaction.abandon()
            self.transaction = None
