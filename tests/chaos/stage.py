"""Everything that runs: Dovecot, the upstream, perhaps Postfix and PostgreSQL, the wires between, and the daemon as systemd
would keep it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from tests.chaos.history import History
from tests.chaos.links import Links
from tests.chaos.shim import Shim
from tests.loopback import HOST, free_port
from tests.scenarios.process import ROOT
from tests.servers import Dovecot, Postfix, Postgres, Server, dovecot, postfix, postgres

RESTART_SECONDS: Final = 2.0  # RestartSec= of the unit
_NOT_AGAIN: Final = (64, 78)  # RestartPreventExitStatus=
_COMES_UP: Final = 60.0  # s
_ROOM: Final = "24m"  # of the small file system
Database = Literal["sqlite", "postgresql"]

_CONFIG: Final = """
[house]
name = "Quill PDF"
domains = ["quillpdf.example"]
addresses = ["support@quillpdf.example"]

[[list]]
id = "newsletter"
list_id = "newsletter.quillpdf.example"

[storage]
{storage}
backup_dir = "backups"

[[mailbox]]
name = "support"
host = "127.0.0.1"
port = {imap}
ca_file = "{ca_file}"
username = "support"
password_file = "imap-password"
poll_seconds = 2
machine_folder = "Machines"

[relay]
listen = "127.0.0.1:{relay}"
hostname = "relay.quillpdf.example"
auth = false

[[relay.credential]]
username = "shop"
password_file = "secret"
mode = "strip"

[[relay.credential]]
username = "crm"
password_file = "secret"
list = "newsletter"

[upstream]
port = {upstream}
timeout = 10

[web]
listen = "127.0.0.1:{api}"
public_listen = "127.0.0.1:{clicks}"
public_url = "https://optout.quillpdf.example"

[[web.token]]
name = "shop"
token_file = "secret"
rights = ["check", "suppress", "lift"]

[log]
format = "json"
"""
SECRET: Final = "a-secret-that-only-the-shop-has-0123456789"


class Ended(Server):
    """The end of the line: tests.chaos.upstream."""

    def __init__(self, directory: Path):
        super().__init__(directory)
        self.port = free_port()
        self.record, self.mood_file = directory / "arrivals.jsonl", directory / "mood"

    @property
    def command(self) -> list[str]:
        """A process of its own, so that it can be killed."""
        return [sys.executable, "-m", "tests.chaos.upstream", str(self.port), str(self.record), str(self.mood_file)]

    @property
    def ports(self) -> tuple[int, ...]:
        """SMTP."""
        return (self.port,)

    def mood(self, **told: Any) -> None:
        """How it behaves from now on; nothing: well."""
        new = self.mood_file.with_suffix(".new")
        new.write_text(json.dumps(told))
        new.replace(self.mood_file)


@dataclass
class Supervised:
    """`optoutd run`, started again whenever it ends, unless it says that this is of no use, or we hold it."""

    home: Path
    history: History
    environment: dict[str, str]
    module: tuple[str, ...] = ("daemon",)
    process: subprocess.Popen[bytes] | None = None
    refused: threading.Event = field(
        default_factory=threading.Event
    )  # it has ended with a code after which nobody tries
    _held: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None
    _began: int = 0  # octets in its log when it was started last

    @property
    def file(self) -> Path:
        """The config."""
        return self.home / "optoutd.toml"

    @property
    def log_file(self) -> Path:
        """What every run said."""
        return self.home / "log"

    def command(self, *arguments: str) -> list[str]:
        """A command line of optoutd."""
        return [sys.executable, "-m", *self.module, "-c", str(self.file), *arguments]

    def cli(self, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Another command. A command that takes too long is killed, and has the code -9."""
        try:
            return subprocess.run(
                self.command(*arguments),
                capture_output=True,
                text=True,
                cwd=self.home,
                env=self._environment(),
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess([], -9, "", f"not within {seconds} s")

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), **self.environment}

    def start(self) -> None:
        """From now on it runs."""
        self._thread = threading.Thread(target=self._watch, name="supervisor")
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.is_set():
            with self._lock:  # whoever holds it from now on knows whether it runs
                process = None if self._held.is_set() or self.refused.is_set() else self._run()
            if process is None:
                self._over.wait(0.05)
                continue
            code = process.wait()
            self.history.note("daemon ended", str(code))
            if self._held.is_set() or self._over.is_set():
                continue
            if code in _NOT_AGAIN:
                self.refused.set()
            self._over.wait(RESTART_SECONDS)

    def _run(self) -> subprocess.Popen[bytes]:
        with self.log_file.open("ab") as log:
            self._began = log.seek(0, os.SEEK_END)
            self.process = subprocess.Popen(self.command("run"), stderr=log, cwd=self.home, env=self._environment())
        return self.process

    def tell(self, number: int) -> None:
        """Send it a signal, if it runs."""
        with self._lock:
            if self.process is not None and self.process.poll() is None:
                self.process.send_signal(number)

    @contextlib.contextmanager
    def held(self, number: int = signal.SIGKILL) -> Iterator[None]:
        """It is ended by this signal, and does not run until the end of the block."""
        with self._lock:
            self._held.set()
        try:
            self.end(number)
            self._began = self.log_file.stat().st_size
            yield
        finally:
            self.refused.clear()
            self._held.clear()

    @property
    def is_ready(self) -> bool:
        """Has it said so, since it was started last?"""
        with self.log_file.open("rb") as log:
            log.seek(self._began)
            return b'"event": "ready"' in log.read(200_000)

    def settled(self, seconds: float) -> bool:
        """Wait until it is ready, or has ended for good. False: it was refused, or did not come up in that time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.refused.is_set():
            if self.is_ready:
                return True
            time.sleep(0.1)
        return False

    def end(self, number: int) -> None:
        """End it by this signal, by SIGKILL if it takes too long; returns when it is gone."""
        process = self.process
        self.tell(number)
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(40)
            self.tell(signal.SIGKILL)
            process.wait()

    def finish(self) -> None:
        """End it for good."""
        self._held.set()
        self.tell(signal.SIGCONT)
        self.end(signal.SIGTERM)
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self.end(signal.SIGKILL)


@dataclass
class Stage:
    """All of it, running."""

    directory: Path
    history: History
    links: Links
    shim: Shim
    box: Dovecot
    end: Ended
    daemon: Supervised
    mta: Postfix | None
    database: Postgres | None
    url: str  # of the database, straight
    small: bool  # is the state on a small file system, which can be filled?
    ports: dict[str, int]  # where the load connects to: relay clicks api

    @property
    def state(self) -> Path:
        """Database and key."""
        return self.daemon.home / "state"

    @property
    def backups(self) -> Path:
        """Backups and journal."""
        return self.daemon.home / "backups"


@contextlib.contextmanager
def stage(
    directory: Path,
    history: History,
    database: Database,
    *,
    behind: Literal["sink", "postfix"],
    module: tuple[str, ...] = ("daemon",),
) -> Iterator[Stage]:
    """Bring it all up in an empty directory (short: sockets lie in it); it is gone at the end of the block, but not the files."""
    with contextlib.ExitStack() as stack:
        links = Links()
        stack.enter_context(links.running())
        box = stack.enter_context(dovecot())
        (directory / "end").mkdir()
        end = Ended(directory / "end")
        end.mood()
        end.start()
        stack.callback(end.kill)
        mta = stack.enter_context(postfix(end.port)) if behind == "postfix" else None
        server = stack.enter_context(postgres()) if database == "postgresql" else None
        home = directory / "home"
        small = _make_home(home, stack) if server is None else _make_plain(home)
        shim = Shim(directory)
        stack.callback(shim.close)
        ports = {name: links.lay(name, free_port()) for name in ("relay", "clicks", "api")}
        url, storage = _storage(server, links)
        text = _CONFIG.format(
            storage=storage,
            imap=links.lay("imap", box.imaps_port),
            ca_file=box.ca_file,
            upstream=links.lay("upstream", mta.port if mta else end.port),
            **{name: links.all[name].target for name in ports},
        )
        daemon = Supervised(home, history, shim.environment, module)
        daemon.file.write_text(text)
        daemon.file.chmod(0o600)
        made = Stage(directory, history, links, shim, box, end, daemon, mta, server, url, small, ports)
        if server is not None:
            migrated = daemon.cli("migrate")
            assert migrated.returncode == 0, migrated.stderr
        daemon.log_file.touch()
        daemon.start()
        stack.callback(daemon.finish)
        if not daemon.settled(_COMES_UP):
            raise RuntimeError(f"the daemon does not come up: {daemon.log_file.read_text()[-3000:]}")
        yield made


def _make_plain(home: Path) -> bool:
    (home / "state").mkdir(parents=True)
    (home / "backups").mkdir()
    (home / "imap-password").write_text("secret-support\n")
    (home / "secret").write_text(SECRET + "\n")
    (home / "secret").chmod(0o600)
    return False


def _make_home(home: Path, stack: contextlib.ExitStack) -> bool:
    _make_plain(home)
    state = home / "state"
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_ROOM},mode=700", "tmpfs", str(state)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        return False
    stack.callback(_unmount, state)
    return True


def _unmount(state: Path) -> None:
    """Its files stay, for whoever looks into what was wrong."""
    kept = state.with_name("state-kept")
    shutil.copytree(state, kept, ignore=shutil.ignore_patterns("ballast"))
    subprocess.run(["umount", "-l", str(state)], check=True)
    state.rmdir()
    kept.rename(state)


def _storage(server: Postgres | None, links: Links) -> tuple[str, str]:
    """The database's URL, and what the config says."""
    if server is None:
        return "", 'url = "sqlite:///state/optoutd.db"\nkey_file = "state/site.key"'
    name = server.new_database()
    through = server.url(name).replace(f":{server.port}/", f":{links.lay('database', server.port)}/")
    return server.url(name), f'url = "{through}"\nkey_file = "state/site.key"'


__all__ = ["HOST", "SECRET", "Stage", "Supervised", "stage"]
