"""How many connections there are at a time, and who gets the next one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from daemon.upstream import Lost, told
from tests.sink import Sink
from tests.upstream.conftest import MakePool
from tests.upstream.several import Clock, at, places, until
from tests.upstream.support import deliver, delivery, lost, rcpt

# ------------------------------------------------------------------ places


async def test_places_are_given_in_the_order_of_asking(first: Sink, pool_of: MakePool) -> None:
    pool = pool_of(at(first), connections=2)
    served = []

    async def one(number: int) -> None:
        connection, _ = await pool.take()
        served.append(number)
        await asyncio.sleep(0.002)
        pool.give_back(connection)

    tasks = [asyncio.create_task(one(n)) for n in range(20)]
    await asyncio.sleep(0)
    assert pool.waiting == 18
    await asyncio.gather(*tasks)
    assert served == list(range(20))
    assert (pool.waiting, places(pool), first.connections) == (0, [2], 2)


async def test_whoever_waits_for_a_server_that_dies_goes_to_the_next(
    first: Sink, second: Sink, pool_of: MakePool
) -> None:
    pool = pool_of(at(first), at(second), connections=1)
    message = delivery(pool)
    await message.rcpt(rcpt())
    waiting = [asyncio.create_task(deliver(pool, f"p{n}")) for n in range(5)]
    await until(lambda: pool.waiting == 5)
    await asyncio.to_thread(first.stop)
    message.drop()
    assert all(reply.good for reply in await asyncio.gather(*waiting))
    assert len(second.messages) == 5
    assert (pool.waiting, places(pool)) == (0, [1, 1])


async def test_a_full_server_is_waited_for_and_no_reason_to_ask_the_next(
    first: Sink, second: Sink, pool_of: MakePool
) -> None:
    pool = pool_of(at(first), at(second), timeout=0.2, connections=1)
    connection, _ = await pool.take()
    with pytest.raises(Lost, match="all connections are in use"):
        await pool.take()
    assert second.connections == 0
    pool.give_back(connection)


async def test_nobody_stands_in_line_to_try_a_server_that_failed(
    first: Sink, second: Sink, pool_of: MakePool, clock: Clock
) -> None:
    """Its places are held by long messages on old connections, and it lets nobody else in."""
    pool = pool_of(at(first), at(second), connections=2)
    held = [await pool.take() for _ in range(2)]
    first.replies["GREETING"] = "421 4.7.0 too many connections"
    assert await lost(lambda: pool.hops[0].dial("relay.example", 1)) == "greeting"
    clock.pass_(6)
    async with asyncio.timeout(1):
        held.append(await pool.take())
    assert second.connections == 1
    for connection, _ in held:
        pool.give_back(connection)
    assert places(pool) == [2, 2]


@contextlib.asynccontextmanager
async def dying(server: Sink, after: int) -> AsyncIterator[None]:
    """It is cut in the middle of all that goes on, once it has had so many messages."""

    async def die() -> None:
        await asyncio.to_thread(server.wait_for, lambda: server.connections >= after)
        await asyncio.to_thread(server.stop)

    task = asyncio.create_task(die())
    yield
    await task


async def test_two_hundred_at_once_find_a_place_while_the_first_server_dies(
    first: Sink, second: Sink, pool_of: MakePool
) -> None:
    pool = pool_of(at(first), at(second), connections=10)

    async def one(n: int) -> None:
        connection, _ = await pool.take()
        await asyncio.sleep(0.01)
        pool.discard(connection) if n % 3 == 0 else pool.give_back(connection, reset=n % 3 == 1)

    async with dying(first, 15):
        await asyncio.gather(*(one(n) for n in range(200)))  # none raises
    assert second.connections > 0
    assert (pool.waiting, places(pool), pool._homes) == (0, [10, 10], {})


async def test_two_hundred_messages_are_each_delivered_once_or_told_to_come_again(
    first: Sink, second: Sink, pool_of: MakePool
) -> None:
    pool = pool_of(at(first), at(second), connections=10)
    for server in (first, second):
        server.delays["DOT"] = 0.01
    again: list[tuple[int, str, str]] = []

    async def one(n: int) -> None:
        message = delivery(pool)
        try:
            await message.rcpt(rcpt(f"p{n}"))
            await message.data()
            assert (await message.dot()).good
        except Lost as why:
            again.append((n, told(why), why.step))
        finally:
            message.drop()

    async with dying(first, 10):
        await asyncio.gather(*(one(n) for n in range(200)))
    taken = [m.rcpt_to[0] for m in first.messages + second.messages]
    assert len(taken) == len(set(taken))
    assert {said[:10] for _, said, _ in again} <= {"451 4.4.2 "}
    unsure = sum(step == "dot" for _, _, step in again)  # the one case in which nobody can know
    assert 200 - len(again) <= len(taken) <= 200 - len(again) + unsure
    assert len(again) <= 10
    assert second.messages
    assert (pool.waiting, places(pool), pool._homes) == (0, [10, 10], {})


async def test_no_cancellation_costs_a_place(first: Sink, second: Sink, pool_of: MakePool) -> None:
    pool = pool_of(at(first), at(second), connections=2)
    first.delays["GREETING"] = 0.05
    for pause in (0, 0.01, 0.03, 0.06):
        tasks = [asyncio.create_task(deliver(pool)) for _ in range(8)]
        await asyncio.sleep(pause)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in list(pool._homes):  # of messages that were cut where the relay would have dropped them
            pool.discard(connection)
    assert (pool.waiting, places(pool)) == (0, [2, 2])
    assert (await deliver(pool)).good
