"""What is broken, when, and for how long: by dice whose seed the report tells.

Two lanes go on side by side, so that things break while others are broken: in one the processes (killed, stopped, their files
damaged), in the other what they stand on (wires, disk, clock, the manners of the upstream).
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.chaos.history import Fault, History
from tests.chaos.links import BROKEN
from tests.chaos.stage import Stage
from tests.servers import Server, ServerError

LONGEST: Final = 15.0  # s that anything is broken
_COMES_UP: Final = 40.0  # s within which the daemon is up again, or has refused
_NOTICED: Final = 5.0  # s that pass before an operator does something about it
_WIRES: Final = ("relay", "clicks", "api", "imap", "upstream", "database")
_JUMPS: Final = (-86_400, -3_600, -60, 45, 3_600, 3 * 86_400)  # s
_MOODS: Final[dict[str, dict[str, Any]]] = {
    "upstream late at the dot": {"delays": {"DOT": 6.0}},
    "upstream late at MAIL": {"delays": {"MAIL": 12.0}},
    "upstream puts off RCPT": {"replies": {"RCPT": "451 4.2.1 not in the mood"}},
    "upstream puts off messages": {"replies": {"DOT": "452 4.3.1 not in the mood"}},
    "upstream goes home": {"replies": {"MAIL": "421 4.3.2 going home"}},
    "upstream not at home": {"replies": {"GREETING": "421 4.3.2 not at home"}},
    "upstream drops at DATA": {"drop_at": "DATA"},
    "upstream drops at the dot": {"drop_at": "DOT"},
    "upstream drops after the dot": {"lose_after": "DOT"},
}


@dataclass(frozen=True)
class Kind:
    """A kind of fault. `do` breaks and mends it, and tells what it was; `weight`: how often, among its lane."""

    name: str
    weight: int
    do: Callable[[random.Random], str]


class Lane(threading.Thread):
    """Does one fault after another."""

    def __init__(
        self, kinds: list[Kind], dice: random.Random, history: History, resting: threading.Event, pause: float
    ):
        super().__init__(name="faults")
        self._kinds, self._dice, self._history, self._resting, self._pause = kinds, dice, history, resting, pause
        self.now = ""

    def run(self) -> None:
        """Until no new fault is to come; the one under way is mended."""
        while not self._resting.wait(self._dice.expovariate(1 / self._pause)):
            kind = self._dice.choices(self._kinds, [k.weight for k in self._kinds])[0]
            dice, began = random.Random(self._dice.random()), time.monotonic()
            self.now = kind.name
            try:
                told = kind.do(dice)
            except (OSError, ServerError, TimeoutError) as why:
                self._history.note("a fault did not go as planned", f"{kind.name}: {why}")
                told = str(why)
            self.now = ""
            self._history.add(Fault(kind.name, told, began, time.monotonic()))


def lanes(stage: Stage, history: History, looking: threading.Lock) -> tuple[list[Kind], list[Kind]]:
    """The faults that can be made here: of processes and their files; of what they stand on."""
    servers = _Servers(stage)
    processes = [
        Kind("daemon killed", 12, servers.kill_daemon),
        Kind("daemon stopped", 4, servers.freeze_daemon),
        Kind("daemon restarted", 2, servers.restart_daemon),
        Kind("daemon reloaded", 2, servers.reload_daemon),
    ]
    for name, server in servers.all.items():
        processes.append(Kind(f"{name} killed", 4, _bound(servers.kill, server)))
        processes.append(Kind(f"{name} stopped", 4, _bound(servers.freeze, server)))
    journal = threading.Lock()
    ground = _Ground(stage, journal)
    below = [
        Kind("wire", 12, ground.wire),
        *(Kind(name, 1, _bound(ground.mood, told)) for name, told in _MOODS.items()),
    ]
    if stage.shim.works:
        below += [
            Kind("clock jumped", 3, ground.jump),
            Kind("disk slow", 3, ground.slow_disk),
            Kind("disk failed to sync", 1, ground.failing_disk),
        ]
    else:
        history.note("left out", "clock jumps, slow and failing disks: no C compiler")
    if stage.small:
        below.append(Kind("disk full", 3, ground.full_disk))
    elif stage.database is None:
        history.note("left out", "full disks: no small file system can be mounted")
    if stage.database is None:
        damage = Damage(stage, history, looking, journal)
        processes += [Kind(f"database {name}", 1, _bound(damage.strike, name)) for name in damage.ways]
    return processes, below


def _bound(do: Callable[[Any, random.Random], str], what: Any) -> Callable[[random.Random], str]:
    return lambda dice: do(what, dice)


def _while(dice: random.Random, least: float = 1.0) -> float:
    """How long: mostly some seconds."""
    return min(LONGEST, least + dice.expovariate(1 / 3))


# ------------------------------------------------------------------ processes


def family(pid: int) -> list[int]:
    """A process and its descendants, parents first."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            found += map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return found


def _tell(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class _Servers:
    def __init__(self, stage: Stage):
        self._daemon = stage.daemon
        found: dict[str, Server | None] = {
            "Dovecot": stage.box,
            "upstream": stage.mta or stage.end,
            "next hop": stage.end if stage.mta else None,
            "PostgreSQL": stage.database,
        }
        self.all = {name: server for name, server in found.items() if server is not None}

    def kill_daemon(self, dice: random.Random) -> str:
        """Now and then twice: the second time while it starts. Where starting takes long, it is given that time before."""
        self._daemon.settled(_COMES_UP)
        self._daemon.tell(signal.SIGKILL)
        if dice.random() < 0.3:
            time.sleep(dice.uniform(2.2, 4.0))
            self._daemon.tell(signal.SIGKILL)
            return "twice"
        return ""

    def freeze_daemon(self, dice: random.Random) -> str:
        seconds = _while(dice)
        self._daemon.tell(signal.SIGSTOP)
        time.sleep(seconds)
        self._daemon.tell(signal.SIGCONT)
        return f"{seconds:.1f} s"

    def restart_daemon(self, dice: random.Random) -> str:
        with self._daemon.held(signal.SIGTERM):
            pass
        return ""

    def reload_daemon(self, dice: random.Random) -> str:
        if not self._daemon.is_ready:  # systemd would not
            return "not ready"
        self._daemon.tell(signal.SIGHUP)
        return ""

    def kill(self, server: Server, dice: random.Random) -> str:
        seconds = _while(dice, 0.2)
        _tell(self._of(server), signal.SIGKILL)
        server.kill()
        time.sleep(seconds)
        for _ in range(5):
            with contextlib.suppress(ServerError):
                server.start()
                return f"{seconds:.1f} s"
        raise ServerError("it does not come back")

    def freeze(self, server: Server, dice: random.Random) -> str:
        seconds, first = _while(dice), self._of(server)
        _tell(first, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            _tell([*first, *self._of(server)], signal.SIGCONT)
        return f"{seconds:.1f} s"

    @staticmethod
    def _of(server: Server) -> list[int]:
        pid = server.pid
        return family(pid) if pid is not None else []


# ------------------------------------------------------------------ what they stand on


class _Ground:
    def __init__(self, stage: Stage, journal: threading.Lock):
        self._stage, self._journal = stage, journal
        self._wires = [w for w in _WIRES if w in stage.links.all]

    def wire(self, dice: random.Random) -> str:
        name, how, seconds = dice.choice(self._wires), dice.choice(BROKEN), _while(dice)
        self._stage.links.become(name, how)
        try:
            time.sleep(seconds)
        finally:
            self._stage.links.become(name, "open")
        return f"{name} {how} {seconds:.1f} s"

    def mood(self, told: dict[str, Any], dice: random.Random) -> str:
        seconds = _while(dice)
        self._stage.end.mood(**told)
        try:
            time.sleep(seconds)
        finally:
            self._stage.end.mood()
        return f"{seconds:.1f} s"

    def jump(self, dice: random.Random) -> str:
        jump, seconds = dice.choice(_JUMPS), _while(dice)
        self._stage.shim.ahead(jump)
        try:
            time.sleep(seconds)
        finally:
            self._stage.shim.ahead(0)
        return f"{jump:+} s, for {seconds:.1f} s"

    def slow_disk(self, dice: random.Random) -> str:
        takes, seconds = dice.choice((0.05, 0.3, 1.5)), _while(dice)
        return self._syncs(takes, 0, seconds)

    def failing_disk(self, dice: random.Random) -> str:
        """The journal, too, has failed then, and the daemon makes a backup within minutes: here at once, for what is damaged
        before that is lost, and `restore` says so."""
        with self._journal:
            told = self._syncs(0, errno.EIO, _while(dice, 0.2))
            while (code := self._stage.daemon.cli("backup", str(self._stage.backups)).returncode) not in (0, 78):
                time.sleep(1)
        return f"{told}; backup {code}"

    def _syncs(self, takes: float, error: int, seconds: float) -> str:
        self._stage.shim.syncs(takes, error)
        try:
            time.sleep(seconds)
        finally:
            self._stage.shim.syncs(0)
        return f"{takes} s each, for {seconds:.1f} s"

    def full_disk(self, dice: random.Random) -> str:
        ballast, seconds = self._stage.state / "ballast", _while(dice)
        end = time.monotonic() + seconds
        try:
            with ballast.open("wb", buffering=0) as file:
                while time.monotonic() < end:  # what becomes free meanwhile is taken, too
                    try:
                        file.write(bytes(65_536))
                    except OSError:
                        time.sleep(0.05)
        finally:
            ballast.unlink(missing_ok=True)
        return f"{seconds:.1f} s"


# ------------------------------------------------------------------ the database, damaged


class Damage:
    """Damages the files of a daemon that was killed, sees what it makes of that, and does what the docs tell operators to do."""

    def __init__(self, stage: Stage, history: History, looking: threading.Lock, journal: threading.Lock):
        self._stage, self._history, self._looking, self._journal = stage, history, looking, journal
        self._file = stage.state / "optoutd.db"
        self._log = stage.state / "optoutd.db-wal"
        self.ways: dict[str, Callable[[random.Random], str]] = {
            "log cut": self._cut_log,
            "log garbled": self._garble_log,
            "log gone": self._lose_log,
            "pages garbled": self._garble_pages,
            "header garbled": self._garble_header,
            "gone": self._lose_all,
        }

    def strike(self, way: str, dice: random.Random) -> str:
        """One of the ways."""
        daemon, restored = self._stage.daemon, ""
        with self._journal:
            with self._looking, daemon.held():
                self._history.note("damaged", way)
                told = self.ways[way](dice)
            came_up = daemon.settled(_COMES_UP if way.startswith("log") else _NOTICED)
            if not came_up or not way.startswith("log"):
                time.sleep(_NOTICED)
                with self._looking, daemon.held(signal.SIGTERM):
                    restored = self._restore()
        return f"{told}; {'started' if came_up else 'refused'}; {restored or 'nothing to restore'}"

    def _restore(self) -> str:
        """`optoutd restore`, again while it says that it cannot just now (a full disk)."""
        end = time.monotonic() + 60
        while True:
            done = self._stage.daemon.cli("restore", "--force", str(self._stage.backups))
            if done.returncode == 0 or time.monotonic() > end:
                self._history.note("restored", f"{done.returncode} {done.stdout}{done.stderr}")
                self._tidy()
                return f"restored ({done.returncode})"
            self._history.note("restore failed", f"{done.returncode} {done.stderr[-300:]}")
            time.sleep(1)

    def _tidy(self) -> None:
        """The damaged files that were put aside would fill the small disk."""
        live = {self._file.name, self._log.name, f"{self._file.name}-shm", f"{self._file.name}.lock"}
        for path in self._stage.state.glob("optoutd.db*"):
            if path.name not in live:
                path.unlink()

    def _cut_log(self, dice: random.Random) -> str:
        size = self._log.stat().st_size if self._log.exists() else 0
        if size:
            os.truncate(self._log, kept := dice.randrange(size))
            return f"{kept} of {size} octets left"
        return "there was none"

    def _garble_log(self, dice: random.Random) -> str:
        if not self._log.exists() or not (size := self._log.stat().st_size):
            return "there was none"
        return _overwrite(self._log, [dice.randrange(size)], dice.randbytes(4096), size)

    def _lose_log(self, dice: random.Random) -> str:
        for suffix in ("-wal", "-shm"):
            self._file.with_name(self._file.name + suffix).unlink(missing_ok=True)
        return ""

    def _garble_pages(self, dice: random.Random) -> str:
        size = self._file.stat().st_size
        pages = [4096 * dice.randrange(1, max(2, size // 4096)) for _ in range(3)]
        return _overwrite(self._file, pages, b"\xff" * 4096, size)

    def _garble_header(self, dice: random.Random) -> str:
        return _overwrite(self._file, [0], dice.randbytes(100), 100)

    def _lose_all(self, dice: random.Random) -> str:
        self._lose_log(dice)
        self._file.unlink(missing_ok=True)
        return ""


def _overwrite(path: Path, places: list[int], octets: bytes, size: int) -> str:
    with path.open("r+b") as file:
        for place in places:
            file.seek(place)
            file.write(octets[: size - place])
    return f"at {sorted(places)} of {size}"


@contextlib.contextmanager
def running(threads: list[threading.Thread]) -> Iterator[None]:
    """Start them; join them at the end, whatever happened."""
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()
