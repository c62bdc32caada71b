"""postgres: an import into a ledger in PostgreSQL, and the questions there (storage.py says how it is measured)."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from argparse import Namespace
from contextlib import closing
from pathlib import Path
from typing import Final

from bench import common
from bench.common import Bar, percentile, say
from bench.lookup import mixed
from bench.storage_runs import Runs, Took, config, ours, timed
from daemon.gate import Gate, Pass, Refused
from daemon.opening import gate_of
from storage.address import parse
from storage.postgres import Server, migrate, open_server
from tests.servers import Postgres, ServerError, postgres, postgres_programs

_COLUMNS: Final = "key, scope, reason, since, evidence"
_QUESTIONS: Final = 20_000
_TOGETHER: Final = 20


def measured(given: Namespace, work: Path) -> list[Bar]:
    """Measure imports into PostgreSQL and questions to it; nothing where it is missing."""
    try:
        with postgres() as server:
            return _on(server, given, work)
    except ServerError as why:
        print(f"left out: PostgreSQL: {why}", file=sys.stderr)
        return []


def _on(server: Postgres, given: Namespace, work: Path) -> list[Bar]:
    file, finished, key = work / "list.txt", work / "finished.tsv", work / "postgres.key"
    with file.open("w") as out:
        out.writelines(f"{common.suppressed(n)}\n" for n in range(given.rows))
    first, _ = _import(server, work, file, key)
    timed(_psql(server, first, f"\\copy (SELECT {_COLUMNS} FROM suppression ORDER BY key) TO '{finished}'"))
    runs = Runs({"copy": "psql \\copy of the finished table", "import": "import"})
    for n in range(given.rounds):
        runs.add("copy", _copy(server, first, finished))
        database, took = _import(server, work, file, work / "postgres.again.key")
        runs.add("import", took)
        server.drop(database)
        runs.say(n + 1, given.rounds)
    print(
        "\npostgres: a private server on this machine, with fsync = off: nothing waits for a disk, neither here nor there\n"
    )
    runs.table(f"{given.rows:,} rows", given.rows)
    _print_questions(_asked(server.url(first), key, given.rows))
    return [
        Bar("import / \\copy", runs.times("import", "copy"), 1 / 0.3),
        Bar("memory of an import into PostgreSQL", runs.memory("import"), 150, "MB"),
    ]


# ------------------------------------------------------------------ import


def _import(server: Postgres, work: Path, file: Path, key: Path) -> tuple[str, Took]:
    """Into a new, empty ledger. Returns the name of its database, and the run."""
    database = server.new_database()
    key.unlink(missing_ok=True)
    made = Server(server.url(database))
    migrate(made, key)
    made.engine.dispose()
    at = config(work / "postgres.toml", url=server.url(database), key_file=str(key), keep_addresses=False)
    server.run("CHECKPOINT")  # what others have left to be written does not fall on us
    took = timed(ours(at, "import", str(file), "--yes"))
    _check(server, database, "suppression", file)
    return database, took


def _copy(server: Postgres, database: str, finished: Path) -> Took:
    """`psql \\copy` into an empty table with the same columns and the same primary key."""
    server.run("DROP TABLE IF EXISTS copied", database)
    server.run("CREATE TABLE copied (LIKE suppression INCLUDING ALL)", database)
    server.run("CHECKPOINT")
    took = timed(_psql(server, database, f"\\copy copied ({_COLUMNS}) FROM '{finished}'"))
    _check(server, database, "copied", finished)
    return took


def _check(server: Postgres, database: str, table: str, file: Path) -> None:
    """Every line of the file must have become a row."""
    with file.open("rb") as lines:
        expected = sum(1 for _ in lines)
    [(found,)] = server.run(f"SELECT count(*) FROM {table}", database)
    if found != expected:
        raise SystemExit(f"{table}: {found} rows, not {expected}")


def _psql(server: Postgres, database: str, command: str) -> list[str]:
    """PostgreSQL's own program, without the wrapper that Debian has in PATH: that takes its time to start."""
    programs = postgres_programs()
    assert programs
    return [str(programs / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", command, server.url(database)]


# ------------------------------------------------------------------ questions


def _asked(url: str, key: Path, rows: int) -> dict[int, list[float]]:
    """How many ask at once -> microseconds that each waited for the answer."""
    dice = random.Random(1)
    with closing(open_server(Server(url), key, keep_addresses=False)) as ledger:
        say(f"{_QUESTIONS:,} questions, one and {_TOGETHER} at a time")
        return asyncio.run(_ask_all(gate_of(ledger, {}), dice, rows))


async def _ask_all(gate: Gate, dice: random.Random, rows: int) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {1: [], _TOGETHER: []}
    try:
        for _ in range(100):
            await _ask(gate, *mixed(dice, rows, 1)[0])  # connect, and have the statement prepared
        for together, took in found.items():
            people = mixed(dice, rows, _QUESTIONS)
            for start in range(0, _QUESTIONS, together):
                took += await asyncio.gather(*(_ask(gate, *one) for one in people[start : start + together]))
    finally:
        await gate.close()
    return found


async def _ask(gate: Gate, address: str, hit: bool) -> float:
    """Microseconds until one knows."""
    began = time.perf_counter_ns()
    [answer] = await gate.ask([parse(address)])
    took = (time.perf_counter_ns() - began) / 1000
    if not isinstance(answer, Refused if hit else Pass):
        raise SystemExit(f"{address}: {answer}")
    return took


def _print_questions(found: dict[int, list[float]]) -> None:
    print()
    common.table(
        [f"{_QUESTIONS:,} questions, us", "p50", "p99"],
        [
            [f"{together} at a time", f"{percentile(took, 0.5):.0f}", f"{percentile(took, 0.99):.0f}"]
            for together, took in found.items()
        ],
    )
