"""The canary of the whole daemon: its own gate refuses it, nobody hears of it, and kill -9 leaves nothing behind."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storage import audit, canaries
from storage.canaries import State
from storage.engine import Ledger
from storage.sqlite import open_ledger
from storage.write import write
from tests.loopback import free_port
from tests.scenarios.process import PATIENCE, Daemon, config
from tests.servers import Dovecot, Sink
from tests.webhooks.receiver import SECRET, receiver

pytestmark = [pytest.mark.dovecot, pytest.mark.timeout(240)]

# `python -c` this, with what is to happen at which function, in front of the arguments of optoutd.
_SABOTAGED = """
import importlib, os, runpy, signal, sys

what, where, name, *_ = sys.argv[1].split(":")
del sys.argv[1]
module, _, owner = where.rpartition(".")
owner = getattr(importlib.import_module(module), owner)
real = getattr(owner, name)

def sabotaged(*given, **named):
    if what == "before" or what == "passes":
        os.kill(os.getpid(), signal.SIGKILL) if what == "before" else None
        return None
    real(*given, **named)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, name, sabotaged)
runpy.run_module("daemon", run_name="__main__", alter_sys=True)
"""


@dataclass
class House(Daemon):
    """A daemon with a mailbox. `sabotage`: WHAT:CLASS:FUNCTION, of the next start."""

    sabotage: str = ""

    def command(self, *arguments: str) -> list[str]:
        """Of a daemon that something happens to."""
        if self.sabotage and arguments == ("run",):
            return [sys.executable, "-c", _SABOTAGED, self.sabotage, "-c", str(self.file), "run"]
        return super().command(*arguments)

    @contextlib.contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """What it has written, or will."""
        ledger = open_ledger(self.directory / "optoutd.db", self.directory / "site.key", allow_create=True)
        yield ledger
        ledger.close()

    def state(self) -> State | None:
        """As it is recorded."""
        with self.ledger() as ledger, ledger.connect() as db:
            return canaries.state(db, "support")

    def dies(self) -> None:
        """Run until it is killed by what was done to it."""
        self.file.write_text(self.config)
        self.file.chmod(0o600)
        with self.log_file.open("ab") as log:
            run = subprocess.Popen(self.command("run"), stderr=log, cwd=self.directory, env=self._environment())
        assert run.wait(2 * PATIENCE) == -9, self.log_file.read_text()


def subjects(dovecot: Dovecot) -> list[str]:
    with dovecot.connect("support") as client:
        found = []
        for folder in ("INBOX", "Opt-outs"):
            if client.folder_exists(folder):
                client.select_folder(folder, readonly=True)
                found += [f[b"ENVELOPE"].subject.decode() for f in client.fetch(client.search(), ["ENVELOPE"]).values()]
        return found


def nothing_is_left(house: House, dovecot: Dovecot) -> None:
    """Neither in the mailbox nor in the ledger, whose record is whole."""
    assert subjects(dovecot) == []
    with house.ledger() as ledger, ledger.reading() as db:
        known = [row[0] for row in db.exec_driver_sql("SELECT address FROM person")]
        assert not [address for address in known if address.endswith("optoutd.invalid")]
        for table in ("suppression", "incoming", "review", "outbox"):
            assert db.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one() == 0, table
        audit.verify(db, ledger.site_key)


@pytest.fixture
def house(dovecot: Dovecot, sink: Sink) -> Iterator[House]:
    """One whose canary is due as soon as it starts."""
    with tempfile.TemporaryDirectory(prefix="oo") as name:
        home = Path(name)
        (home / "imap-password").write_text("secret-support\n")
        (home / "secret").write_text(SECRET + "\n")
        house = House(home, config(sink.port, dovecot))
        with house.ledger() as ledger, write(ledger, datetime.now(UTC), "test") as w:
            canaries.put(w, "support", State(first=1, due=0))
        yield house


def test_it_comes_through_and_nobody_hears_of_it(house: House, dovecot: Dovecot, sink: Sink) -> None:
    port = free_port()
    with receiver() as crm:
        hook = f'[[webhook]]\nname = "crm"\nurl = "{crm.url}"\nsecret_file = "secret"\n'
        house.config += f'\n[web]\nlisten = "127.0.0.1:{port}"\n{hook}'
        with house.running():
            house.until(lambda: house.events("canary_passed"))
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
                metrics = answer.read().decode()
            house.cli("suppress", "ann@example.com")
            crm.until(lambda: crm.addresses())
            assert crm.addresses() == ["ann@example.com"]
            assert [line.split()[0] for line in house.cli("list").stdout.splitlines()] == ["ann@example.com"]
            house.cli("lift", "ann@example.com", "--because", "a test")
    assert 'optoutd_canary_seconds{mailbox="support"}' in metrics
    assert 'optoutd_canary_last_success_timestamp_seconds{mailbox="support"}' in metrics
    assert "optoutd_intake_messages_total{" not in metrics
    (passed,) = house.events("canary_passed")
    steps = [passed[step] for step in ("appended", "noticed", "read", "committed", "refused", "removed")]
    assert steps == sorted(steps)
    assert not house.events("message_read") + house.events("opt_out_recorded") + house.events("notice_sent")
    assert not sink.messages
    assert "optoutd.invalid" not in house.log_file.read_text()
    nothing_is_left(house, dovecot)


def test_a_restart_sends_no_second_one(house: House, dovecot: Dovecot) -> None:
    with house.running():
        house.until(lambda: house.events("canary_passed"))
    dovecot.lmtp("support", b"From: a@example.com\r\nSubject: q\r\n\r\nHow do I merge two files?\r\n")
    with house.running():
        house.until(lambda: house.events("message_read"))
        dovecot.lmtp("support", b"From: b@example.com\r\nSubject: q\r\n\r\nHow do I split a file?\r\n")
        house.until(lambda: len(house.events("message_read")) == 2)
    assert len(house.events("canary_passed")) == 1


@pytest.mark.parametrize(
    "sabotage",
    [
        "before:daemon.mailbox.session.Session:append",
        "after:daemon.mailbox.session.Session:append",
        "before:daemon.intake.Intake:act",
        "after:daemon.intake.Intake:act",
        "before:imapclient.IMAPClient:uid_expunge",
        "after:daemon.mailbox.session.Session:expunge",
        "before:daemon.mailbox.canary.Canary:_written",
        "after:daemon.mailbox.canary.Canary:_written",
    ],
)
def test_killed_at_any_step_nothing_is_left_by_the_next_start(house: House, dovecot: Dovecot, sabotage: str) -> None:
    house.sabotage = sabotage
    house.dies()
    assert len(subjects(dovecot)) <= 1
    house.sabotage = ""
    with house.running():
        house.until(lambda: (state := house.state()) and not state.open and not state.left)
    nothing_is_left(house, dovecot)


def test_a_gate_that_lets_it_pass_is_found_out(house: House, dovecot: Dovecot) -> None:
    house.sabotage = "passes:daemon.gate.Gate:_judged"
    with house.running():
        house.until(lambda: house.events("canary_failed"))
    (failed,) = house.events("canary_failed")
    assert (failed["mailbox"], failed["step"]) == ("support", "refused")
    assert failed["reason"] == "the gate let the address pass"
    nothing_is_left(house, dovecot)
    state = house.state()
    assert state is not None
    assert state.failed
    assert not state.passed
