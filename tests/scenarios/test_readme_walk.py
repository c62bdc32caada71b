"""The walk of the README, word for word: its config and its commands, against a real Dovecot and a real Postfix."""

from __future__ import annotations

import http.cookiejar
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.loopback import free_port
from tests.servers import Dovecot, Postfix
from tests.sink import Sink

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS: dict[str, str] = dict(re.findall(r"^```(?:sh|toml) (\S+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))
PATIENCE = 90.0
PASSWORD = "correct horse battery"
PLEASE = """\
From: Ann <ann@example.com>
To: support@quillpdf.example
Subject: your letters
Message-ID: <walk@example.com>

Please take me off your list
"""


@dataclass
class Walker:
    """Somebody with a shell in a directory of their own, who types what stands there. `differs`: what is not so here."""

    home: Path
    differs: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        program = self.home / "bin/optoutd"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m daemon "$@"\n')
        program.chmod(0o755)
        path = f"{program.parent}:{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(self.home)}
        self.environment.pop("OPTOUTD_CONFIG", None)

    def here(self, block: str) -> str:
        """What the README says, with the names and ports of this machine."""
        text = BLOCKS[block]
        for theirs, ours in self.differs.items():
            text = text.replace(theirs, ours)
        return text

    def types(self, block: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        """The commands of a block; `typed`: at what they ask for."""
        command = ["bash", "-ec", self.here(block)]
        return subprocess.run(
            command, input=typed, capture_output=True, text=True, cwd=self.home, env=self.environment, timeout=PATIENCE
        )

    def starts(self, block: str) -> None:
        """A command that stays."""
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-ec", f"exec {self.here(block)}"], stderr=log, cwd=self.home, env=self.environment
            )

    def waits(self, until: Callable[[], object]) -> None:
        """For something to happen, while the daemon lives."""
        end = time.monotonic() + PATIENCE
        while not until():
            assert self.process
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.05)

    @property
    def log(self) -> str:
        """What the daemon said."""
        return (self.home / "log").read_text()


@pytest.fixture
def walker(dovecot: Dovecot, postfix: Postfix, tmp_path: Path) -> Iterator[Walker]:
    """Somebody who has read the README, and nothing else."""
    mailbox = f'host = "127.0.0.1"\nport = {dovecot.imaps_port}\nca_file = "{dovecot.ca_file}"'
    differs = {
        'host = "imap.quillpdf.example"': mailbox,
        "port = 25\n": f"port = {postfix.port}\n",
        "127.0.0.1:8025": f"127.0.0.1:{free_port()}",
        "THE-MAILBOX-PASSWORD": dovecot.users["support"],
    }
    relay = free_port()
    differs |= {"127.0.0.1:2525": f"127.0.0.1:{relay}", '"127.0.0.1", 2525': f'"127.0.0.1", {relay}'}
    it = Walker(tmp_path, differs)
    yield it
    if it.process:
        it.process.terminate()
        it.process.wait(60)


def test_from_nothing_to_a_protected_campaign(walker: Walker, dovecot: Dovecot, sink: Sink) -> None:
    (walker.home / "optoutd.toml").write_text(walker.here("optoutd.toml"))
    checked = walker.types("check", f"{PASSWORD}\n")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.startswith("ok\n")
    assert re.search(r"^ok +imap support .*logged in", checked.stdout, re.MULTILINE)
    assert re.search(r"^ok +upstream ", checked.stdout, re.MULTILINE)
    assert "FAIL" not in checked.stdout

    walker.starts("run")
    walker.waits(lambda: '"mailbox_connected"' in walker.log)
    sent = walker.types("campaign")
    assert (sent.returncode, sent.stderr) == (0, "")
    walker.waits(lambda: any("<ann@example.com>" in to for message in sink.messages for to in message.rcpt_to))

    dovecot.lmtp("support", PLEASE.replace("\n", "\r\n").encode(), "ann@example.com")
    walker.waits(lambda: '"message_filed"' in walker.log)
    refused = walker.types("campaign")
    assert refused.returncode == 1
    told = refused.stderr.splitlines()[-1]
    assert "SMTPRecipientsRefused" in told
    assert "5.7.1 <ann@example.com> has opted out (ref 1)" in told

    why = walker.types("why")
    assert why.returncode == 0
    assert "Please take me off your list" in why.stdout
    assert "Relay today" in console(walker.differs["127.0.0.1:8025"])
    with urllib.request.urlopen(f"http://{walker.differs['127.0.0.1:8025']}/metrics", timeout=PATIENCE) as answer:
        assert b'optoutd_suppressions{reason="opt-out"} 1.0' in answer.read()


def console(address: str) -> str:
    """The first page, after the log-in as the README says."""
    base = f"http://{address}"
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    with browser.open(f"{base}/console/", timeout=PATIENCE) as page:
        token = re.search(r'name="csrf_token" value="([^"]+)"', page.read().decode())
    assert token
    form = urlencode({"csrf_token": token[1], "username": "admin", "password": PASSWORD}).encode()
    request = urllib.request.Request(f"{base}/console/login", form, {"Origin": base})
    with browser.open(request, timeout=PATIENCE) as page:
        return str(page.read(), "utf-8")


def test_the_walk_begins_with_what_the_makefile_has() -> None:
    first, second = BLOCKS["install"].splitlines()
    assert re.search(rf"^{first.removeprefix('make ')}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert second == 'export PATH="$PWD/.venv/bin:$PATH"'
    assert ".venv/bin/optoutd" in (ROOT / "Makefile").read_text()
    assert list(BLOCKS) == ["install", "optoutd.toml", "check", "run", "campaign", "why"]
