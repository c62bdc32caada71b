"""One message on its way through the upstream: MAIL with the first recipient, recipients, body, dot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from daemon.connection import Connection, Lost, Reply
from daemon.steps import in_task

DOT_SECONDS: Final = 570  # RFC 5321 4.5.3.2.6 asks for 600; the client waits as long, so we answer a little before


class Source(Protocol):
    """What a delivery needs of the pool (daemon/upstream.py)."""

    timeout: float

    def take_idle(self) -> Connection | None:
        """A connection that was used before, if one is at hand and nobody else waits for it."""

    async def take(self, *, fresh: bool = False) -> tuple[Connection, bool]:
        """A connection ready for MAIL, and whether it was used before. Raises Lost."""

    def give_back(self, connection: Connection, *, reset: bool = False) -> None:
        """Return a connection between transactions."""

    def discard(self, connection: Connection) -> None:
        """Return a connection in the middle of a message."""


class Delivery:
    """One message on its way: MAIL with the first recipients, body, dot. Lazily begun, dropped if not finished."""

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
        """Offer one recipient, as `rcpts` does. Raises Lost."""
        replies, lost = await self.rcpts([command])
        if lost is not None:
            raise lost
        return replies[0]

    async def rcpts(self, commands: Sequence[bytes]) -> tuple[list[Reply], Lost | None]:
        """Offer recipients (whole RCPT commands). Returns the replies, and what ended them before each had its own.

        The upstream's refusal of MAIL is the answer for every recipient. A used connection found dead at MAIL is
        replaced once; later the message must start over, and the connection is gone.
        """
        if self._refusal is not None:
            return [self._refusal] * len(commands), None
        replies: list[Reply] = []
        try:
            if self._connection is None:
                await self._begin(commands, replies)
            else:
                await self._offer(self._connection, commands, replies)
        except Lost as lost:
            self.drop()
            return replies, lost
        return replies, None

    async def _begin(self, commands: Sequence[bytes], replies: list[Reply]) -> None:
        idle = self._pool.take_idle()
        connection, used = (idle, True) if idle else await in_task(self._pool.take())
        self._connection = connection
        try:
            return await self._start(connection, commands, replies)
        except Lost as lost:
            self.drop()
            if not used or lost.step != "mail":
                raise
        self._connection = connection = (await in_task(self._pool.take(fresh=True)))[0]
        return await self._start(connection, commands, replies)

    async def _start(self, connection: Connection, commands: Sequence[bytes], replies: list[Reply]) -> None:
        """MAIL and the first recipients, in one write where the upstream takes that (RFC 2920)."""
        missing = self._needs - connection.features.keys()
        if missing:
            raise Lost("connect", f"no longer offers {' '.join(sorted(missing))}")
        if "PIPELINING" not in connection.features:
            connection.send(self._mail, 1)
            mail = _in_step(connection, await connection.reply(self._pool.timeout, "mail"), "mail")
            if mail.good:
                return await self._offer(connection, commands, replies)
        else:
            connection.send(self._mail + b"".join(commands), 1 + len(commands))
            mail = _in_step(connection, await connection.reply(self._pool.timeout, "mail"), "mail")
            answers = [
                _in_step(connection, await connection.reply(self._pool.timeout, "rcpt"), "rcpt") for _ in commands
            ]  # 503 if there was no MAIL
            if mail.good:
                replies += answers
                return None
        self._refusal = mail
        replies += [mail] * len(commands)
        return None

    async def _offer(self, connection: Connection, commands: Sequence[bytes], replies: list[Reply]) -> None:
        """In one write where the upstream takes that. Raises Lost; `replies` has those that came before it."""
        together = "PIPELINING" in connection.features
        if together:
            connection.send(b"".join(commands), len(commands))
        for command in commands:
            if not together:
                connection.send(command, 1)
            replies.append(_in_step(connection, await connection.reply(self._pool.timeout, "rcpt"), "rcpt"))

    async def replay(self, commands: Sequence[bytes]) -> list[Reply]:
        """RSET, then the same message to these recipients only. Returns a reply each. Raises Lost."""
        assert self._connection is not None
        self._connection.reset()
        self._connection.rsets -= 1  # not a sign of trouble: a delivery follows
        replies: list[Reply] = []
        await self._start(self._connection, commands, replies)
        return replies

    async def data(self) -> Reply:
        """DATA. Raises Lost."""
        assert self._connection is not None
        self._connection.send(b"DATA\r\n", 1)
        return _in_step(self._connection, await self._connection.reply(self._pool.timeout, "data"), "data")

    async def body(self, octets: bytes) -> None:
        """A piece of the message, still dot-stuffed. Raises Lost."""
        assert self._connection is not None
        self._connection.send(octets)
        await self._connection.drain(self._pool.timeout)

    async def dot(self, octets: bytes = b"") -> Reply:
        """The last piece and the end of the message, in one write, and the upstream's word on it.

        Raises Lost("dot"): it may or may not have the message. Lost("body"): it was gone before its dot.
        """
        assert self._connection is not None
        self._connection.send(octets + b".\r\n", 1)
        step = "body" if self._connection.gone else "dot"
        reply = _in_step(self._connection, await self._connection.reply(DOT_SECONDS, step), step)
        if reply.good:
            self._connection.delivered()
        self._pool.give_back(self._connection)
        self._connection = None
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


def _in_step(connection: Connection, reply: Reply, step: str) -> Reply:
    """The reply to the command of that step, if it can be one. Raises Lost."""
    code = reply.code
    if code == 421 or (code < 400 and (code == 354) != (step == "data")):
        # 421: it is going away; that is its trouble, not the recipient's
        connection.drop("421" if code == 421 else "out of step")
        raise Lost(step, reply)
    return reply
