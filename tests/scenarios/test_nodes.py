"""Several nodes on one database: each enforces, one watches, and another takes over."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests import servers
from tests.mailbox.support import mail
from tests.scenarios.process import Daemon, config
from tests.servers import Dovecot, Postgres, Sink

pytestmark = [pytest.mark.dovecot, pytest.mark.postgres, pytest.mark.timeout(180)]

ANN, BOB, CLEAR = "ann@example.com", "bob@example.org", "carla@example.net"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """One that may be stopped under the daemons."""
    with servers.postgres() as own:
        yield own


@pytest.fixture
def nodes(server: Postgres, dovecot: Dovecot, sink: Sink) -> Iterator[tuple[Daemon, Daemon]]:
    """Two, not started, on a database that the first one has made."""
    url = server.url(server.new_database())
    with tempfile.TemporaryDirectory(prefix="oo") as name:
        pair = []
        for node in "ab":
            home = Path(name) / node
            home.mkdir()
            (home / "imap-password").write_text("secret-support\n")
            pair.append(Daemon(home, config(sink.port, dovecot, more=f'[storage]\nurl = "{url}"')))
        first, second = pair
        first.file.write_text(first.config)
        first.file.chmod(0o600)
        made = first.cli("migrate").stderr
        assert "schema (none) -> " in made
        assert "every node needs this file" in made
        shutil.copy(first.directory / "site.key", second.directory / "site.key")
        yield first, second
        for node_ in pair:
            if node_.process is not None and node_.process.poll() is None:
                node_.kill()


def watches(node: Daemon) -> bool:
    """Has it taken the mailbox, and not lost it since?"""
    taken = [("mailbox support" in e["taken"], "mailbox support" in e["lost"]) for e in node.events("duties_changed")]
    return bool(taken) and taken[-1][0] and not taken[-1][1]


def _refuses(node: Daemon, address: str) -> bool:
    return node.rcpt(address).startswith("550 5.7.1")


def test_what_one_node_reads_every_node_enforces_and_another_takes_over(
    nodes: tuple[Daemon, Daemon], dovecot: Dovecot, server: Postgres
) -> None:
    first, second = nodes
    first.start()
    first.until(lambda: first.events("mailbox_connected"))
    second.start()
    dovecot.lmtp("support", mail(f"Ann <{ANN}>", "Please stop sending me e-mails. Thank you, Ann"))
    second.until(lambda: second.rcpt(ANN).startswith("550 5.7.1"))
    assert first.rcpt(ANN) == second.rcpt(ANN)
    assert second.rcpt(CLEAR).startswith("250")
    assert not second.events("mailbox_connected")
    second.cli("suppress", CLEAR)
    assert first.rcpt(CLEAR).startswith("550 5.7.1")
    second.cli("lift", CLEAR, "--because", "test")

    first.kill()
    database = second.config.partition("postgresql://")[2].partition('"')[0].rpartition("/")[2]
    server.run("UPDATE lease SET until = 0", database)  # the clock goes on
    second.until(lambda: watches(second))
    dovecot.lmtp("support", mail(f"Bob <{BOB}>", "Please stop sending me e-mails. Thank you, Bob"))
    second.until(lambda: second.rcpt(BOB).startswith("550 5.7.1"))

    first.start()
    assert second.stop() == 0  # which gives its leases back: nobody waits for them to run out
    first.until(lambda: len(first.events("mailbox_connected")) == 2)
    assert first.cli("audit", "verify").stdout.startswith("ok, 4 rows")
    assert first.stop() == 0
    for node in nodes:
        assert "example.com" not in node.log_file.read_text()


def test_a_node_that_runs_without_the_newest_key_defers(nodes: tuple[Daemon, Daemon]) -> None:
    first, second = nodes
    first.start()
    first.until(lambda: first.rcpt(CLEAR).startswith("250"))
    second.file.write_text(second.config)
    second.file.chmod(0o600)
    key_file = second.directory / "site.key"
    key_file.write_text("11" * 32 + "\n" + key_file.read_text())
    second.cli("suppress", ANN)
    first.until(lambda: first.rcpt(ANN).startswith("451 4.3.0"))
    assert first.rcpt(CLEAR).startswith("451 4.3.0")
    second.start()
    assert second.rcpt(ANN).startswith("550 5.7.1")
    assert second.rcpt(CLEAR).startswith("250")
    shutil.copy(key_file, first.directory / "site.key")
    assert first.stop() == 0
    first.start()
    assert first.rcpt(ANN) == second.rcpt(ANN)
    assert (first.stop(), second.stop()) == (0, 0)


def test_a_database_that_goes_and_comes_back(nodes: tuple[Daemon, Daemon], server: Postgres) -> None:
    first, second = nodes
    first.start()
    first.cli("suppress", ANN)
    assert first.rcpt(ANN).startswith("550 5.7.1")
    server.kill()
    assert first.rcpt(ANN).startswith("451 4.3.0")
    assert first.rcpt(CLEAR).startswith("451 4.3.0")
    first.cli("check", CLEAR, expect=75)
    first.cli("suppress", CLEAR, expect=75)
    second.start()  # it is away, and that holds no node back
    assert second.rcpt(CLEAR).startswith("451 4.3.0")
    server.start()
    for node in nodes:
        node.until(partial(_refuses, node, ANN))
        assert node.rcpt(CLEAR).startswith("250")
    second.until(lambda: second.events("database_reached"))
    assert (first.stop(), second.stop()) == (0, 0)


def test_a_database_that_stands_still(nodes: tuple[Daemon, Daemon], server: Postgres) -> None:
    first, _ = nodes
    first.start()
    first.cli("suppress", ANN)
    assert first.rcpt(CLEAR).startswith("250")
    with server.frozen():
        for _ in range(3):
            began = time.monotonic()
            assert first.rcpt(CLEAR).startswith("451 4.3.0")
            assert time.monotonic() - began < 5
    began = time.monotonic()
    first.until(lambda: first.rcpt(CLEAR).startswith("250"))
    assert time.monotonic() - began < 10
    assert first.rcpt(ANN).startswith("550 5.7.1")
    assert first.stop() == 0
