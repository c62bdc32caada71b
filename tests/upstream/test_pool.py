"""The SMTP client and its pool, against a server that does as it is told."""

from __future__ import annotations

import asyncio

import pytest

from daemon import upstream
from daemon.upstream import Endpoint, Pool
from tests.sink import KEYWORDS, Sink, sink
from tests.upstream.support import BODY, deliver, delivery, lost, rcpt, scripted, whole

# ------------------------------------------------------------------ a message


async def test_a_message_goes_out_as_given_and_its_reply_comes_back(server: Sink, pool: Pool) -> None:
    server.replies["DOT"] = "250-2.0.0 thanks\r\n250 2.0.0 queued as 4711"
    reply = await deliver(pool, "ann", "bob")
    assert str(reply) == "250-2.0.0 thanks\r\n250 2.0.0 queued as 4711"
    (message,) = server.messages
    assert message.rcpt_to == ("<ann@example.com>", "<bob@example.com>")
    assert message.data == BODY


@pytest.mark.parametrize("keywords", [KEYWORDS, ("SIZE 100",), ()])
async def test_with_and_without_pipelining(keywords: tuple[str, ...]) -> None:
    with sink(keywords) as server:
        pool = Pool([Endpoint("127.0.0.1", server.port)], hostname="relay.example", timeout=2)
        assert (await deliver(pool, "ann", "bob")).good
        assert pool.features == {k.partition(" ")[0]: k.partition(" ")[2] for k in keywords}
        assert len(server.messages) == 1
        pool.close()


async def test_nothing_is_said_to_the_upstream_before_the_first_recipient(server: Sink, pool: Pool) -> None:
    message = delivery(pool)
    assert not message.begun
    message.forget()
    message.drop()
    assert server.connections == 0


async def test_a_recipient_is_refused_word_for_word_and_the_others_go_on(server: Sink, pool: Pool) -> None:
    server.replies["RCPT <bad@example.com>"] = "550-5.1.1 no such\r\n550 5.1.1 user"
    message = delivery(pool)
    assert (await message.rcpt(rcpt("ann"))).good
    assert str(await message.rcpt(rcpt("bad"))) == "550-5.1.1 no such\r\n550 5.1.1 user"
    assert (await message.data()).code == 354
    await message.body(BODY)
    assert (await message.dot()).good
    assert server.messages[0].rcpt_to == ("<ann@example.com>",)


@pytest.mark.parametrize("keywords", [KEYWORDS, ()])
async def test_a_refusal_of_mail_is_the_answer_for_every_recipient(keywords: tuple[str, ...]) -> None:
    with sink(keywords) as server:
        pool = Pool([Endpoint("127.0.0.1", server.port)], hostname="relay.example", timeout=2)
        server.replies["MAIL"] = "550 5.7.1 not you"
        message = delivery(pool)
        assert [str(await message.rcpt(rcpt(n))) for n in ("ann", "bob")] == ["550 5.7.1 not you"] * 2
        message.forget()
        server.replies.clear()
        assert (await deliver(pool)).good
        assert server.connections == 1
        pool.close()


async def test_a_refused_dot_is_passed_on_and_the_connection_stays(server: Sink, pool: Pool) -> None:
    server.replies["DOT"] = "554 5.7.1 spam"
    assert str(await deliver(pool)) == "554 5.7.1 spam"
    server.replies.clear()
    assert (await deliver(pool)).good
    assert server.connections == 1


async def test_a_replay_names_some_of_the_recipients_again(server: Sink, pool: Pool) -> None:
    message = delivery(pool)
    for name in ("ann", "bob", "cem"):
        await message.rcpt(rcpt(name))
    assert [r.code for r in await message.replay([rcpt("bob"), rcpt("cem")])] == [250, 250]
    await message.data()
    await message.body(BODY)
    assert (await message.dot()).good
    assert [m.rcpt_to for m in server.messages] == [("<bob@example.com>", "<cem@example.com>")]


async def test_an_extension_that_went_away_is_a_loss_and_not_a_surprise(server: Sink, pool: Pool) -> None:
    assert await lost(lambda: delivery(pool, frozenset({"SMTPUTF8", "CHUNKING"})).rcpt(rcpt())) == "connect"
    assert server.messages == []


# ------------------------------------------------------------------ unfinished


async def test_an_unfinished_body_is_never_delivered(server: Sink, pool: Pool) -> None:
    message = delivery(pool)
    await message.rcpt(rcpt())
    await message.data()
    await message.body(BODY)
    message.drop()
    await asyncio.to_thread(server.wait_for, lambda: server.half_messages == 1)
    assert server.transactions == []
    assert (await deliver(pool)).good
    assert server.connections == 2


async def test_a_transaction_that_is_forgotten_leaves_a_good_connection(server: Sink, pool: Pool) -> None:
    message = delivery(pool)
    await message.rcpt(rcpt("ann"))
    message.forget()
    assert (await deliver(pool, "bob")).good
    assert server.messages[0].rcpt_to == ("<bob@example.com>",)
    assert (server.connections, server.resets) == (1, 1)


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_a_connection_left_in_the_middle_of_a_command_is_not_used_again(
    server: Sink, pool: Pool, verb: str
) -> None:
    """Its reply is still to come, and would be taken for the answer to somebody else's command."""
    await pool.probe()
    message = delivery(pool)
    if verb == "DATA":
        await message.rcpt(rcpt())
    server.delays[verb] = 0.5
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await (message.data() if verb == "DATA" else message.rcpt(rcpt()))
    message.forget()
    server.delays.clear()
    assert (await deliver(pool, "bob")).good
    assert server.connections == 2
    assert [m.rcpt_to for m in server.messages] == [("<bob@example.com>",)]


async def test_a_slow_upstream_is_not_sent_more_than_it_reads(pool: Pool) -> None:
    async with scripted([b"220 hi\r\n", b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", None]) as slow:
        message = delivery(slow)
        await message.rcpt(rcpt())
        await message.data()
        slow.timeout = 0.3

        async def pour() -> None:
            for _ in range(1000):
                await message.body(b"x" * 65536)

        assert await lost(pour) == "body"


# ------------------------------------------------------------------ the pool


async def test_a_connection_is_used_again(server: Sink, pool: Pool) -> None:
    for _ in range(3):
        assert (await deliver(pool)).good
    assert server.connections == 1


async def test_after_five_refusals_a_connection_is_retired(server: Sink, pool: Pool) -> None:
    server.replies["RCPT <bad@example.com>"] = "550 5.1.1 no"
    for refusals, expected in ((4, 1), (1, 1), (0, 2)):
        message = delivery(pool)
        await message.rcpt(rcpt())
        for _ in range(refusals):
            await message.rcpt(rcpt("bad"))
        assert server.connections == expected
        message.forget()


async def test_after_fifty_resets_a_connection_is_retired(server: Sink, pool: Pool) -> None:
    for _ in range(52):
        message = delivery(pool)
        await message.rcpt(rcpt())
        message.forget()
    assert server.connections == 2
    assert server.resets <= 52


async def test_a_delivery_begins_the_counting_anew(server: Sink, pool: Pool) -> None:
    server.replies["RCPT <bad@example.com>"] = "550 5.1.1 no"
    for _ in range(4):
        message = delivery(pool)
        await message.rcpt(rcpt())
        for _ in range(3):
            await message.rcpt(rcpt("bad"))
        await message.data()
        assert (await message.dot()).good
    assert server.connections == 1


async def test_there_are_never_more_connections_than_allowed(server: Sink) -> None:
    pool = Pool([Endpoint("127.0.0.1", server.port)], hostname="relay.example", timeout=5, connections=3)
    server.delays["DOT"] = 0.05
    replies = await asyncio.gather(*(deliver(pool, f"p{n}") for n in range(20)))
    assert all(r.good for r in replies)
    assert server.connections <= 3
    pool.close()


async def test_whoever_waits_too_long_for_a_connection_is_told(server: Sink) -> None:
    pool = Pool([Endpoint("127.0.0.1", server.port)], hostname="relay.example", timeout=0.2, connections=1)
    message = delivery(pool)
    await message.rcpt(rcpt())
    assert await lost(pool.take) == "connect"
    message.forget()
    assert (await deliver(pool)).good
    pool.close()


async def test_no_failure_costs_a_place_in_the_pool(server: Sink) -> None:
    pool = Pool([Endpoint("127.0.0.1", server.port)], hostname="relay.example", timeout=1, connections=1)
    for step in ("GREETING", "EHLO", "MAIL", "RCPT", "DATA", "DOT"):
        pool.close()  # the idle ones: begin with a greeting
        server.drop_at = step
        assert await lost(lambda: whole(pool)) == step.lower()
        server.drop_at = ""
        assert (await deliver(pool)).good
    pool.close()


async def test_a_connection_that_stood_idle_for_long_is_not_trusted(
    server: Sink, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deliver(pool)
    monkeypatch.setattr(upstream, "IDLE_SECONDS", 0)
    await asyncio.sleep(0.01)
    await deliver(pool)
    assert server.connections == 2
