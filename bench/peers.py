"""What relay.py sends mail through, and the server behind all of it."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench import common
from bench.common import HOST, say
from tests.servers import Postfix, free_port, program

NAMES: Final = ("direct", "postfix-proxy", "postfix-queue", "optoutd")


class Peer:
    """Something to send through. `up` holds it up in front of an upstream and gives its port and process."""

    name: str
    enforces = True
    queues = False

    @contextlib.contextmanager
    def up(self, upstream: int) -> Iterator[tuple[int, int]]:
        """(port, process id; 0: none of its own)."""
        yield upstream, 0


class Direct(Peer):
    """Nothing between."""

    name, enforces = "direct", False


class Daemon(Peer):
    """optoutd itself."""

    def __init__(
        self, name: str, checkout: Path, work: Path, ledger: common.Seeded, connections: int, profile: Path | None
    ):
        self.name, self._checkout, self._work, self._ledger = name, checkout, work, ledger
        self._connections, self._profile = connections, profile

    @contextlib.contextmanager
    def up(self, upstream: int) -> Iterator[tuple[int, int]]:
        """Start the daemon with a config of its own."""
        port, config = free_port(), self._work / f"{self.name}.toml"
        config.write_text(
            f'[house]\nname = "Quill PDF"\ndomains = ["quillpdf.example"]\naddresses = ["support@quillpdf.example"]\n'
            f'[storage]\nurl = "sqlite:///{self._ledger.database}"\nkey_file = "{self._ledger.key_file}"\n'
            f'[relay]\nlisten = "{HOST}:{port}"\nhostname = "relay.example"\n'
            f'[upstream]\nhost = "{HOST}"\nport = {upstream}\nconnections = {self._connections}\n'
        )
        command = common.daemon_command(config)
        if self._profile:
            command[1:1] = ["-m", "cProfile", "-o", str(self._profile.absolute())]
        log = self._work / f"{self.name}.log"
        with common.process(command, log, lambda: greets(port), checkout=self._checkout) as child:
            yield port, child.pid


class _Configured(Postfix):
    """The tests' Postfix with the list as access map; as proxy it hands each command on to the upstream at once."""

    def __init__(self, directory: Path, upstream: int, access: Path, *, proxy: bool):
        super().__init__(directory, upstream)
        with (self.etc / "main.cf").open("a") as main:
            checks = f"check_recipient_access lmdb:{access}, permit_mynetworks, reject"
            main.write(f"smtpd_recipient_restrictions = {checks}\n")
        master = self.etc / "master.cf"
        filtering = f" -o smtpd_proxy_filter={HOST}:{upstream}" if proxy else ""
        master.write_text(master.read_text().replace("n - n - - smtpd", f"n - n - 200 smtpd{filtering}"))

    @property
    def pid(self) -> int:
        """Of its master process."""
        assert self._process is not None
        return self._process.pid


class PostfixPeer(Peer):
    """Postfix, with a queue or without."""

    def __init__(self, name: str, access: Path, *, proxy: bool):
        self.name, self.queues, self._access = name, not proxy, access

    @contextlib.contextmanager
    def up(self, upstream: int) -> Iterator[tuple[int, int]]:
        """Start a Postfix of its own; its sockets' paths must be short."""
        with tempfile.TemporaryDirectory(prefix="oo", dir="/tmp", ignore_cleanup_errors=True) as name:
            Path(name).chmod(0o755)
            server = _Configured(Path(name), upstream, self._access, proxy=not self.queues)
            server.start()
            try:
                yield server.port, server.pid
            finally:
                server.kill()


def access_map(work: Path, listed: int) -> Path:
    """The list as an lmdb map for Postfix."""
    source = work / f"access-{listed}"
    if not source.with_name(source.name + ".lmdb").exists():
        say("postmap")
        source.write_text("".join(f"{common.suppressed(n)} REJECT suppressed\n" for n in range(listed)))
        etc = work / "postmap"
        etc.mkdir(exist_ok=True)
        (etc / "main.cf").write_text("compatibility_level = 3.6\nlmdb_map_size = 1000000000\n")
        subprocess.run([program("postmap") or "postmap", "-c", etc, f"lmdb:{source}"], check=True)
        source.unlink()
    return source


def greets(port: int) -> bool:
    """Does an SMTP server answer there?"""
    try:
        with socket.create_connection((HOST, port), timeout=5) as line:
            return line.recv(200).startswith(b"220")
    except OSError:
        return False


class Discard:
    """Postfix's smtp-sink, which counts what it takes."""

    def __init__(self, port: int, counter: Path):
        self.port, self._counter = port, counter

    def messages(self) -> int:
        """How many it has taken so far."""
        with self._counter.open("rb") as file:
            file.seek(max(0, self._counter.stat().st_size - 200))
            found = re.findall(rb"mesg=(\d+)(?=\D)", file.read() + b" ")
        return int(found[-1]) if found else 0

    def wait(self, messages: int, limit: float) -> int:
        """Until it has so many, or the time (s) is up; how many it has then."""
        deadline = time.monotonic() + limit
        while (have := self.messages()) < messages and time.monotonic() < deadline:
            time.sleep(0.02)
        return have


@contextlib.contextmanager
def discard(work: Path) -> Iterator[Discard]:
    """A running smtp-sink."""
    port, counter = free_port(), work / "sink.count"
    command = [program("smtp-sink") or "smtp-sink", "-4", "-c", "-m", "2000", "-u", "nobody", f"{HOST}:{port}", "1024"]
    with common.process(command, counter, lambda: greets(port)):
        yield Discard(port, counter)
