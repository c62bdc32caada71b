"""Several upstreams: the first that is well gets the mail, and no message goes to two."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from daemon import dialling
from daemon.dialling import Endpoint
from tests.sink import Sink
from tests.upstream.certificates import Authority
from tests.upstream.conftest import MakePool
from tests.upstream.guarded import guarded
from tests.upstream.several import Changes, Clock, at, places, until
from tests.upstream.support import deliver, delivery, lost, rcpt, whole

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
