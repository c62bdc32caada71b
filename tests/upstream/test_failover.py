"""Several upstreams: the first that is well gets the mail, and no message goes to two."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator

import pytest

from daemon import dialling
from daemon.dialling import Endpoint
from daemon.upstream import Lost, Pool, told
from tests.sink import KEYWORDS, Sink, sink
from tests.upstream.certificates import Authority
from tests.upstream.conftest import MakePool
from tests.upstream.guarded import guarded
from tests.upstream.support import deliver, delivery, lost, rcpt, whole

Changes = list[tuple[int, str]]


@pytest.fixture
def first() -> Iterator[Sink]:
    with sink() as it:
        yield it


@pytest.fixture
def second() -> Iterator[Sink]:
    with sink() as it:
        yield it


def at(server: Sink) -> Endpoint:
    return Endpoint("127.0.0.1", server.port)


class Clock:
    """The loop's, which can be put forward."""

    def __init__(self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch):
        self.ahead = 0.0
        real = loop.time
        monkeypatch.setattr(loop, "time", lambda: real() + self.ahead)

    def pass_(self, seconds: float) -> None:
        self.ahead += seconds


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(asyncio.get_running_loop(), monkeypatch)


def places(pool: Pool) -> list[int]:
    """How many are free."""
    return [hop.places._value for hop in pool.hops]


async def until(happened: object, seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not happened():  # type: ignore[operator]
            await asyncio.sleep(0.005)


# ------------------------------------------------------------------ from one to the next


async def test_all_mail_goes_to_the_first_while_it_is_well(
    first: Sink, second: Sink, pool_of: MakePool, changes: Changes
) -> None:
    pool = pool_of(at(first), at(second))
    await asyncio.gather(*(deliver(pool) for _ in range(5)))
    assert (len(first.messages), second.connections) == (5, 0)
    assert changes == []


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("refuses", "connect: "),
        ("silent", "greeting: silent"),
        ("GREETING 421 4.7.0 too many connections", "greeting: 421"),
        ("GREETING 554 5.3.2 no", "greeting: 554"),
        ("GREETING drop", "greeting: closed"),
        ("EHLO 421 4.3.2 bye", "ehlo: 421"),
        ("EHLO 550 5.7.1 not you", "ehlo: 550"),
        ("EHLO drop", "ehlo: closed"),
    ],
)
async def test_the_next_is_asked_when_nothing_was_sent_to_the_one_before(
    first: Sink, second: Sink, pool_of: MakePool, changes: Changes, fault: str, why: str
) -> None:
    verb, _, reply = fault.partition(" ")
    if fault == "refuses":
        first.stop()
    elif fault == "silent":
        first.delays["GREETING"] = 30
    elif reply == "drop":
        first.drop_at = verb
    else:
        first.replies[verb] = reply
    pool = pool_of(at(first), at(second), timeout=0.3)
    assert (await deliver(pool)).good
    assert len(second.messages) == 1
    assert not [line for line in first.commands if not line.startswith("EHLO")]
    assert [port for port, _ in changes] == [second.port]
    assert changes[0][1].startswith(why)
    assert places(pool) == [20, 20]


async def test_a_server_to_which_no_connection_comes_about(
    second: Sink, pool_of: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialling, "CONNECT_SECONDS", 0.2)
    loop = asyncio.get_running_loop()
    real = loop.sock_connect

    async def nowhere(line: socket.socket, address: tuple[str, int]) -> None:
        await (asyncio.sleep(30) if address[1] == 9 else real(line, address))

    monkeypatch.setattr(loop, "sock_connect", nowhere)
    pool = pool_of(Endpoint("127.0.0.1", 9), at(second))
    assert (await deliver(pool)).good
    assert pool.hops[0].lost == "connect: timed out"


async def test_a_host_of_which_one_address_goes_nowhere(
    second: Sink, pool_of: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 8305: the other is not kept waiting until the time for both is up."""
    loop = asyncio.get_running_loop()
    real = loop.sock_connect
    both = [
        (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("::1", second.port, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", second.port)),
    ]

    async def resolve(*_: object, **__: object) -> object:
        return both

    async def half_way(line: socket.socket, address: tuple[str, int]) -> None:
        await (asyncio.sleep(30) if line.family is socket.AF_INET6 else real(line, address))

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    monkeypatch.setattr(loop, "sock_connect", half_way)
    async with asyncio.timeout(3):
        assert (await deliver(pool_of(Endpoint("mx.example", second.port)))).good


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a..b", "x" * 70 + ".example"])
async def test_a_name_that_is_not_known(second: Sink, pool_of: MakePool, name: str) -> None:
    pool = pool_of(Endpoint(name, 25), at(second))
    assert (await deliver(pool)).good
    assert pool.hops[0].lost.startswith("connect: ")


@pytest.mark.parametrize("fault", ["certificate", "no starttls", "password"])
async def test_bad_tls_and_a_refused_password_are_no_reason_to_lose_mail(
    ca: Authority, trust: ssl.SSLContext, second: Sink, pool_of: MakePool, changes: Changes, fault: str
) -> None:
    async with guarded(ca.issue("IP:127.0.0.2" if fault == "certificate" else "IP:127.0.0.1")) as server:
        if fault == "no starttls":
            server.says["EHLO"] = b"250 hi\r\n"
        server.says["AUTH"] = b"535 5.7.8 no\r\n"
        pool = pool_of(server.endpoint(trust, username="crm", password="secret"), at(second))
        assert (await deliver(pool)).good
    assert not [line for line in server.clear + server.secure if line.startswith(("MAIL", "RCPT"))]
    assert changes[0][1].startswith("auth: 535" if fault == "password" else "tls: ")


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "DOT"])
@pytest.mark.parametrize("how", ["drop", "421", "silence"])
async def test_what_was_begun_at_one_is_never_sent_to_another(
    first: Sink, second: Sink, pool_of: MakePool, monkeypatch: pytest.MonkeyPatch, verb: str, how: str
) -> None:
    monkeypatch.setattr("daemon.delivery.DOT_SECONDS", 0.2)
    if how == "drop":
        first.drop_at = verb
    elif how == "421":
        first.replies[verb] = "421 4.3.2 going down"
    else:
        first.delays[verb] = 30
    pool = pool_of(at(first), at(second), timeout=0.2)
    assert await lost(lambda: whole(pool)) == verb.lower()
    assert second.connections == 0
    assert pool.hops[0].lost == ""
    assert places(pool) == [20, 20]


async def test_a_server_that_closes_behind_its_ehlo_is_a_loss_and_not_two_deliveries(
    first: Sink, second: Sink, pool_of: MakePool
) -> None:
    first.drop_after = "EHLO"
    assert await lost(lambda: whole(pool_of(at(first), at(second)))) == "mail"
    assert second.messages == []


async def test_a_used_connection_found_dead_is_replaced_by_one_to_the_next(
    first: Sink, second: Sink, pool_of: MakePool
) -> None:
    pool = pool_of(at(first), at(second))
    await deliver(pool)
    await asyncio.to_thread(first.stop)
    assert (await deliver(pool)).good
    assert (len(first.messages), len(second.messages)) == (1, 1)


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "DOT"])
@pytest.mark.parametrize("reply", ["550 5.7.1 not you", "451 4.3.0 later"])
async def test_a_refusal_is_an_answer_and_no_reason_to_ask_another(
    first: Sink, second: Sink, pool_of: MakePool, verb: str, reply: str
) -> None:
    first.replies[verb] = reply
    message = delivery(pool_of(at(first), at(second)))
    said = [await message.rcpt(rcpt())]
    if verb in ("DATA", "DOT"):
        said.append(await message.data())
    if verb == "DOT":
        said.append(await message.dot())
    message.forget()
    assert str(said[-1]) == reply
    assert second.connections == 0


# ------------------------------------------------------------------ left alone, tried again, back


async def test_one_that_failed_is_left_alone_for_a_while(
    first: Sink, second: Sink, pool_of: MakePool, clock: Clock
) -> None:
    first.replies["GREETING"] = "554 5.3.2 no"
    pool = pool_of(at(first), at(second))
    asked = []
    for seconds in (0, 4, 2, 8, 3, 19, 2, 39, 2, 58, 3, 58, 3):  # it rests for 5, 10, 20, 40, 60, 60 s
        clock.pass_(seconds)
        before = first.connections
        assert (await deliver(pool)).good
        asked.append(first.connections - before)
    assert asked == [1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    assert len(second.messages) == len(asked)


async def test_many_failures_at_once_are_one(first: Sink, second: Sink, pool_of: MakePool, clock: Clock) -> None:
    first.delays["GREETING"] = 0.1
    first.drop_at = "EHLO"
    pool = pool_of(at(first), at(second))
    await asyncio.gather(*(deliver(pool) for _ in range(20)))
    assert first.connections == 20
    clock.pass_(5.1)
    assert not pool.hops[0].rests


async def test_an_answer_begins_the_counting_anew(first: Sink, second: Sink, pool_of: MakePool, clock: Clock) -> None:
    first.replies["GREETING"] = "554 5.3.2 no"
    pool = pool_of(at(first), at(second))
    for seconds in (0, 6, 11):
        clock.pass_(seconds)
        await deliver(pool)
    assert first.connections == 3
    first.replies.clear()
    await asyncio.to_thread(second.stop)
    await deliver(pool)  # the first is asked before its 20 s are over, since there is no other
    assert len(first.messages) == 1
    second.start()
    first.replies["GREETING"] = "554 5.3.2 no"
    pool.hops[0].hang_up()
    for seconds, asked in ((0, 5), (4, 5), (2, 6)):
        clock.pass_(seconds)
        await deliver(pool)
        assert first.connections == asked


async def test_whoever_began_before_it_failed_and_still_waits_is_the_one_to_find_out(
    first: Sink, second: Sink, pool_of: MakePool, clock: Clock
) -> None:
    pool = pool_of(at(first), at(second), timeout=20)
    first.delays["GREETING"] = 30
    waiting = asyncio.create_task(deliver(pool))
    await until(lambda: first.connections == 1)
    first.delays.clear()
    first.replies["GREETING"] = "554 5.3.2 no"
    await deliver(pool)
    clock.pass_(6)
    await deliver(pool)
    assert first.connections == 2
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_one_message_at_a_time_finds_out_whether_it_is_back(
    first: Sink, second: Sink, pool_of: MakePool, clock: Clock
) -> None:
    first.replies["GREETING"] = "554 5.3.2 no"
    pool = pool_of(at(first), at(second))
    await deliver(pool)
    clock.pass_(6)
    first.delays["GREETING"] = 30
    brave = asyncio.create_task(deliver(pool, "brave"))
    await until(lambda: first.connections == 2)
    clock.pass_(1)
    async with asyncio.timeout(5):
        await asyncio.gather(*(deliver(pool) for _ in range(10)))
    assert first.connections == 2
    assert not brave.done()
    brave.cancel()
    await asyncio.gather(brave, return_exceptions=True)
    assert places(pool) == [20, 20]
    assert not pool.hops[0].rests  # nobody found out: the next one may


async def test_when_it_is_back_mail_goes_there_and_the_other_is_left_in_peace(
    first: Sink, second: Sink, pool_of: MakePool, clock: Clock, changes: Changes
) -> None:
    first.stop()
    pool = pool_of(at(first), at(second))
    await deliver(pool)
    first.start()
    await deliver(pool)
    assert len(second.messages) == 2
    clock.pass_(6)
    await deliver(pool)
    await deliver(pool)
    assert len(first.messages) == 2
    assert changes[1:] == [(first.port, "it is preferred, and answers again")]
    assert len(pool.hops[1].idle) == 1
    clock.pass_(61)
    await deliver(pool)
    assert not pool.hops[1].idle
    await asyncio.to_thread(second.wait_for, lambda: second.commands[-1] == "QUIT")


async def test_a_server_that_is_no_longer_well_is_not_trusted_with_its_old_connections(
    first: Sink, second: Sink, pool_of: MakePool
) -> None:
    pool = pool_of(at(first), at(second))
    await asyncio.gather(*(deliver(pool) for _ in range(4)))
    first.replies["GREETING"] = "421 4.3.2 going down"
    assert await lost(lambda: pool.hops[0].dial("relay.example", 1)) == "greeting"
    assert not pool.hops[0].idle
    await deliver(pool)
    assert len(second.messages) == 1


# ------------------------------------------------------------------ none is well


async def test_when_all_are_down_each_has_its_say(
    ca: Authority, trust: ssl.SSLContext, first: Sink, pool_of: MakePool
) -> None:
    first.stop()
    async with guarded(ca.issue("IP:127.0.0.1"), AUTH=b"535 5.7.8 no\r\n") as server:
        pool = pool_of(at(first), server.endpoint(trust, username="crm", password="secret"))
        for _ in range(2):
            with pytest.raises(Lost) as found:
                await pool.take()
            assert found.value.step == "auth"  # it came further, and is what somebody has to mend
            assert f"127.0.0.1:{first.port} connect: " in str(found.value)
            assert f"127.0.0.1:{server.port} auth: 535 5.7.8" in str(found.value)
            assert told(found.value).startswith("451 4.4.1")
    assert places(pool) == [20, 20]


async def test_when_none_is_well_those_that_rest_are_asked_all_the_same(
    first: Sink, second: Sink, pool_of: MakePool
) -> None:
    """A wait is better than a refusal: a server that is back after a second must not be away for five."""
    first.stop()
    second.stop()
    pool = pool_of(at(first), at(second))
    assert await lost(pool.take) == "connect"
    second.start()
    assert (await deliver(pool)).good
    first.start()
    second.stop()
    assert (await deliver(pool)).good
    assert len(first.messages) == 1


# ------------------------------------------------------------------ what may be offered


async def test_only_what_all_can_do_is_offered(pool_of: MakePool) -> None:
    with (
        sink(("PIPELINING", "SIZE 0", "DSN", "8BITMIME")) as one,
        sink(("SIZE 2000", "8BITMIME")) as two,
        sink(("SIZE 1000", "8BITMIME", "SMTPUTF8")) as three,
    ):
        pool = pool_of(at(one), at(two), at(three))
        await deliver(pool)
        assert pool.features == {"PIPELINING": "", "SIZE": "0", "DSN": "", "8BITMIME": ""}  # the only one that spoke
        await pool.probe()
        assert pool.features == {"SIZE": "1000", "8BITMIME": ""}


@pytest.mark.parametrize(
    ("sizes", "least"),
    [(("SIZE", "SIZE 7"), "7"), (("SIZE", "SIZE 0"), ""), (("SIZE x", "SIZE 9 8"), ""), (("SIZE 7", ""), None)],
)
async def test_the_least_size_counts(pool_of: MakePool, sizes: tuple[str, str], least: str | None) -> None:
    with sink((sizes[0],)) as one, sink((sizes[1] or "DSN",)) as two:
        pool = pool_of(at(one), at(two))
        await pool.probe()
        assert pool.features.get("SIZE") == least


async def test_a_probe_of_all_is_no_change(first: Sink, second: Sink, pool_of: MakePool, changes: Changes) -> None:
    pool = pool_of(at(first), at(second))
    await pool.probe()
    await deliver(pool)
    assert (first.connections, second.connections, len(first.messages)) == (1, 1, 1)
    assert changes == []


async def test_a_probe_is_content_with_one_answer(first: Sink, second: Sink, pool_of: MakePool) -> None:
    second.stop()
    pool = pool_of(at(first), at(second))
    await pool.probe()
    assert set(pool.features) == {keyword.split()[0] for keyword in KEYWORDS}
    first.stop()
    pool = pool_of(at(first), at(second))
    assert await lost(pool.probe) == "connect"


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
