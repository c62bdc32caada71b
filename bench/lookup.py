"""How long does the relay take to find out whether a recipient has opted out?

    python bench/lookup.py                          10,000,000 rows: some minutes, about 350 MB of disk
    python bench/lookup.py --rows 1000000 --no-bar

Measured: what the relay does at every RCPT, from the command's argument to the verdict (envelope.rcpt: read and parse;
Gate.may: forms, keys, SQL, verdict), called in a running event loop, each call timed. A fifth of the addresses is
suppressed. Peer, in the same run and over the same keys, the rounds taking turns: a bare loop over the sqlite3 module
that does nothing but `SELECT ... WHERE key IN (?,?)` and fetchall, its keys computed beforehand.

Bars: p50 at most 60 us, and at most 1.6 times the bare loop's; at most 38 octets of database file a row. The file holds
the suppression table (key 16, scope, reason, since, evidence), an evidence and an audit row per transaction of the
seeding, and the empty tables; no plain addresses. Seeding, the part of hashing, and RCPT over a loopback connection
through the real protocol (of suppressed recipients: no upstream is asked) are information.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import common
from bench.common import Bar, percentile, say
from daemon import events
from daemon.config import Relay
from daemon.gate import Gate, Pass, Refused
from daemon.relay import envelope
from daemon.relay.context import Context
from daemon.relay.server import Server
from daemon.upstream import Pool
from storage.address import SiteKey, keys_of, parse
from storage.lookup import Lookup

_SELECT: Final = "SELECT key, scope, reason, since, evidence FROM suppression WHERE key IN (?,?)"
_HITS: Final = 0.2


def mixed(dice: random.Random, rows: int, count: int) -> list[tuple[str, bool]]:
    """`count` addresses in random order, each with whether it is suppressed."""
    drawn = [dice.random() < _HITS for _ in range(count)]
    return [((common.suppressed if hit else common.unknown)(dice.randrange(rows)), hit) for hit in drawn]


# ------------------------------------------------------------------ what is timed


async def inside(gate: Gate, people: list[tuple[str, bool]]) -> list[float]:
    """Microseconds of each call, as the relay's RCPT makes it."""
    clock, took = time.perf_counter_ns, []
    for address, hit in people:
        argument = f"TO:<{address}>"
        await asyncio.sleep(0)  # the loop goes round between two commands
        began = clock()
        answer = gate.may(envelope.rcpt(argument, {}, False).address)
        took.append((clock() - began) / 1000)
        if not isinstance(answer, Refused if hit else Pass):
            raise SystemExit(f"{address}: {answer}")
    return took


async def bare(db: sqlite3.Connection, keys: list[tuple[bytes, bytes]], people: list[tuple[str, bool]]) -> list[float]:
    """Microseconds of each statement, in the same loop."""
    clock, took = time.perf_counter_ns, []
    for pair, (address, hit) in zip(keys, people, strict=True):
        await asyncio.sleep(0)
        began = clock()
        found = db.execute(_SELECT, pair).fetchall()
        took.append((clock() - began) / 1000)
        if bool(found) != hit:
            raise SystemExit(f"{address}: {found}")
    return took


def pairs(site_key: SiteKey, people: list[tuple[str, bool]]) -> list[tuple[bytes, bytes]]:
    """The two keys of each address: its own and its domain's."""
    made = []
    for address, _ in people:
        (own, _), (domain, _) = keys_of(site_key, parse(address))
        made.append((own, domain))
    return made


def parts(site_key: SiteKey, people: list[tuple[str, bool]]) -> tuple[list[float], list[float]]:
    """Microseconds of reading the argument, and of forms and keys."""
    clock = time.perf_counter_ns
    reading, hashing = [], []
    for address, _ in people:
        argument = f"TO:<{address}>"
        began = clock()
        parsed = envelope.rcpt(argument, {}, False).address
        middle = clock()
        keys_of(site_key, parsed)
        hashing.append((clock() - middle) / 1000)
        reading.append((middle - began) / 1000)
    return reading, hashing


# ------------------------------------------------------------------ through the protocol


def talk(port: int, people: list[str]) -> list[float]:
    """Microseconds from each RCPT command to its 550, over one connection."""
    took = []
    with socket.create_connection((common.HOST, port)) as line, line.makefile("rb") as replies:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        replies.readline()
        for command in ("HELO bench.example", "MAIL FROM:<news@quillpdf.example>"):
            line.sendall(command.encode() + b"\r\n")
            replies.readline()
        for address in people:
            began = time.perf_counter_ns()
            line.sendall(b"RCPT TO:<%b>\r\n" % address.encode())
            reply = replies.readline()
            took.append((time.perf_counter_ns() - began) / 1000)
            if not reply.startswith(b"550 "):
                raise SystemExit(f"{address}: {reply!r}")
    return took


@contextlib.contextmanager
def quiet() -> Iterator[TextIO]:
    """Log lines are written, but to nowhere: they are part of the work."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        events.configure("json")
        yield nowhere


async def wire(gate: Gate, site_key: SiteKey, people: list[str]) -> list[float]:
    """RCPT through the real protocol; the client is a thread of this process."""
    settings = Relay(listen=(f"{common.HOST}:0",))
    server = Server(Context(settings, gate, Pool(common.HOST, 9, hostname="bench.example"), site_key, {}, {}))
    bound = await server.start()
    try:
        return await asyncio.to_thread(talk, int(bound[0].rpartition(":")[2]), people)
    finally:
        await server.stop()


# ------------------------------------------------------------------ all of it


async def measure(ledger: common.Seeded, rounds: int, calls: int) -> tuple[dict[str, list[float]], list[float]]:
    """The timings by name, and the ratio of the medians of each round."""
    site_key = ledger.open().site_key
    gate = Gate(Lookup(ledger.database, site_key), {})
    db = sqlite3.connect(f"{ledger.database.as_uri()}?mode=ro", uri=True, isolation_level=None)
    dice = random.Random(1)
    found: dict[str, list[float]] = {n: [] for n in ("inside", "bare", "reading", "hashing", "wire")}
    ratios = []
    for n in range(-rounds // 10, rounds):  # the first tenth warms up
        people = mixed(dice, ledger.rows, calls)
        keys = pairs(site_key, people)
        if n % 2:
            alone = await bare(db, keys, people)
            ours = await inside(gate, people)
        else:
            ours = await inside(gate, people)
            alone = await bare(db, keys, people)
        reading, hashing = parts(site_key, people)
        if n < 0:
            continue
        for name, took in (("inside", ours), ("bare", alone), ("reading", reading), ("hashing", hashing)):
            found[name] += took
        ratios.append(percentile(ours, 0.5) / percentile(alone, 0.5))
        if n % 25 == 24:
            say(f"round {n + 1}: {percentile(ours, 0.5):.1f} us, bare {percentile(alone, 0.5):.1f} us")
    with quiet():
        found["wire"] = await wire(
            gate, site_key, [common.suppressed(dice.randrange(ledger.rows)) for _ in range(5000)]
        )
    db.close()
    return found, ratios


def report(ledger: common.Seeded, found: dict[str, list[float]], ratios: list[float]) -> list[Bar]:
    """Print the figures; the bars."""
    octets = ledger.database.stat().st_size / ledger.rows
    seeding = f"{ledger.rows / ledger.took:,.0f} rows/s" if ledger.took else "done in an earlier run"
    print(f"\n{ledger.rows:,} rows; seeding: {seeding}; {octets:.1f} octets of file a row\n")
    names = {
        "inside": "RCPT argument to verdict",
        "bare": "bare sqlite3 loop",
        "reading": "  of it reading the argument",
        "hashing": "  of it forms and keys",
        "wire": "RCPT of a suppressed one over loopback",
    }
    common.table(
        ["us", "p50", "p90", "p99"],
        [[text, *(f"{percentile(found[name], p):.1f}" for p in (0.5, 0.9, 0.99))] for name, text in names.items()],
    )
    return [
        Bar("lookup p50", percentile(found["inside"], 0.5), 60, "us"),
        Bar("lookup p50 / bare loop p50, median of the rounds", percentile(ratios, 0.5), 1.6),
        Bar("file a row", octets, 38, "octets"),
    ]


def main() -> int:
    """Run it."""
    options = common.parser(__doc__)
    options.add_argument("--rows", type=int, default=10_000_000, help="suppression rows (default 10,000,000)")
    options.add_argument("--rounds", type=int, default=100, help="rounds (default 100)")
    options.add_argument("--calls", type=int, default=500, help="lookups a round (default 500)")
    given = options.parse_args()
    with common.place(given) as work:
        ledger = common.seeded(work / f"ledger-{given.rows}", given.rows)
        return common.judge(report(ledger, *asyncio.run(measure(ledger, given.rounds, given.calls))), given.no_bar)


if __name__ == "__main__":
    sys.exit(main())
