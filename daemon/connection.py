"""One SMTP connection to the upstream: octets out, whole replies in, in step."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import deque
from functools import lru_cache
from typing import Any, Final, NamedTuple

from daemon.steps import Steps, pause, running

_MAX_REPLY: Final = 65_536
_MAX_LINES: Final = 200
_MAX_UNASKED: Final = 10  # replies that nobody asked for
# A control character in a reply is nobody's word: a CR by itself is a line's end to some clients, who would hear two replies.
_NO_CONTROLS: Final = bytes(ord("?") if (c < 32 and c != 9) or c == 127 else c for c in range(256))
_REPLY_LINE: Final = re.compile(rb"[2-5][0-9]{2}(?:[ -]|\Z)")


class Lost(Exception):
    """The upstream cannot be used; `step` says at what point: connect, tls, auth, greeting, ehlo, mail, rcpt, data, body, dot."""

    def __init__(self, step: str, why: object):
        super().__init__(f"{step}: {why}")
        self.step = step
        self.in_doubt = step == "dot" and not (isinstance(why, Reply) and why.code >= 400)  # may it have the message?


class Reply(NamedTuple):
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


@lru_cache(maxsize=256)
def _parsed(line: bytes) -> tuple[Reply, bool] | None:
    """A reply line as a reply of its own, and whether more lines follow; None: it is none. A server says few things."""
    line = line.rstrip(b"\r")
    if not _REPLY_LINE.match(line):
        return None
    text = line[4:].translate(_NO_CONTROLS).decode("utf-8", "surrogateescape")  # any other octet goes back out
    return Reply(int(line[:3]), (text,)), line[3:4] == b"-"


class Connection(asyncio.Protocol):
    """One connection: sends octets, hands out whole replies in order. Used by one task, or by one Steps, at a time."""

    def __init__(self) -> None:
        self.features: dict[str, str] = {}
        self.errors = self.rsets = 0
        self.idle_since = 0.0
        self._owed = 0  # replies still to come
        self._ignored = 0  # of them, those that nobody waits for (of a RSET)
        self._buffer = b""
        self._lines: list[str] = []  # of a reply that has not ended
        self._replies: deque[Reply] = deque()
        self._waiter: asyncio.Future[None] | Steps | None = None
        self._full = False  # the upstream reads more slowly than we write
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
        """Cut what came into replies; whoever waits goes on when all of it is cut."""
        if self._buffer:
            data = self._buffer + data
        *lines, self._buffer = data.split(b"\n")
        for line in lines:
            self._line(line)
        if len(self._buffer) > _MAX_REPLY:
            self.drop("the reply has no end")
        if self._replies:
            self._wake()

    def _line(self, line: bytes) -> None:
        found = _parsed(line)
        if self._gone:
            return
        if found is None or len(self._lines) > _MAX_LINES:
            self.drop("not an SMTP reply")
            return
        reply, more = found
        if more:
            self._lines += reply.lines
            return
        if self._lines:
            reply, self._lines = Reply(reply.code, (*self._lines, *reply.lines)), []
        self._replies.append(reply)
        if len(self._replies) > self._owed + _MAX_UNASKED:
            self.drop("does not stop talking")

    def connection_lost(self, exc: Exception | None) -> None:
        """The upstream has gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # an exception without words (MemoryError) is falsy as text, and would be no end
        self._gone = self._gone or (str(exc) or type(exc).__name__ if exc else "closed by the upstream")
        self._wake()

    def eof_received(self) -> bool:
        """No half-open connections."""
        return False

    def pause_writing(self) -> None:
        """The upstream reads more slowly than we write."""
        self._full = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._full = False
        self._wake()

    # ---- waiting

    async def _wait(self, seconds: float) -> None:
        """Until something happens that may be what we wait for; at most `seconds` after the last call with another value."""
        self._expect(seconds)
        steps = running()
        try:
            if steps is not None:
                self._waiter = steps
                await pause()
            else:
                self._waiter = self._loop.create_future()
                await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if isinstance(waiter, Steps):
            waiter.resume()
        elif waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _expect(self, seconds: float) -> None:
        """One lazy timer a connection: asyncio.timeout would make and cancel one for every reply."""
        self._patience, self._deadline = seconds, self._loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= self._deadline:
                return  # it looks again when it is due
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._waiter is None or self._gone:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._tick)
        else:
            self.drop("does not read" if self._full else f"silent for {self._patience:.0f} s")

    # ---- what the pool and the relay use

    @property
    def gone(self) -> bool:
        """Is it certainly unusable?"""
        return self._gone is not None

    @property
    def certificate(self) -> dict[str, Any]:
        """The peer's, verified (ssl.SSLSocket.getpeercert); empty in clear."""
        return (self._transport and self._transport.get_extra_info("peercert")) or {}

    @property
    def spoke(self) -> bool:
        """Has the upstream said something nobody asked for (a 421 before it closes)?"""
        return len(self._replies) > self._owed

    @property
    def in_step(self) -> bool:
        """Has every command had its reply (save a RSET's, which nobody waits for)?"""
        return self._owed == self._ignored

    def send(self, octets: bytes, replies: int = 0) -> None:
        """Send; `replies` more are owed to us. Never waits: use `drain` while a body flows."""
        if replies and octets and self.spoke:
            self.drop("spoke out of turn")
            self._replies.clear()  # else what it said would be taken for the answer to this: a 250 for a dot unsent
        self._owed += replies
        if self._transport is not None and not self.gone:
            self._transport.write(octets)

    async def drain(self, seconds: float) -> None:
        """Wait until the upstream takes more. Raises Lost."""
        while self._full and not self._gone:
            await self._wait(seconds)
        if self._gone:
            raise Lost("body", self._gone)

    async def reply(self, seconds: float, step: str) -> Reply:
        """The next reply that somebody waits for. Raises Lost: gone, or silent for `seconds`."""
        while True:
            while not self._replies:
                if self._gone:
                    raise Lost(step, self._gone)
                steps = running()
                if steps is None:
                    await self._wait(seconds)
                    continue
                self._expect(seconds)  # as _wait does, a coroutine less: nearly every wait is this one
                self._waiter = steps
                try:
                    await pause()
                finally:
                    self._waiter = None
            self._owed -= 1
            found = self._replies.popleft()
            if not self._ignored:
                break
            self._ignored -= 1
            if not found.good:
                self.drop("refused RSET")
        if found.code >= 400:
            self.errors += 1
        return found

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
