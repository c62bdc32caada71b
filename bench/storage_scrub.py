"""scrub: a list is cleaned by the ledger (storage.py says how it is measured)."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from bench import common
from bench.common import Bar, say
from bench.storage_runs import Runs, Took, config, ours, timed

_EVERY: Final = 100  # who is suppressed in the list: one of so many
_KEY: Final = b"stands for the site key"
# stdin: addresses, a line each; stdout: their keys in hex digits.
_HASH: Final = f"""
import sys
from hashlib import blake2b
copy = blake2b(key={_KEY!r}, digest_size=16).copy
for some in iter(lambda: sys.stdin.buffer.readlines(1 << 20), []):
    made = []
    for line in some:
        keyed = copy()
        keyed.update(line.strip().lower())
        made.append(keyed.hexdigest())
    print("\\n".join(made))
"""
_DUCK_TABLE: Final = """
import duckdb, sys
with duckdb.connect(sys.argv[1]) as db:
    db.execute("CREATE TABLE suppression AS SELECT md5_number(lower(address)) AS key"
               " FROM read_csv('/dev/stdin', header = false, columns = {'address': 'VARCHAR'}) ORDER BY key")
"""
_DUCK_SCRUB: Final = """
import duckdb, sys
table, source, target = sys.argv[1:]
with duckdb.connect(table, read_only=True) as db:
    db.execute("COPY (SELECT address"
               " FROM read_csv(?, header = false, delim = '\\t', quote = '', columns = {'address': 'VARCHAR'}) AS list"
               " ANTI JOIN suppression ON suppression.key = md5_number(lower(list.address)))"
               f" TO '{target}' (HEADER false, DELIMITER '\\t', QUOTE '')", [source])
"""


def measured(given: Namespace, work: Path) -> list[Bar]:
    """Measure scrubbing."""
    ledger = common.seeded(work / f"ledger-{given.against}", given.against)
    at = config(work / "scrub.toml", url=f"sqlite:///{ledger.database}", key_file=str(ledger.key_file))
    source, gone = work / "campaign.txt", -(-given.rows // _EVERY)
    with source.open("w") as out:
        out.writelines(f"{_member(n, given.rows, given.against)}\n" for n in range(given.rows))
    keys, duck = _keys(ledger), _duck_table(ledger, given.duckdb)
    clean = {name: work / f"clean-{name}.txt" for name in ("ours", "duckdb", "comm")}
    commands = {
        "ours": ours(at, "scrub", str(source), "-o", str(clean["ours"])),
        "duckdb": [given.duckdb, "-c", _DUCK_SCRUB, str(duck), str(source), str(clean["duckdb"])],
        "comm": ["bash", "-c", _pipe(source, keys, clean["comm"])],
    }
    if duck is None:
        del commands["duckdb"]
    for file in filter(None, (ledger.database, keys, duck)):
        _read(file)
    runs = Runs({"ours": "optoutd scrub", "duckdb": "DuckDB: md5, anti-join", "comm": "blake2b | sort | comm"})
    for n in range(given.rounds):
        for name, command in commands.items():
            runs.add(name, _checked(command, clean[name], given.rows - gone))
        runs.say(n + 1, given.rounds)
    print(f"\nscrub: a list of {given.rows:,}, {gone:,} of them suppressed, against {given.against:,} rows\n")
    runs.table("scrub", given.rows)
    return _bars(runs, given.rows)


def _bars(runs: Runs, rows: int) -> list[Bar]:
    bars = [
        Bar("scrub (of a longer list: each million)", runs.seconds("ours") / max(1, rows / 1e6), 6, "s"),
        Bar("memory of scrub", runs.memory("ours"), 150, "MB"),
    ]
    if "duckdb" in runs.took:
        bars.insert(1, Bar("scrub / DuckDB, median of the rounds", runs.times("ours", "duckdb"), 1))
    return bars


def _member(n: int, rows: int, against: int) -> str:
    """The n-th of the list: those who are suppressed are spread evenly over it, and over the ledger."""
    return common.unknown(n) if n % _EVERY else common.suppressed(n * against // rows)


def _checked(command: list[str], clean: Path, expected: int) -> Took:
    """A run, which must have left as many as may be mailed."""
    clean.unlink(missing_ok=True)
    took = timed(command)
    with clean.open("rb") as lines:
        left = sum(1 for _ in lines)
    if left != expected:
        raise SystemExit(f"{clean.name}: {left} left, not {expected}")
    return took


def _read(file: Path) -> None:
    """Into the memory of the system, for everybody: none of them is to pay for a kept --work being cold."""
    with file.open("rb") as octets:
        while octets.read(1 << 24):
            pass


# ------------------------------------------------------------------ the peers


def _everybody(ledger: common.Seeded) -> Iterable[str]:
    return map(common.suppressed, range(ledger.rows))


def _keys(ledger: common.Seeded) -> Path:
    """The keys of all suppressed people, in hex digits and sorted: what comm compares with. Made once."""
    path = ledger.database.with_name("keys.hex")
    if not path.exists():
        say("peer: sorting the keys of the ledger")
        new = path.with_suffix(".new")
        copy = hashlib.blake2b(key=_KEY, digest_size=16).copy

        def key(address: str) -> str:
            keyed = copy()
            keyed.update(address.encode())
            return keyed.hexdigest()

        _feed(["env", "LC_ALL=C", "sort", "-S", "256M", "-o", str(new)], map(key, _everybody(ledger)))
        new.rename(path)
    return path


def _duck_table(ledger: common.Seeded, python: str) -> Path | None:
    """The hashed keys in a table of DuckDB; None: it is missing. Made once."""
    if subprocess.run([python, "-c", "import duckdb"], capture_output=True).returncode:
        print(f"left out: DuckDB: {python} has no package duckdb (--duckdb names another Python)", file=sys.stderr)
        return None
    path = ledger.database.with_name("keys.duckdb")
    if not path.exists():
        say("peer: filling DuckDB's table")
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        _feed([python, "-c", _DUCK_TABLE, str(new)], _everybody(ledger))
        new.rename(path)
    return path


def _feed(command: list[str], lines: Iterable[str]) -> None:
    """Run it with these lines on its stdin."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as child:
        assert child.stdin
        child.stdin.writelines(f"{line}\n" for line in lines)
    if child.returncode:
        raise SystemExit(f"{command[0]}: {child.returncode}")


def _pipe(source: Path, keys: Path, target: Path) -> str:
    """What a shell does. It leaves keys and their order behind, no addresses: less than the others give."""
    hashing = shlex.join([sys.executable, "-I", "-c", _HASH])
    named = (shlex.quote(str(path)) for path in (source, keys, target))
    return "set -o pipefail; export LC_ALL=C; {} < {} | sort | comm -23 - {} > {}".format(hashing, *named)
