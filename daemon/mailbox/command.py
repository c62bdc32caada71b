"""token_command: a program that prints an access token. No shell, a time limit, little output, and it ends with its children."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Final

from daemon.mailbox.failing import Failed

SECONDS: Final = 20.0
_MOST: Final = 16 * 1024  # octets of what it prints
_ERROR_MOST: Final = 2048  # octets of what it says about its trouble
_OURS: Final = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
_SECRET_LOOKING: Final = re.compile(r"[\w+/=.~-]{24,}")


class Command:
    """One program, run by one thread at a time; `cut` ends it from another."""

    def __init__(self, words: tuple[str, ...]):
        self._words = words
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._is_cut = False

    def token(self) -> str:
        """What it prints: one line. Raises Failed("token")."""
        name = Path(self._words[0]).name
        try:
            process = self._begin()
        except OSError as why:
            advice = "token_command must name a program that this user may run, by its whole path"
            raise Failed("token", f"{name}: {why.strerror or type(why).__name__}", advice=advice) from None
        try:
            said, complained = _listen(process, name)
        except TimeoutError:
            raise Failed("token", f"{name} did not end within {SECONDS:.0f} seconds") from None
        finally:
            status = self._end(process)
        if status:
            raise Failed("token", f"{name} ended with {status}: {_shown(complained)}")
        return _one_line(name, said)

    def _begin(self) -> subprocess.Popen[bytes]:
        """In a process group of its own, so that its children can be ended with it."""
        environment = {k: v for k, v in os.environ.items() if k not in _OURS}
        with self._lock:
            if self._is_cut:
                raise InterruptedError
            self._running = subprocess.Popen(  # noqa: S603 - the operator's own program: the config is theirs or root's
                self._words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
            return self._running

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        """End what is left of it; its exit status, if it had ended by itself."""
        with self._lock:  # once it was waited for, its number may be somebody else's: `cut` must not use it then
            _kill(process)
            status = process.wait()
            self._running = None
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
        return status

    def cut(self) -> None:
        """From another thread: the program is ended, and there is no other."""
        with self._lock:
            self._is_cut = True
            if self._running is not None:
                _kill(self._running)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """It, and whom it started: they are in its group, which is there as long as one of them is."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Without taking note of it: until then nobody else gets its number."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _listen(process: subprocess.Popen[bytes], name: str) -> tuple[bytes, bytes]:
    """What it prints and what it complains of, until it has ended. Raises TimeoutError, Failed."""
    assert process.stdout is not None
    assert process.stderr is not None
    end = time.monotonic() + SECONDS
    out, err = process.stdout.fileno(), process.stderr.fileno()
    heard = {out: b"", err: b""}
    with selectors.DefaultSelector() as selector:
        for pipe in heard:
            selector.register(pipe, selectors.EVENT_READ)
        while True:
            ready = selector.select(0.05) if selector.get_map() else []
            for key, _ in ready:
                piece = os.read(key.fd, 4096)
                if not piece:
                    selector.unregister(key.fd)
                heard[key.fd] = (heard[key.fd] + piece)[: _MOST + 1 if key.fd == out else _ERROR_MOST]
            if len(heard[out]) > _MOST:
                raise Failed("token", f"{name} prints more than {_MOST} octets")
            if not ready and _has_ended(process):  # a child that it left behind may hold the pipes open
                return heard[out], heard[err]
            if time.monotonic() > end:
                raise TimeoutError
            if not selector.get_map():
                time.sleep(0.02)  # it said all it has to say, and has not ended


def _one_line(name: str, said: bytes) -> str:
    lines = said.decode("ascii", "replace").split("\n")
    text = lines[0].removesuffix("\r")
    if any(lines[1:]) or not usable(text):
        advice = "it must print the access token, one line, and nothing else"
        raise Failed("token", f"{name} printed no token ({len(said)} octets)", advice=advice)
    return text


def usable(token: str) -> bool:
    """May this be an access token? It is put into a command as it is (RFC 6750 2.1: visible ASCII)."""
    return re.fullmatch(r"[\x21-\x7e]{1,16384}", token) is not None


def _shown(complained: bytes) -> str:
    """Its last words, for the log: without what may be a secret."""
    text = " ".join(complained.decode("utf-8", "replace").split())
    return _SECRET_LOOKING.sub("<...>", text)[-300:] or "it says nothing"
