"""The SMTP client and its pool, against a server that does as it is told and against one that does what it should not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import pytest

from daemon import upstream
from daemon.upstream import Connection, Delivery, Lost, Pool, Reply, told
from tests.sink import KEYWORDS, Sink, sink

MAIL = b"MAIL FROM:<news@quillpdf.example>\r\n"
BODY = b"Subject: offer\r\n\r\nhello\r\n"


def rcpt(name: str = "ann") -> bytes:
    return f"RCPT TO:<{name}@example.com>\r\n".encode()


@pytest.fixture
def server() -> Iterator[Sink]:
    with sink() as it:
        yield it


@pytest.fixture
async def pool(server: Sink) -> AsyncIterator[Pool]:
    it = Pool("127.0.0.1", server.port, hostname="relay.example", timeout=2)
    yield it
    it.close()
    await asyncio.sleep(0)


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
        pool = Pool("127.0.0.1", server.port, hostname="relay.example", timeout=2)
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
        pool = Pool("127.0.0.1", server.port, hostname="relay.example", timeout=2)
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
    pool = Pool("127.0.0.1", server.port, hostname="relay.example", timeout=5, connections=3)
    server.delays["DOT"] = 0.05
    replies = await asyncio.gather(*(deliver(pool, f"p{n}") for n in range(20)))
    assert all(r.good for r in replies)
    assert server.connections <= 3
    pool.close()


async def test_whoever_waits_too_long_for_a_connection_is_told(server: Sink) -> None:
    pool = Pool("127.0.0.1", server.port, hostname="relay.example", timeout=0.2, connections=1)
    message = delivery(pool)
    await message.rcpt(rcpt())
    assert await lost(pool.take) == "connect"
    message.forget()
    assert (await deliver(pool)).good
    pool.close()


async def test_no_failure_costs_a_place_in_the_pool(server: Sink) -> None:
    pool = Pool("127.0.0.1", server.port, hostname="relay.example", timeout=1, connections=1)
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


# ------------------------------------------------------------------ lost


async def test_an_upstream_that_restarted_is_not_noticed_by_the_client(server: Sink, pool: Pool) -> None:
    await deliver(pool)
    await asyncio.to_thread(server.stop)
    server.start()
    assert (await deliver(pool)).good


@pytest.mark.parametrize("said", ["", "421 4.4.2 timeout"], ids=["silently", "with a 421"])
async def test_a_used_connection_found_dead_at_mail_is_replaced_once(said: str) -> None:
    """Neither side has said anything of the message yet, so beginning again is harmless."""
    hello = [b"220 hi\r\n", b"250 hi\r\n"]
    good = [b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", b"250 taken\r\n"]
    dying: list[bytes | None] = [*hello, *good, said.encode() + b"\r\n" if said else b""]
    async with scripted(dying, [*hello, *good]) as pool:
        assert (await deliver(pool)).good
        assert (await deliver(pool)).good


async def test_it_is_replaced_once_and_not_for_ever() -> None:
    hello = [b"220 hi\r\n", b"250 hi\r\n"]
    dying: list[bytes | None] = [*hello, b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", b"250 taken\r\n", b""]
    async with scripted(dying, [*hello, b""], [*hello, b"250 ok\r\n"]) as pool:
        await deliver(pool)
        message = delivery(pool)
        assert await lost(lambda: message.rcpt(rcpt())) == "mail"
        message.drop()


async def test_a_fresh_connection_that_dies_at_mail_is_a_loss(server: Sink, pool: Pool) -> None:
    server.drop_at = "MAIL"
    assert await lost(lambda: delivery(pool).rcpt(rcpt())) == "mail"
    assert server.connections == 1


@pytest.mark.parametrize(("verb", "step"), [("RCPT", "rcpt"), ("DATA", "data"), ("DOT", "dot")])
async def test_later_than_mail_nothing_is_done_twice(server: Sink, pool: Pool, verb: str, step: str) -> None:
    await deliver(pool)
    server.drop_at = verb

    assert await lost(lambda: whole(pool)) == step
    assert server.connections == 1
    assert len(server.messages) == 1


@pytest.mark.parametrize(
    ("verb", "step"),
    [("GREETING", "greeting"), ("EHLO", "ehlo"), ("MAIL", "mail"), ("RCPT", "rcpt"), ("DATA", "data"), ("DOT", "dot")],
)
@pytest.mark.parametrize("how", ["421", "silence"])
async def test_a_421_and_silence_are_losses_at_every_step(
    server: Sink, verb: str, step: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "DOT_SECONDS", 0.3)
    pool = Pool("127.0.0.1", server.port, hostname="relay.example", timeout=0.3)
    if how == "421":
        server.replies[verb] = "421 4.3.2 going down"
    else:
        server.delays[verb] = 30
    assert await lost(lambda: whole(pool)) == step
    assert server.messages == []
    pool.close()


@pytest.mark.parametrize("greeting", ["450 4.3.2 later", "554 5.3.2 go away", "250 odd"])
async def test_a_greeting_that_is_no_welcome_is_a_loss(server: Sink, pool: Pool, greeting: str) -> None:
    server.replies["GREETING"] = greeting
    assert await lost(pool.probe) == "greeting"


async def test_an_old_server_is_greeted_with_helo(server: Sink, pool: Pool) -> None:
    server.replies["EHLO"] = "502 5.5.2 what"
    assert (await deliver(pool)).good
    assert pool.features == {}
    assert [c for c in server.commands if c.startswith("HELO")] == ["HELO relay.example"]


async def test_nobody_listens(server: Sink, pool: Pool) -> None:
    server.stop()
    assert await lost(pool.probe) == "connect"
    server.start()
    await pool.probe()


@pytest.mark.parametrize(
    ("step", "code"),
    [
        *((s, "451 4.4.1 ") for s in ("connect", "greeting", "ehlo")),
        *((s, "451 4.4.2 ") for s in ("mail", "rcpt", "dot")),
    ],
)
def test_a_client_is_told_to_come_back_and_nothing_of_why(step: str, code: str) -> None:
    said = told(Lost(step, "421 secret.internal.example says no to ann@example.com"))
    assert said.startswith(code)
    assert "example" not in said


# ------------------------------------------------------------------ replies


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


async def test_a_reply_may_come_octet_by_octet() -> None:
    script: list[bytes | None] = [
        b"220-hi\r\n220 there\r\n",
        b"250-hi\r\n250 DSN\r\n",
        b"250 ok\r\n",
        b"250 ok\r\n",
        b"354 go\r\n",
        b"250 a\r\n",
    ]
    async with scripted(script, pieces=1) as pool:
        assert (await deliver(pool)).lines == ("a",)
        assert pool.features == {"DSN": ""}


@pytest.mark.parametrize(
    "line", [b"250 ok\n", b"250\r\n", b"250 \r\n", b"250 Danke, \xc3\xbcbernommen\r\n", b"299 x\r\n"]
)
async def test_replies_are_read_generously(line: bytes) -> None:
    async with scripted([b"220 hi\r\n", b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", line]) as pool:
        assert (await deliver(pool)).good


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\r\n",
        b"\r\n",
        b"2\r\n",
        b"25\r\n",
        b"2500 ok\r\n",
        b"150 wait\r\n",
        b"650 what\r\n",
        b"250x\r\n",
        b"-50 ok\r\n",
        b"\xff\xfe\x00\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"garbage\r\n250 ok\r\n",
        b"250-" + b"x" * 70_000,
        b"250-x\r\n" * 300,
        b"354 go ahead, though there was no DATA\r\n",
    ],
)
async def test_what_is_no_reply_is_a_loss_and_never_a_yes(garbage: bytes) -> None:
    async with scripted([b"220 hi\r\n", b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", garbage]) as pool:
        assert await lost(lambda: deliver(pool)) == "dot"


async def test_a_reply_before_its_command_is_not_taken_for_the_answer() -> None:
    """A second 250 while the body is still on its way must not be read as the reply to the dot."""
    script: list[bytes | None] = [
        b"220 hi\r\n",
        b"250 hi\r\n",
        b"250 ok\r\n",
        b"250 ok\r\n",
        b"354 go\r\n250 taken\r\n",
        b"550 no\r\n",
    ]
    async with scripted(script) as pool:
        message = delivery(pool)
        await message.rcpt(rcpt())
        await message.data()
        await asyncio.sleep(0.05)
        await message.body(BODY)
        assert await lost(message.dot) == "dot"
        message.drop()


async def test_a_goodbye_nobody_asked_for_retires_an_idle_connection() -> None:
    hello = [b"220 hi\r\n", b"250 hi\r\n"]
    good = [b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"]
    async with scripted([*hello, *good, b"250 ok\r\n421 bye\r\n"], [*hello, *good, b"250 second\r\n"]) as pool:
        await deliver(pool)
        await asyncio.sleep(0.05)
        assert (await deliver(pool)).lines == ("second",)


def test_a_reply_is_written_as_it_came() -> None:
    reply = Reply(250, ("2.0.0 one", "", "three"))
    assert str(reply) == "250-2.0.0 one\r\n250-\r\n250 three"
    assert str(reply.with_suffix(" (1 of 2)")).endswith("250 three (1 of 2)")
    assert not Reply(421, ("x",)).good


async def test_a_connection_that_is_gone_says_so_at_the_next_word() -> None:
    connection = Connection()
    connection.drop("test")
    connection.send(b"NOOP\r\n", 1)
    assert await lost(lambda: connection.reply(1, "mail")) == "mail"
    assert await lost(lambda: connection.drain(1)) == "body"
    connection.quit()
