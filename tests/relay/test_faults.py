"""An upstream that misbehaves, goes away, or says nothing: at every step, and at every octet."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.ledgers import Books
from tests.relay.desk import BODY, relay, reply
from tests.relay.faulty import (
    AGAIN,
    BOB,
    ENVELOPE,
    HELLO,
    MAIL,
    ask,
    connected,
    free_places,
    play,
    says,
    until,
)
from tests.relay.puppet import Act, Puppet, hang_up, keep_silent

pytestmark = pytest.mark.usefixtures("nothing_unexpected")

# ------------------------------------------------------------------ the upstream

TROUBLE = {
    "421": says(b"421 4.3.2 going away\r\n"),
    "hangs up": hang_up,
    "garbage": says(b"\x00\xff what is this?\r\n"),
    "1xx": says(b"150 1.0.0 soon\r\n"),
    "silent": keep_silent,
    "line without end": says(b"250-" + b"x" * 200_000),
    "reply without end": says(b"250-x\r\n" * 5000),
}


@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize(
    ("step", "script"),
    [
        ("MAIL", MAIL + "C: RCPT TO:<bob@example.com>\nS: 451 4.4.2\n"),
        ("RCPT", MAIL + "C: RCPT TO:<bob@example.com>\nS: 451 4.4.2\n"),
        ("DATA", ENVELOPE + "C: DATA\nS: 354\nC: ...\nS: 451 4.4.2\n"),
        ("DOT", ENVELOPE + "C: DATA\nS: 354\nC: ...\nS: 451 4.4.2\n"),
    ],
)
async def test_trouble_upstream_is_451_and_the_next_message_passes(
    ledger: Books, upstream: Puppet, step: str, script: str, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.delivery.DOT_SECONDS", 0.3)
    upstream.does[step] = TROUBLE[trouble]
    async with relay(ledger, upstream, timeout=0.3) as desk, connected(desk) as client:
        await play(client, HELLO + script)
        assert upstream.messages == []
        upstream.does.clear()
        await play(client, AGAIN)
        assert [rcpts for rcpts, _ in upstream.messages] == [BOB]
        assert free_places(desk) == 20


@pytest.mark.parametrize("step", ["GREETING", "EHLO"])
@pytest.mark.parametrize("trouble", ["421", "hangs up", "garbage", "silent", "line without end"])
async def test_an_upstream_that_does_not_come_up_is_not_reached(
    ledger: Books, upstream: Puppet, step: str, trouble: str
) -> None:
    upstream.does[step] = TROUBLE[trouble]
    async with relay(ledger, upstream, timeout=0.3) as desk, connected(desk) as client:
        await play(client, HELLO + MAIL + "C: RCPT TO:<bob@example.com>\nS: 451 4.4.1\nC: DATA\nS: 554 5.5.1\n")
        upstream.does.clear()
        await play(client, AGAIN)


@pytest.mark.parametrize("early", [b"250 2.0.0 taken\r\n", b"451 4.3.0 no\r\n", b"354 more\r\n", b"421 4.3.2 bye\r\n"])
@pytest.mark.parametrize("then_closes", [False, True])
async def test_what_upstream_says_in_the_middle_of_a_body_is_no_answer_to_its_dot(
    ledger: Books, upstream: Puppet, logged: list[str], early: bytes, then_closes: bool
) -> None:
    async def speak(writer: asyncio.StreamWriter) -> None:
        writer.write(early)
        if then_closes:
            writer.close()

    upstream.does["BODY"] = speak
    async with relay(ledger, upstream) as desk, connected(desk) as (reader, writer):
        await play((reader, writer), HELLO + ENVELOPE + "C: DATA\nS: 354")
        writer.write(BODY + b"x" * 70_000)
        await asyncio.sleep(0.1)
        writer.write(b"\r\n.\r\n")
        assert (await reply(reader)).startswith("451 4.4.2")
    assert upstream.messages == []
    assert "message_sent" not in logged


@pytest.mark.parametrize(
    ("step", "wrong"), [("MAIL", "354"), ("RCPT", "354"), ("DATA", "250"), ("DOT", "354"), ("DATA", "399")]
)
async def test_an_answer_to_another_command_is_none(ledger: Books, upstream: Puppet, step: str, wrong: str) -> None:
    upstream.does[step] = says(f"{wrong} 2.0.0 fine\r\n".encode())
    async with relay(ledger, upstream) as desk, connected(desk) as (reader, writer):
        said = await ask(reader, writer, "EHLO x", "MAIL FROM:<n@x.example>", "RCPT TO:<bob@example.com>")
        if step in ("DATA", "DOT"):
            said += await ask(reader, writer, "DATA")
            writer.write(BODY + b".\r\n")
            said.append(await reply(reader))
        assert said[-1].startswith("451 4.4.2")
        upstream.does.clear()
        await play((reader, writer), AGAIN)


@pytest.mark.parametrize("lost_at", ["RCPT TO:<carl@example.com>", "DATA"])
async def test_upstream_lost_with_recipients_taken_nothing_counts_until_the_client_starts_over(
    ledger: Books, upstream: Puppet, lost_at: str
) -> None:
    upstream.does[lost_at] = hang_up
    async with relay(ledger, upstream) as desk, connected(desk) as client:
        await play(client, HELLO + ENVELOPE)
        if lost_at == "DATA":
            await play(client, "C: DATA\nS: 354\nC: ...\nS: 451 4.4.2\nC: RCPT TO:<dora@example.com>\nS: 503\n")
        else:
            await play(
                client, "C: RCPT TO:<carl@example.com>\nS: 451 4.4.2\nC: RCPT TO:<dora@example.com>\nS: 451 4.4.2\n"
            )
        await play(client, f"C: DATA\nS: {'503' if lost_at == 'DATA' else '451 4.4.2'}\n")
        upstream.does.clear()
        await play(client, AGAIN)
    assert [rcpts for rcpts, _ in upstream.messages] == [BOB]


@pytest.mark.parametrize("last_words", [b"", b"421 4.4.2 idle too long\r\n", b"what?\r\n", b"250 ok\r\n" * 100_000])
async def test_a_pooled_connection_that_ended_or_spoke_while_idle_is_not_used(
    ledger: Books, upstream: Puppet, last_words: bytes
) -> None:
    async with relay(ledger, upstream) as desk, connected(desk) as client:
        await play(client, HELLO + AGAIN)
        (idle,) = upstream.open
        idle.write(last_words)
        if not last_words:
            idle.close()
        await asyncio.sleep(0.1)
        assert sum(len(c._replies) for c in desk.server.pool._idle) < 100
        await play(client, AGAIN)
    assert [rcpts for rcpts, _ in upstream.messages] == [BOB, BOB]


@pytest.mark.parametrize("trouble", ["421", "hangs up"])
async def test_a_used_connection_found_dead_at_mail_is_replaced_unseen(
    ledger: Books, upstream: Puppet, trouble: str
) -> None:
    async with relay(ledger, upstream) as desk, connected(desk) as client:
        await play(client, HELLO + AGAIN)

        async def once(writer: asyncio.StreamWriter) -> None:
            upstream.does.clear()
            await TROUBLE[trouble](writer)

        upstream.does["MAIL"] = once
        await play(client, AGAIN)
    assert upstream.connections == 2


async def test_the_replacement_is_a_new_connection_not_another_old_one(ledger: Books, upstream: Puppet) -> None:
    async with relay(ledger, upstream) as desk, connected(desk) as one, connected(desk) as two:
        await play(one, HELLO + ENVELOPE)
        await play(two, HELLO + AGAIN)
        await play(one, AGAIN)
        old = set(upstream.open)
        assert len(old) == 2

        async def old_ones_hang_up(writer: asyncio.StreamWriter) -> None:
            if writer in old:
                writer.close()
            else:
                writer.write(b"250 2.1.0 ok\r\n")

        upstream.does["MAIL"] = old_ones_hang_up
        await play(one, AGAIN)


async def test_replies_in_single_octets(ledger: Books, upstream: Puppet) -> None:
    def slowly(said: bytes) -> Act:
        async def drip(writer: asyncio.StreamWriter) -> None:
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for n in range(len(said)):
                writer.write(said[n : n + 1])
                await asyncio.sleep(0.001)

        return drip

    upstream.does["RCPT TO:<ann@example.com>"] = slowly(b"550-5.1.1 no\r\n550 5.1.1 such\r\n")
    upstream.does["GREETING"] = slowly(b"220-a\r\n220 b\r\n")
    async with relay(ledger, upstream) as desk, connected(desk) as client:
        await play(
            client,
            HELLO + ENVELOPE + "C: RCPT TO:<ann@example.com>\nS: 550 5.1.1 such\nC: DATA\nS: 354\nC: ...\nS: 250",
        )


@pytest.mark.parametrize("size", ["", "0", "ten", "-1", "\u00b2", "9" * 5000])
async def test_a_size_that_is_none_is_no_limit_and_no_accident(ledger: Books, upstream: Puppet, size: str) -> None:
    upstream.says["EHLO"] = f"250-puppet\r\n250 SIZE {size}\r\n".encode()
    async with relay(ledger, upstream, max_size=5000) as desk, connected(desk) as client:
        await play(client, "C: EHLO x\nS: 250 SIZE 5000\nC: MAIL FROM:<n@x.example> SIZE=5000\nS: 250")


async def test_the_upstreams_words_reach_the_client_octet_for_octet(ledger: Books, upstream: Puppet) -> None:
    said = b"550-5.1.1 caf\xc3\xa9 \xff\r\n550 \r\n"
    upstream.says["RCPT"] = said
    async with relay(ledger, upstream) as desk, connected(desk) as (reader, writer):
        await play((reader, writer), HELLO + MAIL)
        writer.write(b"RCPT TO:<bob@example.com>\r\n")
        assert await reader.readexactly(len(said)) == said


async def test_a_refused_mail_is_the_answer_to_every_recipient_and_reset_forgets_it(
    ledger: Books, upstream: Puppet
) -> None:
    upstream.says["MAIL FROM:<bad@x.example>"] = b"550 5.1.8 not you\r\n"
    upstream.says["RCPT TO:<bob@example.com>"] = b"503 5.5.1 MAIL first\r\n"
    refused = "C: MAIL FROM:<bad@x.example>\nS: 250\n" + "C: RCPT TO:<bob@example.com>\nS: 550 5.1.8\n" * 2
    async with relay(ledger, upstream) as desk, connected(desk) as client:
        await play(client, HELLO + refused + "C: DATA\nS: 554 5.5.1\n")
        upstream.says.clear()
        await play(client, AGAIN)
    assert len(upstream.messages) == 1


async def test_opted_out_between_the_questions_and_lost_and_said_again(ledger: Books, upstream: Puppet) -> None:
    """A recipient taken before, and refused after, a lost upstream, is in no later message."""
    upstream.does["RCPT TO:<carl@example.com>"] = hang_up
    async with relay(ledger, upstream, mode="strip") as desk, connected(desk) as client:
        await play(
            client, HELLO + ENVELOPE + "C: RCPT TO:<ann@example.com>\nS: 250\nC: RCPT TO:<carl@example.com>\nS: 451\n"
        )
        ledger.suppress("bob@example.com")
        await play(
            client, "C: RCPT TO:<bob@example.com>\nS: 451\nC: DATA\nS: 451\nC: MAIL FROM:<n@x.example>\nS: 503\n"
        )
        await play(
            client,
            "C: EHLO x\nS: 250\n" + ENVELOPE + "C: RCPT TO:<ann@example.com>\nS: 250\nC: DATA\nS: 354\nC: ...\nS: 250",
        )
    assert [rcpts for rcpts, _ in upstream.messages] == [("<ann@example.com>",)]


@pytest.mark.parametrize("list_id", [None, "newsletter"])
async def test_who_leaves_the_list_while_its_letter_is_on_the_way_does_not_get_it(
    ledger: Books, upstream: Puppet, list_id: str | None
) -> None:
    """The last question is about the list too."""
    async with relay(ledger, upstream) as desk, connected(desk) as (reader, writer):
        await play((reader, writer), HELLO + ENVELOPE + "C: DATA\nS: 354")
        writer.write(b"List-Id: <newsletter.quillpdf.example>\r\n" + BODY)
        await until(lambda: "DATA" in upstream.commands)
        ledger.suppress("bob@example.com", list_id)
        writer.write(b".\r\n")
        assert (await reply(reader)).startswith("451 4.7.1")
    assert upstream.messages == []
