"""Who asks, when a proxy stands in front of us, and when somebody only says so."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from daemon.web.clients import client_of, scheme_of

PROXIES = ("127.0.0.1", "10.0.0.0/8", "fd00::/8")


def request(peer: str | None, *headers: tuple[str, str], scheme: str = "http") -> HTTPConnection:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    client = None if peer is None else (peer, 1234)
    return HTTPConnection({"type": "http", "scheme": scheme, "client": client, "headers": raw})


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.7", [], "192.0.2.7"),
        ("192.0.2.7", ["198.51.100.1"], "192.0.2.7"),  # not one of ours: it may say what it likes
        ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.9.8.7", ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),  # what the client said before counts for nothing
        ("10.9.8.7", ["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.9.8.7", ["198.51.100.1"], "198.51.100.1"),
        ("fd00::1", ["[2001:db8::1]:443"], "2001:db8::1"),
        ("127.0.0.1", ["198.51.100.1:5000"], "198.51.100.1"),
        ("127.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["unknown"], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.1, "], "127.0.0.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        (None, ["198.51.100.1"], ""),
        ("testclient", [], ""),
    ],
)
def test_the_address_of_a_client(peer: str | None, forwarded: list[str], client: str) -> None:
    assert client_of(request(peer, *(("X-Forwarded-For", f) for f in forwarded)), PROXIES) == client


@pytest.mark.parametrize(
    ("peer", "said", "scheme"),
    [
        ("127.0.0.1", "https", "https"),
        ("127.0.0.1", "http, HTTPS", "https"),
        ("127.0.0.1", "gopher", "http"),
        ("192.0.2.7", "https", "http"),
        (None, "https", "http"),
    ],
)
def test_how_a_client_speaks_to_us(peer: str | None, said: str, scheme: str) -> None:
    assert scheme_of(request(peer, ("X-Forwarded-Proto", said)), PROXIES) == scheme
    assert scheme_of(request(peer, scheme="https"), PROXIES) == "https"


@given(st.text(st.characters(max_codepoint=255), max_size=100))
def test_whatever_a_header_says_it_is_an_address_in_the_end(said: str) -> None:
    ipaddress.ip_address(client_of(request("127.0.0.1", ("X-Forwarded-For", said)), PROXIES))
    assert scheme_of(request("127.0.0.1", ("X-Forwarded-Proto", said)), PROXIES) in ("http", "https")
