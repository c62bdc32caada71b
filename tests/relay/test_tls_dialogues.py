"""TLS at the relay's listeners: what is offered when, what it changes, and how a certificate is renewed; as dialogues (see desk.py)."""

from __future__ import annotations

import asyncio
import dataclasses
import smtplib
import socket
import ssl
from typing import Any

import pytest

from daemon.config import Relay
from daemon.relay.access import Credentials
from daemon.relay.context import Context
from daemon.relay.server import Listening
from daemon.relay.tls import server_context
from daemon.upstream import Endpoint, Pool
from tests.ledgers import Books
from tests.relay.desk import BODY, Desk, relay, reply
from tests.relay.faulty import ENVELOPE, HELLO, connected, play, until
from tests.relay.listeners import (
    CRM,
    LOG_IN,
    MESSAGE,
    Client,
    Pair,
    dialled,
    listener,
    make_pair,
    policy,
    received,
    secure,
    trusting,
)
from tests.relay.puppet import Puppet

pytestmark = pytest.mark.usefixtures("nothing_unexpected")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """(certificate, key)."""
    return make_pair(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def other_pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The next one."""
    return make_pair(tmp_path_factory.mktemp("renewed"))


# ------------------------------------------------------------------ what EHLO offers


async def keywords(client: Client, verb: str = "EHLO") -> set[str]:
    """Of the keywords that depend on the listener, those that it names."""
    client[1].write(f"{verb} x\r\n".encode())
    lines = [await client[0].readline()]
    while lines[-1][3:4] == b"-":
        lines.append(await client[0].readline())
    return {line[4:].decode().strip() for line in lines} & {"STARTTLS", "AUTH PLAIN LOGIN", "CHUNKING"}


OFFERS = {
    # listener: (in clear, under TLS)
    "nothing": (set(), None),
    "starttls": ({"STARTTLS"}, set()),
    "credentials": ({"AUTH PLAIN LOGIN"}, None),
    "credentials off loopback": (set(), None),
    "credentials, starttls": ({"STARTTLS", "AUTH PLAIN LOGIN"}, {"AUTH PLAIN LOGIN"}),
    "credentials, starttls off loopback": ({"STARTTLS"}, {"AUTH PLAIN LOGIN"}),
    "implicit": (None, set()),
    "credentials, implicit off loopback": (None, {"AUTH PLAIN LOGIN"}),
}


@pytest.mark.parametrize("which", OFFERS)
async def test_ehlo_offers_what_the_listener_has_at_this_moment(
    ledger: Books, upstream: Puppet, pair: Pair, which: str
) -> None:
    in_clear, under_tls = OFFERS[which]
    context = server_context(*pair)
    made = listener(
        context if "implicit" in which else None,
        tls=context if "starttls" in which else None,
        credentials=CRM if "credentials" in which else Credentials({}),
        loopback="off loopback" not in which,
    )
    tls: dict[str, Any] = {"ssl": trusting(pair), "server_hostname": "localhost"} if "implicit" in which else {}
    async with relay(ledger, upstream, listening=[made]) as desk, dialled(desk, **tls) as client:
        assert (await reply(client[0])).startswith("220 relay.quillpdf.example")
        assert await keywords(client, "HELO") == set()
        if in_clear is not None:
            assert await keywords(client) == in_clear
            if under_tls is None:
                await play(client, "C: STARTTLS\nS: 502 5.5.1")
                return
            await secure(client, pair)
        assert await keywords(client) == under_tls
        await play(client, f"C: STARTTLS\nS: {'502' if 'implicit' in which else '503'} 5.5.1\nC: NOOP\nS: 250")


# ------------------------------------------------------------------ TLS


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("how", ["starttls", "implicit"])
async def test_a_usual_client_speaks_tls_and_logs_in(
    ledger: Books, upstream: Puppet, pair: Pair, how: str, version: ssl.TLSVersion
) -> None:
    context, mine = server_context(*pair), trusting(pair)
    mine.maximum_version = version
    made = (
        listener(context, credentials=CRM, loopback=False)
        if how == "implicit"
        else listener(tls=context, credentials=CRM, loopback=False)
    )

    def send(port: int) -> None:
        connect: type[smtplib.SMTP] = smtplib.SMTP
        extra: dict[str, Any] = {}
        if how == "implicit":
            connect, extra = smtplib.SMTP_SSL, {"context": mine}
        with connect("localhost", port, **extra) as client:
            if how == "starttls":
                client.starttls(context=mine)
            client.sendmail("n@x.example", ["bob@example.com"], BODY)
            client.login("crm", "secret")
            client.sendmail("n@x.example", ["bob@example.com"], BODY + b"x" * 100_000)

    async with relay(ledger, upstream, listening=[made]) as desk:
        await asyncio.to_thread(send, desk.port)
    assert received(upstream) == ["ESMTPS", "ESMTPSA"]


async def test_what_was_said_in_clear_counts_no_more_after_starttls(
    ledger: Books, upstream: Puppet, pair: Pair
) -> None:
    """Name, log-in and envelope: somebody in between may have said it (RFC 3207 4.2)."""
    listening = [listener(credentials=CRM, required=True, tls=server_context(*pair))]
    async with relay(ledger, upstream, listening=listening) as desk, connected(desk) as client:
        await play(client, HELLO + LOG_IN + ENVELOPE)
        await secure(client, pair)
        await play(
            client,
            """
            C: DATA
            S: 503 5.5.1
            C: MAIL FROM:<n@x.example>
            S: 503 5.5.1 send EHLO first
            C: AUTH PLAIN AGNybQBzZWNyZXQ=
            S: 503 5.5.1 send EHLO first
            C: EHLO after.example
            S: 250
            C: MAIL FROM:<n@x.example>
            S: 530 5.7.0
            """
            + LOG_IN
            + MESSAGE,
        )
    ((_, data),) = upstream.messages
    assert data.startswith(b"Received: from after.example ")
    assert received(upstream) == ["ESMTPSA"]


@pytest.mark.parametrize(
    ("hello", "utf8", "protocol"), [("HELO", "", "SMTP"), ("EHLO", "", "ESMTP"), ("EHLO", " SMTPUTF8", "UTF8SMTP")]
)
async def test_the_received_line_says_how_a_message_came(
    ledger: Books, upstream: Puppet, pair: Pair, hello: str, utf8: str, protocol: str
) -> None:
    listening = [listener(tls=server_context(*pair))]
    script = f"C: {hello} x\nS: 250\n" + MESSAGE.replace("x.example>", f"x.example>{utf8}")
    async with relay(ledger, upstream, listening=listening) as desk, connected(desk) as client:
        await play(client, script)
        await secure(client, pair)
        await play(client, script)
    assert received(upstream) == [protocol, protocol if protocol == "SMTP" else protocol + "S"]


async def test_a_big_message_under_tls_from_a_client_that_shuts_at_once(
    ledger: Books, upstream: Puppet, pair: Pair
) -> None:
    """The hand-over is ended and told of, though nobody hears the reply."""
    context = server_context(*pair)
    async with relay(ledger, upstream, listening=[listener(context)]) as desk:
        async with dialled(desk, ssl=trusting(pair), server_hostname="localhost") as client:
            await play(client, "S: 220\n" + HELLO + ENVELOPE + "C: DATA\nS: 354")
            client[1].write(BODY + b"x" * 2_000_000 + b"\r\n.\r\n")
            await client[1].drain()
            client[1].close()
        await until(lambda: upstream.messages or upstream.halves)
        await until(lambda: not desk.server._clients)


async def test_who_leaves_as_soon_as_tls_is_on_leaves_no_trace(
    ledger: Books, upstream: Puppet, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor a line in the log each time, from asyncio, which wants no half-open TLS."""

    def come_and_go(port: int) -> None:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port), 5) as line:
                line.recv(100)
                line.sendall(b"STARTTLS\r\n")
                line.recv(100)
                with trusting(pair).wrap_socket(line, server_hostname="localhost"):
                    pass

    async with relay(ledger, upstream, listening=[listener(tls=server_context(*pair))]) as desk:
        await asyncio.to_thread(come_and_go, desk.port)
        await until(lambda: not desk.server._clients)
    assert caplog.messages == []


# ------------------------------------------------------------------ other rules, other certificates


def fresh(desk: Desk, upstream: Puppet, **options: Any) -> Context:
    """The context of a reload: a pool of its own, and maybe other options."""
    context = desk.server.context
    pool = Pool([Endpoint("127.0.0.1", upstream.port)], hostname=context.hostname, timeout=5, connections=5)
    settings = Relay.model_validate(context.settings.model_dump() | options)
    return dataclasses.replace(context, pool=pool, settings=settings)


async def seen(desk: Desk, how: str, *trusted: Pair) -> bytes:
    """The certificate that a new client is shown."""
    context = ssl.create_default_context()
    for pair in trusted:
        context.load_verify_locations(pair[0])
    tls: dict[str, Any] = {"ssl": context, "server_hostname": "localhost"} if how == "implicit" else {}
    async with dialled(desk, **tls) as client:
        await play(client, "S: 220")
        if how == "starttls":
            await play(client, "C: STARTTLS\nS: 220")
            await client[1].start_tls(context, server_hostname="localhost")
        await play(client, HELLO + MESSAGE)
        found: bytes = client[1].get_extra_info("ssl_object").getpeercert(binary_form=True)
        return found


@pytest.mark.parametrize("how", ["starttls", "implicit"])
async def test_a_new_certificate_is_shown_from_the_next_client_on(
    ledger: Books, upstream: Puppet, pair: Pair, other_pair: Pair, how: str
) -> None:
    def made(of: Pair) -> Listening:
        context = server_context(*of)
        return listener(context) if how == "implicit" else listener(tls=context)

    ders = [ssl.PEM_cert_to_DER_cert(of[0].read_text()) for of in (pair, other_pair)]
    tls: dict[str, Any] = {"ssl": trusting(pair), "server_hostname": "localhost"} if how == "implicit" else {}
    async with relay(ledger, upstream, listening=[made(pair)]) as desk, dialled(desk, **tls) as old:
        await play(old, "S: 220\n")
        if how == "starttls":
            await secure(old, pair)
        await play(old, HELLO + ENVELOPE)
        assert await seen(desk, how, pair, other_pair) == ders[0]
        desk.server.take_over(fresh(desk, upstream), [made(other_pair)])
        assert await seen(desk, how, pair, other_pair) == ders[1]
        await play(old, "C: DATA\nS: 354\nC: ...\nS: 250\n" + MESSAGE)


async def test_a_certificate_is_read_once_and_may_be_gone_when_it_is_taken_over(
    ledger: Books, upstream: Puppet, pair: Pair, other_pair: Pair
) -> None:
    """Nothing is left to fail half way: a certificate without its key would end every handshake."""
    async with relay(ledger, upstream, listening=[listener(server_context(*pair))]) as desk:
        before = await seen(desk, "implicit", pair, other_pair)
        renewed = listener(server_context(*other_pair))
        other_pair[1].unlink()
        desk.server.take_over(fresh(desk, upstream), [renewed])
        assert await seen(desk, "implicit", pair, other_pair) != before


async def test_other_rules_hold_from_the_next_client_on(ledger: Books, upstream: Puppet) -> None:
    """Who is connected keeps those that it came in under; a password that is no more lets nobody in any more."""
    async with relay(ledger, upstream, listening=[listener(credentials=CRM)]) as desk, connected(desk) as old:
        await play(old, HELLO + LOG_IN)
        strict = listener(policy=policy(senders=("quillpdf.example",)), credentials=Credentials({}), required=True)
        desk.server.take_over(fresh(desk, upstream, max_messages=1), [strict])
        async with connected(desk) as new:
            await play(new, HELLO + LOG_IN.replace("235 2.7.0", "502 5.5.1"))
            await play(new, "C: MAIL FROM:<n@x.example>\nS: 530 5.7.0")
        await play(old, MESSAGE + "C: MAIL FROM:<n@x.example>\nS: 421 4.7.0")  # limits: from the next message on
