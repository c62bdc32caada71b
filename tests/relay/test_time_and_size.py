"""Slow and silent peers, floods, huge bodies; and what we add and say."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator

import pytest

from daemon.relay import wire
from tests.ledgers import Books
from tests.relay.desk import BODY, Desk, relay, reply
from tests.relay.faulty import (
    ENVELOPE,
    HELLO,
    ask,
    connected,
    play,
    reset_on_close,
    until,
)
from tests.relay.puppet import Puppet, keep_silent

pytestmark = pytest.mark.usefixtures("nothing_unexpected")

# ------------------------------------------------------------------ time


async def test_a_steady_trickle_is_not_cut(ledger: Books, upstream: Puppet) -> None:
    async with relay(ledger, upstream, idle_timeout=1) as desk, connected(desk) as (reader, writer):
        await play((reader, writer), HELLO + ENVELOPE + "C: DATA\nS: 354")
        for octet in b"Subject\r\n":
            writer.write(bytes([octet]))
            await asyncio.sleep(0.25)
        writer.write(b".\r\n")
        assert (await reply(reader)).startswith("250")


async def test_a_slow_upstream_is_not_held_against_the_client(ledger: Books, upstream: Puppet) -> None:
    """Neither while it thinks, nor in the client's own time afterwards."""

    async def slowly(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3)
        writer.write(b"250 2.1.5 ok\r\n")

    upstream.does["RCPT"] = slowly
    async with relay(ledger, upstream, idle_timeout=2) as desk, connected(desk) as (reader, writer):
        await ask(reader, writer, "EHLO x", "MAIL FROM:<n@x.example>")
        assert (await ask(reader, writer, "RCPT TO:<bob@example.com>"))[0].startswith("250")
        await asyncio.sleep(1.5)
        assert (await ask(reader, writer, "NOOP"))[0].startswith("250")


@pytest.mark.parametrize("last", [b"", b"QUIT\r\n"])
async def test_a_client_that_never_reads_fills_nothing_holds_up_nobody_and_is_cut(
    ledger: Books, upstream: Puppet, last: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_LINGER_SECONDS", 0.3)
    async with relay(ledger, upstream, idle_timeout=1) as desk, connected(desk) as other:
        with socket.create_connection(("127.0.0.1", desk.port)) as deaf:
            deaf.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                for _ in range(100):
                    deaf.send(b"EHLO x\r\n" * 10_000 + last)
                    await asyncio.sleep(0)
            await play(other, "C: NOOP\nS: 250")
            held = [c._of_socket().get_write_buffer_size() + sum(map(len, c._out)) for c in desk.server._clients]
            assert max(held) < 300_000
            await until(lambda: len(desk.server._clients) < 2, 6)


@contextlib.asynccontextmanager
async def longest_stall() -> AsyncIterator[list[float]]:
    """Seconds of work during which nobody else could have had a turn: in [0], at the end."""
    worst = [0.0]

    async def watch() -> None:
        last = time.thread_time()  # of this thread: what else the machine does is no stall of ours
        while True:
            await asyncio.sleep(0.001)
            worst[0], last = max(worst[0], time.thread_time() - last), time.thread_time()

    watching = asyncio.create_task(watch())
    try:
        yield worst
    finally:
        watching.cancel()


FLOODS = {
    "RSET": b"RSET\r\n" * 40_000,
    "NOOP": b"noop\n" * 40_000,
    "refused recipients": b"RCPT TO:<a@b.de>\n" * 10_000,
    "EHLO": b"EHLO x\n" * 20_000,
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_of_commands_leaves_others_their_turn(ledger: Books, upstream: Puppet, flood: str) -> None:
    """A pipelined flood is answered in portions; and a reply comes for each command."""
    ledger.suppress("a@b.de")
    sent = FLOODS[flood]
    async with relay(ledger, upstream) as desk, connected(desk) as (reader, writer):
        await ask(reader, writer, "EHLO x", "MAIL FROM:<n@x.example>")
        async with longest_stall() as worst, asyncio.timeout(60):
            writer.write(sent)
            for _ in range(sent.count(b"\n")):
                await reply(reader)
    assert worst[0] < 0.1


# ------------------------------------------------------------------ bodies that nobody should send


async def send_body(desk: Desk, pieces: Iterator[bytes]) -> str:
    """The reply to a message made of these pieces."""
    async with connected(desk) as (reader, writer):
        await play((reader, writer), HELLO + ENVELOPE + "C: DATA\nS: 354")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        writer.write(b"\r\n.\r\n")
        async with asyncio.timeout(60):
            return (await reader.readline()).decode()


@pytest.mark.parametrize(
    ("piece", "times", "answer"),
    [
        (b"x" * 65_536, 1600, "552 5.3.4"),  # 100 MB without a line end
        (b"x\r\n" * 20_000, 160, "250"),  # 10 MB of lines of one octet
        (b"X-H: 1\r\n" * 8_000, 160, "552 5.3.4"),  # a header of 10 MB: a List-Id may stand anywhere in it
        (b"\r\n.\r" * 13_000, 160, "550 5.6.11"),
        (b"..\r\n..x\r\n" * 8_000, 160, "250"),
    ],
)
async def test_huge_bodies_cost_little_memory_and_stall_nobody(
    ledger: Books, upstream: Puppet, piece: bytes, times: int, answer: str
) -> None:
    upstream.keeps = False
    async with relay(ledger, upstream, max_size=20_000_000) as desk:
        tracemalloc.start()
        try:
            async with longest_stall() as worst:
                head = b"" if piece.startswith(b"X-H") else b"Subject: x\r\n\r\n"
                said = await send_body(desk, (head + piece if n == 0 else piece for n in range(times)))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert said.startswith(answer)
    assert peak < 6_000_000
    assert worst[0] < 0.1


@pytest.mark.parametrize(
    "end",
    [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\n.\r", b"\r\r\n.\r\r\n", b"\r\n\r.\r\n"],
)
@pytest.mark.parametrize("filler", [0, 70_000])
async def test_upstream_never_sees_what_it_might_take_for_an_end(
    ledger: Books, upstream: Puppet, end: bytes, filler: int
) -> None:
    """Not even on a connection that is dropped afterwards: a lenient server would have taken the message by then."""
    async with relay(ledger, upstream) as desk:
        seen = tap(desk)
        smuggled = b"Subject: a\r\n\r\n" + b"y" * filler + end + b"MAIL FROM:<evil@example.com>\r\n"
        assert (await send_body(desk, iter([smuggled]))).startswith("550 5.6.11")
    assert b"evil" not in seen
    assert seen.count(b"\n") == seen.count(b"\r\n") == seen.count(b"\r")


def tap(desk: Desk) -> bytearray:
    """All octets that go upstream on the connection that will be used next."""
    seen = bytearray()
    connection = desk.server.pool.hops[0].idle[-1]
    send = connection.send

    def tapped(octets: bytes, replies: int = 0) -> None:
        seen.extend(octets)
        send(octets, replies)

    connection.send = tapped  # type: ignore[method-assign]
    return seen


# ------------------------------------------------------------------ what we add, and what we say


async def test_a_name_in_helo_cannot_break_our_received_line(ledger: Books, upstream: Puppet) -> None:
    async with relay(ledger, upstream) as desk, connected(desk) as client:
        await play(client, 'C: EHLO (x) by evil; "\\, <a@b> \tz\nS: 501\n')
        await play(client, 'C: EHLO (x) by evil; "\\, <a@b>\nS: 250\n' + ENVELOPE + "C: DATA\nS: 354\nC: ...\nS: 250")
    assert upstream.messages[0][1].startswith(b"Received: from ?x??by?evil???????a?b? ([127.0.0.1])\r\n\tby ")


async def test_the_longest_names_still_fit_the_size_we_announce(ledger: Books, upstream: Puppet) -> None:
    name = ".".join(["h" * 63] * 3 + ["i" * 59])
    async with relay(ledger, upstream, hostname=name) as desk, connected(desk) as client:
        await play(client, f"C: EHLO {'x' * 255}\nS: 250\nC: MAIL FROM:<n@x.example> SIZE={len(BODY)}\nS: 250\n")
        await play(client, "C: RCPT TO:<bob@example.com>\nS: 250\nC: DATA\nS: 354\nC: ...\nS: 250")
    announced = next(c for c in upstream.commands if c.startswith("MAIL")).partition("SIZE=")[2]
    assert int(announced) >= len(upstream.messages[0][1])


@pytest.mark.parametrize(
    "field",
    [
        b'List-Id: "the <best> letter" <newsletter.quillpdf.example>',
        b"List-Id: <other.example>\r\nList-ID : <NEWSLETTER.quillpdf.example>",
        b"list-id:\r\n <newsletter.quillpdf.example>",
        b"List-Id: newsletter.quillpdf.example",
    ],
)
async def test_a_list_is_known_however_its_field_is_written(ledger: Books, upstream: Puppet, field: bytes) -> None:
    ledger.suppress("bob@example.com", "newsletter")
    async with relay(ledger, upstream) as desk, connected(desk) as client:
        await play(client, HELLO + ENVELOPE + "C: DATA\nS: 354\nC: ...\nS: 550 5.7.1", field + b"\r\n" + BODY)
    assert upstream.messages == []


async def test_the_reply_to_the_dot_does_not_wait_for_the_commands_behind_it(ledger: Books, upstream: Puppet) -> None:
    upstream.does["RCPT TO:<slow@example.com>"] = keep_silent
    async with relay(ledger, upstream) as desk, connected(desk) as (reader, writer):
        await play((reader, writer), HELLO + ENVELOPE + "C: DATA\nS: 354")
        writer.write(BODY + b".\r\nMAIL FROM:<n@x.example>\r\nRCPT TO:<slow@example.com>\r\n")
        async with asyncio.timeout(1):
            assert (await reply(reader)).startswith("250 2.0.0")
        reset_on_close(writer)
