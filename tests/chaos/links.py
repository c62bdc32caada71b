"""The wires between the parts: TCP relays of our own, which can be cut, stalled, and made to swallow what goes over them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tests.loopback import HOST, free_port

# open     as a wire is
# cut      what is connected is reset, and so is whoever comes
# stalled  nothing moves, and nothing is lost
# swallows whatever is said by either side is lost
# deaf     what the caller says arrives, what is answered to it is lost
# halved   the caller hears that the other side has finished, and may go on talking
State = Literal["open", "cut", "stalled", "swallows", "deaf", "halved"]
BROKEN: Final[tuple[State, ...]] = ("cut", "stalled", "swallows", "deaf", "halved")
_LOSING: Final = ("swallows", "deaf", "halved")  # no TCP connection goes on with a gap in it


@dataclass
class Link:
    """One wire: who connects to `port` reaches `target`."""

    name: str
    target: int
    port: int = field(default_factory=free_port)
    state: State = "open"
    _server: asyncio.Server | None = None
    _moves: asyncio.Event = field(default_factory=asyncio.Event)
    _lines: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[object]] = field(default_factory=set)  # the loop itself holds them weakly

    async def listen(self) -> None:
        """Begin."""
        self._moves.set()
        self._server = await asyncio.start_server(self._accepted, HOST, self.port, backlog=256)

    async def end(self) -> None:
        """Nobody is connected any more, and nobody comes."""
        if self._server is not None:
            self._server.close()
        await self.become("cut")

    async def become(self, state: State) -> None:
        """Break it, or mend it."""
        if state == "cut" or self.state in _LOSING:
            self._reset()
        self.state = state
        if state == "stalled":
            self._moves.clear()
        else:
            self._moves.set()
        if state == "halved":
            for line in tuple(self._lines):
                with contextlib.suppress(OSError, RuntimeError):
                    line.write_eof()

    def _reset(self) -> None:
        for line in tuple(self._lines):
            line.transport.abort()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._lines.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there: asyncio.StreamWriter | None = None
        try:
            if self.state == "cut":
                return
            await self._moves.wait()
            if self.state in ("swallows", "halved"):
                await reader.read()
                return
            back, there = await asyncio.open_connection(HOST, self.target)
            talks = [asyncio.create_task(self._carry(reader, there, "there"))]
            talks.append(asyncio.create_task(self._carry(back, writer, "back")))
            await asyncio.wait(talks, return_when=asyncio.FIRST_EXCEPTION)
            for talk in talks:
                talk.cancel()
            await asyncio.gather(*talks, return_exceptions=True)
        except OSError:
            pass
        finally:
            self._lines.discard(writer)
            self._tasks.discard(task)
            if there is not None:
                there.transport.abort()
            # what was answered last still goes out on a wire that is whole
            writer.close() if self.state == "open" else writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        while octets := await reader.read(1 << 16):
            await self._moves.wait()
            if self.state == "swallows" or (way == "back" and self.state in ("deaf", "halved")):
                continue
            writer.write(octets)
            await writer.drain()
        if writer.can_write_eof() and not writer.is_closing():
            writer.write_eof()
        if way == "back":
            raise ConnectionResetError  # the server has finished: nobody waits for the caller to notice


class Links:
    """All wires, carried by one thread."""

    def __init__(self) -> None:
        self.all: dict[str, Link] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Carry from here to the end of the block."""
        self._thread.start()
        try:
            yield
        finally:
            with contextlib.suppress(TimeoutError):
                self._do(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    def lay(self, name: str, target: int) -> int:
        """A new wire; the port to connect to."""
        link = self.all[name] = Link(name, target)
        self._do(link.listen())
        return link.port

    def become(self, name: str, state: State) -> None:
        """Break a wire, or mend it; returns when that is done."""
        self._do(self.all[name].become(state))

    def _do(self, work: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _end(self) -> None:
        for link in self.all.values():
            await link.end()
        mine = asyncio.current_task()
        tasks = [t for t in asyncio.all_tasks() if t is not mine]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
