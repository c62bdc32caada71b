"""How fast does a list grow, how fast is another list cleaned by it, and who waits meanwhile?

    python bench/storage.py                              all of it: many minutes, and some 1.5 GB of disk
    python bench/storage.py import                       1,000,000 addresses: some minutes
    python bench/storage.py import --rows 200000 --no-bar
    python bench/storage.py scrub --work DIR --duckdb PYTHON   against 10,000,000 rows, which DIR keeps for the next time
    python bench/storage.py postgres                     needs Debian's postgresql

import: a text file of addresses goes through the real command (`optoutd import FILE --yes`, its start included) into an
empty ledger: offline (no daemon has the ledger), with and without plain addresses kept; and online, while somebody has the
ledger as a daemon has it and another process opts people out all the time, each by the real verb. Peer, in the same run,
the rounds taking turns: `sqlite3 .import` of the finished table (keys in hex digits, in order) into an empty table of the
same shape, in WAL mode. That has neither to read addresses nor to hash them, to look for them, or to keep a record.

Bars: offline, without plain addresses, at least 0.3 of the peer's rows/s; online at least 40,000 rows/s; a live opt-out
waits at most 250 ms (p99); memory of the import at most 150 MB.

scrub: a text file of --rows addresses, one in a hundred suppressed, through the real command (`optoutd scrub IN -o OUT`)
against a ledger of --against rows. Peers, taking turns: DuckDB (a Python that has it: --duckdb; left out without), which
reads the same file, takes md5 of each address for our keyed hash, and writes the anti-join with a table of 128-bit keys, on
all processors; and `sort | comm` over keyed BLAKE2b in hex digits, the hashing included, against a file that is sorted
already. comm leaves keys behind in the place of rows; neither keeps the order, or knows of tags, domains and lists.

Bars: at most 6 s for a million addresses; faster than DuckDB; memory at most 150 MB.

postgres: an import without dates and plain addresses into an empty ledger in a private PostgreSQL (fsync off). Peer, taking
turns: `psql \\copy` of the finished table into an empty one with the same primary key. Then the question before a
recipient, as the daemon asks it over its event loop (Gate.ask): one at a time, and twenty asking at the same time; a fifth
is suppressed.

Bars: at least 0.3 of \\copy's rows/s; memory of the import at most 150 MB. The questions are information.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import common, storage_postgres, storage_scrub
from bench.common import CHECKOUT, Bar, percentile
from bench.storage_runs import Runs, Took, config, ours, timed
from daemon.opening import sole_owner
from storage.sqlite import open_ledger

_TABLE: Final = (
    "CREATE TABLE suppression (key BLOB NOT NULL, scope INTEGER NOT NULL, reason INTEGER NOT NULL, since BIGINT NOT NULL,"
    " evidence BIGINT NOT NULL, PRIMARY KEY (key, scope, reason)) WITHOUT ROWID"
)
# Opts people out as a click does it, every 20 ms, and says how long each had to wait (us).
_LIVE: Final = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from storage import suppressions
from storage.address import parse
from storage.sqlite import open_ledger
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


# ------------------------------------------------------------------ import


def home(work: Path, *, keep: bool) -> Path:
    """A directory with a config and an empty ledger."""
    path = work / "home"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    config(path / "optoutd.toml", keep_addresses=keep)
    open_ledger(path / "optoutd.db", path / "site.key", allow_create=True).close()
    return path


def offline(work: Path, file: Path, *, keep: bool) -> Took:
    """Into an empty ledger that nobody has."""
    return timed(ours(home(work, keep=keep) / "optoutd.toml", "import", str(file), "--yes"))


def online(work: Path, file: Path) -> tuple[Took, list[float]]:
    """Beside a daemon and somebody who opts people out. Returns the run and the waits in ms."""
    at = home(work, keep=False)
    stop, waits = work / "stop", work / "waits"
    stop.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with sole_owner(at / "optoutd.db"), waits.open("wb") as out:
        with subprocess.Popen([sys.executable, "-c", _LIVE, str(at), str(stop)], stdout=out, env=environment) as live:
            try:
                took = timed(ours(at / "optoutd.toml", "import", str(file), "--yes"))
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
    runs = Runs(
        {
            "peer": "sqlite3 .import of the finished table",
            "offline": "import, offline",
            "kept": "import, offline, addresses kept",
            "online": "import, beside a daemon and live opt-outs",
        }
    )
    waits: list[float] = []
    for n in range(given.rounds):
        runs.add("peer", peer(work, csv))
        runs.add("offline", offline(work, file, keep=False))
        runs.add("kept", offline(work, file, keep=True))
        took, of_run = online(work, file)
        runs.add("online", took)
        waits += of_run
        runs.say(n + 1, given.rounds)
    print()
    runs.table(f"{rows:,} rows", rows)
    told = [f"{percentile(waits, p):.0f}" for p in (0.5, 0.9, 0.99, 1)]
    print(
        f"\n{len(waits)} live opt-outs meanwhile: p50 {told[0]} ms, p90 {told[1]} ms, p99 {told[2]} ms, longest {told[3]} ms"
    )
    return [
        Bar("peer / import offline", runs.times("offline", "peer"), 1 / 0.3),
        Bar("us a row online (25: 40,000 rows/s)", runs.seconds("online") * 1e6 / rows, 25, "us"),
        Bar("live opt-out p99", percentile(waits, 0.99), 250, "ms"),
        Bar("memory of an import", max(map(runs.memory, ("offline", "kept", "online"))), 150, "MB"),
    ]


# ------------------------------------------------------------------ all of it

_MEASURES: Final = {"import": importing, "scrub": storage_scrub.measured, "postgres": storage_postgres.measured}


def main() -> int:
    """Run it."""
    options = common.parser(__doc__)
    options.add_argument("what", nargs="*", choices=[[], *_MEASURES], help="default: all")
    options.add_argument("--rows", type=int, default=1_000_000, help="addresses (default 1,000,000)")
    options.add_argument(
        "--against", type=int, default=10_000_000, help="scrub: rows of the ledger (default 10,000,000)"
    )
    options.add_argument("--duckdb", metavar="PYTHON", default=sys.executable, help="scrub: a Python that has duckdb")
    options.add_argument("--rounds", type=int, default=3, help="rounds (default 3)")
    given = options.parse_args()
    with common.place(given) as work:
        bars = [bar for name in given.what or _MEASURES for bar in _MEASURES[name](given, work)]
        return common.judge(bars, given.no_bar)


if __name__ == "__main__":
    sys.exit(main())
