"""What a receiver may say, do or be on the wire: each is a failure that is told in plain words, or none."""

from __future__ import annotations

import socket
import time

import pytest

from daemon.webhooks import wire
from tests.upstream.certificates import Authority
from tests.webhooks.conftest import Hooks, hook
from tests.webhooks.receiver import Receiver, raw, receiver, until

ANN, BOB = "ann@customer.example", "bob@customer.example"


def test_a_redirect_is_not_followed(at: Hooks, crm: Receiver) -> None:
    with receiver() as other:
        crm.answer, crm.headers = lambda change: 307, {"Location": other.url}
        at.begin("crm")
        at.start(hook(crm))
        at.books.suppress(ANN)
        until(lambda: at.place().failures)
        assert other.heard == []
    assert "redirects" in at.place().trouble


def test_gone_is_said_in_plain_words(at: Hooks, crm: Receiver) -> None:
    crm.answer = lambda change: 410
    at.begin("crm")
    at.start(hook(crm))
    at.books.suppress(ANN)
    until(lambda: at.place().failures)
    assert at.place().trouble.startswith("HTTP 410: the receiver says that it is gone for good")


def test_a_slow_receiver_is_waited_for_so_long_and_no_longer(at: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even if it sends an octet now and then."""
    monkeypatch.setattr(wire, "SECONDS", 0.5)

    def drip(connection: socket.socket) -> None:
        for octet in b"HTTP/1.1 200 " + b"O" * 200:
            connection.sendall(bytes([octet]))
            time.sleep(0.05)

    at.begin("crm")
    at.books.suppress(ANN)
    began = time.monotonic()
    with raw(drip) as url:
        at.start(hook(url))
        until(lambda: at.place().failures)
    assert 0.5 <= time.monotonic() - began < 3
    assert at.place().trouble.startswith("no answer within")


def test_an_endless_response_is_not_read(at: Hooks) -> None:
    sent = [0]

    def flood(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
        while True:
            sent[0] += connection.send(b"x" * 65536)

    at.begin("crm")
    at.books.suppress(ANN)
    at.books.suppress(BOB)
    with raw(flood) as url:
        at.start(hook(url))
        until(lambda: at.place().reached == 2)
    assert sent[0] < 20_000_000
    assert at.place().failures == 0


@pytest.mark.parametrize(
    ("reply", "trouble"),
    [
        (b"", "it hung up without an answer"),
        (b"SMTP who are you\r\n\r\n", "it does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "it does not speak HTTP"),
        (b"HTTP/1.1 200 " + b"x" * 100_000, "it does not speak HTTP"),
        (b"HTTP/1.1 700 \r\n\r\n", "HTTP 700"),
    ],
)
def test_what_is_no_answer_is_told_in_our_own_words(at: Hooks, reply: bytes, trouble: str) -> None:
    def say(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(reply)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)

    at.begin("crm")
    at.books.suppress(ANN)
    with raw(say) as url:
        at.start(hook(url))
        until(lambda: at.place().failures)
    assert at.place().trouble == trouble


def test_many_changes_go_over_one_connection(at: Hooks, crm: Receiver) -> None:
    at.begin("crm")
    for number in range(50):
        at.books.suppress(f"{number}@customer.example")
    at.start(hook(crm))
    crm.until(lambda: len(crm.heard) == 50)
    until(lambda: at.place().reached == 50)
    assert crm.connections == 1


def test_a_kept_connection_that_was_closed_is_no_failure(at: Hooks) -> None:
    """The server says that it keeps it, and hangs up."""
    heard: list[bytes] = []

    def once(connection: socket.socket) -> None:
        heard.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    at.begin("crm")
    for number in range(5):
        at.books.suppress(f"{number}@customer.example")
    with raw(once) as url:
        at.start(hook(url))
        until(lambda: at.place().reached == 5)
    assert len([h for h in heard if h]) == 5
    assert at.told("hook_failed") == []


def test_tls_is_verified(at: Hooks, ca: Authority) -> None:
    at.begin("crm", "shop", "other")
    good, strange = ca.issue("IP:127.0.0.1"), ca.issue("DNS:other.example")
    with receiver(tls=good) as secure, receiver(tls=strange) as other:
        at.start(
            hook(secure, ca_file=ca.ca_file),
            hook(secure, "shop"),
            hook(other, "other", ca_file=ca.ca_file),
        )
        at.books.suppress(ANN)
        at.books.suppress(BOB)
        secure.until(lambda: secure.addresses() == [ANN, BOB])
        until(lambda: at.place("shop").failures and at.place("other").failures)
    assert at.place("shop").trouble.startswith("its certificate: ")
    assert at.place("other").trouble.startswith("its certificate: IP address mismatch")
    assert other.heard == []


def test_a_receiver_with_another_secret_is_told_of_as_such(at: Hooks, crm: Receiver) -> None:
    at.begin("crm")
    at.start(hook(crm, keys=(b"x" * 24,)))
    at.books.suppress(ANN)
    until(lambda: at.place().failures)
    assert at.place().trouble.startswith("HTTP 401: the receiver did not accept the signature")


def test_each_secret_of_the_file_signs(at: Hooks, crm: Receiver) -> None:
    at.begin("crm")
    at.start(hook(crm, keys=(b"the new secret, 24 octets or more", crm.secret)))
    at.books.suppress(ANN)
    crm.until(lambda: crm.heard)
    assert crm.wrong == []
