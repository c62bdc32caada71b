"""Does another process, or another node, ever miss an opt-out that was committed before it asked?

    python bench/visibility.py                  100,000 questions to an SQLite file, as many to PostgreSQL
    python bench/visibility.py --tries 10000

A process of its own commits opt-outs, fifty people a transaction, and says so once the commit has returned; only then we
ask about each of them: by the lookup of commands, and by the questions of the daemon's event loop. PostgreSQL is a
private one on this machine (left out where Debian's postgresql is missing). No peer: bar 0 misses.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import common
from bench.common import Bar
from daemon.gate import Refused
from daemon.opening import gate_of
from storage.address import parse
from storage.engine import Ledger
from tests.ledgers import again
from tests.servers import ServerError, postgres

_TOGETHER: Final = 50  # people a transaction
_WRITER: Final = """
import sys
from datetime import UTC, datetime
from storage import suppressions
from storage.address import parse
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import again
books = again(*sys.argv[1:])
for line in sys.stdin:
    with write(books.ledger, datetime.now(UTC), "bench") as w:
        for name in line.split():
            suppressions.add(w, parse(name), ALL, Reason.OPT_OUT, "mail", {})
    print("committed", flush=True)
"""


@contextlib.contextmanager
def _writer(where: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _WRITER, *where]
    with subprocess.Popen(
        command, cwd=common.CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def _misses(ledger: Ledger, writer: subprocess.Popen[str], tries: int) -> int:
    """How many of `tries` people who had opted out were not known to have."""
    assert writer.stdin
    assert writer.stdout
    gate, missed, numbers = gate_of(ledger, {}), 0, count()
    for _ in range(tries // _TOGETHER):
        names = [f"person{next(numbers)}@example.com" for _ in range(_TOGETHER)]
        writer.stdin.write(" ".join(names) + "\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == "committed\n"
        people = [parse(name) for name in names]
        for person in people:
            missed += not isinstance(gate.may(person), Refused)
            missed += not isinstance((await gate.ask([person]))[0], Refused)
    await gate.close()
    return missed


def _on(where: tuple[str, ...], tries: int) -> tuple[int, float]:
    books = again(*where)
    began = time.monotonic()
    with _writer(where) as writer:
        missed = asyncio.run(_misses(books.ledger, writer, tries))
    books.close()
    return missed, time.monotonic() - began


def main() -> int:
    """Ask, and print how often the answer was an old one."""
    parser = common.parser(__doc__)
    parser.add_argument("--tries", type=int, default=100_000)
    arguments = parser.parse_args()
    rows, bars = [], []
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(common.place(arguments))
        places: dict[str, tuple[str, ...]] = {"SQLite": (str(work / "ledger"),)}
        try:
            server = stack.enter_context(postgres())
        except ServerError as why:
            print(f"left out: PostgreSQL: {why}", file=sys.stderr)
        else:
            places["PostgreSQL"] = _made(server.url(server.new_database()), work)
        for name, where in places.items():
            missed, took = _on(where, arguments.tries)
            rows.append((name, f"{arguments.tries:,}", str(missed), f"{took:.0f} s"))
            bars.append(Bar(f"opt-outs missed, {name}", missed, 0))
    common.table(("database", "opt-outs, each asked twice", "missed", "took"), rows)
    return common.judge(bars, arguments.no_bar)


def _made(url: str, work: Path) -> tuple[str, str]:
    """A ledger in PostgreSQL."""
    from storage.engine import read_site_key
    from storage.postgres import Server, migrate

    migrate(Server(url), work / "node.key")
    return url, read_site_key(work / "node.key").keys[0].hex()


if __name__ == "__main__":
    sys.exit(main())
