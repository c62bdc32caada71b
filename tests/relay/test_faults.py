"""What happens when either side misbehaves, goes away, or says nothing: at every step, and at every octet."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from daemon.relay import protocol, server
from daemon.upstream import Connection
from tests.ledgers import Books
from tests.relay.desk import BODY, Desk, relay, reply
from tests.relay.puppet import Act, Puppet, hang_up, keep_silent, puppet

pytestmark = pytest.mark.usefixtures("nothing_unexpected")

MAIL = "C: MAIL FROM:<n@x.example>\nS: 250 2.1.0\n"
ENVELOPE = MAIL + "C: RCPT TO:<bob@example.com>\nS: 250\n"
AGAIN = "C: RSET\nS: 250\n" + ENVELOPE + "C: DATA\nS: 354\nC: ...\nS: 250 2.0.0 taken by puppet"
HELLO = "C: EHLO x\nS: 250\n"
BOB = ("<bob@example.com>",)


@pytest.fixture
async def upstream() -> AsyncIterator[Puppet]:
    async with puppet() as made:
        yield made


@contextlib.asynccontextmanager
async def connected(desk: Desk) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", desk.port)
    await reply(reader)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *lines: str) -> list[str]:
    """Send these lines one by one; the last lines of their replies."""
    said = []
    for line in lines:
        writer.write(line.encode() + b"\r\n")
        said.append(await reply(reader))
    return said


def reset_on_close(writer: asyncio.StreamWriter) -> None:
    """abort() will send a RST, not a FIN."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def until(happened: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not happened():
            await asyncio.sleep(0.005)


def says(octets: bytes) -> Act:
    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(octets)

    return say


def free_places(desk: Desk) -> int:
    """How many upstream connections could still be taken."""
    return desk.server.pool._places._value


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
    monkeypatch.setattr("daemon.upstream.DOT_SECONDS", 0.3)
    upstream.does[step] = TROUBLE[trouble]
    async with relay(ledger, upstream, timeout=0.3) as desk, connected(desk) as client:
        await play(client, HELLO + script)
        assert upstream.messages == []
        upstream.does.clear()
        await play(client, AGAIN)
        assert [rcpts for rcpts, _ in upstream.messages] == [BOB]
        assert free_places(desk) == 20


async def play(client: tuple[asyncio.StreamReader, asyncio.StreamWriter], script: str, body: bytes = BODY) -> None:
    """As Desk.talk, on a connection that is there."""
    reader, writer = client
    for line in filter(None, map(str.strip, script.splitlines())):
        side, _, text = line.partition(": ")
        if side == "C":
            writer.write(body + b".\r\n" if text == "..." else text.encode() + b"\r\n")
        else:
            said = await reply(reader)
            assert said.startswith(text), f"expected {text!r}, got {said!r}"


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


# ------------------------------------------------------------------ the client goes away

DIALOGUE = b"EHLO x\r\nMAIL FROM:<n@x.example>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\nSubject: x\r\n\r\n..\r\n.\r\nRSET\r\nQUIT\r\n"
ENDED = DIALOGUE.index(b"\r\n.\r\n") + 5
CODES = [b"250", b"250", b"250", b"354", b"250", b"250", b"221"]


def complete(sent: bytes) -> int:
    """How many replies so much of the dialogue deserves."""
    commands, _, body = sent.partition(b"DATA\r\n")
    done = commands.count(b"\n") + (sent.endswith(b"DATA\r\n") or bool(body))
    after = sent[ENDED:]
    return done + (len(sent) >= ENDED) + after.count(b"\n")


@pytest.mark.parametrize("way", ["half-close", "close", "reset"])
async def test_a_client_that_leaves_at_any_octet(ledger: Books, upstream: Puppet, way: str) -> None:
    """The message is delivered whole if its dot was sent, and not at all if not; no place in the pool is lost."""
    async with relay(ledger, upstream, connections=2) as desk:
        for cut in range(len(DIALOGUE) + 1):
            before = len(upstream.messages)
            async with connected(desk) as (reader, writer):
                writer.write(DIALOGUE[:cut])
                if way == "half-close":
                    writer.write_eof()
                    lines = (await reader.read()).splitlines()
                    codes = [line[:3] for line in lines if line[3:4] == b" "]
                    assert codes == CODES[: complete(DIALOGUE[:cut])], DIALOGUE[:cut]
                elif way == "close":
                    writer.close()
                else:
                    if cut % 3:  # sometimes before the relay has read anything
                        await asyncio.sleep(0.002)
                    reset_on_close(writer)
            await until(lambda: not desk.server._clients)
            sent = len(upstream.messages) - before
            assert sent == (cut >= ENDED) or (way == "reset" and cut >= ENDED and sent == 0), DIALOGUE[:cut]
            assert free_places(desk) == 2
    whole = {data.partition(b"Subject:")[2] for _, data in upstream.messages}
    assert whole == {b" x\r\n\r\n..\r\n"} or (way == "reset" and not whole)  # a reset may overtake what was sent
    assert not any(b"RSET" in half for half in upstream.halves)  # a connection in the middle of a body is for nobody


@pytest.mark.parametrize("verb", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA"])
async def test_a_client_that_leaves_while_upstream_thinks(ledger: Books, upstream: Puppet, verb: str) -> None:
    """The command is cancelled half-way: nobody else may get its reply."""
    async with relay(ledger, upstream, connections=1) as desk:
        desk.server.pool._idle.pop().quit()  # the connection of the probe: the next one is greeted anew
        thinking = asyncio.Event()

        async def think(writer: asyncio.StreamWriter) -> None:
            thinking.set()
            await asyncio.sleep(0.1)
            writer.write(b"250 2.9.9 too late\r\n")

        upstream.does[verb] = think
        async with connected(desk) as (_, writer):
            writer.write(DIALOGUE[: ENDED - 2])
            async with asyncio.timeout(5):
                await thinking.wait()
            reset_on_close(writer)
        await until(lambda: not desk.server._clients)
        assert free_places(desk) == 1
        upstream.does.clear()
        async with connected(desk) as client:
            await play(client, HELLO + AGAIN)
    assert len(upstream.messages) == 1


@pytest.mark.parametrize("reset", [False, True])
async def test_past_the_dot_the_hand_over_is_finished_and_told_of(
    ledger: Books, upstream: Puppet, logged: list[str], reset: bool
) -> None:
    async with relay(ledger, upstream) as desk:
        at_the_dot = asyncio.Event()

        async def slowly(writer: asyncio.StreamWriter) -> None:
            at_the_dot.set()
            await asyncio.sleep(0.2)
            writer.write(b"250 2.0.0 at last\r\n")

        upstream.does["DOT"] = slowly
        async with connected(desk) as (_, writer):
            writer.write(DIALOGUE[:ENDED])
            await at_the_dot.wait()
            if reset:
                reset_on_close(writer)
        await until(lambda: not desk.server._clients)
        assert "message_sent" in logged


async def test_past_the_dot_counts_from_the_clients_dot_not_from_ours(
    ledger: Books, upstream: Puppet, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client has sent its dot and goes, while upstream has not even made room for the body."""
    reached, room = asyncio.Event(), asyncio.Event()

    async def drain(self: Connection, seconds: float) -> None:
        reached.set()
        await room.wait()

    monkeypatch.setattr(Connection, "drain", drain)
    async with relay(ledger, upstream) as desk:
        async with connected(desk) as (_, writer):
            writer.write(DIALOGUE[:ENDED])
            await reached.wait()
            reset_on_close(writer)
        await asyncio.sleep(0.05)
        room.set()
        await until(lambda: not desk.server._clients)
    assert "message_sent" in logged
    assert len(upstream.messages) == 1


async def test_commands_behind_the_dot_of_a_client_that_is_gone_are_not_carried_out(
    ledger: Books, upstream: Puppet
) -> None:
    at_the_dot, gone = asyncio.Event(), asyncio.Event()

    async def wait(writer: asyncio.StreamWriter) -> None:
        at_the_dot.set()
        await gone.wait()
        writer.write(b"250 2.0.0 ok\r\n")

    async with relay(ledger, upstream) as desk:
        upstream.does["DOT"] = wait
        async with connected(desk) as (_, writer):
            writer.write(DIALOGUE[:ENDED] + b"MAIL FROM:<n@x.example>\r\nRCPT TO:<late@example.com>\r\n")
            await at_the_dot.wait()
            reset_on_close(writer)
        await asyncio.sleep(0.05)
        gone.set()
        await until(lambda: not desk.server._clients)
    assert "RCPT TO:<late@example.com>" not in upstream.commands


# ------------------------------------------------------------------ the server goes away


async def test_stop_says_goodbye_outside_and_waits_for_what_is_under_way(ledger: Books, upstream: Puppet) -> None:
    async with (
        relay(ledger, upstream) as desk,
        connected(desk) as idle,
        connected(desk) as busy,
        connected(desk) as body,
    ):
        await play(idle, HELLO)
        await play(busy, HELLO + ENVELOPE)
        await play(body, HELLO + ENVELOPE + "C: DATA\nS: 354")
        stopping = asyncio.create_task(desk.server.stop())
        await play(idle, "S: 421 4.3.2")
        await play(busy, "C: NOOP\nS: 250\nC: RSET\nS: 250\nS: 421 4.3.2")
        await play(body, "C: ...\nS: 250\nS: 421 4.3.2")
        async with asyncio.timeout(2):
            await stopping
        await until(lambda: not upstream.open)  # nothing of ours stays connected to the upstream
    assert len(upstream.messages) == 1


@pytest.mark.parametrize("state", ["RCPT", "DATA", "DOT", "body", "envelope"])
async def test_when_the_patience_of_stop_is_over_nothing_is_left(
    ledger: Books, upstream: Puppet, logged: list[str], state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_STOP_SECONDS", 0.2)
    upstream.does[state] = keep_silent
    async with relay(ledger, upstream, timeout=10) as desk, connected(desk) as (_, writer):
        writer.write({"envelope": DIALOGUE[:20], "body": DIALOGUE[: ENDED - 4]}.get(state, DIALOGUE[:ENDED]))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(1):
            await desk.server.stop()
        assert free_places(desk) == 20
        assert not desk.server.pool._idle
        assert [t for t in asyncio.all_tasks() if "_handle_client" in repr(t)] == []
    assert upstream.messages == []
    assert ("possibly_duplicated" in logged) == (state == "DOT")


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
    monkeypatch.setattr(protocol, "_LINGER_SECONDS", 0.3)
    async with relay(ledger, upstream, idle_timeout=1) as desk, connected(desk) as other:
        with socket.create_connection(("127.0.0.1", desk.port)) as deaf:
            deaf.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                for _ in range(100):
                    deaf.send(b"EHLO x\r\n" * 10_000 + last)
                    await asyncio.sleep(0)
            await play(other, "C: NOOP\nS: 250")
            held = [c._writer.transport.get_write_buffer_size() + sum(map(len, c._out)) for c in desk.server._clients]
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
    connection = desk.server.pool._idle[-1]
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
