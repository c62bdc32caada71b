"""Thousands of messages through one process: what it holds afterwards is what it held before."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import tracemalloc

import pytest

from tests.ledgers import Books
from tests.relay.conftest import Log
from tests.relay.desk import Desk, relay
from tests.relay.faulty import reset_on_close, until
from tests.relay.puppet import Puppet
from tests.relay.trouble import nothing_is_left, unfinished

pytestmark = pytest.mark.usefixtures("nothing_unexpected")

DIALOGUE = (
    b"EHLO x\r\nMAIL FROM:<n@x.example>\r\nRCPT TO:<bob@example.com>\r\nRCPT TO:<ann@example.com>\r\nRCPT TO:<nobody@example.com>\r\n"
    b"DATA\r\nSubject: offer\r\nList-Id: <newsletter.quillpdf.example>\r\n\r\nhello\r\n.\r\n"
    b"MAIL FROM:<n@x.example>\r\nRCPT TO:<ann@example.com>\r\nDATA\r\n"
)  # to somebody, to somebody who has opted out, to somebody whom the upstream refuses; then to nobody who is left
HANDFUL = 300  # of clients


async def client(desk: Desk, dice: random.Random) -> None:
    """Two messages, pipelined or in groups of 40 octets; a third of the clients leave somewhere, in some way."""
    reader, writer = await asyncio.open_connection("127.0.0.1", desk.port)
    with contextlib.suppress(OSError):
        leaves = dice.randrange(len(DIALOGUE)) if dice.random() < 0.3 else None
        said = DIALOGUE[:leaves]
        step = dice.choice([len(said), 40])
        for at in range(0, len(said), step or 1):
            writer.write(said[at : at + step])
            await writer.drain()
        if leaves is not None and dice.random() < 0.5:
            reset_on_close(writer)
        elif leaves is None:
            end = b"..\r\n.\r\nQUIT\r\n" if desk.server.context.settings.mode == "strip" else b"RSET\r\nQUIT\r\n"
            writer.write(end)
            assert (await reader.read()).endswith(b"221 2.0.0 bye\r\n")
    writer.transport.abort()


async def a_handful(desks: list[Desk], upstream: Puppet, dice: random.Random) -> None:
    """Some clients at a time, until all have gone."""
    for _ in range(0, HANDFUL, 20):
        await asyncio.gather(*(client(dice.choice(desks), dice) for _ in range(20)))
    for desk in desks:
        await until(lambda desk=desk: not desk.server._clients)  # type: ignore[misc]
    upstream.messages.clear()
    upstream.halves.clear()
    upstream.commands.clear()
    Log.said.clear()


def held() -> tuple[int, int]:
    """Octets that are in use, and live timers."""
    gc.collect()
    loop = asyncio.get_running_loop()
    timers = [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
    return tracemalloc.get_traced_memory()[0], len(timers)


async def test_memory_is_flat(ledger: Books, upstream: Puppet) -> None:
    """A leak of one small object a client would be 50 octets x 1,800."""
    ledger.suppress("ann@example.com")
    upstream.says["RCPT TO:<nobody@example.com>"] = b"550 5.1.1 no such user\r\n"
    dice = random.Random(7)
    async with relay(ledger, upstream) as refusing, relay(ledger, upstream, mode="strip") as stripping:
        desks = [refusing, stripping]
        tracemalloc.start()
        try:
            for _ in range(2):
                await a_handful(desks, upstream, dice)
            octets, timers = held()
            for _ in range(6):
                await a_handful(desks, upstream, dice)
            octets_after, timers_after = held()
        finally:
            tracemalloc.stop()
        assert octets_after - octets < 50_000
        assert timers_after - timers <= 20  # one of each connection to the upstream that is kept
        assert unfinished() == []
        for desk in desks:
            desk.server.pool.hops[0].hang_up()
        for desk in desks:
            await nothing_is_left(desk, upstream)
