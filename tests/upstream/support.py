"""A message on its way through the pool, whole or in steps."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from daemon.delivery import Delivery
from daemon.upstream import Lost, Pool, Reply

MAIL = b"MAIL FROM:<news@quillpdf.example>\r\n"
BODY = b"Subject: offer\r\n\r\nhello\r\n"


def rcpt(name: str = "ann") -> bytes:
    return f"RCPT TO:<{name}@example.com>\r\n".encode()


def delivery(pool: Pool, needs: frozenset[str] = frozenset()) -> Delivery:
    return Delivery(pool, MAIL, needs)


async def deliver(pool: Pool, *names: str) -> Reply:
    """A whole message; the reply to its dot."""
    message = delivery(pool)
    for name in names or ("ann",):
        assert (await message.rcpt(rcpt(name))).good
    assert (await message.data()).code == 354
    await message.body(BODY)
    return await message.dot()


async def whole(pool: Pool) -> None:
    """The same as the relay does it: whatever goes wrong, the connection is dropped."""
    message = delivery(pool)
    try:
        await message.rcpt(rcpt())
        await message.data()
        await message.body(BODY)
        await message.dot()
    finally:
        message.drop()


async def lost(doing: Callable[[], object]) -> str:
    """The step at which it was lost."""
    with pytest.raises(Lost) as found:
        await doing()  # type: ignore[misc]
    return found.value.step


@contextlib.asynccontextmanager
async def scripted(*connections: Sequence[bytes | None], pieces: int = 0, timeout: float = 2) -> AsyncIterator[Pool]:
    """A server that sends the next octets of the script at each line it hears; b"": closes; None: stops reading.

    A script per connection. The body of a message counts as one line, since it ends in a lone dot.
    """
    scripts = iter(connections)
    tasks = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        body = False
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            for octets in next(scripts):
                if octets is None:
                    await asyncio.sleep(30)
                if not octets:
                    break
                for n in range(0, len(octets), pieces or len(octets)):
                    writer.write(octets[n : n + (pieces or len(octets))])
                    await writer.drain()
                    if pieces:
                        await asyncio.sleep(0.002)
                body = octets.startswith(b"354")
                while (line := await reader.readline()) and body and line != b".\r\n":
                    pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    pool = Pool("127.0.0.1", server.sockets[0].getsockname()[1], hostname="relay.example", timeout=timeout)
    try:
        yield pool
    finally:
        pool.close()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
