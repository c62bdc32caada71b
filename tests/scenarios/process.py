"""The daemon as a process, and a marketing tool that sends through it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.loopback import free_port
from tests.servers import Dovecot

PATIENCE = 30.0
ROOT = Path(__file__).parents[2]


@dataclass
class Daemon:
    """`optoutd run` on a config in a directory of its own; `start` and `kill` as often as a test likes."""

    directory: Path
    config: str
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    relay_port: int = 0

    @property
    def file(self) -> Path:
        """The config file."""
        return self.directory / "optoutd.toml"

    @property
    def log_file(self) -> Path:
        """All that every run said on stderr."""
        return self.directory / "log"

    def start(self) -> None:
        """Run; returns when it is ready."""
        self.file.write_text(self.config)
        self.file.chmod(0o600)
        seen = len(self.events("ready"))
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command("run"), stderr=log, cwd=self.directory, env=self._environment()
            )
        self.until(lambda: len(self.events("ready")) > seen)
        ready = self.events("ready")[-1]
        if "relay" in ready:
            self.relay_port = int(ready["relay"][0].rpartition(":")[2])

    def command(self, *arguments: str) -> list[str]:
        """A command line of optoutd."""
        return [sys.executable, "-m", "daemon", "-c", str(self.file), *arguments]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), **self.environment}

    def cli(self, *arguments: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run another command beside it."""
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            cwd=self.directory,
            env=self._environment(),
            timeout=60,
        )
        assert expect is None or done.returncode == expect, (done.returncode, done.stdout, done.stderr)
        return done

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The log lines, or those of one event."""
        if not self.log_file.exists():
            return []
        lines = [json.loads(x) for x in self.log_file.read_text().splitlines() if x.startswith("{")]
        return [x for x in lines if name in (None, x["event"])]

    def until(self, true: Callable[[], object]) -> None:
        """Wait for something, while the daemon lives."""
        end = time.monotonic() + PATIENCE
        while not true():
            ended = self.process is not None and self.process.poll() is not None
            assert not ended, f"the daemon ended: {self.log_file.read_text()[-3000:]}"
            assert time.monotonic() < end, f"waited too long: {self.log_file.read_text()[-3000:]}"
            time.sleep(0.02)

    def rcpt(self, address: str) -> str:
        """The relay's answer to a recipient, as CODE TEXT."""
        with smtplib.SMTP("127.0.0.1", self.relay_port, timeout=PATIENCE) as client:
            client.ehlo()
            client.mail("news@quillpdf.example")
            code, text = client.rcpt(address)
            return f"{code} {text.decode()}"

    def send(self, recipients: list[str], message: bytes) -> dict[str, tuple[int, bytes]]:
        """Send a campaign mail; returns the refused recipients."""
        with smtplib.SMTP("127.0.0.1", self.relay_port, timeout=PATIENCE) as client:
            return client.sendmail("news@quillpdf.example", recipients, message)

    @contextlib.contextmanager
    def running(self) -> Iterator[Daemon]:
        """Start now, stop in the end whatever happens."""
        self.start()
        try:
            yield self
        finally:
            if self.process is not None and self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(15)
                self.process.kill()
                self.process.wait()


def config(
    upstream_port: int, dovecot: Dovecot | None = None, *, relay: str = "", mailbox: str = "", more: str = ""
) -> str:
    """A config as an operator would write it."""
    box = (
        f"""
[[mailbox]]
name = "support"
host = "127.0.0.1"
port = {dovecot.imaps_port}
ca_file = "{dovecot.ca_file}"
username = "support"
password_file = "imap-password"
poll_seconds = 2
{mailbox}
"""
        if dovecot
        else ""
    )
    return f"""
[house]
name = "Quill PDF"
domains = ["quillpdf.example"]
addresses = ["support@quillpdf.example"]

[[list]]
id = "newsletter"
list_id = "newsletter.quillpdf.example"
{box}
[relay]
listen = "127.0.0.1:{free_port()}"
hostname = "relay.quillpdf.example"
{relay}

[upstream]
port = {upstream_port}

[log]
format = "json"
{more}
"""


def notify_socket(directory: Path) -> socket.socket:
    """What systemd would listen on."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(directory / "notify"))
    listening.settimeout(PATIENCE)
    return listening
