"""Run by test_systemd_boot.py inside the container, under the unit's own sandbox: what it lets us do, and what not.

Prints one JSON object: (what, how it went), "" = well.
"""

from __future__ import annotations

import ctypes
import errno
import json
import multiprocessing
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

LIBC: Final = ctypes.CDLL(None, use_errno=True)
BACKUPS: Final = Path("/srv/optoutd-backups")
STATE: Final = Path("/var/lib/optoutd")
# x86-64, then the generic table of arm64 (asm-generic/unistd.h).
NUMBERS: Final = {"ptrace": (101, 117), "keyctl": (250, 219), "mlock": (149, 228), "io_uring_setup": (425, 425)}


def forbidden(name: str) -> None:
    """A call that the filter answers itself: EPERM, not the death of the process."""
    number = NUMBERS[name][0 if os.uname().machine == "x86_64" else 1]
    assert LIBC.syscall(number, 0, 0, 0, 0, 0) == -1
    assert ctypes.get_errno() == errno.EPERM, os.strerror(ctypes.get_errno())


def denied(what: Callable[[], object]) -> None:
    """Something of Python's own that must not be allowed."""
    try:
        what()
    except OSError as why:
        if why.errno not in (errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOENT, errno.EAFNOSUPPORT):
            raise
    else:
        raise AssertionError("it was allowed")


def writes(path: Path) -> None:
    """It may write there."""
    path.write_text("x")
    path.unlink()


def forks() -> None:
    """A process of our own with a pipe, as a long import has."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    child = fork.Process(target=lambda: theirs.send("hello"), daemon=True)
    child.start()
    assert ours.recv() == "hello"
    child.kill()
    child.join()


def hashes() -> None:
    """As the console does at a log-in."""
    from argon2 import PasswordHasher

    hasher = PasswordHasher()
    assert hasher.verify(hasher.hash("secret"), "secret")


def psycopg() -> None:
    """The driver, if it is installed, comes as far as to say that nobody is there."""
    try:
        import psycopg
    except ImportError:
        return
    try:
        psycopg.connect("postgresql://x@127.0.0.1:1/x", connect_timeout=5)
    except psycopg.OperationalError as why:
        if "refused" not in str(why):
            raise


def dials() -> None:
    """A name, a socket, TLS."""
    assert socket.getaddrinfo("localhost", 25)
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    ssl.create_default_context()


def runs_programs() -> None:
    """A token_command."""
    assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True).stdout == b"1\n"


def optoutd(*words: str, code: int = 0) -> None:
    """A command of ours."""
    done = subprocess.run([os.environ["OPTOUTD"], *words], capture_output=True, text=True)
    assert done.returncode == code, done


def imports_a_list() -> None:
    """Long enough for a process that reads ahead."""
    (STATE / "list.txt").write_text("".join(f"user{n}@example.com\n" for n in range(200_000)))
    optoutd("import", str(STATE / "list.txt"))
    optoutd("check", "user77@example.com", code=1)


STEPS: Final[dict[str, Callable[[], object]]] = {
    **{f"forbidden: {name}": partial(forbidden, name) for name in NUMBERS},
    "denied: chown": lambda: denied(lambda: os.chown(STATE / "optoutd.db", 0, 0)),
    "denied: setuid": lambda: denied(lambda: os.setuid(0)),
    "denied: nice": lambda: denied(lambda: os.setpriority(os.PRIO_PROCESS, 0, -5)),
    "denied: a raw socket": lambda: denied(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "denied: kill init": lambda: denied(lambda: os.kill(1, signal.SIGTERM)),
    **{
        f"denied: write to {place}": partial(denied, partial(writes, Path(place) / "x"))
        for place in ("/", "/etc", "/usr", "/var", "/var/log", "/run", "/srv", "/dev/shm/..", "/opt")
    },
    "writes: state": lambda: writes(STATE / "x"),
    "writes: backups": lambda: writes(BACKUPS / "x"),
    "writes: its own /tmp": lambda: writes(Path("/tmp/x")),
    "hashes a password": hashes,
    "forks": forks,
    "runs a program": runs_programs,
    "has a PostgreSQL driver": psycopg,
    "dials": dials,
    "suppresses": lambda: optoutd("suppress", "ann@example.com"),
    "imports": imports_a_list,
    "backs up": lambda: optoutd("backup", str(BACKUPS)),
    "verifies": lambda: optoutd("audit", "verify"),
}


def main() -> None:
    """Take every step, whatever became of the one before."""
    found = {}
    for name, step in STEPS.items():
        try:
            step()
        except Exception as wrong:  # noqa: BLE001 - whatever it is, the test that reads this shows it
            found[name] = f"{type(wrong).__name__}: {wrong}"
        else:
            found[name] = ""
    print(json.dumps(found))


if __name__ == "__main__":
    main()
