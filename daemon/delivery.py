"""One message on its way through the upstream: MAIL with the first recipient, recipients, body, dot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from daemon.connection import Connection, Lost, Reply

DOT_SECONDS: Final = 570  # RFC 5321 4.5.3.2.6 asks for 600; the client waits as long, so we answer a little before


class Source(Protocol):
    """What a delivery needs of the pool (daemon/upstream.py)."""

    timeout: float

    async def take(self, *, fresh: bool = False) -> tuple[Connection, bool]:
        """A connection ready for MAIL, and whether it was used before. Raises Lost."""

    def give_back(self, connection: Connection, *, reset: bool = False) -> None:
        """Return a connection between transactions."""

    def discard(self, connection: Connection) -> None:
        """Return a connection in the middle of a message."""


class Delivery:
    """One message on its way: MAIL with the first recipient, recipients, body, dot. Lazily begun, dropped if not finished."""

    def __init__(self, pool: Source, mail: bytes, needs: frozenset[str]):
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
