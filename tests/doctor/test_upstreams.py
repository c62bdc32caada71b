"""The server behind the relay: where it fails, and what it takes."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest

from daemon.config import load
from daemon.mail.reading import AutoReply
from daemon.mail.triage import read
from storage.address import SiteKey
from tests.doctor.imap import port_of
from tests.doctor.patient import Patient, failures
from tests.doctor.silence import silence
from tests.loopback import free_port
from tests.servers import Postfix, Sink
from tests.upstream.certificates import Authority
from tests.webhooks.receiver import raw


def upstream(port: int, more: str = "") -> str:
    """An [upstream] section."""
    return f'\n[relay]\nlisten = "127.0.0.1:{free_port()}"\n[upstream]\nport = {port}\n{more}\n'


def only(lines: list[str]) -> str:
    """The one line, a failure."""
    (line,) = lines
    assert line.startswith("FAIL upstream: ")
    return line


# ------------------------------------------------------------------ all well


def test_an_upstream_that_works(patient: Patient, sink: Sink) -> None:
    (line,) = patient.told("upstream", upstream(sink.port))
    assert line == (f"ok upstream: 127.0.0.1:{sink.port}: in clear; offers PIPELINING, SIZE, 8BITMIME, SMTPUTF8, DSN")
    assert sink.transactions == []
    assert [c.split()[0] for c in sink.commands] == ["EHLO", "QUIT"]


def test_no_upstream_is_no_failure(patient: Patient) -> None:
    assert patient.told("upstream") == ["ok upstream: no [upstream]: no relay"]


@pytest.mark.postfix
def test_a_postfix_under_tls(patient: Patient, postfix: Postfix) -> None:
    for port, tls in ((postfix.starttls_port, "starttls"), (postfix.implicit_port, "implicit")):
        lines = patient.told("upstream", upstream(port, f'tls = "{tls}"\nca_file = "{postfix.ca_file}"'))
        assert failures(lines) == []
        assert "TLS (certificate for 1 more days); offers PIPELINING" in lines[0]
        assert "ends in 1 day" in lines[1]


def test_what_it_lacks_is_told_as_such(patient: Patient, sink: Sink) -> None:
    sink.keywords = ("SIZE 1000",)
    lines = patient.told("upstream", upstream(sink.port))
    assert "lacks PIPELINING, 8BITMIME, SMTPUTF8, DSN (so the relay does not offer it)" in lines[0]
    assert lines[1].startswith("warn upstream: it takes no message over 1 KB -> ")


def test_each_server_that_stands_in_has_a_line(patient: Patient, sink: Sink) -> None:
    away = free_port()
    lines = patient.told("upstream", upstream(away, f"[[upstream.fallback]]\nport = {sink.port}"))
    assert lines[0].startswith(f"FAIL upstream: 127.0.0.1:{away}: connect: Connection refused -> ")
    assert lines[1].startswith(f"ok upstream: 127.0.0.1:{sink.port}: ")


# ------------------------------------------------------------------ --probe


def test_with_probe_a_message_goes_to_the_house(patient: Patient, sink: Sink) -> None:
    lines = patient.told("upstream", upstream(sink.port), traces=True)
    assert "ok upstream: took a message to support@quillpdf.example, which should arrive in a moment: 250" in lines[1]
    (message,) = sink.messages
    assert (message.mail_from, message.rcpt_to) == ("<>", ("<support@quillpdf.example>",))
    assert b"Auto-Submitted: auto-generated\r\n" in message.data
    assert b"\r\nSubject: optoutd doctor: a test message\r\n" in message.data


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "DOT"])
def test_a_message_that_is_refused(patient: Patient, sink: Sink, verb: str) -> None:
    sink.replies[verb] = "550 5.7.1 not for ann@customer.example"
    (failure,) = failures(patient.told("upstream", upstream(sink.port), traces=True))
    assert "550 5.7.1 not for <address>" in failure


def test_what_the_probe_sends_is_not_taken_for_a_request(patient: Patient, sink: Sink) -> None:
    patient.told("upstream", upstream(sink.port), traces=True)
    house = load(patient.directory / "optoutd.toml").config.house
    reading = read(sink.messages[0].data, house, SiteKey((b"k" * 32,)))
    assert isinstance(reading, AutoReply)


# ------------------------------------------------------------------ each step


def test_nobody_there(patient: Patient) -> None:
    port = free_port()
    assert "connect: Connection refused -> nothing listens there" in only(patient.told("upstream", upstream(port)))


def test_a_name_that_leads_nowhere(patient: Patient) -> None:
    line = only(patient.told("upstream", upstream(25, 'host = "mx.invalid"\ntls = "starttls"')))
    assert "mx.invalid:25: resolve: " in line
    assert "([upstream])" in line


@pytest.mark.parametrize(
    ("verb", "reply", "said", "advice"),
    [
        ("GREETING", "554 5.3.2 go away", "greeting: 554 5.3.2 go away", "until it greets with 220"),
        ("EHLO", "550 5.7.1 who are you", "ehlo: 550 5.7.1 who are you", "relay.hostname"),
    ],
)
def test_a_server_that_does_not_want_us(
    patient: Patient, sink: Sink, verb: str, reply: str, said: str, advice: str
) -> None:
    sink.replies[verb] = reply
    line = only(patient.told("upstream", upstream(sink.port)))
    assert said in line
    assert advice in line


def test_no_starttls(patient: Patient, sink: Sink) -> None:
    line = only(patient.told("upstream", upstream(sink.port, 'tls = "starttls"')))
    assert "tls: STARTTLS is not offered -> it offers no STARTTLS" in line
    assert 'tls = "implicit"' in line


@pytest.mark.parametrize(
    ("name", "days", "said"),
    [("DNS:localhost", 2, "tls: IP address mismatch"), ("IP:127.0.0.1", -1, "tls: certificate has expired")],
)
def test_a_certificate_that_is_not_good(patient: Patient, ca: Authority, name: str, days: int, said: str) -> None:
    context = ca.issue(name, days=days)

    def talk(connection: socket.socket) -> None:
        context.wrap_socket(connection, server_side=True).close()

    with raw(talk) as url:
        line = only(patient.told("upstream", upstream(port_of(url), f'tls = "implicit"\nca_file = "{ca.ca_file}"')))
    assert said in line


@pytest.mark.postfix
def test_a_log_in_that_is_not_offered(patient: Patient, postfix: Postfix) -> None:
    patient.file("secret", "hush-hush\n")
    more = f'tls = "starttls"\nca_file = "{postfix.ca_file}"\nusername = "us"\npassword_file = "secret"'
    line = only(patient.told("upstream", upstream(postfix.starttls_port, more)))
    assert "auth: neither AUTH PLAIN nor AUTH LOGIN is offered -> are username and password_file of [upstream]" in line
    assert "hush" not in line


def test_a_server_that_accepts_and_says_nothing(patient: Patient) -> None:
    with silence() as port:
        began = time.monotonic()
        line = only(patient.told("upstream", upstream(port), seconds=1.5))
        assert time.monotonic() - began < 10
    assert f"greeting, EHLO with 127.0.0.1:{port}: no answer within 2 s" in line


def test_a_name_of_ours_that_leads_back_to_the_relay(patient: Patient, tmp_path: Path) -> None:
    """By its text the name is not known as ours; what it resolves to is."""
    import socket as sockets

    resolve = sockets.getaddrinfo

    def as_in_dns(host: str | None, *arguments: Any, **options: Any) -> object:
        return resolve("127.0.0.1" if host == "mail.quillpdf.example" else host, *arguments, **options)

    patient.monkeypatch.setattr(sockets, "getaddrinfo", as_in_dns)
    with silence() as port:
        more = f"""
[relay]
listen = "127.0.0.1:{port}"
[upstream]
host = "mail.quillpdf.example"
port = {port}
tls = "starttls"
"""
        line = only(patient.told("upstream", more))
    assert f"mail.quillpdf.example:{port} is the relay's own listener -> a message would go round for ever" in line
