"""Small faults that had big consequences: each was found, and is kept from coming back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.relay import protocol, server, wire
from daemon.relay.access import Policy
from daemon.relay.tls import server_context
from tests import servers
from tests.certificates import certify
from tests.ledgers import Books
from tests.relay.desk import BODY, Desk, relay, reply
from tests.relay.faulty import ENVELOPE, HELLO, MAIL, connected, play, reset_on_close, until
from tests.relay.puppet import Puppet, keep_silent
from tests.relay.trouble import Tally

pytestmark = pytest.mark.usefixtures("nothing_unexpected")

# ------------------------------------------------------------------ the wire


async def test_a_client_that_reads_its_replies_again_in_the_middle_of_a_body_has_not_gone(
    ledger: Books, upstream: Puppet
) -> None:
    async with relay(ledger, upstream) as desk, connected(desk) as (reader, writer):
        await play((reader, writer), HELLO + ENVELOPE + "C: DATA\nS: 354")
        (ours,) = desk.server._clients
        ours.pause_writing()
        ours.resume_writing()  # as asyncio tells it when the client reads again what it had left lying
        writer.write(BODY + b".\r\n")
        assert (await reply(reader)).startswith("250 2.0.0 taken")


@pytest.fixture
def offering_tls(tmp_path: Path) -> server.Listening:
    """What a listener with STARTTLS has that another one has not."""
    if servers.program("openssl") is None:
        pytest.skip("Debian package openssl is missing")
    certify(tmp_path / "key.pem", tmp_path / "cert.pem")
    context = server_context(tmp_path / "cert.pem", tmp_path / "key.pem")
    return server.Listening("", protocol.Door(Policy("refuse", None, "marketing", (), ""), context))


def offer(desk: Desk, listening: server.Listening) -> None:
    """Offer STARTTLS from the next client on."""
    desk.server.listening[0] = replace(desk.server.listening[0], door=listening.door)


def timers() -> list[object]:
    """Those that look after a client."""
    scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return [handle for handle in scheduled if not handle.cancelled() and "_timeout_cb" in repr(handle)]


@pytest.mark.parametrize("way", ["closes", "resets", "talks nonsense", "says nothing", "is cut off by our end"])
async def test_nothing_is_left_of_a_client_whose_handshake_fails(
    ledger: Books, upstream: Puppet, offering_tls: server.Listening, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio does not tell of it: the timer went on for ever, once a second, with all that belongs to the client."""
    monkeypatch.setattr(server, "_STOP_SECONDS", 0.1)
    monkeypatch.setattr(wire, "_HANDSHAKE_SECONDS", 0.1 if way == "says nothing" else 30)
    async with relay(ledger, upstream) as desk:
        offer(desk, offering_tls)
        async with connected(desk) as (reader, writer):
            await play((reader, writer), HELLO + "C: STARTTLS\nS: 220")
            if way == "closes":
                writer.close()
            elif way == "resets":
                reset_on_close(writer)
                writer.transport.abort()
            elif way == "talks nonsense":
                writer.write(b"EHLO x\r\n" * 100)
            elif way == "is cut off by our end":
                await desk.server.stop()
                assert not desk.server._clients
            await until(lambda: not desk.server._clients)
            assert timers() == []


async def test_a_client_that_leaves_as_its_handshake_ends_is_no_client_any_more(
    ledger: Books, upstream: Puppet, offering_tls: server.Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The news of both may come in the same turn of the loop."""

    class Dead(asyncio.Transport):
        """As asyncio gives it: whoever closes it hears no more of it."""

        def write(self, data: object) -> None: ...
        def close(self) -> None: ...
        def abort(self) -> None: ...

    async def start_tls(transport: asyncio.Transport, *_: object, **__: object) -> Dead:
        transport.abort()
        return Dead()

    monkeypatch.setattr(asyncio.get_running_loop(), "start_tls", start_tls, raising=False)
    async with relay(ledger, upstream) as desk:
        offer(desk, offering_tls)
        async with connected(desk) as client:
            await play(client, HELLO + "C: STARTTLS\nS: 220")
            await until(lambda: not desk.server._clients)


# ------------------------------------------------------------------ the record


async def test_observed_and_rejected_by_the_upstream_is_counted_as_rejected_and_takes_nobody_elses_place(
    ledger: Books, upstream: Puppet
) -> None:
    ledger.suppress("ann@example.com")
    upstream.says["RCPT TO:<ann@example.com>"] = b"550 5.1.1 no such user\r\n"
    async with relay(ledger, upstream, mode="observe") as desk:
        desk.server.context.record = tally = Tally()
        await desk.talk(
            HELLO + ENVELOPE + "C: RCPT TO:<ann@example.com>\nS: 550 5.1.1\nC: DATA\nS: 354\nC: ...\nS: 250"
        )
    assert tally.counts == {"passed": 1, "rejected": 1}


async def test_observed_and_never_sent_to_is_not_counted_as_passed(ledger: Books, upstream: Puppet) -> None:
    ledger.suppress("bob@example.com")
    async with relay(ledger, upstream, mode="observe", max_size=2000) as desk:
        desk.server.context.record = tally = Tally()
        await desk.talk(HELLO + ENVELOPE + "C: RSET\nS: 250")
        assert tally.counts == {}
        await desk.talk(HELLO + ENVELOPE + "C: DATA\nS: 354\nC: ...\nS: 552", b"x\r\n" * 1000)
        assert tally.counts == {"rejected": 1}
        await desk.talk(HELLO + ENVELOPE + "C: DATA\nS: 354\nC: ...\nS: 250")
    assert tally.counts == {"rejected": 1, "would-refuse": 1}


async def test_who_had_to_make_room_is_counted_as_deferred(ledger: Books, upstream: Puppet) -> None:
    async with relay(ledger, upstream, connections=1) as desk, connected(desk) as silent, connected(desk) as other:
        desk.server.context.record = tally = Tally()
        await play(silent, HELLO + ENVELOPE)
        await play(other, HELLO + MAIL)
        other[1].write(b"RCPT TO:<carl@example.com>\r\n")
        await until(lambda: desk.server.pool.waiting)
        for ours in desk.server._clients:
            ours._linger(31)
        await play(other, "S: 250\nC: RSET\nS: 250\n")
        await play(silent, "C: DATA\nS: 451 4.3.2\nC: RSET\nS: 250")
    assert tally.counts == {"deferred": 1}


async def test_stopped_at_the_dot_is_in_the_record_too(
    ledger: Books, upstream: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_STOP_SECONDS", 0.1)
    upstream.does["DOT"] = keep_silent
    async with relay(ledger, upstream) as desk, connected(desk) as (reader, writer):
        desk.server.context.record = tally = Tally()
        await play((reader, writer), HELLO + ENVELOPE + "C: DATA\nS: 354\nC: ...\n")
        await until(lambda: "DATA" in upstream.commands)
        await asyncio.sleep(0.05)
        await desk.server.stop()
    assert tally.counts == {"deferred": 1, "duplicate": 1}
