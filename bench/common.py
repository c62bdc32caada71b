"""What the benchmarks share: bars, tables, percentiles, a place to work in, ledgers to measure on, processes to watch.

A benchmark compares with a peer measured in the same run, in rounds that take turns: other load on the machine then
falls on both. Its bars are printed with the figures; a missed one makes the exit code 1 unless --no-bar is given.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from storage import bulk
from storage.address import SiteKey, parse, person
from storage.engine import Ledger
from storage.sqlite import open_ledger
from storage.terms import ALL, Reason, seconds
from storage.write import write

HOST: Final = "127.0.0.1"
CHECKOUT: Final = Path(__file__).resolve().parents[1]
_TICK: Final = os.sysconf("SC_CLK_TCK")
_SLICES: Final = 256  # of the key space: each is sorted and written by itself, so that all keys never are in memory


# ------------------------------------------------------------------ the command line


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has; --help shows the script's docstring."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--work", type=Path, help="directory to work in, kept (default: a temporary one under $TMPDIR)")
    made.add_argument("--keep", action="store_true", help="keep the temporary directory, and say where it is")
    made.add_argument("--no-bar", action="store_true", help="exit 0 even where a bar is missed")
    return made


@contextlib.contextmanager
def place(arguments: argparse.Namespace) -> Iterator[Path]:
    """The directory of --work, or a temporary one. Servers that drop root may enter it."""
    if arguments.work is not None:
        arguments.work.mkdir(parents=True, exist_ok=True)
        yield arguments.work.absolute()
        return
    with contextlib.ExitStack() as stack:
        if arguments.keep:
            path = Path(tempfile.mkdtemp(prefix="optoutd-bench-"))
            say(f"working in {path}")
        else:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="optoutd-bench-")))
        path.chmod(0o755)
        yield path


def say(text: str) -> None:
    """A line of progress, on stderr."""
    print(f"# {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


# ------------------------------------------------------------------ figures


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0..1) of all are not above."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: the first column to the left, the others to the right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    for n, line in enumerate(lines):
        first, *others = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join([first.strip().ljust(widths[0]), *others]).rstrip())
        if n == 0:
            print("  ".join("-" * w for w in widths))


@dataclass(frozen=True)
class Bar:
    """What a figure must not be above."""

    what: str
    found: float
    limit: float
    unit: str = ""

    @property
    def met(self) -> bool:
        """Is it?"""
        return self.found <= self.limit


def judge(bars: Sequence[Bar], no_bar: bool) -> int:
    """Print the bars; the exit code of the script."""
    print()
    for bar in bars:
        found = f"{bar.found:.4g} {bar.unit}".rstrip()
        print(f"{'met   ' if bar.met else 'MISSED'}  {bar.what}: {found} (at most {bar.limit:g})")
    return int(not no_bar and not all(b.met for b in bars))


# ------------------------------------------------------------------ ledgers


def suppressed(n: int) -> str:
    """The n-th address on the list."""
    return f"user{n}.{n * 2654435761 % 99991}@d{n % 5000}.example"


def unknown(n: int) -> str:
    """An address that is not on it, at the same domains."""
    return f"reader{n}.{n * 40503 % 99991}@d{n % 5000}.example"


@dataclass(frozen=True)
class Seeded:
    """A ledger that was filled. `took` is in seconds, 0 where it was there already."""

    database: Path
    key_file: Path
    rows: int
    took: float

    def open(self) -> Ledger:
        """Open it."""
        return open_ledger(self.database, self.key_file)


def seeded(directory: Path, count: int) -> Seeded:
    """A ledger in which suppressed(0) .. suppressed(count - 1) stand by the operator's word, or the one that is there.

    Every row goes the way an import goes (storage.bulk.add_many: evidence, audit row, digest of all rows),
    in order of key, in transactions of count/256 rows.
    """
    database, key_file, done = directory / "optoutd.db", directory / "site.key", directory / "seeded"
    if done.exists() and done.read_text() == str(count):
        return Seeded(database, key_file, count, 0)
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("optoutd.db*"):
        old.unlink()
    key_file.unlink(missing_ok=True)
    ledger = open_ledger(database, key_file, allow_create=True)
    slices = _keys(ledger.site_key, count)
    began = time.perf_counter()
    for n, keys in enumerate(map(bytes, slices)):
        _add(ledger, sorted(keys[i : i + 16] for i in range(0, len(keys), 16)))
        if n % 64 == 63:
            say(f"{count * (n + 1) // _SLICES:,} rows in {time.perf_counter() - began:.0f} s")
    with ledger.connect() as db:
        db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    took = time.perf_counter() - began
    ledger.close()
    done.write_text(str(count))
    return Seeded(database, key_file, count, took)


def _keys(site_key: SiteKey, count: int) -> list[bytearray]:
    """The address keys, put into slices by their first octet: 16 octets a row, not the 60 of a list of bytes."""
    slices = [bytearray() for _ in range(_SLICES)]
    for n in range(count):
        key = site_key.address_key(person(parse(suppressed(n)), ("tag", "alias")))
        slices[key[0]] += key
        if n % 2_000_000 == 1_999_999:
            say(f"{n + 1:,} of {count:,} addresses hashed")
    return slices


def _add(ledger: Ledger, keys: Sequence[bytes]) -> None:
    moment = datetime.now(UTC)
    rows = [(key, ALL, int(Reason.OPERATOR), seconds(moment)) for key in keys]
    with write(ledger, moment, "bench") as w:
        bulk.add_many(w, bulk.Batch(rows), seconds(moment), {"note": "bench"}, source="operator")


# ------------------------------------------------------------------ processes


def daemon_command(config: Path) -> list[str]:
    """The real daemon, of this interpreter."""
    return [sys.executable, "-m", "daemon", "-c", str(config), "run"]


@contextlib.contextmanager
def process(
    command: Sequence[str], log: Path, ready: Callable[[], bool], *, checkout: Path = CHECKOUT, limit: float = 60
) -> Iterator[subprocess.Popen[bytes]]:
    """A process from when it is ready until the block ends, run in a checkout. Its output goes to `log`."""
    with log.open("wb") as out:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=checkout)
        try:
            deadline = time.monotonic() + limit
            while not ready():
                if child.poll() is not None or time.monotonic() > deadline:
                    tail = log.read_text(errors="replace")[-2000:]
                    raise SystemExit(f"{' '.join(command)}: did not come up. Its log:\n{tail}")
                time.sleep(0.05)
            yield child
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
                try:
                    child.wait(20)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()


def cpu_seconds(root: int) -> float:
    """User and system time of a process, of its living descendants, and of those already reaped."""
    parents: dict[int, list[int]] = {}
    spent: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
                spent[int(entry.name)] = sum(map(int, fields[11:15])) / _TICK
    total, todo = 0.0, [root]
    while todo:
        pid = todo.pop()
        total += spent.get(pid, 0)
        todo += parents.get(pid, [])
    return total
