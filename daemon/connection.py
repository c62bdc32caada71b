"""One SMTP connection to the upstream: octets out, whole replies in, in step."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import deque
from dataclasses import dataclass
from typing import Final

_MAX_REPLY: Final = 65_536
_MAX_UNASKED: Final = 10  # replies that nobody asked for
_REPLY_LINE: Final = re.compile(r"[2-5][0-9]{2}(?:[ -]|\Z)")


class Lost(Exception):
    """The upstream cannot be used; `step` says at what point: connect, greeting, ehlo, mail, rcpt, data, body, dot."""

    def __init__(self, step: str, why: object):
        super().__init__(f"{step}: {why}")
        self.step = step


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole SMTP reply. `lines`: the text of each line, without the code."""

    code: int
    lines: tuple[str, ...]

    @property
    def good(self) -> bool:
        """2xx, or 354."""
        return self.code < 400

    def __str__(self) -> str:
        """As it goes over the wire, less the last CRLF."""
        if len(self.lines) == 1:
            return f"{self.code} {self.lines[0]}"
        last = len(self.lines) - 1
        return "\r\n".join(f"{self.code}{' ' if n == last else '-'}{line}" for n, line in enumerate(self.lines))

    def with_suffix(self, suffix: str) -> Reply:
        """The same with something said at the end of its last line."""
        return Reply(self.code, (*self.lines[:-1], self.lines[-1] + suffix))


class Connection(asyncio.Protocol):
    """One connection: sends octets, hands out whole replies in order."""

    def __init__(self) -> None:
        self.features: dict[str, str] = {}
        self.errors = self.rsets = 0
        self.idle_since = 0.0
        self._owed = 0  # replies still to come
        self._ignored = 0  # of them, those that nobody waits for (of a RSET)
        self._buffer = bytearray()
        self._lines: list[str] = []
        self._replies: deque[Reply] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._transport: asyncio.Transport | None = None
        self._gone: str | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = self._patience = 0.0

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Cut what came into replies."""
        self._buffer += data
        if len(self._buffer) > _MAX_REPLY:
            self.drop("the reply has no end")
        while not self._gone and (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end]).rstrip(b"\r").decode("utf-8", "surrogateescape")  # any octet goes back out
            del self._buffer[: end + 1]
            self._line(line)

    def _line(self, line: str) -> None:
        if not _REPLY_LINE.match(line) or len(self._lines) > 200:
            self.drop("not an SMTP reply")
            return
        self._lines.append(line[4:])
        if line[3:4] != "-":
            self._replies.append(Reply(int(line[:3]), tuple(self._lines)))
            self._lines = []
            self._wake()
            if len(self._replies) > self._owed + _MAX_UNASKED:
                self.drop("does not stop talking")

    def connection_lost(self, exc: Exception | None) -> None:
        """The upstream has gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._gone = self._gone or (str(exc) if exc else "closed by the upstream")
        self._room.set()
        self._wake()

    def eof_received(self) -> bool:
        """No half-open connections."""
        return False

    def pause_writing(self) -> None:
        """The upstream reads more slowly than we write."""
        self._room.clear()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._room.set()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ---- what the pool and the relay use

    @property
    def gone(self) -> bool:
        """Is it certainly unusable?"""
        return self._gone is not None

    @property
    def spoke(self) -> bool:
        """Has the upstream said something nobody asked for (a 421 before it closes)?"""
        return len(self._replies) > self._owed

    @property
    def in_step(self) -> bool:
        """Is every command answered, so that somebody else may use it?"""
        return self._owed == self._ignored

    def send(self, octets: bytes, replies: int = 0) -> None:
        """Send octets that so many replies will come for; use `drain` while a body flows."""
        if replies and octets and self.spoke:
            self.drop("spoke out of turn")
            self._replies.clear()  # else what it said would be taken for the answer to this: a 250 for a dot unsent
        self._owed += replies
        if self._transport is not None and not self.gone:
            self._transport.write(octets)

    async def drain(self, seconds: float) -> None:
        """Wait until the upstream takes more. Raises Lost."""
        if not self._room.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._room.wait()
            except TimeoutError:
                self.drop("does not read")
        if self._gone:
            raise Lost("body", self._gone)

    async def reply(self, seconds: float, step: str) -> Reply:
        """The next reply that somebody waits for. Raises Lost: gone, or silent for `seconds`."""
        while self._ignored:
            self._ignored -= 1
            if not (await self._next(seconds, step)).good:
                self.drop("refused RSET")
        found = await self._next(seconds, step)
        self.errors += found.code >= 400
        return found

    async def _next(self, seconds: float, step: str) -> Reply:
        while not self._replies:
            if self._gone:
                raise Lost(step, self._gone)
            self._expect(seconds)
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._owed -= 1
        return self._replies.popleft()

    def _expect(self, seconds: float) -> None:
        """One lazy timer a connection: asyncio.timeout would make and cancel one for every reply."""
        self._patience, self._deadline = seconds, self._loop.time() + seconds
        if self._timer is not None and self._timer.when() > self._deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._waiter is None or self._gone:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._tick)
        else:
            self.drop(f"silent for {self._patience:.0f} s")

    def reset(self) -> None:
        """RSET; its reply is read before the next one that matters."""
        self.rsets += 1
        self._ignored += 1
        self.send(b"RSET\r\n", 1)

    def delivered(self) -> None:
        """A message was taken: the upstream's counters start again, so ours do."""
        self.errors = self.rsets = 0

    def drop(self, why: str = "dropped") -> None:
        """Close at once, whatever was under way: an unfinished message is not delivered."""
        self._gone = self._gone or why
        if self._transport is not None:
            self._transport.abort()
        self._room.set()
        self._wake()

    def quit(self) -> None:
        """Close politely, without waiting for the answer."""
        if not self.gone and self._transport is not None:
            self.send(b"QUIT\r\n")
            self._gone = "we said QUIT"
            self._transport.close()

    async def secure(self, context: ssl.SSLContext, name: str, seconds: float) -> None:
        """Go on under TLS with a server whose certificate is for `name`. Raises Lost("tls"), OSError (ssl.SSLError).

        What came in clear and was not read may be anybody's, and must not be read as if it came under TLS
        (CVE-2011-0411 and its like).
        """
        if self._buffer or self._lines or self._replies:
            raise Lost("tls", "more was said in clear than was asked for")
        if self._gone or self._transport is None:
            raise Lost("tls", self._gone)
        transport = await self._loop.start_tls(
            self._transport, self, context, server_hostname=name, ssl_handshake_timeout=seconds
        )
        if transport is None:  # the connection was cut meanwhile
            raise Lost("tls", self._gone or "closed by the upstream")
        self._transport = transport
