"""How fast does a list grow, and who waits for it meanwhile?

    python bench/storage.py import                       1,000,000 addresses: some minutes
    python bench/storage.py import --rows 200000 --no-bar

import: a text file of addresses goes through the real command (`optoutd import FILE --yes`, its start included) into an
empty ledger: offline (no daemon has the ledger), with and without plain addresses kept; and online, while somebody has the
ledger as a daemon has it and another process opts people out all the time, each by the real verb. Peer, in the same run,
the rounds taking turns: `sqlite3 .import` of the finished table (keys in hex digits, in order) into an empty table of the
same shape, in WAL mode. That has neither to read addresses nor to hash them, to look for them, or to keep a record.

Bars: offline, without plain addresses, at least 0.3 of the peer's rows/s; online at least 40,000 rows/s; a live opt-out
waits at most 250 ms (p99); memory of the import at most 150 MB.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import common
from bench.common import CHECKOUT, Bar, percentile, say
from daemon.opening import sole_owner
from storage.engine import open_ledger

_TABLE: Final = (
    "CREATE TABLE suppression (key BLOB NOT NULL, scope INTEGER NOT NULL, reason INTEGER NOT NULL, since BIGINT NOT NULL,"
    " evidence BIGINT NOT NULL, PRIMARY KEY (key, scope, reason)) WITHOUT ROWID"
)
_CONFIG: Final = """\
[house]
name = "Bench"
domains = ["quillpdf.example"]
addresses = ["support@quillpdf.example"]
[storage]
keep_addresses = {keep}
"""
# Opts people out as a click does it, every 20 ms, and says how long each had to wait (us).
_LIVE: Final = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from storage import suppressions
from storage.address import parse
from storage.engine import open_ledger
from storage.terms import ALL, Reason
from storage.write import write
home, stop = Path(sys.argv[1]), Path(sys.argv[2])
ledger = open_ledger(home / "optoutd.db", home / "site.key")
n = 0
while not stop.exists():
    began = time.perf_counter_ns()
    with write(ledger, datetime.now(UTC), "bench") as w:
        suppressions.add(w, parse(f"live{n}@live.example"), ALL, Reason.OPT_OUT, "one-click", {})
    print((time.perf_counter_ns() - began) // 1000, flush=True)
    n += 1
    time.sleep(0.02)
"""


@dataclass(frozen=True)
class Took:
    """A run of a command: seconds, and the most memory it had (MB)."""

    seconds: float
    memory: float


def timed(command: list[str]) -> Took:
    """Run it to its end; raises SystemExit with what it said when it fails."""
    began = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as child:
        assert child.stdout
        said = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    took = time.perf_counter() - began
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: {child.returncode}\n{said.decode(errors='replace')}")
    return Took(took, usage.ru_maxrss / 1024)


# ------------------------------------------------------------------ import


def home(work: Path, *, keep: bool) -> Path:
    """A directory with a config and an empty ledger."""
    path = work / "home"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    (path / "optoutd.toml").write_text(_CONFIG.format(keep=str(keep).lower()))
    (path / "optoutd.toml").chmod(0o600)
    open_ledger(path / "optoutd.db", path / "site.key", allow_create=True).close()
    return path


def command(at: Path, *arguments: str) -> list[str]:
    """Our command line."""
    return [sys.executable, "-m", "daemon", "-c", str(at / "optoutd.toml"), *arguments]


def offline(work: Path, file: Path, *, keep: bool) -> Took:
    """Into an empty ledger that nobody has."""
    return timed(command(home(work, keep=keep), "import", str(file), "--yes"))


def online(work: Path, file: Path) -> tuple[Took, list[float]]:
    """Beside a daemon and somebody who opts people out. Returns the run and the waits in ms."""
    at = home(work, keep=False)
    stop, waits = work / "stop", work / "waits"
    stop.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with sole_owner(at / "optoutd.db"), waits.open("wb") as out:
        with subprocess.Popen([sys.executable, "-c", _LIVE, str(at), str(stop)], stdout=out, env=environment) as live:
            try:
                took = timed(command(at, "import", str(file), "--yes"))
            finally:
                stop.touch()
        if live.returncode:
            raise SystemExit("the live opt-outs failed")
    return took, [int(line) / 1000 for line in waits.read_text().split()]


def finished(ledger: Path, csv: Path) -> None:
    """The table that the peer is to import."""
    with contextlib.closing(sqlite3.connect(ledger)) as db, csv.open("w") as out:
        for key, *rest in db.execute("SELECT key, scope, reason, since, evidence FROM suppression ORDER BY key"):
            out.write(f"{key.hex()},{','.join(map(str, rest))}\n")


def peer(work: Path, csv: Path) -> Took:
    """`sqlite3 .import`."""
    for old in work.glob("peer.db*"):
        old.unlink()
    script = ["PRAGMA journal_mode = WAL", _TABLE, ".mode csv", f".import {csv} suppression"]
    return timed(["sqlite3", str(work / "peer.db"), *script])


def importing(given: Namespace, work: Path) -> list[Bar]:
    """Measure imports."""
    file, csv, rows = work / "list.txt", work / "finished.csv", given.rows
    with file.open("w") as out:
        out.writelines(f"{common.suppressed(n)}\n" for n in range(rows))
    offline(work, file, keep=False)
    finished(work / "home" / "optoutd.db", csv)
    runs: dict[str, list[Took]] = {"peer": [], "offline": [], "kept": [], "online": []}
    waits: list[float] = []
    for n in range(given.rounds):
        runs["peer"].append(peer(work, csv))
        runs["offline"].append(offline(work, file, keep=False))
        runs["kept"].append(offline(work, file, keep=True))
        took, of_run = online(work, file)
        runs["online"].append(took)
        waits += of_run
        say(f"round {n + 1} of {given.rounds}: " + ", ".join(f"{k} {v[-1].seconds:.1f} s" for k, v in runs.items()))
    return _imported(rows, runs, waits)


def _imported(rows: int, runs: dict[str, list[Took]], waits: list[float]) -> list[Bar]:
    def middle(name: str, of: Callable[[Took], float]) -> float:
        return percentile([of(t) for t in runs[name]], 0.5)

    names = {
        "peer": "sqlite3 .import of the finished table",
        "offline": "import, offline",
        "kept": "import, offline, addresses kept",
        "online": "import, beside a daemon and live opt-outs",
    }
    ratios = {
        k: percentile([p.seconds / t.seconds for p, t in zip(runs["peer"], v, strict=True)], 0.5)
        for k, v in runs.items()
    }
    speed = {k: rows / middle(k, lambda t: t.seconds) for k in runs}
    memory = {k: middle(k, lambda t: t.memory) for k in runs}
    common.table(
        [f"{rows:,} rows", "rows/s", "of the peer's", "MB"],
        [[text, f"{speed[k]:,.0f}", f"{ratios[k]:.2f}", f"{memory[k]:.0f}"] for k, text in names.items()],
    )
    told = [f"{percentile(waits, p):.0f}" for p in (0.5, 0.9, 0.99, 1)]
    print(
        f"\n{len(waits)} live opt-outs meanwhile: p50 {told[0]} ms, p90 {told[1]} ms, p99 {told[2]} ms, longest {told[3]} ms"
    )
    return [
        Bar("peer / import offline", 1 / ratios["offline"], 1 / 0.3),
        Bar("us a row online (25: 40,000 rows/s)", 1e6 / speed["online"], 25, "us"),
        Bar("live opt-out p99", percentile(waits, 0.99), 250, "ms"),
        Bar("memory of an import", max(memory[k] for k in ("offline", "kept", "online")), 150, "MB"),
    ]


# ------------------------------------------------------------------ all of it

_MEASURES: Final = {"import": importing}


def main() -> int:
    """Run it."""
    options = common.parser(__doc__)
    options.add_argument("what", nargs="*", choices=[[], *_MEASURES], help="default: all")
    options.add_argument("--rows", type=int, default=1_000_000, help="addresses (default 1,000,000)")
    options.add_argument("--rounds", type=int, default=3, help="rounds (default 3)")
    given = options.parse_args()
    with common.place(given) as work:
        bars = [bar for name in given.what or _MEASURES for bar in _MEASURES[name](given, work)]
        return common.judge(bars, given.no_bar)


if __name__ == "__main__":
    sys.exit(main())
