"""An SMTP server that takes everything, writes it down, and can be told to misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from tests.loopback import HOST, ServerError, free_port

KEYWORDS: Final = ("PIPELINING", "SIZE 36700160", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")


@dataclass(frozen=True)
class Transaction:
    """What came before one final dot, and what was answered to it."""

    mail_from: str  # everything behind "MAIL FROM:", parameters included
    rcpt_to: tuple[str, ...]  # everything behind "RCPT TO:" of the recipients that were accepted
    data: bytes  # the message as sent, dots unstuffed, CRLF kept
    reply: str  # our reply to the dot


@dataclass
class Sink:
    """The server, its record, and its script, which may be changed while it runs.

    Keys of `replies` and `delays`, the first that fits: the command with its address (`"RCPT <bad@x.example>"`), or
    its verb. `GREETING` stands for the greeting, `DOT` for the end of DATA. A reply may have several lines. `drop_at`
    names a verb at which the connection is closed without an answer, `drop_after` one after whose answer it is closed,
    `lose_after` one that is done, but whose answer is lost with the connection.
    """

    port: int = field(default_factory=free_port)
    keywords: tuple[str, ...] = KEYWORDS  # of the EHLO reply
    replies: dict[str, str] = field(default_factory=dict)
    delays: dict[str, float] = field(default_factory=dict)  # seconds before the reply
    drop_at: str = ""
    drop_after: str = ""
    lose_after: str = ""
    transactions: list[Transaction] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)  # every command line, of all connections
    connections: int = 0
    resets: int = 0
    half_messages: int = 0  # DATA was begun, but the connection ended before the dot

    host = HOST

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._lines: set[asyncio.Task[None]] = set()

    @property
    def messages(self) -> list[Transaction]:
        """The transactions whose dot was answered with 2xx."""
        return [t for t in self.transactions if t.reply.startswith("2")]

    def start(self) -> None:
        """Listen (again) on the same port; returns when it does."""
        if self._thread:
            return
        listener = socket.create_server((HOST, self.port), backlog=200)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(listener)), name="sink", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and cut every connection."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self.wait_for(lambda: self._stop is not None)
        assert self._loop
        assert self._stop
        self._loop.call_soon_threadsafe(self._stop.set)
        thread.join(10)
        self._stop = None

    def reset(self) -> None:
        """As new, on the same port: nothing recorded, nothing scripted, running."""
        self.stop()
        vars(self).update(vars(Sink(self.port)))
        self.start()

    def wait_for(self, happened: Callable[[], bool], seconds: float = 20) -> None:
        """Wait until something has come about, e.g. `sink.wait_for(lambda: len(sink.messages) == 2)`."""
        with self._changed:
            if not self._changed.wait_for(happened, seconds):
                raise ServerError(f"not within {seconds} s; the sink has {self.transactions} after {self.commands}")

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Around every change of the record: wakes whoever waits for it."""
        with self._changed:
            yield
            self._changed.notify_all()

    async def _serve(self, listener: socket.socket) -> None:
        stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        server = await asyncio.start_server(self._accepted, sock=listener)
        with self.recording():
            self._stop = stop
        await stop.wait()
        server.close()
        lines = tuple(self._lines)
        for line in lines:
            line.cancel()
        await asyncio.gather(*lines, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._lines.add(task)
        with self.recording():
            self.connections += 1
        try:
            await _Conversation(self, reader, writer).run()
        except EOFError:
            pass
        except (ConnectionError, asyncio.CancelledError):
            writer.transport.abort()  # cut, not shut: what is unsent must not arrive
        finally:
            self._lines.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


class _Conversation:
    """One connection to the sink: reads a command, answers it."""

    def __init__(self, sink: Sink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.sink, self.reader, self.writer = sink, reader, writer
        self.buffer = bytearray()
        self.mail_from: str | None = None
        self.rcpt_to: list[str] = []

    async def run(self) -> None:
        """Until QUIT, or until the client or the script ends it (EOFError)."""
        await self.answer("GREETING", "", "220 sink.example ESMTP")
        verb = ""
        while verb != "QUIT":
            line = (await self.until(b"\r\n")).decode(errors="surrogateescape")
            with self.sink.recording():
                self.sink.commands.append(line)
            verb, _, rest = line.partition(" ")
            verb = verb.upper()
            await getattr(self, f"on_{verb.lower()}", self.on_unknown)(verb, rest)

    async def until(self, mark: bytes) -> bytes:
        """The bytes before `mark`; it and they are consumed, what is pipelined behind stays."""
        seen = 0
        while (at := self.buffer.find(mark, max(0, seen - len(mark)))) < 0:
            seen = len(self.buffer)
            chunk = await self.reader.read(1 << 16)
            if not chunk:
                raise EOFError
            self.buffer += chunk
        found = bytes(self.buffer[:at])
        del self.buffer[: at + len(mark)]
        return found

    async def answer(self, verb: str, rest: str, usual: str, record: Callable[[str], None] = lambda _: None) -> str:
        """Reply as scripted, or as usual; gives the reply. `record` gets it before the client does."""
        address = re.search(r"<[^>]*>", rest)
        keys = (f"{verb} {address[0]}" if address else verb, verb)
        if self.sink.drop_at in keys:
            raise ConnectionAbortedError
        await asyncio.sleep(next((self.sink.delays[k] for k in keys if k in self.sink.delays), 0))
        reply = next((self.sink.replies[k] for k in keys if k in self.sink.replies), usual)
        with self.sink.recording():
            record(reply)
        if self.sink.lose_after in keys:
            raise ConnectionAbortedError
        self.writer.write(reply.encode() + b"\r\n")
        await self.writer.drain()
        if self.sink.drop_after in keys or reply.startswith("421"):
            raise EOFError  # the reply still goes out
        return reply

    async def on_ehlo(self, verb: str, rest: str) -> None:
        *lines, last = "sink.example", *self.sink.keywords
        await self.answer(verb, "", "".join(f"250-{line}\r\n" for line in lines) + f"250 {last}")

    async def on_helo(self, verb: str, rest: str) -> None:
        await self.answer(verb, "", "250 sink.example")

    async def on_mail(self, verb: str, rest: str) -> None:
        if self.mail_from is not None:
            await self.answer(verb, rest, "503 5.5.1 nested MAIL")
        elif (await self.answer(verb, rest, "250 2.1.0 sender ok")).startswith("2"):
            self.mail_from = rest.partition(":")[2].strip()

    async def on_rcpt(self, verb: str, rest: str) -> None:
        if self.mail_from is None:
            await self.answer(verb, rest, "503 5.5.1 MAIL first")
        elif (await self.answer(verb, rest, "250 2.1.5 recipient ok")).startswith("2"):
            self.rcpt_to.append(rest.partition(":")[2].strip())

    async def on_data(self, verb: str, rest: str) -> None:
        if not self.rcpt_to:
            await self.answer(verb, "", "554 5.5.1 no valid recipients")
            return
        if not (await self.answer(verb, "", "354 go ahead")).startswith("3"):
            return
        try:
            self.buffer[:0] = b"\r\n"  # so that the dot of an empty message, too, stands behind a CRLF
            stuffed = await self.until(b"\r\n.\r\n") + b"\r\n"
        except (EOFError, ConnectionError):
            with self.sink.recording():
                self.sink.half_messages += 1
            raise
        data = stuffed.replace(b"\r\n.", b"\r\n")[2:]  # RFC 5321 4.5.2: whatever follows the dot
        seen = partial(Transaction, self.mail_from or "", tuple(self.rcpt_to), data)
        self.forget()
        keep = self.sink.transactions.append
        await self.answer("DOT", "", "250 2.0.0 queued as sink", lambda reply: keep(seen(reply)))

    async def on_rset(self, verb: str, rest: str) -> None:
        self.forget()
        with self.sink.recording():
            self.sink.resets += 1
        await self.answer(verb, "", "250 2.0.0 reset")

    async def on_noop(self, verb: str, rest: str) -> None:
        await self.answer(verb, "", "250 2.0.0 ok")

    async def on_quit(self, verb: str, rest: str) -> None:
        await self.answer(verb, "", "221 2.0.0 bye")

    async def on_unknown(self, verb: str, rest: str) -> None:
        await self.answer(verb, "", "502 5.5.2 unknown command")

    def forget(self) -> None:
        """No transaction is open any more."""
        self.mail_from, self.rcpt_to = None, []


@contextlib.contextmanager
def sink(keywords: tuple[str, ...] = KEYWORDS) -> Iterator[Sink]:
    """A running sink on a free port."""
    server = Sink(keywords=keywords)
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def told_to_stop_in_mid_message(running: Coroutine[None, None, None], server: Sink) -> None:
    """Let it run until its message is on its way to this server, and the reply to the dot is still to come; then cancel it."""
    server.delays["DOT"] = 0.5
    task = asyncio.create_task(running)
    async with asyncio.timeout(20):
        while "DATA" not in server.commands:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
