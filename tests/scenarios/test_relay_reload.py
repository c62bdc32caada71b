"""What SIGHUP takes over at the relay: passwords, certificates, upstreams; and what it cannot."""

from __future__ import annotations

import os
import signal
import smtplib
import ssl
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.certificates import certify, expire
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


def test_a_key_that_comes_before_its_certificate_is_told_and_the_pair_is_taken_once_it_is_whole(
    home: Path, behind: Sink
) -> None:
    port = free_port()
    with Daemon(home, guarded(port, behind.port)).running() as daemon:
        certify(home / "key.pem", home / "new.pem")
        hup(daemon, "reload_refused")
        assert "key.pem: is not the key of the first certificate" in str(daemon.events("reload_refused")[-1])
        log_in(daemon, port, "first")
        (home / "new.pem").rename(home / "cert.pem")
        hup(daemon, "reloaded")
        log_in(daemon, port, "first")
    assert len(behind.messages) == 2


def test_a_certificate_and_its_key_are_swapped_together_by_one_symbolic_link(home: Path, behind: Sink) -> None:
    """As the usual clients for ACME do it."""
    port = free_port()
    for name in ("old", "new"):
        (home / name).mkdir()
        certify(home / name / "key.pem", home / name / "cert.pem")
    (home / "live").symlink_to("old")
    for name in ("key.pem", "cert.pem"):
        (home / name).unlink()
        (home / name).symlink_to(f"live/{name}")
    with Daemon(home, guarded(port, behind.port)).running() as daemon:
        log_in(daemon, port, "first")
        (home / "next").symlink_to("new")
        (home / "next").rename(home / "live")
        with pytest.raises(ssl.SSLError):
            log_in(daemon, port, "first")
        hup(daemon, "reloaded")
        log_in(daemon, port, "first")
    assert len(behind.messages) == 2


def test_a_certificate_that_has_expired_does_not_take_the_place_of_a_good_one(home: Path, behind: Sink) -> None:
    port = free_port()
    good = {name: (home / name).read_bytes() for name in ("key.pem", "cert.pem")}
    with Daemon(home, guarded(port, behind.port)).running() as daemon:
        expire(home / "key.pem", home / "cert.pem")
        hup(daemon, "reload_refused")
        assert "cert.pem: has expired on" in str(daemon.events("reload_refused")[-1]["problems"])
        for name, octets in good.items():
            (home / name).write_bytes(octets)
        log_in(daemon, port, "first")


def test_one_that_has_expired_in_use_holds_no_other_change_back(home: Path, behind: Sink) -> None:
    port = free_port()
    expire(home / "key.pem", home / "cert.pem")
    with Daemon(home, guarded(port, behind.port)).running() as daemon:
        (home / "crm-password").write_text("second\n")
        hup(daemon, "reloaded")


def test_a_session_and_a_message_at_its_dot_go_on_through_a_reload(home: Path, behind: Sink) -> None:
    behind.delays["DOT"] = 1.5
    with (
        Daemon(home, config(behind.port)).running() as daemon,
        smtplib.SMTP("127.0.0.1", daemon.relay_port, timeout=PATIENCE) as client,
    ):
        client.ehlo()
        answers: list[object] = []
        job = ("letter@quillpdf.example", ["ann@example.com"], MESSAGE)
        sending = threading.Thread(target=lambda: answers.append(client.sendmail(*job)))
        sending.start()
        behind.wait_for(lambda: "DATA" in behind.commands)
        hup(daemon, "reloaded")
        assert answers == []  # it was indeed at its dot, or before
        sending.join(PATIENCE)
        assert answers == [{}]
        behind.delays.clear()
        assert client.sendmail(*job) == {}  # the same session
    assert len(behind.messages) == 2
    assert behind.half_messages == 0


def test_of_many_reloads_at_once_the_last_file_counts(home: Path, behind: Sink) -> None:
    with Daemon(home, config(behind.port)).running() as daemon:
        assert daemon.process is not None
        daemon.cli("suppress", "ann@example.com")
        for n in range(10):
            mode = "strip" if n == 9 else "refuse"
            whole = daemon.file.with_name("new.toml")
            whole.write_text(daemon.config.replace('hostname = "relay', f'mode = "{mode}"\nhostname = "relay'))
            whole.chmod(0o600)
            whole.rename(daemon.file)
            daemon.process.send_signal(signal.SIGHUP)
            time.sleep(0.05)
        daemon.until(lambda: daemon.rcpt("ann@example.com").startswith("250"))
        assert 0 < len(daemon.events("reloaded")) <= 10
        assert not daemon.events("reload_refused")
        assert not daemon.events("failed")


def test_a_database_that_is_away_holds_back_a_new_list_but_no_new_certificate(home: Path, behind: Sink) -> None:
    port = free_port()
    with Daemon(home, guarded(port, behind.port)).running() as daemon:
        (home / "optoutd.db").rename(home / "away")
        certify(home / "key.pem", home / "cert.pem")
        hup(daemon, "reloaded")
        with pytest.raises(smtplib.SMTPRecipientsRefused, match="451"):
            log_in(daemon, port, "first")
        daemon.file.write_text(daemon.config + '\n[[list]]\nid = "offers"\n')
        hup(daemon, "reload_refused")
        assert "optoutd.db: No such file" in str(daemon.events("reload_refused")[-1])
        (home / "away").rename(home / "optoutd.db")
        hup(daemon, "reloaded")
        log_in(daemon, port, "first")


def test_what_one_door_refuses_no_door_takes_over(home: Path, behind: Sink) -> None:
    """All or nothing: a new password of the relay does not count if the console's is unusable."""
    port, web = free_port(), free_port()
    (home / "admin").write_text("a password of the console\n")
    more = f'\n[web]\nlisten = "127.0.0.1:{web}"\nadmin_password_file = "admin"\n'
    with Daemon(home, guarded(port, behind.port) + more).running() as daemon:
        line = HTTPConnection("127.0.0.1", web, timeout=PATIENCE)
        assert asked(line) == 200
        (home / "crm-password").write_text("second\n")
        (home / "admin").write_text("\n")
        hup(daemon, "reload_refused")
        assert "web.admin_password_file: " in str(daemon.events("reload_refused")[-1])
        log_in(daemon, port, "first")
        (home / "admin").write_text("another one\n")
        hup(daemon, "reloaded")
        log_in(daemon, port, "second")
        assert asked(line) == 200  # on the same connection
        line.close()


def asked(line: HTTPConnection) -> int:
    """The status of /healthz."""
    line.request("GET", "/healthz")
    answer = line.getresponse()
    answer.read()
    return answer.status


_POOL = 2 * 4  # descriptors of as many connections (file and log) as the pool keeps


@pytest.mark.timeout(300)
def test_two_hundred_reloads_leave_the_memory_as_it_was(home: Path, behind: Sink) -> None:
    port = free_port()
    (home / "admin").write_text("a password of the console\n")
    more = f'\n[web]\nlisten = "127.0.0.1:{free_port()}"\nadmin_password_file = "admin"\n'
    with Daemon(home, guarded(port, behind.port) + more).running() as daemon:
        assert daemon.process is not None
        resident = Path(f"/proc/{daemon.process.pid}/statm")
        descriptors = Path(f"/proc/{daemon.process.pid}/fd")
        for _ in range(50):
            hup(daemon, "reloaded")
        before, open_before = int(resident.read_text().split()[1]), len(list(descriptors.iterdir()))
        for _ in range(200):
            hup(daemon, "reloaded")
        grown = (int(resident.read_text().split()[1]) - before) * os.sysconf("SC_PAGE_SIZE") / 1024
        print(f"200 reloads: {grown:.0f} KB more")
        assert grown < 2048  # a reload that keeps its certificates alone would be ten times that
        # the upstream is still being asked; and the database's pool may have grown by those who asked at once
        daemon.until(lambda: len(list(descriptors.iterdir())) <= open_before + _POOL)
        log_in(daemon, port, "first")
