"""The server around the application: its addresses, its patience, its end, and what else it answers."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
import time
from dataclasses import replace

import pytest

from daemon import events
from daemon.mail.tokens import Token
from daemon.web import oneclick, server
from daemon.web.app import plain_path
from daemon.web.context import Context
from daemon.web.oneclick import record
from daemon.web.server import Server
from storage.engine import Unavailable
from tests.ledgers import Books
from tests.loopback import HOST
from tests.web.support import FORM, ONE_CLICK, PATIENCE, Door, context, door, house, read_answer

# ------------------------------------------------------------------ start


async def test_a_taken_port_is_told_and_nothing_is_left_behind(ledger: Books) -> None:
    with socket.create_server((HOST, 0)) as taken:
        server = Server(f"{HOST}:{taken.getsockname()[1]}", context(ledger))
        with pytest.raises(OSError, match="in use"):
            await server.start()
        await server.stop()


async def test_a_host_that_is_none_is_told(ledger: Books) -> None:
    server = Server("no-such-host.invalid:0", context(ledger))
    with pytest.raises(OSError):
        await server.start()
    await server.stop()


async def test_the_signals_stay_the_daemons(ledger: Books) -> None:
    handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    server = Server(f"{HOST}:0", context(ledger))
    (bound,) = await server.start()
    assert bound.startswith(f"{HOST}:")
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == handlers
    await server.stop()
    with pytest.raises(OSError):
        await asyncio.open_connection(HOST, int(bound.rpartition(":")[2]))


async def test_ipv6_is_shown_as_it_is_written(ledger: Books) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    server = Server("[::1]:0", context(ledger))
    try:
        (bound,) = await server.start()
    except OSError:
        pytest.skip("no ::1")
    finally:
        await server.stop()
    assert bound.startswith("[::1]:")


async def test_small_answers_do_not_wait_for_a_delayed_ack(ledger: Books) -> None:
    """asyncio sets TCP_NODELAY only on connections of sockets that say IPPROTO_TCP."""
    server = Server(f"{HOST}:0", context(ledger))
    await server.start()
    try:
        assert all(s.proto == socket.IPPROTO_TCP for s in server._sockets)
    finally:
        await server.stop()


# ------------------------------------------------------------------ other paths


def test_a_sign_of_life(web: Door) -> None:
    for method, body in (("GET", "ok\n"), ("HEAD", "")):
        answer = web.ask(method, "/healthz")
        assert (answer.status, answer.body) == (200, body)


@pytest.mark.parametrize(
    "path", ["/", "/u.html", "/console/", "/metrics", "/static/", "/static/../app.py", "/%00", "*"]
)
def test_there_is_nothing_else(web: Door, path: str) -> None:
    answer = web.ask("GET", path)
    assert answer.status == 404
    assert "location" not in answer.headers


def test_the_stylesheet_is_where_the_page_says(web: Door) -> None:
    page = web.ask("GET", f"/u/{web.token()}").body
    href = page.partition('rel="stylesheet" href="')[2].partition('"')[0]
    style = web.ask("GET", href)
    assert (style.status, style.headers["content-type"].partition(";")[0]) == (200, "text/css")
    assert "prefers-color-scheme" in style.body
    assert "url(" not in style.body


@pytest.mark.parametrize(
    ("path", "base", "plain"),
    [
        ("/u/x", "", "/u/x"),
        ("/U//x/", "", "/u/x"),
        ("/", "", "/"),
        ("", "", "/"),
        ("//", "/mail", "/"),
        ("/mail/u/X", "/mail", "/u/X"),
        ("/mailu/X", "/mail", "/mailu/X"),
        ("/u/mail/x", "/mail", "/u/mail/x"),
        ("HTTPS://h:1/u/x", "", "/u/x"),
        ("http://h", "", "/"),
        ("httpx", "", "/httpx"),
    ],
)
def test_a_path_has_one_spelling(path: str, base: str, plain: str) -> None:
    assert plain_path(path, base) == plain


# ------------------------------------------------------------------ bugs


def test_a_bug_costs_one_answer_and_is_told(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[str] = []
    monkeypatch.setattr(events, "failed", lambda where, error: failed.append(f"{where} {type(error).__name__}"))

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("ann@customer.example")

    with door(ledger) as web:
        with monkeypatch.context() as patch:
            patch.setattr(oneclick, "record", broken)
            answer = web.post(web.token())
        assert answer.status == 500
        assert "ann" not in answer.body
        assert "Zero" not in answer.body
        assert "content-security-policy" in answer.headers
        assert web.post(web.token()).status == 200
    assert failed == ["web ZeroDivisionError"]


# ------------------------------------------------------------------ clients that are slow


@pytest.mark.parametrize(
    "said",
    [b"", b"GET /u/", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /hea", b"POST /no HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"],
)  # fmt: skip
def test_who_does_not_finish_a_request_is_hung_up_on(
    ledger: Books, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(server, "PATIENCE_SECONDS", 0.3)
    with door(ledger) as web, socket.create_connection((HOST, web.port), timeout=PATIENCE) as client:
        client.sendall(said)
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while client.recv(65536):
                client.sendall(b"x") if said else None  # drop by drop
                time.sleep(0.02)
        assert time.monotonic() - began < 3


def test_who_waits_for_our_disk_is_not(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE_SECONDS", 0.1)

    def slow(of: Context, token: Token, *, everything: bool) -> str:
        time.sleep(0.7)
        return record(of, token, everything=everything)

    monkeypatch.setattr(oneclick, "record", slow)
    with door(ledger) as web:
        assert web.post(web.token()).status == 200


def test_who_does_not_read_our_answers_is_hung_up_on(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE_SECONDS", 0.1)
    asked = b"GET /static/style.css HTTP/1.1\r\nHost: x\r\n\r\n" * 50

    def ask_on(client: socket.socket) -> None:
        while True:
            client.sendall(asked)

    with door(ledger) as web, socket.create_connection((HOST, web.port), timeout=PATIENCE) as client:
        with pytest.raises((ConnectionResetError, BrokenPipeError)):  # and no TimeoutError of ours
            ask_on(client)
        assert web.ask("GET", "/healthz").status == 200


def test_who_reads_our_answers_slowly_is_not(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE_SECONDS", 0.2)
    asked = b"GET /static/style.css HTTP/1.1\r\nHost: x\r\n\r\n"
    last = asked.replace(b"Host: x", b"Host: x\r\nConnection: close")
    with door(ledger) as web, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE)
        client.connect((HOST, web.port))
        client.sendall(asked * 500 + last)
        heard, began = b"", time.monotonic()
        while piece := client.recv(1 << 17):
            heard += piece
            time.sleep(0.001 if time.monotonic() - began > 2 else 0.02)
    assert heard.count(b"HTTP/1.1 200 OK") == 501


def test_too_many_connections_are_closed_and_the_others_served(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    with door(ledger) as web, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection((HOST, web.port), timeout=PATIENCE)) for _ in range(3)]
        with socket.create_connection((HOST, web.port), timeout=PATIENCE) as one_more, contextlib.suppress(OSError):
            assert one_more.recv(1) == b""
        idle[0].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle[0].recv(100).startswith(b"HTTP/1.1 200")


def test_requests_may_follow_each_other_on_one_connection(web: Door) -> None:
    one = (
        f"POST /u/{web.token()} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: 26\r\n\r\n".encode()
        + ONE_CLICK
    )
    last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    heard = web.raw(one + one + last)
    assert heard.count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize("path", ["/nowhere", "/u/x", "/console/login", "/api/v1/health"])
def test_a_body_that_breaks_off_into_nonsense_is_no_bug_of_ours(
    ledger: Books, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    failed: list[BaseException] = []
    monkeypatch.setattr(events, "failed", lambda _, error: failed.append(error))
    with door(ledger) as web:
        web.loop.call_soon_threadsafe(
            web.loop.set_exception_handler, lambda _, about: failed.append(about.get("exception") or OSError())
        )
        for method in ("POST", "PUT", "GET"):
            request = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            assert web.raw(request + b"no chunk\r\n").startswith(b"HTTP/1.1 ")
            with socket.create_connection((HOST, web.port), timeout=PATIENCE) as client:
                client.sendall(request)
                client.settimeout(0.1)
                with contextlib.suppress(TimeoutError):  # some are answered before their body has come
                    client.recv(65_536)
                client.settimeout(PATIENCE)
                with contextlib.suppress(OSError):
                    client.sendall(b"no chunk\r\n")
                    while client.recv(65_536):
                        pass
    assert failed == []


def test_curl_asks_whether_it_may_go_on(web: Door) -> None:
    """`Expect: 100-continue`, as some HTTP libraries send with every POST."""
    head = f"POST /u/{web.token()} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {FORM}\r\nContent-Length: 26\r\n"
    heard = web.raw(head.encode() + b"Expect: 100-continue\r\n\r\n" + ONE_CLICK)
    assert heard.startswith(b"HTTP/1.1 100 ")
    assert b"HTTP/1.1 200 OK" in heard
    assert web.standing()


# ------------------------------------------------------------------ reload and stop


def test_other_settings_count_from_the_next_request_on(web: Door) -> None:
    assert "Quill &amp; &lt;PDF&gt;" in web.ask("GET", f"/u/{web.token('offers')}").body
    web.loop.call_soon_threadsafe(web.server.take_over, replace(web.context, house=house("newsletter", name="Feather")))
    page = web.ask("GET", f"/u/{web.token('offers')}").body
    assert "Feather" in page
    assert "The offers" not in page


def test_an_answer_under_way_is_given_before_the_end(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    def slow(of: Context, token: Token, *, everything: bool) -> str:
        begun.set()
        time.sleep(0.5)
        return record(of, token, everything=everything)

    monkeypatch.setattr(oneclick, "record", slow)
    with door(ledger) as web, socket.create_connection((HOST, web.port), timeout=PATIENCE) as client:
        client.sendall(
            f"POST /u/{web.token()} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: 26\r\n\r\n".encode()
            + ONE_CLICK
        )
        assert begun.wait(PATIENCE)
        stopping = web.stopping()
        heard = b""
        while piece := client.recv(65536):
            heard += piece
        assert read_answer(heard).status == 200
        stopping.result(PATIENCE)
        assert web.standing()


def test_an_idle_connection_does_not_hold_up_the_end(ledger: Books) -> None:
    with door(ledger) as web, socket.create_connection((HOST, web.port), timeout=PATIENCE) as client:
        client.sendall(b"GET /u/")
        began = time.monotonic()
        web.stopping().result(PATIENCE)
        assert time.monotonic() - began < 2


def test_nothing_is_left_running(ledger: Books) -> None:
    before = set(threading.enumerate())
    with door(ledger) as web:
        web.post(web.token())
        assert any(t.name.startswith("web") for t in set(threading.enumerate()) - before)
    assert set(threading.enumerate()) <= before


def test_an_outage_is_told_in_the_log(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(events, "database_unavailable", lambda why: told.append(str(why)))

    def away(*_: object, **__: object) -> None:
        raise Unavailable("database x: away")

    monkeypatch.setattr(oneclick, "record", away)
    with door(ledger) as web:
        assert web.post(web.token()).status == 503
    assert told == ["database x: away"]
