"""What SIGHUP takes over at the relay: passwords, certificates, upstreams; and what it cannot."""

from __future__ import annotations

import signal
import smtplib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import certify
from tests.loopback import free_port
from tests.scenarios.process import PATIENCE, Daemon, config
from tests.sink import Sink, sink

MESSAGE = b"From: letter@quillpdf.example\r\nSubject: Hello\r\n\r\nHello\r\n"


@pytest.fixture
def behind() -> Iterator[Sink]:
    """The upstream."""
    with sink() as made:
        yield made


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A certificate and a password beside the config."""
    certify(tmp_path / "key.pem", tmp_path / "cert.pem")
    (tmp_path / "crm-password").write_text("first\n")
    return tmp_path


def guarded(port: int, *upstreams: int) -> str:
    """A relay with implicit TLS and a log-in, in front of these."""
    listener = f"""
        cert_file = "cert.pem"
        key_file = "key.pem"
        [[relay.listener]]
        address = "127.0.0.1:{port}"
        tls = "implicit"
        auth = true
        [[relay.credential]]
        username = "crm"
        password_file = "crm-password"
    """
    others = "".join(f"[[upstream.fallback]]\nport = {other}\n" for other in upstreams[1:])
    return config(upstreams[0], relay=listener).replace("\n[log]", others + "\n[log]")


def hup(daemon: Daemon, event: str) -> None:
    """Reload, and wait for what comes of it."""
    assert daemon.process is not None
    before = len(daemon.events(event))
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: len(daemon.events(event)) > before)


def log_in(daemon: Daemon, port: int, password: str) -> None:
    """Log in over TLS with the certificate that is beside the config now, and send."""
    trusted = ssl.create_default_context(cafile=daemon.directory / "cert.pem")
    with smtplib.SMTP_SSL("127.0.0.1", port, context=trusted, timeout=PATIENCE) as client:
        client.login("crm", password)
        client.sendmail("letter@quillpdf.example", ["ann@example.com"], MESSAGE)


def test_a_new_password_and_a_new_certificate_count_from_the_next_client_on(home: Path, behind: Sink) -> None:
    port = free_port()
    with Daemon(home, guarded(port, behind.port)).running() as daemon:
        log_in(daemon, port, "first")
        for _ in range(2):  # the second time is no different
            certify(home / "key.pem", home / "cert.pem")
            (home / "crm-password").write_text("second\n")
            with pytest.raises(ssl.SSLError):  # not before we are told
                log_in(daemon, port, "second")
            hup(daemon, "reloaded")
            log_in(daemon, port, "second")
        with pytest.raises(smtplib.SMTPAuthenticationError):
            log_in(daemon, port, "first")
    assert len(behind.messages) == 3


def test_a_certificate_that_cannot_be_used_is_told_and_changes_nothing(home: Path, behind: Sink) -> None:
    port = free_port()
    with Daemon(home, guarded(port, behind.port)).running() as daemon:
        (home / "key.pem").write_text("no key\n")
        hup(daemon, "reload_refused")
        assert "key.pem" in str(daemon.events("reload_refused")[-1]["problems"])
        log_in(daemon, port, "first")


def test_another_upstream_gets_the_next_message(home: Path, behind: Sink) -> None:
    port = free_port()
    with sink() as other, Daemon(home, guarded(port, behind.port)).running() as daemon:
        log_in(daemon, port, "first")
        daemon.file.write_text(guarded(port, other.port))
        hup(daemon, "reloaded")
        log_in(daemon, port, "first")
        assert (len(behind.messages), len(other.messages)) == (1, 1)


def test_a_second_upstream_stands_in_for_a_dead_one(home: Path, behind: Sink) -> None:
    port = free_port()
    with Daemon(home, guarded(port, free_port(), behind.port)).running() as daemon:
        log_in(daemon, port, "first")
    assert len(behind.messages) == 1


def test_another_address_needs_a_restart_and_the_rest_is_taken_over(home: Path, behind: Sink) -> None:
    port = free_port()
    with Daemon(home, guarded(port, behind.port)).running() as daemon:
        daemon.file.write_text(guarded(free_port(), behind.port))
        hup(daemon, "reload_refused")
        assert "relay.listener: cannot change without a restart" in str(daemon.events("reload_refused")[-1])
        log_in(daemon, port, "first")
