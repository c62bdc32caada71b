"""TLS to the upstream: it is verified or it is not used, and nothing said in clear counts after it."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from daemon.dialling import Endpoint, client_context, dial
from daemon.upstream import Lost
from tests.servers import Postfix, Sink
from tests.upstream.certificates import Authority, authority
from tests.upstream.conftest import MakePool
from tests.upstream.guarded import guarded
from tests.upstream.support import BODY, deliver, delivery, lost, rcpt

HELLO = "EHLO relay.example"


async def refused(endpoint: Endpoint, timeout: float = 5) -> str:
    """Why it could not be reached; it must be for its TLS."""
    with pytest.raises(Lost) as found:
        await dial(endpoint, "relay.example", timeout)
    assert found.value.step == "tls"
    return str(found.value)


# ------------------------------------------------------------------ a real server


@pytest.mark.postfix
@pytest.mark.parametrize("mode", ["starttls", "implicit"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_messages_go_to_a_postfix_under_tls(
    postfix: Postfix, sink: Sink, pool_of: MakePool, mode: str, host: str
) -> None:
    port = getattr(postfix, f"{mode}_port")
    pool = pool_of(Endpoint(host, port, mode, client_context(postfix.ca_file)))  # type: ignore[arg-type]
    for name in ("ann", "bob"):
        assert (await deliver(pool, name)).good
    await asyncio.to_thread(sink.wait_for, lambda: len(sink.messages) == 2)
    assert sorted(m.rcpt_to[0][:17] for m in sink.messages) == ["<ann@example.com>", "<bob@example.com>"]
    assert "PIPELINING" in pool.features
    assert len(pool.hops[0].idle) == 1  # both went over it


@pytest.mark.postfix
async def test_a_long_body_flows_and_half_a_body_is_not_delivered(
    postfix: Postfix, sink: Sink, pool_of: MakePool
) -> None:
    pool = pool_of(Endpoint("localhost", postfix.starttls_port, "starttls", client_context(postfix.ca_file)))
    for name, whole in (("ann", False), ("bob", True)):
        message = delivery(pool)
        await message.rcpt(rcpt(name))
        await message.data()
        for _ in range(50):
            await message.body(BODY + b"x" * 900 + b"\r\n" + b"y" * 65_000 + b"\r\n")
        if whole:
            assert (await message.dot()).good
        message.drop()
    await asyncio.to_thread(sink.wait_for, lambda: len(sink.messages) == 1)
    assert sink.messages[0].rcpt_to[0].startswith("<bob@example.com>")
    assert sink.messages[0].data.count(b"y") > 50 * 65_000


@pytest.mark.postfix
@pytest.mark.parametrize("mode", ["starttls", "implicit"])
async def test_a_postfix_that_only_itself_vouches_for_is_not_trusted(postfix: Postfix, mode: str) -> None:
    endpoint = Endpoint("localhost", getattr(postfix, f"{mode}_port"), mode, client_context(None))  # type: ignore[arg-type]
    assert "self-signed certificate" in await refused(endpoint)


@pytest.mark.postfix
async def test_a_postfix_that_wants_tls_is_told_nothing_without(postfix: Postfix, pool_of: MakePool) -> None:
    """The test's own test: what arrives above does not arrive in clear."""
    message = delivery(pool_of(Endpoint("localhost", postfix.starttls_port)))
    assert str(await message.rcpt(rcpt())).startswith("530 5.7.0")
    message.drop()


# ------------------------------------------------------------------ certificates


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "implicit"])
@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("name", "IP address mismatch"),
        ("date", "certificate has expired"),
        ("issuer", "unable to get local issuer certificate"),
    ],
)
async def test_a_certificate_that_is_not_good_ends_it_before_the_envelope(
    ca: Authority, trust: ssl.SSLContext, tmp_path: Path, implicit: bool, fault: str, why: str, pool_of: MakePool
) -> None:
    issuer = authority(tmp_path / "stranger") if fault == "issuer" else ca
    shown = issuer.issue("DNS:localhost" if fault == "name" else "IP:127.0.0.1", days=-1 if fault == "date" else 2)
    async with guarded(shown, implicit=implicit) as server:
        assert why in await refused(server.endpoint(trust))
        assert await lost(lambda: delivery(pool_of(server.endpoint(trust))).rcpt(rcpt())) == "tls"
    assert server.clear == ([] if implicit else [HELLO, "STARTTLS"] * 2)
    assert server.secure == []


async def test_the_name_that_counts_is_the_one_configured(ca: Authority, trust: ssl.SSLContext) -> None:
    async with guarded(ca.issue("DNS:other.example")) as server:
        assert "Hostname mismatch" in await refused(server.endpoint(trust, "localhost"))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "LOCALHOST"])
async def test_names_and_literals_of_both_families(ca: Authority, trust: ssl.SSLContext, host: str) -> None:
    names = ("DNS:localhost", "IP:127.0.0.1", "IP:::1")
    async with guarded(ca.issue(*names), host="::1" if ":" in host else "127.0.0.1") as server:
        connection = await dial(server.endpoint(trust, host), "relay.example", 5)
        connection.drop()
    assert [name and name.lower() for name in server.names] == [None if host[0] in "1:" else "localhost"]  # RFC 6066 3


async def test_a_dot_that_ends_a_name_is_for_the_resolver_only(
    ca: Authority, trust: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    real, asked = loop.getaddrinfo, list[object]()

    async def resolve(host: str, *rest: object, **more: object) -> object:
        asked.append(host)
        return await real(host.rstrip("."), *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    async with guarded(ca.issue("DNS:localhost")) as server:
        (await dial(server.endpoint(trust, "localhost."), "relay.example", 5)).drop()
    assert asked == ["localhost."]
    assert server.names == ["localhost"]


def test_a_context_verifies_always() -> None:
    context = client_context(None)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("content", "why"), [(None, "cannot be read: No such file"), ("", "no PEM"), ("hello\n", "no PEM")]
)
def test_a_ca_file_that_is_none_is_told_in_a_sentence(tmp_path: Path, content: str | None, why: str) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=why):
        client_context(path)


# ------------------------------------------------------------------ somebody in between


@pytest.mark.parametrize(
    "ehlo", [b"250-guarded.example\r\n250 SIZE 1000\r\n", b"250 guarded.example\r\n", b"502 5.5.1 what?\r\n"]
)
async def test_without_starttls_nothing_more_is_said(trust: ssl.SSLContext, ehlo: bytes, pool_of: MakePool) -> None:
    async with guarded(EHLO=ehlo, HELO=b"250 guarded.example\r\n") as server:
        endpoint = server.endpoint(trust, username="crm", password="secret")
        assert await lost(lambda: delivery(pool_of(endpoint)).rcpt(rcpt())) == "tls"
    assert {line.split()[0] for line in server.clear} <= {"EHLO", "HELO"}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"454 4.7.0 TLS not available\r\n", id="454"),
        pytest.param(b"250 2.0.0 ok\r\n", id="250"),
        pytest.param(b"421 4.3.2 bye\r\n", id="421"),
        pytest.param(b"hello\r\n", id="no reply"),
        pytest.param(b"", id="closes"),
        pytest.param(None, id="silent"),
        pytest.param(b"220 go\r\n250-hi\r\n250 AUTH PLAIN\r\n", id="a reply to the EHLO that is to come"),
        pytest.param(b"220 go\r\n250-hi\r\n", id="half a reply"),
        pytest.param(b"220 go\r\n2", id="an octet"),
        pytest.param(b"220 go\r\n\x16\x03\x03", id="what looks like TLS"),
    ],
)
async def test_an_answer_to_starttls_that_is_more_or_less_than_220(
    ca: Authority, trust: ssl.SSLContext, answer: bytes | None
) -> None:
    """RFC 3207 5: what came in clear behind the 220 is not read as if it came under TLS (CVE-2011-0411)."""
    async with guarded(ca.issue("IP:127.0.0.1"), STARTTLS=answer) as server:
        await refused(server.endpoint(trust), timeout=0.5)
    assert server.clear == [HELLO, "STARTTLS"]
    assert server.secure == []


@pytest.mark.parametrize("answer", [b"220 go\r\n", b"250 hi\r\n"])
async def test_a_reply_injected_a_moment_later_is_not_read_either(trust: ssl.SSLContext, answer: bytes) -> None:
    """It comes while the handshake is under way, and is no TLS."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        await reader.readline()
        writer.write(b"250-hi\r\n250 STARTTLS\r\n")
        await reader.readline()
        writer.write(b"220 go\r\n")
        await asyncio.sleep(0.05)
        writer.write(answer)
        heard.append(await reader.read())
        writer.close()

    heard: list[bytes] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    await refused(Endpoint("127.0.0.1", server.sockets[0].getsockname()[1], "starttls", trust))
    server.close()
    async with asyncio.timeout(5):
        while not heard:
            await asyncio.sleep(0.005)
    assert b"EHLO" not in heard[0]


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "implicit"])
async def test_a_handshake_that_does_not_come_is_waited_for_no_longer_than_a_reply(
    trust: ssl.SSLContext, implicit: bool
) -> None:
    async with guarded(implicit=implicit, GREETING=None if implicit else b"220 hi\r\n") as server:
        assert "handshake" in await refused(server.endpoint(trust), timeout=0.2)


async def test_a_server_without_tls_at_a_port_with_tls(trust: ssl.SSLContext) -> None:
    async with guarded(implicit=True) as server:
        await refused(server.endpoint(trust))
    assert not [line for line in server.clear if "EHLO" in line]


# ------------------------------------------------------------------ afterwards


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "implicit"])
async def test_what_is_offered_under_tls_is_what_counts(
    ca: Authority, trust: ssl.SSLContext, implicit: bool, pool_of: MakePool
) -> None:
    async with guarded(ca.issue("IP:127.0.0.1"), implicit=implicit) as server:
        pool = pool_of(server.endpoint(trust))
        for _ in range(3):
            assert (await deliver(pool)).good
        pool.close()
        async with asyncio.timeout(5):
            while server.tasks:
                await asyncio.sleep(0.005)
    assert pool.features == {"DSN": ""}  # and not the SIZE that was offered in clear
    assert server.connections == 1
    assert server.clear == ([] if implicit else [HELLO, "STARTTLS"])
    assert server.secure[0] == HELLO
    assert server.secure[-1] == "QUIT"


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize("answer", [b"", b"421 4.3.2 bye\r\n", b"garbage\r\n"])
async def test_a_loss_under_tls_is_a_loss(
    ca: Authority, trust: ssl.SSLContext, step: str, answer: bytes, pool_of: MakePool
) -> None:
    async with guarded(ca.issue("IP:127.0.0.1")) as server:
        server.says[step] = answer
        pool = pool_of(server.endpoint(trust))
        assert await lost(lambda: deliver(pool)) == {".": "dot"}.get(step, step.lower())
        assert not pool.hops[0].idle


async def test_a_transport_belongs_to_one_way_of_tls(trust: ssl.SSLContext) -> None:
    with pytest.raises(ValueError, match="TLS needs a context"):
        Endpoint("mx.example", 25, "starttls")
    with pytest.raises(ValueError, match="a context TLS"):
        Endpoint("mx.example", 25, "none", trust)
