"""What the targets on the network share: a loop in a thread, a client that says octets, and replies that are well-formed.

An input is what one side says. `PAUSE` in it: wait for what the other side has to say before going on.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar
from unittest import mock

from daemon import events
from tests.ledgers import Books, books
from tests.loopback import HOST

PAUSE: Final = b"<<pause>>"
PAUSES: Final = 12  # that are waited for
PATIENCE: Final = 30.0  # seconds for what must come at once; machines are loaded
QUIET: Final = 0.02  # seconds without a word: the other side waits for us
T = TypeVar("T")

GONE: Final = "gone.example"  # a domain that nobody may be mailed in
ANN: Final = "ann@customer.example"  # suppressed, in any of her spellings


@dataclass
class Failed:
    """What reached the outermost loop of a door: bugs, which it survives."""

    errors: list[BaseException] = field(default_factory=list)

    def hear(self, loop: asyncio.AbstractEventLoop) -> None:
        """What nobody caught in this loop, too."""

        def heard(_: asyncio.AbstractEventLoop, about: dict[str, Any]) -> None:
            self.errors.append(about.get("exception") or AssertionError(about["message"]))

        loop.call_soon_threadsafe(loop.set_exception_handler, heard)

    def check(self) -> None:
        """Raises the first."""
        errors, self.errors = self.errors, []
        for error in errors:
            raise error


@contextmanager
def watched() -> Iterator[Failed]:
    """While this lasts, what `events.failed` is told is kept instead of logged; nothing is logged at all."""
    failed = Failed()
    with mock.patch.object(events, "failed", lambda _, error: failed.errors.append(error)), silent():
        yield failed


@contextmanager
def silent() -> Iterator[None]:
    """No log: a fuzzer makes a great many lines."""
    with Path("/dev/null").open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        events.configure("json", "error")
        yield


@contextmanager
def ledger() -> Iterator[Books]:
    """One in which Ann and a whole domain are suppressed."""
    with TemporaryDirectory() as directory:
        made = books(Path(directory) / "ledger")
        made.suppress(ANN)
        made.suppress(f"@{GONE}")
        try:
            yield made
        finally:
            made.close()


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self, failed: Failed) -> None:
        self._loop = asyncio.new_event_loop()
        failed.hear(self._loop)
        self._thread = threading.Thread(target=self._loop.run_forever, name="fuzzed")
        self._thread.start()

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for it."""
        done: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return done.result(PATIENCE)

    def close(self) -> None:
        """Let it end."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


@contextmanager
def running(server: AbstractAsyncContextManager[T], failed: Failed) -> Iterator[tuple[T, Loop]]:
    """An asynchronous server, entered in the loop of a thread. `failed` is told what nobody catches there."""
    loop = Loop(failed)
    try:
        entered = loop.do(server.__aenter__())
        try:
            yield entered, loop
        finally:
            loop.do(_left(server))
    finally:
        loop.close()


async def _left(server: AbstractAsyncContextManager[Any]) -> None:
    await server.__aexit__(None, None, None)


def said(port: int, octets: bytes) -> bytes:
    """Say all of it, piece by piece, then nothing more; all that comes back until the other side hangs up.

    Raises TimeoutError if it does not.
    """
    heard = bytearray()
    with socket.create_connection((HOST, port), timeout=PATIENCE) as line, _hung_up():
        for n, piece in enumerate(octets.split(PAUSE)):
            if 0 < n <= PAUSES:
                _listen(line, heard)
            line.settimeout(PATIENCE)
            line.sendall(piece)
        line.shutdown(socket.SHUT_WR)
        line.settimeout(PATIENCE)
        while more := line.recv(65_536):
            heard += more
    return bytes(heard)


@contextmanager
def _hung_up() -> Iterator[None]:
    """That the other side has gone is no failure; that it never speaks, nor goes, is one."""
    try:
        yield
    except ConnectionError:
        pass
    except OSError as why:
        if why.errno != errno.ENOTCONN:
            raise


def _listen(line: socket.socket, heard: bytearray) -> None:
    """Until it is quiet; a first word is waited for a little longer."""
    line.settimeout(10 * QUIET)
    with contextlib.suppress(TimeoutError):
        while more := line.recv(65_536):
            heard += more
            line.settimeout(QUIET)


@dataclass
class Scripted:
    """A server that says the pieces of an input: the first at once, then one for each line that it hears.

    After the last, or when nobody speaks for a moment, it hangs up. `heard`: all that it was told, of all connections.
    """

    port: int = 0
    pieces: list[bytes] = field(default_factory=list)
    heard: list[bytes] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def answer(self, line: bytes, piece: bytes) -> bytes:
        """What is said to this line."""
        return piece

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task
        self.tasks.add(task)
        with contextlib.suppress(OSError, TimeoutError, ValueError, asyncio.CancelledError):
            await self._converse(reader, writer)
        self.tasks.discard(task)
        writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = b""
        for piece in list(self.pieces):
            writer.write(self.answer(line, piece))
            await writer.drain()
            async with asyncio.timeout(5 * QUIET):
                line = await self.listen(reader)
            if not line:
                return
            self.heard.append(line)

    async def listen(self, reader: asyncio.StreamReader) -> bytes:
        """The next line; b"": the client has gone."""
        return await reader.readline()
