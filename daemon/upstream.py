"""The SMTP client and its pool: what the relay passes mail on with.

Connections are kept and used again, since a new one per message costs more than the message. One is retired after 5
refused recipients or 50 RSETs without a delivery (Postfix slows down at 10 and 110), and dropped without a word
whenever a message was begun and must not be finished: a connection that closes before the dot delivers nothing
(RFC 5321 4.1.1.4).

Failures are `Lost(step)`; what to tell the client is the relay's business.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from daemon import events
from daemon.connection import Connection, Lost, Reply

__all__ = ["Connection", "Delivery", "Lost", "Pool", "Reply", "told"]

CONNECT_SECONDS: Final = 10
DOT_SECONDS: Final = 570  # RFC 5321 4.5.3.2.6 asks for 600; the client waits as long, so we answer a little before
IDLE_SECONDS: Final = 60  # an idle connection is closed before the upstream's own limit (Postfix: 300 s) does it
_MAX_ERRORS: Final = 5
_MAX_RSETS: Final = 50
_EXTENSIONS: Final = frozenset({"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"})


class Pool:
    """Connections to one upstream: at most `connections` at a time, idle ones used again.

    `hostname` is what we call ourselves; `timeout` is in seconds, for one reply.
    """

    def __init__(self, host: str, port: int, *, hostname: str, timeout: float = 60, connections: int = 20):
        self.host, self.port, self.hostname, self.timeout = host, port, hostname, timeout
        self.features: dict[str, str] = {}  # what the upstream offered last: what our own EHLO may offer
        self._idle: deque[Connection] = deque()
        self._places = asyncio.Semaphore(connections)
        self._closed = False

    async def probe(self) -> None:
        """Ask the upstream what it offers, so that the first EHLO knows. Raises Lost."""
        connection, _ = await self.take()
        self.give_back(connection)

    async def take(self, *, fresh: bool = False) -> tuple[Connection, bool]:
        """A connection ready for MAIL, and whether it was used before. Raises Lost(connect|greeting|ehlo)."""
        await self._place()
        try:
            while self._idle and not fresh:
                connection = self._idle.pop()
                age = asyncio.get_running_loop().time() - connection.idle_since
                if not (connection.gone or connection.spoke or age > IDLE_SECONDS):
                    return connection, True
                connection.quit()
            return await self._open(), False
        except BaseException:
            self._places.release()
            raise

    async def _place(self) -> None:
        if not self._places.locked():
            await self._places.acquire()  # at once, and without a timer
            return
        try:
            async with asyncio.timeout(self.timeout):
                await self._places.acquire()
        except TimeoutError:
            raise Lost("connect", "all connections are in use") from None

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(Connection, self.host, self.port)
        except (OSError, TimeoutError) as why:
            raise Lost("connect", str(why) or "timed out") from None
        try:
            await self._greet(connection)
        except BaseException:
            connection.drop()
            raise
        return connection

    async def _greet(self, connection: Connection) -> None:
        connection.send(b"", 1)
        greeting = await connection.reply(self.timeout, "greeting")
        if greeting.code != 220:
            raise Lost("greeting", greeting)
        connection.send(f"EHLO {self.hostname}\r\n".encode(), 1)
        hello = await connection.reply(self.timeout, "ehlo")
        if hello.code in (500, 502):
            connection.send(f"HELO {self.hostname}\r\n".encode(), 1)
            hello = await connection.reply(self.timeout, "ehlo")
        if hello.code != 250:
            raise Lost("ehlo", hello)
        connection.features = _features(hello.lines[1:])
        connection.errors = 0
        self.features = connection.features

    def give_back(self, connection: Connection, *, reset: bool = False) -> None:
        """Return a connection between transactions; `reset`: a transaction was begun and must be forgotten."""
        self._places.release()
        if not connection.in_step:
            connection.drop("left in the middle of a command")
        if self._closed or connection.gone or connection.errors >= _MAX_ERRORS or connection.rsets >= _MAX_RSETS:
            connection.quit()
            return
        if reset:
            connection.reset()
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)

    def discard(self, connection: Connection) -> None:
        """Return a connection in the middle of a message: it is dropped."""
        self._places.release()
        connection.drop()

    def close(self) -> None:
        """Say goodbye on all idle connections, and on the others as they come back."""
        self._closed = True
        while self._idle:
            self._idle.pop().quit()


def _features(lines: Iterable[str]) -> dict[str, str]:
    """EHLO keywords that we understand -> their parameters."""
    found = {}
    for line in lines:
        keyword, _, rest = line.strip().partition(" ")
        if keyword.upper() in _EXTENSIONS:
            found[keyword.upper()] = rest.strip()
    return found


class Delivery:
    """One message on its way: MAIL with the first recipient, recipients, body, dot. Lazily begun, dropped if not finished."""

    def __init__(self, pool: Pool, mail: bytes, needs: frozenset[str]):
        self._pool = pool
        self._mail = mail  # the whole MAIL command
        self._needs = needs  # extensions its parameters depend on
        self._connection: Connection | None = None
        self._refusal: Reply | None = None

    @property
    def begun(self) -> bool:
        """Has the upstream heard of it?"""
        return self._connection is not None

    async def rcpt(self, command: bytes) -> Reply:
        """Offer a recipient (a whole RCPT command). The upstream's refusal of MAIL is the answer for every recipient.

        Raises Lost. A used connection found dead at MAIL is replaced once; later the message must start over.
        """
        if self._refusal is not None:
            return self._refusal
        if self._connection is None:
            return await self._begin(command)
        self._connection.send(command, 1)
        return await self._reply("rcpt")

    async def _begin(self, command: bytes) -> Reply:
        connection, used = await self._pool.take()
        self._connection = connection
        try:
            return await self._mail_and_rcpt(connection, command)
        except Lost as lost:
            self.drop()
            if not used or lost.step != "mail":
                raise
        self._connection, _ = await self._pool.take(fresh=True)
        return await self._mail_and_rcpt(self._connection, command)

    async def _mail_and_rcpt(self, connection: Connection, command: bytes) -> Reply:
        missing = self._needs - connection.features.keys()
        if missing:
            raise Lost("connect", f"no longer offers {' '.join(sorted(missing))}")
        together = "PIPELINING" in connection.features
        connection.send(self._mail + command, 2) if together else connection.send(self._mail, 1)
        mail = await self._reply("mail")
        if not mail.good:
            self._refusal = mail
            if together:
                await self._reply("rcpt")  # 503: there was no MAIL
            return mail
        if not together:
            connection.send(command, 1)
        return await self._reply("rcpt")

    async def replay(self, commands: Sequence[bytes]) -> list[Reply]:
        """RSET, then the same message to these recipients only. Raises Lost. Returns a reply each."""
        assert self._connection is not None
        self._connection.reset()
        self._connection.rsets -= 1  # not a sign of trouble: a delivery follows
        replies = []
        for n, command in enumerate(commands):
            if n == 0:
                replies.append(await self._mail_and_rcpt(self._connection, command))
            else:
                self._connection.send(command, 1)
                replies.append(await self._reply("rcpt"))
        return replies

    async def data(self) -> Reply:
        """DATA. Raises Lost."""
        assert self._connection is not None
        self._connection.send(b"DATA\r\n", 1)
        return await self._reply("data")

    async def body(self, octets: bytes) -> None:
        """A piece of the message, still dot-stuffed. Raises Lost."""
        assert self._connection is not None
        self._connection.send(octets)
        await self._connection.drain(self._pool.timeout)

    async def dot(self) -> Reply:
        """The end of the message, and the upstream's word on it. Raises Lost("dot"): it may or may not have it."""
        assert self._connection is not None
        self._connection.send(b".\r\n", 1)
        reply = await self._reply("dot", DOT_SECONDS)
        if reply.good:
            self._connection.delivered()
        self._pool.give_back(self._connection)
        self._connection = None
        return reply

    async def _reply(self, step: str, seconds: float | None = None) -> Reply:
        """The reply to the command of that step. Raises Lost."""
        assert self._connection is not None
        reply = await self._connection.reply(seconds or self._pool.timeout, step)
        out_of_step = reply.good and (reply.code == 354) != (step == "data")
        if reply.code == 421 or out_of_step:  # 421: it is going away; that is its trouble, not the recipient's
            self._connection.drop("421" if reply.code == 421 else "out of step")
            raise Lost(step, reply)
        return reply

    def forget(self) -> None:
        """Before DATA: the connection stays good after a RSET."""
        if self._connection is not None:
            self._pool.give_back(self._connection, reset=True)
            self._connection = None

    def drop(self) -> None:
        """In the middle of a body, or after a fault: the connection goes, and the message with it."""
        if self._connection is not None:
            self._pool.discard(self._connection)
            self._connection = None


def told(lost: Lost) -> str:
    """What a client is told when the upstream cannot be used, and the log beside it."""
    events.upstream_lost(lost.step, lost)
    if lost.step in ("connect", "greeting", "ehlo"):
        return "451 4.4.1 the next mail server cannot be reached, try again later"
    return "451 4.4.2 the connection to the next mail server was lost, try again later"
