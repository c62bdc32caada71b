"""The SMTP client against a server that goes away, is silent, or says what is no reply."""

from __future__ import annotations

import asyncio

import pytest

from daemon.upstream import Connection, Endpoint, Lost, Pool, Reply, told
from tests.sink import Sink
from tests.upstream.support import BODY, deliver, delivery, lost, rcpt, scripted, whole

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


async def test_a_connection_that_ends_without_a_word_has_ended() -> None:
    """Out of memory asyncio says MemoryError(), whose text is empty."""
    connection = Connection()
    waiting = asyncio.create_task(connection.reply(60, "dot"))
    await asyncio.sleep(0)
    connection.connection_lost(MemoryError())
    assert connection.gone
    async with asyncio.timeout(10):
        with pytest.raises(Lost, match="dot: MemoryError"):
            await waiting


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
    monkeypatch.setattr("daemon.delivery.DOT_SECONDS", 0.3)
    pool = Pool([Endpoint("127.0.0.1", server.port)], hostname="relay.example", timeout=0.3)
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
    await pool.probe()
    assert pool.hops[0].idle[0].errors == 0  # no recipient was refused by that
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
        *((s, "451 4.4.1 ") for s in ("connect", "tls", "greeting", "ehlo", "auth")),
        *((s, "451 4.4.2 ") for s in ("mail", "rcpt", "data", "body", "dot")),
    ],
)
def test_a_client_is_told_to_come_back_and_nothing_of_why(step: str, code: str) -> None:
    said = told(Lost(step, "421 secret.internal.example says no to ann@example.com"))
    assert said.startswith(code)
    assert "example" not in said


# ------------------------------------------------------------------ replies


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
        assert await lost(message.dot) == "body"  # the dot is not even sent: nothing is in doubt
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


async def test_what_a_server_says_when_it_lets_nobody_in_can_be_shown_to_people() -> None:
    """Pages, alarms and metrics tell it: in Latin-1 it was no text that could be written anywhere."""
    async with scripted([b"554 5.7.1 Zugriff verweigert f\xfcr ann@example.com\r\n", b""]) as pool:
        with pytest.raises(Lost, match="Zugriff"):
            await pool.probe()
        assert pool.trouble == "greeting: 554 5.7.1 Zugriff verweigert f\ufffdr <address>"
