"""Who may send through the relay, by which door, as whom and how much: as dialogues (see desk.py for how to read them).

The passwords of these tests in base64, as they stand in the dialogues:

    AGNybQBzZWNyZXQ=   NUL crm NUL secret        Y3Jt   crm     c2VjcmV0   secret
    AGNybQB3cm9uZw==   NUL crm NUL wrong                        d3Jvbmc=   wrong
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import smtplib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from daemon.config import Relay
from daemon.relay import access
from daemon.relay.access import MAX_FAILURES, Brake, Credentials, Policy
from daemon.relay.context import Context
from daemon.relay.protocol import MAX_ERRORS, Door
from daemon.relay.server import Listening
from daemon.relay.tls import server_context
from daemon.upstream import Endpoint, Pool
from storage.terms import Reason
from tests import servers
from tests.ledgers import Books
from tests.relay.desk import BODY, Desk, relay, reply
from tests.relay.faulty import ENVELOPE, HELLO, MAIL, connected, play, reset_on_close, until
from tests.relay.puppet import Puppet

pytestmark = pytest.mark.usefixtures("nothing_unexpected")

Pair = tuple[Path, Path]
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]

MESSAGE = ENVELOPE + "C: DATA\nS: 354\nC: ...\nS: 250 2.0.0 taken by puppet\n"
LOG_IN = "C: AUTH PLAIN AGNybQBzZWNyZXQ=\nS: 235 2.7.0\n"
WRONG = "C: AUTH PLAIN AGNybQB3cm9uZw==\n"


def policy(**own: Any) -> Policy:
    """Of whoever has no other, but for these."""
    usual = {"mode": "refuse", "list_id": None, "purpose": "marketing", "senders": (), "credential": ""}
    return Policy(**(usual | own))


CRM = Credentials({"crm": ("secret", policy(credential="crm"))})


def crm(**own: Any) -> Credentials:
    """The one user, with rules of its own."""
    return Credentials({"crm": ("secret", policy(credential="crm", **own))})


def listener(implicit: ssl.SSLContext | None = None, files: Pair | None = None, **door: Any) -> Listening:
    return Listening("127.0.0.1:0", Door(**({"policy": policy()} | door)), implicit, files)


def received(upstream: Puppet) -> list[str]:
    """The `with` of our Received line on each message."""
    return [data.partition(b"(optoutd) with ")[2].partition(b"\r\n")[0].decode() for _, data in upstream.messages]


class Hurried(Brake):
    """Makes nobody wait, and writes down for how long it would have."""

    def __init__(self) -> None:
        super().__init__(per_client=0)
        self.waits: list[float] = []

    def delay(self, peer: str, now: float) -> float:
        """Before an AUTH is looked at."""
        self.waits.append(super().delay(peer, now))
        return 0.0

    def failed(self, peer: str, now: float) -> float:
        """Before a wrong one is answered."""
        self.waits.append(super().failed(peer, now))
        return 0.0


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Hurried:
    """The brake of all relays of a test."""
    brake = Hurried()
    monkeypatch.setattr("daemon.relay.server.Brake", lambda per_client: brake)
    return brake


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each loopback address is somebody else's network, not this machine."""
    monkeypatch.setattr(access, "_network", str.encode)


def _pair(directory: Path) -> Pair:
    servers._certificate(directory / "key.pem", directory / "cert.pem")
    return directory / "cert.pem", directory / "key.pem"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """(certificate, key)."""
    return _pair(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def other_pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The next one."""
    return _pair(tmp_path_factory.mktemp("renewed"))


def trusting(pair: Pair) -> ssl.SSLContext:
    """A client's context."""
    return ssl.create_default_context(cafile=str(pair[0]))


async def secure(client: Client, pair: Pair) -> None:
    """STARTTLS, as a client that verifies."""
    await play(client, "C: STARTTLS\nS: 220 2.0.0")
    await client[1].start_tls(trusting(pair), server_hostname="localhost")


@contextlib.asynccontextmanager
async def dialled(desk: Desk, number: int = 0, local: str = "127.0.0.1", **tls: Any) -> AsyncIterator[Client]:
    """A connection to the n-th listener, from this address; the greeting is still to be read."""
    port = desk.server._sockets[number].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(local, 0), **tls)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def closed(client: Client) -> bool:
    """Does nothing follow?"""
    async with asyncio.timeout(5):
        return await client[0].read() == b""


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


# ------------------------------------------------------------------ AUTH, well

WELL = {
    "PLAIN": "C: AUTH PLAIN AGNybQBzZWNyZXQ=\nS: 235 2.7.0",
    "PLAIN, in any case": "C: auth plain AGNybQBzZWNyZXQ=\nS: 235 2.7.0",
    "PLAIN, asked": "C: AUTH PLAIN\nS: 334 \nC: AGNybQBzZWNyZXQ=\nS: 235 2.7.0",
    "PLAIN, for itself": "C: AUTH PLAIN Y3JtAGNybQBzZWNyZXQ=\nS: 235 2.7.0",
    "LOGIN": "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: Y3Jt\nS: 334 UGFzc3dvcmQ6\nC: c2VjcmV0\nS: 235 2.7.0",
    "LOGIN, with a name": "C: AUTH LOGIN Y3Jt\nS: 334 UGFzc3dvcmQ6\nC: c2VjcmV0\nS: 235 2.7.0",
    "LOGIN, after a mistake": WRONG + "S: 535 5.7.8\nC: AUTH LOGIN Y3Jt\nS: 334\nC: c2VjcmV0\nS: 235 2.7.0",
    "PLAIN, all in one segment": "C: AUTH PLAIN\nC: AGNybQBzZWNyZXQ=\nC: NOOP\nS: 334\nS: 235 2.7.0\nS: 250",
}


@pytest.mark.parametrize("way", WELL)
async def test_a_client_logs_in(ledger: Books, upstream: Puppet, hurried: Hurried, way: str) -> None:
    listening = [listener(credentials=CRM, required=True)]
    async with relay(ledger, upstream, listening=listening) as desk, connected(desk) as client:
        await play(client, HELLO + "C: MAIL FROM:<n@x.example>\nS: 530 5.7.0 authentication required")
        await play(client, WELL[way])
        await play(client, LOG_IN.replace("235 2.7.0", "503 5.5.1") + MESSAGE)
        await play(client, HELLO + MESSAGE)  # a second EHLO logs nobody out (RFC 4954 4)
        await play(client, "C: AUTH LOGIN\nS: 503 5.5.1\nC: QUIT\nS: 221")
    assert received(upstream) == ["ESMTPA", "ESMTPA"]


async def test_auth_is_a_parameter_of_mail_that_we_take_and_keep_to_ourselves(ledger: Books, upstream: Puppet) -> None:
    """Postfix writes `AUTH=<>` to whoever offers AUTH (RFC 4954 5)."""
    async with relay(ledger, upstream, listening=[listener(credentials=CRM)]) as desk, connected(desk) as client:
        await play(
            client,
            HELLO
            + LOG_IN
            + """
            C: MAIL FROM:<n@x.example> SIZE=100 AUTH=<>
            S: 250 2.1.0
            C: RCPT TO:<bob@example.com>
            S: 250
            C: RSET
            S: 250
            C: MAIL FROM:<n@x.example> AUTH=ann+2Bx@example.com
            S: 250 2.1.0
            C: RSET
            S: 250
            C: MAIL FROM:<n@x.example> AUTH=
            S: 501 5.5.4
            C: MAIL FROM:<n@x.example> AUTH=a+b
            S: 501 5.5.4
            """,
        )
    assert not [command for command in upstream.commands if "AUTH" in command]


# ------------------------------------------------------------------ AUTH, not so well

BADLY = {
    "wrong password": WRONG + "S: 535 5.7.8",
    "unknown user": "C: AUTH PLAIN AG5vYm9keQBzZWNyZXQ=\nS: 535 5.7.8",
    "for somebody else": "C: AUTH PLAIN cm9vdABjcm0Ac2VjcmV0\nS: 535 5.7.8",
    "LOGIN, wrong": "C: AUTH LOGIN\nS: 334\nC: Y3Jt\nS: 334\nC: d3Jvbmc=\nS: 535 5.7.8",
    "cancelled": "C: AUTH PLAIN\nS: 334\nC: *\nS: 501 5.5.2",
    "cancelled half way": "C: AUTH LOGIN\nS: 334\nC: Y3Jt\nS: 334\nC: *\nS: 501 5.5.2",
    "no base64": "C: AUTH PLAIN !\nS: 501 5.5.2",
    "no base64, asked": "C: AUTH PLAIN\nS: 334\nC: secret\nS: 501 5.5.2",
    "a command instead": "C: AUTH LOGIN\nS: 334\nC: MAIL FROM:<n@x.example>\nS: 501 5.5.2",
    "one part": "C: AUTH PLAIN Y3Jt\nS: 501 5.5.2",
    "unknown mechanism": "C: AUTH CRAM-MD5\nS: 504 5.5.4",
    "no mechanism": "C: AUTH\nS: 501 5.5.4",
    "a line too long": f"C: AUTH PLAIN\nS: 334\nC: {'A' * 20_000}\nS: 501 5.5.2",
}


@pytest.mark.parametrize("way", BADLY)
async def test_a_client_does_not_log_in(ledger: Books, upstream: Puppet, hurried: Hurried, way: str) -> None:
    listening = [listener(credentials=CRM, required=True)]
    async with relay(ledger, upstream, listening=listening) as desk, connected(desk) as client:
        await play(client, HELLO + BADLY[way])
        await play(client, "C: MAIL FROM:<n@x.example>\nS: 530 5.7.0\nC: RCPT TO:<bob@example.com>\nS: 503 5.5.1")
        await play(client, LOG_IN + MESSAGE)
    assert len(upstream.messages) == 1


NOT_NOW = {
    "before EHLO": (listener(credentials=CRM), LOG_IN.replace("235 2.7.0", "503 5.5.1")),
    "after HELO": (listener(credentials=CRM), "C: HELO x\nS: 250\n" + LOG_IN.replace("235 2.7.0", "503 5.5.1")),
    "within a message": (listener(credentials=CRM), HELLO + MAIL + LOG_IN.replace("235 2.7.0", "503 5.5.1")),
    "nobody is known": (listener(), HELLO + LOG_IN.replace("235 2.7.0", "502 5.5.1")),
    "in clear": (listener(credentials=CRM, loopback=False), HELLO + LOG_IN.replace("235 2.7.0", "538 5.7.11")),
}


@pytest.mark.parametrize("when", NOT_NOW)
async def test_auth_at_the_wrong_moment(ledger: Books, upstream: Puppet, hurried: Hurried, when: str) -> None:
    made, script = NOT_NOW[when]
    async with relay(ledger, upstream, listening=[made]) as desk, connected(desk) as client:
        await play(client, script + "C: NOOP\nS: 250")
    assert hurried.waits == []  # nobody has looked at the password


async def test_after_three_wrong_log_ins_the_session_is_over(
    ledger: Books, upstream: Puppet, hurried: Hurried, logged: list[str]
) -> None:
    """Each is answered later than the one before; and for a while a right one waits, too."""
    async with relay(ledger, upstream, listening=[listener(credentials=CRM)]) as desk:
        async with connected(desk) as client:
            await play(client, HELLO + WRONG + "S: 535 5.7.8\n" + WRONG + "S: 535 5.7.8\n" + WRONG + "S: 421 4.7.0")
            assert await closed(client)
        async with connected(desk) as client:
            await play(client, HELLO + LOG_IN)
    assert hurried.waits == [
        0,
        1,
        1,
        2,
        1,
        4,
        1,
    ]  # before and after looking at each; this machine's own wait 1 s at most
    assert logged.count("login_refused") == 3


async def test_wrong_log_ins_are_counted_across_starttls(
    ledger: Books, upstream: Puppet, pair: Pair, hurried: Hurried
) -> None:
    listening = [listener(credentials=CRM, tls=server_context(*pair))]
    async with relay(ledger, upstream, listening=listening) as desk, connected(desk) as client:
        await play(client, HELLO + WRONG + "S: 535 5.7.8\n" + WRONG + "S: 535 5.7.8\n")
        await secure(client, pair)
        await play(client, HELLO + WRONG + "S: 421 4.7.0")


@pytest.mark.usefixtures("strangers")
async def test_a_network_that_guesses_on_is_turned_away_wherever_it_is(
    ledger: Books, upstream: Puppet, hurried: Hurried, logged: list[str]
) -> None:
    """At the greeting; and on a connection from before, where even the right password is not looked at."""
    async with relay(ledger, upstream, listening=[listener(credentials=CRM)]) as desk:
        async with dialled(desk, local="127.0.0.2") as before:
            await play(before, "S: 220\n" + HELLO)
            for _ in range(MAX_FAILURES):
                desk.server.brake.failed("127.0.0.2", asyncio.get_running_loop().time())
            await play(before, LOG_IN.replace("235 2.7.0", "421 4.7.0 too many wrong log-ins from your network"))
            assert await closed(before)
        async with dialled(desk, local="127.0.0.2") as client:
            await play(client, "S: 421 4.7.0 too many wrong log-ins from your network")
            assert await closed(client)
        async with dialled(desk, local="127.0.0.3") as client:
            await play(client, "S: 220\n" + HELLO + LOG_IN + MESSAGE)
    assert logged.count("client_turned_away") == 1


async def test_a_client_that_falls_silent_within_auth_is_sent_away(ledger: Books, upstream: Puppet) -> None:
    listening = [listener(credentials=CRM)]
    async with relay(ledger, upstream, listening=listening, idle_timeout=1) as desk, connected(desk) as client:
        await play(client, HELLO + "C: AUTH LOGIN\nS: 334\nS: 421 4.4.2")
        assert await closed(client)


async def test_a_client_within_auth_is_told_when_we_close(ledger: Books, upstream: Puppet) -> None:
    async with relay(ledger, upstream, listening=[listener(credentials=CRM)]) as desk, connected(desk) as client:
        await play(client, HELLO + "C: AUTH LOGIN\nS: 334")
        await asyncio.gather(desk.server.stop(), play(client, "S: 421 4.3.2"))


async def test_a_client_that_leaves_while_it_waits_for_its_535_costs_nothing(
    ledger: Books, upstream: Puppet, logged: list[str]
) -> None:
    """Real seconds here: it hangs up in the first of them, and its failure counts all the same."""
    async with relay(ledger, upstream, listening=[listener(credentials=CRM)]) as desk:
        async with connected(desk) as client:
            client[1].write(b"EHLO x\r\nAUTH PLAIN AGNybQB3cm9uZw==\r\n")
            await until(lambda: "login_refused" in logged)
            reset_on_close(client[1])
        await until(lambda: not desk.server._clients, 0.5)
        assert desk.server.brake.delay("127.0.0.1", asyncio.get_running_loop().time()) == 1


# ------------------------------------------------------------------ what a credential brings with it


async def test_a_credential_has_its_own_list(ledger: Books, upstream: Puppet) -> None:
    ref = ledger.suppress("bob@example.com", "offers").evidence
    async with relay(ledger, upstream, listening=[listener(credentials=crm(list_id="offers"))]) as desk:
        async with connected(desk) as client:
            await play(client, HELLO + MESSAGE)  # the listener knows no list
        async with connected(desk) as client:
            await play(
                client,
                HELLO
                + LOG_IN
                + MAIL
                + f"""
                C: RCPT TO:<bob@example.com>
                S: 550 5.7.1 <bob@example.com> has opted out of offers (ref {ref})
                C: RCPT TO:<eve@example.com>
                S: 250
                """,
            )
    assert len(upstream.messages) == 1


async def test_a_credential_has_its_own_mode(ledger: Books, upstream: Puppet) -> None:
    ledger.suppress("bob@example.com")
    async with relay(ledger, upstream, listening=[listener(credentials=crm(mode="strip"))]) as desk:
        async with connected(desk) as client:
            await play(client, HELLO + MAIL + "C: RCPT TO:<bob@example.com>\nS: 550 5.7.1")
        async with connected(desk) as client:
            await play(client, HELLO + LOG_IN + ENVELOPE + "C: DATA\nS: 354\nC: ...\nS: 250 2.0.0 nothing sent: all 1")
    assert upstream.messages == []


async def test_service_mail_passes_an_opt_out_and_is_stopped_by_a_hard_bounce(
    ledger: Books, upstream: Puppet, logged: list[str]
) -> None:
    ledger.suppress("bob@example.com")
    ledger.suppress("gone@example.com", reason=Reason.HARD_BOUNCE)
    listening = [listener(credentials=crm(purpose="service"))]
    async with relay(ledger, upstream, listening=listening) as desk, connected(desk) as client:
        await play(client, HELLO + MAIL + "C: RCPT TO:<bob@example.com>\nS: 550 5.7.1\nC: RSET\nS: 250\n")
        await play(
            client,
            LOG_IN
            + MAIL
            + """
            C: RCPT TO:<gone@example.com>
            S: 550 5.7.1 <gone@example.com> is suppressed: hard-bounce
            C: RCPT TO:<bob@example.com>
            S: 250
            C: DATA
            S: 354
            C: ...
            S: 250
            """,
        )
    assert [rcpts for rcpts, _ in upstream.messages] == [("<bob@example.com>",)]
    assert "service_mail_passed" in logged


async def test_an_observer_sends_to_everybody_and_is_told_of_in_the_log(
    ledger: Books, upstream: Puppet, logged: list[str]
) -> None:
    ledger.suppress("bob@example.com")
    async with (
        relay(ledger, upstream, listening=[listener(credentials=crm(mode="observe"))]) as desk,
        connected(desk) as client,
    ):
        await play(client, HELLO + LOG_IN + MESSAGE)
    assert len(upstream.messages) == 1
    assert logged.count("would_refuse") == 1


async def test_a_credential_has_its_own_senders(ledger: Books, upstream: Puppet) -> None:
    listening = [listener(policy=policy(senders=("quillpdf.example",)), credentials=crm(senders=("crm.example",)))]
    async with relay(ledger, upstream, listening=listening) as desk, connected(desk) as client:
        await play(
            client,
            HELLO
            + """
            C: MAIL FROM:<n@crm.example>
            S: 550 5.7.1 relaying denied
            C: MAIL FROM:<n@news.quillpdf.example>
            S: 250
            C: RSET
            S: 250
            """
            + LOG_IN
            + """
            C: MAIL FROM:<n@news.quillpdf.example>
            S: 550 5.7.1 relaying denied
            C: MAIL FROM:<n@crm.example.evil.example>
            S: 550 5.7.1 relaying denied
            C: MAIL FROM:<n@crm.example@evil.example>
            S: 501 5.1.7
            C: MAIL FROM:<"n@crm.example"@evil.example>
            S: 550 5.7.1 relaying denied
            C: MAIL FROM:<@crm.example:n@evil.example>
            S: 550 5.7.1 relaying denied
            C: RCPT TO:<bob@example.com>
            S: 503 5.5.1
            C: MAIL FROM:<>
            S: 250
            C: RSET
            S: 250
            C: MAIL FROM:<N@CRM.Example.>
            S: 250
            """,
        )


async def test_each_listener_has_its_own_rules(ledger: Books, upstream: Puppet) -> None:
    ledger.suppress("bob@example.com", "newsletter")
    listening = [
        listener(policy=policy(list_id="newsletter")),
        listener(policy=policy(list_id="offers")),
        listener(policy=policy(list_id="newsletter", purpose="service")),
        listener(credentials=CRM, required=True),
    ]
    async with relay(ledger, upstream, listening=listening) as desk:
        for number, script in enumerate(
            [
                MAIL + "C: RCPT TO:<bob@example.com>\nS: 550 5.7.1 <bob@example.com> has opted out of newsletter",
                ENVELOPE,
                ENVELOPE,
                "C: MAIL FROM:<n@x.example>\nS: 530 5.7.0",
            ]
        ):
            async with dialled(desk, number) as client:
                await play(client, "S: 220\n" + HELLO + script)


# ------------------------------------------------------------------ how much


async def test_so_many_messages_and_then_come_again(ledger: Books, upstream: Puppet) -> None:
    async with relay(ledger, upstream, max_messages=2) as desk:
        async with connected(desk) as client:
            await play(client, HELLO + "C: MAIL FROM:<\nS: 501\n" + MESSAGE + MAIL + "C: RSET\nS: 250\n")
            await play(client, "C: MAIL FROM:<n@x.example>\nS: 421 4.7.0 too many messages on this connection")
            assert await closed(client)
        async with connected(desk) as client:
            await play(client, HELLO + MESSAGE)
    assert len(upstream.messages) == 2


@pytest.mark.usefixtures("strangers")
async def test_so_many_connections_of_one_network(ledger: Books, upstream: Puppet, logged: list[str]) -> None:
    async with relay(ledger, upstream, max_per_client=1) as desk:
        async with dialled(desk, local="127.0.0.2") as first:
            await play(first, "S: 220")
            async with dialled(desk, local="127.0.0.2") as second:
                await play(second, "S: 421 4.3.2 too many connections from your network")
                assert await closed(second)
            async with dialled(desk, local="127.0.0.3") as somebody_else:
                await play(somebody_else, "S: 220\n" + HELLO + MESSAGE)
            await play(first, HELLO + MESSAGE)
        await until(lambda: not desk.server._clients)
        async with dialled(desk, local="127.0.0.2") as again:
            await play(again, "S: 220")
    assert logged.count("client_turned_away") == 1


async def test_so_many_connections_of_this_machine_as_it_likes(ledger: Books, upstream: Puppet) -> None:
    async with relay(ledger, upstream, max_per_client=1) as desk, connected(desk), dialled(desk) as second:
        await play(second, "S: 220")


async def test_so_many_connections_in_all(ledger: Books, upstream: Puppet) -> None:
    async with relay(ledger, upstream, max_connections=2) as desk:
        async with connected(desk), connected(desk) as second, dialled(desk) as third:
            await play(third, "S: 421 4.3.2 too many connections")
            assert await closed(third)
            await play(second, HELLO + MESSAGE)
        await until(lambda: not desk.server._clients)
        async with dialled(desk) as fourth:
            await play(fourth, "S: 220")


async def test_so_many_errors(ledger: Books, upstream: Puppet) -> None:
    async with relay(ledger, upstream) as desk, connected(desk) as client:
        await play(client, "C: WHAT\nS: 500\nC: NOOP\nS: 250\n" * (MAX_ERRORS - 1))
        await play(client, "C: WHAT\nS: 500\nS: 421 4.7.0 too many errors")
        assert await closed(client)


async def test_auth_begun_and_cancelled_again_and_again_is_an_error_each_time(ledger: Books, upstream: Puppet) -> None:
    async with relay(ledger, upstream, listening=[listener(credentials=CRM)]) as desk, connected(desk) as client:
        await play(client, HELLO + "C: AUTH LOGIN\nS: 334\nC: *\nS: 501\n" * MAX_ERRORS + "S: 421 4.7.0")


# ------------------------------------------------------------------ TLS


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("how", ["starttls", "implicit"])
async def test_a_usual_client_speaks_tls_and_logs_in(
    ledger: Books, upstream: Puppet, pair: Pair, how: str, version: ssl.TLSVersion
) -> None:
    context, mine = server_context(*pair), trusting(pair)
    mine.maximum_version = version
    made = (
        listener(context, pair, credentials=CRM, loopback=False)
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
    async with relay(ledger, upstream, listening=[listener(context, pair)]) as desk:
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
        return listener(context, of) if how == "implicit" else listener(tls=context)

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


async def test_a_certificate_that_is_gone_again_changes_nothing(
    ledger: Books, upstream: Puppet, pair: Pair, tmp_path: Path
) -> None:
    made = listener(server_context(*pair), pair)
    gone = dataclasses.replace(made, files=(tmp_path / "cert.pem", tmp_path / "key.pem"))
    async with relay(ledger, upstream, listening=[made]) as desk:
        before = desk.server.context
        with pytest.raises(FileNotFoundError):
            desk.server.take_over(fresh(desk, upstream), [gone])
        assert desk.server.context is before
        await seen(desk, "implicit", pair)


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
