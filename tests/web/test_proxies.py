"""Whose word counts of who asks: that of a proxy we trust, and of nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from daemon import events
from daemon.web.clients import client_of, host_of, is_proxied, is_this_machine, scheme_of
from daemon.web.console import sessions
from tests.ledgers import Books
from tests.web.support import FORM, Door, door, whole
from tests.web.visitor import LOOKER, Visitor

PROXIES = ("10.0.0.0/8", "192.0.2.7", "2001:db8::/32")
NAMED = "X-Remote-User"


@dataclass
class _Failed:
    errors: list[BaseException]


@pytest.fixture
def proxied(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """A door behind a proxy on this machine, which names the operator. Nothing may reach its outermost loop."""
    failed = _Failed([])
    monkeypatch.setattr(events, "failed", lambda _, error: failed.errors.append(error))
    behind = whole(ledger, trusted_proxies=("127.0.0.1",), user_header=NAMED.lower())
    with door(ledger, behind) as opened:
        yield opened
    assert failed.errors == []


@pytest.fixture
def plain(ledger: Books) -> Iterator[Door]:
    """The same, but the proxy that it trusts is another machine."""
    with door(ledger, whole(ledger, trusted_proxies=("192.0.2.7",), user_header=NAMED.lower())) as opened:
        yield opened


def request(peer: str | None, *headers: tuple[str, str], scheme: str = "http") -> HTTPConnection:
    """As the server gives it to us."""
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    client = None if peer is None else (peer, 50_000)
    return HTTPConnection({"type": "http", "scheme": scheme, "client": client, "headers": raw, "path": "/"})


# ------------------------------------------------------------------ the client


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.1", [], "198.51.100.1"),
        ("198.51.100.1", ["203.0.113.9"], "198.51.100.1"),  # anybody can say so
        ("10.1.1.1", [], "10.1.1.1"),
        ("10.1.1.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.1.1.1", ["6.6.6.6, 203.0.113.9"], "203.0.113.9"),  # what stood there before says nothing
        ("10.1.1.1", ["6.6.6.6", "203.0.113.9"], "203.0.113.9"),
        ("10.1.1.1", ["6.6.6.6, 203.0.113.9, 10.2.2.2, 192.0.2.7"], "203.0.113.9"),  # proxies in a row
        ("10.1.1.1", ["10.9.9.9, 10.8.8.8"], "10.9.9.9"),  # all of them ours
        ("10.1.1.1", ["6.6.6.6, unknown"], "10.1.1.1"),
        ("10.1.1.1", ["6.6.6.6, "], "10.1.1.1"),
        ("10.1.1.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.1.1.1", ["[2001:db9::1]:4711"], "2001:db9::1"),
        ("10.1.1.1", ["2001:db9::1"], "2001:db9::1"),
        ("::ffff:10.1.1.1", ["203.0.113.9"], "203.0.113.9"),
        ("2001:db8::5", ["203.0.113.9"], "203.0.113.9"),
        (None, ["203.0.113.9"], ""),
    ],
)
def test_the_client_is_the_last_address_that_is_none_of_ours(
    peer: str | None, forwarded: list[str], client: str
) -> None:
    assert client_of(request(peer, *(("X-Forwarded-For", line) for line in forwarded)), PROXIES) == client


_SAID = st.text(st.characters(max_codepoint=255), max_size=60)


@given(_SAID, st.lists(_SAID, max_size=20))
def test_nothing_that_is_said_in_front_changes_who_it_is(said: str, before: list[str]) -> None:
    headers = [("X-Forwarded-For", line) for line in [*before, f"{said},203.0.113.9"]]
    assert client_of(request("10.1.1.1", *headers), PROXIES) == "203.0.113.9"
    assert client_of(request("203.0.113.9", *headers), PROXIES) == "203.0.113.9"


@pytest.mark.parametrize(
    ("peer", "said", "scheme"),
    [
        ("10.1.1.1", ["https"], "https"),
        ("10.1.1.1", ["HTTPS"], "https"),
        ("10.1.1.1", ["http, https"], "https"),
        ("10.1.1.1", ["https", "http"], "http"),
        ("10.1.1.1", ["ftp"], "http"),
        ("10.1.1.1", [], "http"),
        ("198.51.100.1", ["https"], "http"),
    ],
)
def test_the_scheme_is_what_our_proxy_says(peer: str, said: list[str], scheme: str) -> None:
    assert scheme_of(request(peer, *(("X-Forwarded-Proto", line) for line in said)), PROXIES) == scheme


@given(st.text(st.characters(max_codepoint=255), max_size=80))
def test_any_host_can_be_looked_at(said: str) -> None:
    host = host_of(request("10.1.1.1", ("Host", said)))
    assert host == host.lower()
    assert isinstance(is_this_machine(host), bool)
    assert host_of(request("10.1.1.1", ("Host", said), ("Host", "localhost"))) == ""


def test_nobody_is_a_proxy_where_none_is_trusted() -> None:
    assert not is_proxied(request("127.0.0.1"), ())
    assert not is_proxied(request(None), PROXIES)


# ------------------------------------------------------------------ the operator whom it names


def test_whom_a_trusted_proxy_names_is_in_without_a_password(proxied: Door) -> None:
    visitor = Visitor(proxied, name="")
    home = visitor.get("/console/", f"{NAMED}: admin")
    assert home.status == 200
    assert '<span class="who">admin</span>' in home.body
    again = visitor.get("/console/", f"{NAMED}: admin")
    assert again.status == 200
    assert "set-cookie" not in again.headers  # the session goes on


def test_its_word_is_needed_for_each_request(proxied: Door) -> None:
    visitor = Visitor(proxied, name="")
    visitor.get("/console/", f"{NAMED}: admin")
    assert visitor.get("/console/").status == 303
    changed = visitor.get("/console/", f"{NAMED}: kim")
    assert '<span class="who">kim</span>' in changed.body


def test_a_form_needs_its_token_all_the_same(proxied: Door) -> None:
    visitor = Visitor(proxied, name="")
    assert visitor.post("/console/logout", f"{NAMED}: admin").status == 403
    visitor.get("/console/", f"{NAMED}: admin")
    assert visitor.post("/console/logout", f"{NAMED}: admin").status == 303
    visitor.csrf_token = "x"
    assert visitor.post("/console/logout", f"{NAMED}: admin").status == 403


def test_the_entrance_leads_them_in(proxied: Door) -> None:
    visitor = Visitor(proxied, name="")
    answer = visitor.get("/console/login", f"{NAMED}: admin")
    assert (answer.status, answer.headers["location"]) == (303, "/console/")


@pytest.mark.parametrize("named", ["nobody", "Admin", "admin, kim", "<b>", "\u00e9"])
@pytest.mark.parametrize("path", ["/console/", "/console/login", "/console/nowhere"])
def test_a_name_that_no_operator_has_is_told_so(proxied: Door, named: str, path: str) -> None:
    answer = proxied.ask("GET", path, f"{NAMED}: {named}")
    assert answer.status == 403
    assert "no operator has that name" in answer.body
    assert "<b>" not in answer.body


def test_two_names_are_nobody(proxied: Door) -> None:
    assert proxied.ask("GET", "/console/", f"{NAMED}: admin", f"{NAMED}: admin").status == 403


def test_a_proxy_that_names_nobody_leaves_it_to_the_password(proxied: Door) -> None:
    assert proxied.ask("GET", "/console/", f"{NAMED}:").status == 303
    assert Visitor(proxied, *LOOKER).get("/console/").status == 200


def test_the_field_says_nothing_when_anybody_else_sends_it(plain: Door) -> None:
    assert plain.ask("GET", "/console/", f"{NAMED}: admin").status == 303
    assert plain.ask("GET", "/console/login", f"{NAMED}: admin").status == 200
    visitor = Visitor(plain, *LOOKER)
    home = visitor.get("/console/", f"{NAMED}: admin")
    assert '<span class="who">kim</span>' in home.body


def test_a_session_that_a_proxy_began_is_none_without_it(plain: Door, proxied: Door) -> None:
    kept = sessions.Sessions()
    _, session = kept.begin("admin", "x", by_proxy=True)
    assert session.by_proxy
    visitor = Visitor(proxied, name="")
    visitor.get("/console/", f"{NAMED}: admin")
    visitor.web = plain
    assert visitor.get("/console/").status == 303


def test_behind_a_proxy_that_speaks_tls_the_cookie_is_secure(proxied: Door) -> None:
    answer = proxied.ask("GET", "/console/login", "X-Forwarded-Proto: https", host="127.0.0.1")
    assert answer.headers["set-cookie"].startswith("__Host-")
    assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    ("settings", "own", "elsewhere", "nowhere"),
    [
        ({}, 200, 200, 200),
        ({"user_header": NAMED.lower()}, 421, 421, 421),
        ({"user_header": NAMED.lower(), "console_host": "console.corp.example"}, 200, 421, 421),
        ({"console_host": "console.corp.example"}, 200, 421, 421),
    ],
)
def test_a_proxy_may_come_by_any_host_unless_one_is_named_or_it_names_operators(
    ledger: Books, settings: dict[str, str], own: int, elsewhere: int, nowhere: int
) -> None:
    with door(ledger, whole(ledger, trusted_proxies=("127.0.0.1",), **settings)) as web:
        asked = {
            host: web.ask("GET", "/console/login", host=host).status
            for host in ("console.corp.example", "Console.Corp.example.:443", "rebound.example", "")
        }
        assert list(asked.values()) == [own, own, elsewhere, nowhere]
        assert web.ask("GET", "/console/login", host="127.0.0.1:8025").status == 200
        assert web.ask("GET", "/console/login", host="mail.quillpdf.example").status == 200


def test_who_is_no_proxy_comes_by_no_other_host(plain: Door) -> None:
    assert plain.ask("GET", "/console/login", host="console.corp.example").status == 421


def test_a_page_that_lets_its_own_name_lead_to_us_can_name_nobody(proxied: Door) -> None:
    """A browser on this machine is at the same address as the proxy, and its page may write any field but Host."""
    for path in ("/console/", "/console/suppressions", "/api/v1/stats", "/metrics", "/readyz"):
        answer = proxied.ask("GET", path, f"{NAMED}: admin", host="rebound.example")
        assert answer.status == 421, path
        assert "set-cookie" not in answer.headers
    assert proxied.ask("GET", "/console/", f"{NAMED}: admin", host="127.0.0.1:8025").status == 200


def test_guesses_are_counted_by_client_not_by_proxy(proxied: Door) -> None:
    def tried(client: str, password: str) -> int:
        visitor = Visitor(proxied, name="")
        visitor.get("/console/login")
        return visitor.post("/console/login", f"X-Forwarded-For: {client}", username="kim", password=password).status

    assert [tried("203.0.113.9", "wrong") for _ in range(10)] == [403] * 10
    assert tried("203.0.113.9", LOOKER[1]) == 429
    assert tried("203.0.113.10", LOOKER[1]) == 303


# ------------------------------------------------------------------ hostile requests

_VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=80)
_NAMES = (
    "Cookie Content-Type Host Content-Length Accept-Language X-Forwarded-For X-Forwarded-Proto X-Remote-User"
    " Transfer-Encoding Referer Expect Range"
).split()
_CHARSETS = [f"multipart/form-data; boundary=x; charset={c}" for c in ("idna", "utf-7", "undefined", "hex", "\x00")]
_HEADERS = st.lists(
    st.tuples(
        st.sampled_from(_NAMES),
        st.one_of(
            _VALUE,
            _VALUE.map(lambda v: f"__Host-optoutd_session={v}"),
            _VALUE.map(lambda v: f'__Host-optoutd_browser="\\012{v}"'),
            _VALUE.map(lambda v: f"{FORM}; charset={v}"),
            st.sampled_from([*_CHARSETS, FORM, "multipart/form-data; boundary=x", "admin"]),
        ),
    ),
    max_size=4,
)
_PART = b'--x\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\n\xff+2AA-\r\n--x--\r\n'
_PATHS = ["/console/login", "/console/", "/console/logout", "/console/lists", "/console/%00", "/console/\u00e9?a=%ff"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    headers=_HEADERS,
    body=st.one_of(st.binary(max_size=60), st.just(_PART)),
    path=st.sampled_from(_PATHS),
    method=st.sampled_from(["GET", "POST"]),
)
def test_whatever_is_sent_it_is_never_our_fault(
    proxied: Door, headers: list[tuple[str, str]], body: bytes, path: str, method: str
) -> None:
    given_length = [] if any(name == "Transfer-Encoding" for name, _ in headers) else [f"Content-Length: {len(body)}"]
    given_host = [] if any(name == "Host" for name, _ in headers) else ["Host: 127.0.0.1"]
    lines = [f"{method} {path} HTTP/1.1", "Connection: close", *given_host, *given_length]
    lines += [f"{name}: {value}" for name, value in headers]
    heard = proxied.raw("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
    assert heard[:9] == b"HTTP/1.1 "
    assert heard[9:10] in b"234", heard[:300]


def test_a_form_in_another_charset_is_refused(proxied: Door) -> None:
    for kind in _CHARSETS[:-1]:
        assert proxied.ask("POST", "/console/login", f"Content-Type: {kind}", body=_PART).status == 415
