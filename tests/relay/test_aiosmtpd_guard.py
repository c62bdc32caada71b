"""The private names of aiosmtpd and asyncio that protocol.py relies on are there and do what it believes.

When one of these fails after an update, read protocol.py beside the new source before anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import inspect
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP

from daemon.relay.protocol import Protocol

Pair = tuple[Any, asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """A bare aiosmtpd server of one connection, and its client. Any: private names are what this is about."""
    loop = asyncio.get_running_loop()
    made: list[Any] = []

    def build() -> Any:
        made.append(SMTP(None, hostname="x", loop=loop))
        return made[0]

    server = await loop.create_server(build, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
    await reader.readline()
    yield made[0], reader, writer
    writer.close()
    server.close()
    with contextlib.suppress(asyncio.CancelledError):
        await made[0]._handler_coroutine


def test_the_version_is_the_one_that_was_read() -> None:
    assert importlib.metadata.version("aiosmtpd") == "1.4.6"


def test_what_we_override_is_there_to_be_overridden() -> None:
    inherited = ["connection_made", "connection_lost", "eof_received", "data_received", "push", "_handle_client"]
    for name in [*inherited, "_reset_timeout", "_timeout_cb"]:
        assert name in vars(Protocol)
        ours, theirs = getattr(Protocol, name), getattr(SMTP, name)
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters), name
        assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs), name


def test_no_name_of_ours_hides_one_of_theirs() -> None:
    """`Protocol` adds attributes to a class with many of its own."""
    loop = asyncio.new_event_loop()
    try:
        theirs = set(vars(SMTP(None, hostname="x", loop=loop))) | set(dir(SMTP))
    finally:
        loop.close()
    ours = set(inspect.getsource(Protocol.__init__).split("self.")[1:])
    named = {text.partition(" ")[0].partition(":")[0] for text in ours}
    assert named & theirs == set()


async def test_connection_made_starts_the_handler_and_the_timer(pair: Pair) -> None:
    server, _, _ = pair
    assert isinstance(server._handler_coroutine, asyncio.Task)
    assert isinstance(server._timeout_handle, asyncio.TimerHandle)
    assert server._timeout_duration == 300
    assert server.session.peer[0] == "127.0.0.1"


async def test_the_readers_buffer_is_a_bytearray_that_may_be_written_at_its_front(pair: Pair) -> None:
    server, reader, writer = pair
    assert isinstance(server._reader._buffer, bytearray)
    server._reader._buffer[:0] = b"NOOP x\r\n"
    writer.write(b"NOOP\r\n")
    assert [(await reader.readline())[:3] for _ in range(2)] == [b"250", b"250"]


async def test_the_writer_has_the_transport(pair: Pair) -> None:
    server, _, _ = pair
    assert server._writer.transport is server.transport


async def test_theirs_cancels_the_handler_at_half_close_and_so_ours_is_needed(pair: Pair) -> None:
    server, reader, writer = pair
    writer.write(b"NOOP\r\n")
    writer.write_eof()
    await reader.read()
    assert server._handler_coroutine.done()


async def test_the_base_of_theirs_tells_the_reader_of_the_end_and_keeps_the_half_open() -> None:
    """What our eof_received calls, past aiosmtpd."""
    reader = asyncio.StreamReader()
    assert asyncio.StreamReaderProtocol.eof_received(asyncio.StreamReaderProtocol(reader)) is True
    assert reader.at_eof()


async def test_readuntil_leaves_a_line_over_the_limit_in_the_buffer() -> None:
    for end in (b"", b"\n"):
        reader = asyncio.StreamReader(limit=10)
        reader.feed_data(b"x" * 20 + end)
        with pytest.raises(asyncio.LimitOverrunError) as found:
            await reader.readuntil(b"\n")
        assert len(reader._buffer) == 20 + len(end)  # type: ignore[attr-defined]
        assert 10 < found.value.consumed <= 20
