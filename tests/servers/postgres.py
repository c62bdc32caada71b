"""A private PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import psycopg

from tests.certificates import certify
from tests.loopback import HOST, ServerError, free_port
from tests.servers.base import Server, accepts, directory_of_its_own

_USER: Final = "optoutd"


def binaries() -> Path | None:
    """Where the newest installed PostgreSQL has its programs: Debian has none of them in PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[-3]))
    return found[-1].parent if found else None


class Postgres(Server):
    """A cluster with a role that needs no password on loopback."""

    def __init__(self, directory: Path, port: int, programs: Path, *, tls: bool = False):
        super().__init__(directory)
        self.port, self._programs, self._tls = port, programs, tls
        self.ca_file = directory / "cert.pem"
        self._numbers = count(1)

    @property
    def _as_its_user(self) -> list[str]:
        """PostgreSQL refuses to run as root."""
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []

    @property
    def command(self) -> list[str]:
        """In the foreground; nothing is made durable, tests do not pull the plug on this one."""
        options = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": 100,
            "timezone": "Pacific/Auckland",  # nothing of ours may depend on it
        }
        if self._tls:
            options |= {"ssl": "on", "ssl_cert_file": self.ca_file, "ssl_key_file": self.directory / "key.pem"}
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return [*self._as_its_user, str(self._programs / "postgres"), "-D", str(self.directory / "data"), *settings]

    @property
    def ports(self) -> tuple[int, ...]:
        """The one."""
        return (self.port,)

    def initialise(self) -> None:
        """Make the cluster."""
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
        made = subprocess.run(
            [
                *self._as_its_user,
                str(self._programs / "initdb"),
                *("-D", str(self.directory / "data"), "-A", "trust", "-U", _USER, "-E", "UTF8"),
                *("--locale=C.UTF-8", "--no-sync"),
            ],
            capture_output=True,
            text=True,
        )
        if made.returncode:
            raise ServerError(f"initdb: {made.stderr}")
        if self._tls:
            certify(self.directory / "key.pem", self.ca_file)
            if os.geteuid() == 0:
                os.chown(self.directory / "key.pem", owner.pw_uid, owner.pw_gid)

    def stop(self) -> None:
        """Without waiting for the clients to go."""
        self._end(signal.SIGINT)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Every process of it stands still: connections stay, new ones are taken by the kernel, and nothing answers."""
        assert self._process is not None
        stopped: list[int] = []
        try:
            for pid in self._pids():  # the first is the one that starts all others
                os.kill(pid, signal.SIGSTOP)
                stopped.append(pid)
            for pid in set(self._pids()) - set(stopped):
                os.kill(pid, signal.SIGSTOP)
                stopped.append(pid)
            yield
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _pids(self) -> list[int]:
        """Of the server and of its children, each of which leads a session of its own."""
        assert self._process is not None
        master = self._process.pid
        children = Path(f"/proc/{master}/task/{master}/children").read_text()
        return [master, *map(int, children.split())]

    def _up(self) -> bool:
        if not accepts(self.port):
            return False
        with contextlib.suppress(psycopg.OperationalError), self._admin():
            return True
        return False

    def _admin(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=5)

    def url(self, database: str) -> str:
        """What `storage.url` would be."""
        return f"postgresql://{_USER}@{HOST}:{self.port}/{database}"

    def run(self, statement: str, database: str = "postgres") -> list[Any]:
        """A statement of the administrator's; its rows, if it has any."""
        with psycopg.connect(self.url(database), autocommit=True) as db:
            done = db.execute(statement.encode())
            return done.fetchall() if done.description else []

    def new_database(self) -> str:
        """An empty one; returns its name."""
        name = f"test{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE template0")
        return name

    def drop(self, database: str) -> None:
        """Away with it, whoever is connected."""
        self.run(f"DROP DATABASE {database} WITH (FORCE)")


@contextlib.contextmanager
def postgres(*, tls: bool = False) -> Iterator[Postgres]:
    """A PostgreSQL on a free port; with `tls` under a certificate of its own (`ca_file`). Raises ServerError."""
    programs = binaries()
    if programs is None or not shutil.which("setpriv"):
        raise ServerError("PostgreSQL is not installed")
    with directory_of_its_own() as directory:
        server = Postgres(directory, free_port(), programs, tls=tls)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop()
