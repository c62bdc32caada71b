"""What the real servers have in common: they are started, waited for, and gone at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.loopback import HOST, ServerError

START_SECONDS: Final = 20.0


def program(name: str) -> str | None:
    """Where a server's binary is; plain users often have no sbin in their PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@contextlib.contextmanager
def directory_of_its_own() -> Iterator[Path]:
    """A short one, whatever TMPDIR says: a socket's path has room for 107 octets. Servers that drop root may enter."""
    with tempfile.TemporaryDirectory(prefix="oo", dir="/tmp", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


class Server(ABC):
    """A server process in a session of its own, so that killing its group reaches its children and nobody else."""

    host = HOST

    def __init__(self, directory: Path):
        self.directory = directory
        self.log_file = directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments; it must stay in the foreground."""

    @property
    @abstractmethod
    def ports(self) -> tuple[int, ...]:
        """All of these greet when the server is up."""

    @property
    def running(self) -> bool:
        """Has it been started, and neither stopped nor died?"""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Its first process, if it runs."""
        return self._process.pid if self._process is not None and self.running else None

    def start(self) -> None:
        """Start, or start again on the same ports; returns when every port greets."""
        if self.running:
            return
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait_until(self._up, "it does not greet")
        except ServerError:
            self.kill()
            raise

    def _up(self) -> bool:
        """Does it answer?"""
        return all(map(greets, self.ports))

    def stop(self) -> None:
        """Ask it to end, as an operator would; returns when it and its children are gone."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a goodbye: clients see a reset, files stay as they are."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how) if how is signal.SIGKILL else process.send_signal(how)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            self._log_and_raise("it does not stop")
        finally:
            with contextlib.suppress(ProcessLookupError):  # children that outlive their master would hold the ports
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        deadline = time.monotonic() + START_SECONDS  # children die a moment later; in a container nobody may reap them
        while any(map(accepts, self.ports)) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _wait_until(self, ready: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if not self.running:
                self._log_and_raise("it has ended")
            if time.monotonic() > deadline:
                self._log_and_raise(otherwise)
            time.sleep(0.02)

    def _log_and_raise(self, what: str) -> None:
        log = self.log_file.read_text(errors="replace")[-4000:] if self.log_file.exists() else ""
        raise ServerError(f"{' '.join(self.command)}: {what}. Its log:\n{log or '(empty)'}")


def greets(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=5) as line:
            return bool(line.recv(1))
    except OSError:
        return False


def accepts(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex((HOST, port)) == 0
