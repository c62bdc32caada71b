"""Who may send through the relay, as whom and how much: as dialogues (see desk.py for how to read them, listeners.py for the base64)."""

from __future__ import annotations

import asyncio

import pytest

from daemon.relay import access
from daemon.relay.access import MAX_FAILURES
from daemon.relay.protocol import MAX_ERRORS
from daemon.relay.tls import server_context
from storage.terms import Reason
from tests.ledgers import Books
from tests.relay.desk import relay
from tests.relay.faulty import ENVELOPE, HELLO, MAIL, connected, play, reset_on_close, until
from tests.relay.listeners import (
    CRM,
    LOG_IN,
    MESSAGE,
    WRONG,
    Hurried,
    Pair,
    closed,
    crm,
    dialled,
    listener,
    make_pair,
    policy,
    received,
    secure,
)
from tests.relay.puppet import Puppet

pytestmark = pytest.mark.usefixtures("nothing_unexpected")


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


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """(certificate, key)."""
    return make_pair(tmp_path_factory.mktemp("tls"))


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
