"""The client goes away, or we do: at every octet."""

from __future__ import annotations

import asyncio

import pytest

from daemon.connection import Reply
from daemon.delivery import Delivery
from daemon.relay import server
from tests.ledgers import Books
from tests.relay.desk import relay
from tests.relay.faulty import (
    AGAIN,
    ENVELOPE,
    HELLO,
    connected,
    free_places,
    play,
    reset_on_close,
    until,
)
from tests.relay.puppet import Puppet, keep_silent

pytestmark = pytest.mark.usefixtures("nothing_unexpected")

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
        desk.server.pool.hops[0].idle.pop().quit()  # the connection of the probe: the next one is greeted anew
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
    """The client has sent its dot and goes, while upstream has not even answered DATA."""
    reached, room, data = asyncio.Event(), asyncio.Event(), Delivery.data

    async def slow(self: Delivery) -> Reply:
        reached.set()
        await room.wait()
        return await data(self)

    monkeypatch.setattr(Delivery, "data", slow)
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
        assert not desk.server.pool.hops[0].idle
        assert [t for t in asyncio.all_tasks() if "_handle_client" in repr(t)] == []
    assert upstream.messages == []
    assert ("possibly_duplicated" in logged) == (state == "DOT")
