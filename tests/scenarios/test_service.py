"""The daemon as a service: READY, watchdog, reload, stop; and what it does when its surroundings fail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import smtplib
import socket
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from daemon import jobs
from daemon.config import load
from daemon.gate import Gate
from daemon.mailbox.watcher import Watcher
from daemon.nodes import Duties
from daemon.opening import Away
from daemon.roles import Present, Roles
from daemon.upstream import Endpoint, Pool
from tests.ledgers import books
from tests.loopback import free_port
from tests.scenarios.process import Daemon, config, notify_socket
from tests.servers import Dovecot, Sink
from tests.servers import sink as make_sink

MESSAGE = b"Subject: offer\r\n\r\nhello\r\n"


def test_what_systemd_hears(home: Path, sink: Sink) -> None:
    with notify_socket(home) as listening:
        environment = {"NOTIFY_SOCKET": str(home / "notify"), "WATCHDOG_USEC": "400000"}
        with Daemon(home, config(sink.port), environment=environment).running() as daemon:
            assert listening.recv(4096).decode().startswith("READY=1\nSTATUS=relay on 127.0.0.1:")
            began = time.monotonic()
            for _ in range(3):
                assert listening.recv(4096).startswith(b"WATCHDOG=1")
            assert time.monotonic() - began < 1.5
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGHUP)
            told = _until(listening, "RELOADING=1")
            assert "MONOTONIC_USEC=" in told
            _until(listening, "READY=1")
            daemon.process.send_signal(signal.SIGTERM)
            _until(listening, "STOPPING=1")
            assert daemon.process.wait(20) == 0


def _until(listening: socket.socket, line: str) -> str:
    while True:
        told = listening.recv(4096).decode()
        if told.startswith(line):
            return told


def test_reload_takes_over_what_can_change(home: Path, sink: Sink) -> None:
    with Daemon(home, config(sink.port)).running() as daemon:
        daemon.cli("suppress", "ann@example.com")
        assert daemon.rcpt("ann@example.com").startswith("550 5.7.1 <ann@example.com> is suppressed: operator")
        daemon.file.write_text(daemon.config.replace('hostname = "relay', 'mode = "strip"\nhostname = "relay'))
        _hup(daemon, "reloaded")
        assert daemon.rcpt("ann@example.com").startswith("250")


def test_reload_refuses_a_bad_file_and_goes_on(home: Path, sink: Sink) -> None:
    with Daemon(home, config(sink.port)).running() as daemon:
        daemon.file.write_text(daemon.config + "\n[relay2]\nx = 1\n")
        _hup(daemon, "reload_refused")
        assert "relay2: unknown key" in str(daemon.events("reload_refused")[-1])
        daemon.file.write_text(daemon.config.replace("listen = ", f'listen = "127.0.0.1:{free_port()}" #'))
        _hup(daemon, "reload_refused")
        assert "relay.listen" in str(daemon.events("reload_refused")[-1])
        assert daemon.rcpt("bob@example.com").startswith("250")


def _hup(daemon: Daemon, event: str) -> None:
    assert daemon.process is not None
    seen = len(daemon.events(event))
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: len(daemon.events(event)) > seen)


def test_a_second_daemon_is_turned_away(home: Path, sink: Sink) -> None:
    with Daemon(home, config(sink.port)).running() as daemon:
        second = daemon.cli("run", expect=75)
        assert "another optoutd is running" in second.stderr


def test_a_port_that_is_taken(home: Path, sink: Sink) -> None:
    daemon = Daemon(home, config(sink.port))
    daemon.file.write_text(daemon.config.replace("127.0.0.1:", "127.0.0.1:", 1))
    daemon.file.chmod(0o600)
    port = int(daemon.config.partition('listen = "127.0.0.1:')[2].partition('"')[0])
    with socket.create_server(("127.0.0.1", port)):
        assert "relay.listen" in daemon.cli("run", expect=75).stderr


def _heeds_hup(pid: int) -> bool:
    """Is SIGHUP ignored or caught (bit 0 of the masks of proc(5)), or does it end the process?"""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        return any(int(mask, 16) & 1 for mask in re.findall(r"^Sig(?:Ign|Cgt):\s+(\w+)", status, re.MULTILINE))
    return False


def test_a_reload_that_comes_while_it_starts_does_not_end_it(home: Path, sink: Sink) -> None:
    daemon, sent, early = Daemon(home, config(sink.port)), 0, False
    with ThreadPoolExecutor(1) as starter:
        started = starter.submit(daemon.start)
        try:
            while not started.done():
                if daemon.process is not None and _heeds_hup(daemon.process.pid):
                    early |= not (home / "optoutd.db").exists()
                    daemon.process.send_signal(signal.SIGHUP)
                    sent += 1
                time.sleep(0.005)
            started.result()
            assert early
            assert sent > 3
            assert daemon.stop() == 0
        finally:
            if daemon.process is not None and daemon.process.poll() is None:
                daemon.kill()


def test_database_and_key_belong_together(home: Path, sink: Sink) -> None:
    daemon = Daemon(home, config(sink.port))
    with daemon.running():
        pass
    (home / "optoutd.db").rename(home / "elsewhere")
    assert "restore the database" in daemon.cli("run", expect=78).stderr
    (home / "elsewhere").rename(home / "optoutd.db")
    (home / "site.key").rename(home / "key")
    assert "put the key file back" in daemon.cli("run", expect=78).stderr
    (home / "site.key").write_text("ab" * 32)
    (home / "site.key").chmod(0o600)
    assert "not the one this database was made with" in daemon.cli("run", expect=78).stderr


def test_a_database_that_goes_away_defers_and_heals(home: Path, sink: Sink) -> None:
    with Daemon(home, config(sink.port)).running() as daemon:
        assert daemon.rcpt("bob@example.com").startswith("250")
        (home / "optoutd.db").rename(home / "elsewhere")
        assert daemon.rcpt("bob@example.com").startswith("451 4.3.0")
        (home / "optoutd.db").write_bytes(b"not a database" * 1000)
        assert daemon.rcpt("bob@example.com").startswith("451 4.3.0")
        with sqlite3.connect(home / "empty") as db:
            db.execute("CREATE TABLE suppression (key, scope, reason, since, evidence)")
        db.close()
        (home / "empty").rename(home / "optoutd.db")
        assert daemon.rcpt("bob@example.com").startswith("451 4.3.0")
        (home / "elsewhere").rename(home / "optoutd.db")
        assert daemon.rcpt("bob@example.com").startswith("250")


def test_a_writer_delays_no_recipient(home: Path, sink: Sink) -> None:
    with Daemon(home, config(sink.port)).running() as daemon:
        daemon.rcpt("bob@example.com")
        with sqlite3.connect(home / "optoutd.db", isolation_level=None) as db:
            db.execute("BEGIN EXCLUSIVE")
            began = time.monotonic()
            assert daemon.rcpt("bob@example.com").startswith("250")
            assert time.monotonic() - began < 0.5
            db.execute("ROLLBACK")
        db.close()


def test_an_upstream_that_is_away(home: Path) -> None:
    with make_sink() as upstream:
        upstream.stop()
        with Daemon(home, config(upstream.port)).running() as daemon:
            assert daemon.rcpt("bob@example.com").startswith("451 4.4.1")
            upstream.start()
            assert daemon.rcpt("bob@example.com").startswith("250")
            assert daemon.send(["bob@example.com"], MESSAGE) == {}


def test_an_imap_server_that_is_away_holds_nothing_back(home: Path, sink: Sink, dovecot: Dovecot) -> None:
    dovecot.stop()
    try:
        with Daemon(home, config(sink.port, dovecot)).running() as daemon:
            assert daemon.rcpt("bob@example.com").startswith("250")
            daemon.until(lambda: daemon.events("mailbox_lost"))
            assert daemon.events("mailbox_lost")[0]["step"] == "connect"
            assert daemon.stop() == 0
    finally:
        dovecot.start()


def test_stopping_finishes_what_is_past_its_dot(home: Path, sink: Sink) -> None:
    sink.delays["DOT"] = 2.0
    with Daemon(home, config(sink.port)).running() as daemon:
        idle = smtplib.SMTP("127.0.0.1", daemon.relay_port, timeout=20)
        idle.ehlo()
        result: list[object] = []
        client = smtplib.SMTP("127.0.0.1", daemon.relay_port, timeout=20)
        sending = threading.Thread(
            target=lambda: result.append(client.sendmail("n@quillpdf.example", ["bob@example.com"], MESSAGE))
        )
        sending.start()
        sink.wait_for(lambda: "DATA" in sink.commands)
        time.sleep(0.5)
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began > 1.0
        sending.join(10)
        assert idle.getreply()[0] == 421
        assert client.docmd("QUIT")[0] == 421
        idle.close()
        client.close()
    assert result == [{}]
    assert len(sink.messages) == 1


def test_two_signals_end_it_at_once(home: Path, sink: Sink) -> None:
    sink.delays["DOT"] = 20.0
    with Daemon(home, config(sink.port)).running() as daemon:
        sending = threading.Thread(target=_ignore_errors, args=(daemon,))
        sending.start()
        sink.wait_for(lambda: "DATA" in sink.commands)
        time.sleep(0.3)
        assert daemon.process is not None
        os.kill(daemon.process.pid, signal.SIGTERM)
        daemon.until(lambda: daemon.events("stopping"))
        os.kill(daemon.process.pid, signal.SIGTERM)
        assert daemon.process.wait(3) == 143
        sending.join(10)


def _ignore_errors(daemon: Daemon) -> None:
    try:
        daemon.send(["bob@example.com"], MESSAGE)
    except (smtplib.SMTPException, OSError):
        return


def test_upstream_must_not_be_ourselves(home: Path) -> None:
    port = free_port()
    daemon = Daemon(home, config(port).replace("listen = ", f'listen = "127.0.0.1:{port}" #'))
    daemon.file.write_text(daemon.config)
    daemon.file.chmod(0o600)
    assert "own listener" in daemon.cli("run", expect=78).stderr


def test_a_long_job_does_not_delay_the_end() -> None:
    going = threading.Event()

    def long_job() -> None:
        going.wait(5)

    async def service() -> None:
        job = asyncio.create_task(jobs._run(long_job))
        await asyncio.sleep(0.1)
        job.cancel()

    began = time.monotonic()
    asyncio.run(service())
    assert time.monotonic() - began < 3
    going.set()


def test_people_are_written_to_by_one_task_though_a_reload_comes_while_our_duties_change(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Post:
        """Finishes the notice in hand before it ends, as the real one does."""

        async def run(self) -> None:
            running.append(self)
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                running.remove(self)

    async def service() -> None:
        present = Present(loaded, Gate(Away(), {}), (), {})
        pool = Pool([Endpoint("127.0.0.1", 1)], hostname="relay.example", timeout=2)
        roles = Roles(ledger, Duties(ledger), lambda: present, lambda: pool, jobs.Jobs(ledger, loaded.config.bounce))
        await roles.write_to_people()
        await asyncio.sleep(0)
        await asyncio.gather(roles.write_to_people(), roles.write_to_people())
        await asyncio.sleep(0)
        assert len(running) == 1
        await roles.stop_writing()
        assert running == []

    running: list[Post] = []
    monkeypatch.setattr("daemon.building.post", lambda *_: Post())
    (home / "optoutd.toml").write_text(config(free_port()))
    (home / "optoutd.toml").chmod(0o600)
    loaded, ledger = load(home / "optoutd.toml"), books(home / "ledger").ledger
    asyncio.run(service())
    ledger.close()


def test_every_mailbox_is_told_to_stop_before_any_is_waited_for() -> None:
    class Stuck:
        def __init__(self) -> None:
            self.told = False

        def ask_to_stop(self) -> None:
            self.told = True

        def stop(self) -> None:
            assert all(w.told for w in stuck)

    stuck = [Stuck() for _ in range(40)]
    watchers = cast("dict[str, Watcher]", {str(n): w for n, w in enumerate(stuck)})
    nothing = cast("Any", None)
    asyncio.run(Roles(nothing, nothing, nothing, nothing, nothing, watchers).stop_watchers())
