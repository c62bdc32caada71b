"""AUTH to the upstream: done as configured or not at all, and the password is seen by nobody else."""

from __future__ import annotations

import asyncio
import base64
import ssl

import pytest

from daemon import dialling
from daemon.connection import Connection
from daemon.dialling import Endpoint, client_context, dial
from daemon.upstream import Lost
from tests.servers import Dovecot, Postfix, Sink
from tests.upstream.certificates import Authority
from tests.upstream.conftest import MakePool
from tests.upstream.guarded import Guarded, guarded
from tests.upstream.support import deliver, delivery, lost, rcpt

PASSWORD = "correct horse"
PLAIN = base64.b64encode(f"\0crm\0{PASSWORD}".encode()).decode()
LOGIN = base64.b64encode(PASSWORD.encode()).decode()


async def refused(endpoint: Endpoint, timeout: float = 5) -> str:
    """Why it could not be used; it must be for its AUTH, and say nothing that is secret."""
    with pytest.raises(Lost) as found:
        await dial(endpoint, "relay.example", timeout)
    assert found.value.step == "auth"
    assert not [secret for secret in (PASSWORD, PLAIN, LOGIN) if secret in str(found.value)]
    return str(found.value)


def login(server: Guarded, trust: ssl.SSLContext | None, password: str = PASSWORD) -> Endpoint:
    return server.endpoint(trust, username="crm", password=password)


# ------------------------------------------------------------------ a real server


def submit(submission: Postfix, port: int, user: str, password: str) -> Endpoint:
    return Endpoint("localhost", port, "starttls", client_context(submission.ca_file), user, password)


@pytest.mark.postfix
@pytest.mark.dovecot
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_a_postfix_lets_us_in(
    submission: Postfix, dovecot: Dovecot, sink: Sink, pool_of: MakePool, mechanism: str
) -> None:
    port = submission.auth_port if mechanism == "PLAIN" else submission.login_port
    pool = pool_of(submit(submission, port, "alice", dovecot.users["alice"]))
    assert (await deliver(pool)).good
    await asyncio.to_thread(sink.wait_for, lambda: len(sink.messages) == 1)
    assert f"sasl_method={mechanism}, sasl_username=alice" in submission.log_file.read_text()


@pytest.mark.postfix
@pytest.mark.dovecot
@pytest.mark.parametrize("port", ["auth_port", "login_port"])
async def test_a_postfix_refuses_a_wrong_password(submission: Postfix, dovecot: Dovecot, port: str) -> None:
    why = await refused(submit(submission, getattr(submission, port), "alice", PASSWORD))
    assert why == "auth: 535 5.7.8 user name or password refused"


@pytest.mark.postfix
@pytest.mark.dovecot
async def test_a_postfix_lets_nobody_in_without(submission: Postfix, dovecot: Dovecot, pool_of: MakePool) -> None:
    """The test's own test: it is the password that lets us in above."""
    message = delivery(pool_of(submit(submission, submission.auth_port, "", "")))
    assert (await message.rcpt(rcpt())).code == 554
    message.drop()


# ------------------------------------------------------------------ on the wire


async def test_plain_is_preferred_and_goes_in_one_line(ca: Authority, trust: ssl.SSLContext) -> None:
    async with guarded(ca.issue("IP:127.0.0.1")) as server:
        (await dial(login(server, trust), "relay.example", 5)).drop()
    assert server.secure == ["EHLO relay.example", f"AUTH PLAIN {PLAIN}"]


async def test_a_long_password_gets_a_line_of_its_own(ca: Authority, trust: ssl.SSLContext) -> None:
    """RFC 4954 4: an initial response must fit the 512 octets of a command."""
    token = "t" * 2000
    async with guarded(ca.issue("IP:127.0.0.1"), AUTH=b"334 \r\n") as server:
        answer = base64.b64encode(f"\0crm\0{token}".encode()).decode()
        server.says[answer.upper()] = b"235 2.7.0 welcome\r\n"
        (await dial(login(server, trust, token), "relay.example", 5)).drop()
    assert server.secure[1:] == ["AUTH PLAIN", answer]


async def test_login_where_there_is_no_plain(ca: Authority, trust: ssl.SSLContext) -> None:
    async with guarded(ca.issue("IP:127.0.0.1"), AUTH=b"334 VXNlcm5hbWU6\r\n") as server:
        server.says["EHLO under TLS"] = b"250-hi\r\n250 auth gssapi login\r\n"
        user = base64.b64encode(b"crm").decode()
        server.says[user.upper()] = b"334 UGFzc3dvcmQ6\r\n"
        server.says[LOGIN.upper()] = b"235 2.7.0 welcome\r\n"
        (await dial(login(server, trust), "relay.example", 5)).drop()
    assert server.secure[1:] == ["AUTH LOGIN", user, LOGIN]


async def test_umlauts_are_utf_8(ca: Authority, trust: ssl.SSLContext) -> None:
    async with guarded(ca.issue("IP:127.0.0.1")) as server:
        (await dial(server.endpoint(trust, username="jürgen", password="grün"), "relay.example", 5)).drop()
    assert base64.b64decode(server.secure[-1].split()[-1]) == "\0jürgen\0grün".encode()


async def test_without_a_user_name_nobody_logs_in(ca: Authority, trust: ssl.SSLContext, pool_of: MakePool) -> None:
    async with guarded(ca.issue("IP:127.0.0.1")) as server:
        assert (await deliver(pool_of(server.endpoint(trust)))).good
    assert not [line for line in server.secure if "AUTH" in line]


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"535 5.7.8 no\r\n", "535 5.7.8 user name or password refused"),
        (f"535 5.7.8 {PLAIN} is wrong\r\n".encode(), "535 5.7.8 user name or password refused"),
        (f"535-{PASSWORD}\r\n535 {PASSWORD}\r\n".encode(), "535 user name or password refused"),
        (b"534 5.7.9 please use your browser\r\n", "534 5.7.9 a stronger mechanism is asked for"),
        (b"454 4.7.0 later\r\n", "454 4.7.0 cannot tell now"),
        (b"421 4.3.2 bye\r\n", "421 4.3.2 going away"),
        (b"250 2.0.0 ok\r\n", "250 2.0.0 refused"),
        (b"334 \r\n", "334 refused"),
        (b"504 what\r\n", "504 refused"),
        (f"{PLAIN}\r\n".encode(), "not an SMTP reply"),
        (b"", "closed by the upstream"),
        (None, "silent for 0 s"),
    ],
)
async def test_anything_but_235_is_a_refusal(
    ca: Authority, trust: ssl.SSLContext, answer: bytes | None, why: str
) -> None:
    async with guarded(ca.issue("IP:127.0.0.1"), AUTH=answer) as server:
        assert await refused(login(server, trust), 0.4) == f"auth: {why}"
    assert len(server.secure) == 2  # nothing after it


@pytest.mark.parametrize("ehlo", [b"250 hi\r\n", b"250-hi\r\n250 AUTH\r\n", b"250-hi\r\n250 AUTH CRAM-MD5 PLAINER\r\n"])
async def test_a_server_that_offers_no_auth_gets_no_mail(
    ca: Authority, trust: ssl.SSLContext, ehlo: bytes, pool_of: MakePool
) -> None:
    async with guarded(ca.issue("IP:127.0.0.1")) as server:
        server.says["EHLO under TLS"] = ehlo
        assert "neither AUTH PLAIN nor AUTH LOGIN" in await refused(login(server, trust))
        assert await lost(lambda: delivery(pool_of(login(server, trust))).rcpt(rcpt())) == "auth"
    assert server.secure == ["EHLO relay.example"] * 2


async def test_what_was_offered_in_clear_does_not_count(ca: Authority, trust: ssl.SSLContext) -> None:
    in_clear = b"250-hi\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n"
    async with guarded(ca.issue("IP:127.0.0.1"), EHLO=in_clear) as server:
        server.says["EHLO under TLS"] = b"250 hi\r\n"
        await refused(login(server, trust))


# ------------------------------------------------------------------ in clear

OFFERED = b"250-hi\r\n250 AUTH PLAIN\r\n"


async def test_on_this_machine_a_password_may_go_in_clear(pool_of: MakePool) -> None:
    async with guarded(EHLO=OFFERED) as server:
        assert (await deliver(pool_of(login(server, None)))).good
    assert server.clear[1] == f"AUTH PLAIN {PLAIN}"


async def test_elsewhere_it_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    real = dialling._connect

    async def from_afar(endpoint: Endpoint) -> tuple[Connection, bool]:
        return (await real(endpoint))[0], False

    monkeypatch.setattr(dialling, "_connect", from_afar)
    async with guarded(EHLO=OFFERED) as server:
        await refused(login(server, None))
    assert server.clear == ["EHLO relay.example"]


def test_an_endpoint_is_shown_without_its_password() -> None:
    endpoint = Endpoint("mx.example", 587, username="crm", password=PASSWORD)
    assert PASSWORD not in f"{endpoint!r} {endpoint}"
    assert str(Endpoint("::1", 25)) == "[::1]:25"


@pytest.mark.parametrize("options", [{"username": "a\0b"}, {"username": "a", "password": "b\0"}])
def test_what_cannot_be_sent_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="NUL"):
        Endpoint("mx.example", 587, **options)  # type: ignore[arg-type]
