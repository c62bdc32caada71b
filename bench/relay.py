"""How fast is the relay, and what does a message cost, beside a Postfix that does the same?

    python bench/relay.py                                  all workloads, 3 rounds: some minutes (needs root)
    python bench/relay.py --workloads A5,Bp --rounds 5 --scale 0.5
    python bench/relay.py --peers direct,optoutd           without Postfix
    python bench/relay.py --list

Peers, each in front of the same discarding server (smtp-sink) and driven by the same client (load.c, compiled with
gcc -O2), in rounds that take turns:

    direct         client to sink, nothing between: the ceiling
    postfix-proxy  Postfix as before-queue proxy (smtpd_proxy_filter) with the same list as access map (lmdb): no queue,
                   the client is answered after the upstream. It is the like-for-like peer
    postfix-queue  Postfix with its queue and the same map; not run unless asked for with --peers
    optoutd        the whole daemon, by a config, over a ledger of the same addresses

Before that each relay passes mail on to a recording sink: nobody suppressed may be sent to, everybody else must be, and
every octet below the Received line must be the client's.

Printed: messages a second, their ratio to direct and to postfix-proxy (median of the ratios of each round), CPU seconds
of the relay per 1000 messages, and latency from MAIL to the reply to the dot. The bars are what we owe a campaign: so
much less time and CPU a message than postfix-proxy, and no more latency where nobody else is served. What fails the run, too, are messages lost or
altered, and wrong replies.

Needs root, gcc, and Debian's postfix and postfix-lmdb. Nothing under /etc/postfix is touched.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import common
from bench.common import percentile, say
from bench.peers import NAMES, Daemon, Direct, Discard, Peer, PostfixPeer, access_map, discard
from tests.loopback import ServerError
from tests.servers import program
from tests.sink import Sink, Transaction, sink

# ------------------------------------------------------------------ the work


@dataclass(frozen=True)
class Workload:
    """What the client sends. `suppressed`: how many of each message's recipients are on the list."""

    name: str
    about: str
    sessions: int
    messages: int
    recipients: int
    suppressed: int
    octets: int
    per_connection: int = 100
    pipelined: bool = False


WORKLOADS: Final = {
    w.name: w
    for w in (
        Workload("A5", "1 recipient, 5 KB, 20 sessions", 20, 5000, 1, 0, 5_000),
        Workload("A5x100", "1 recipient, 5 KB, 100 sessions", 100, 5000, 1, 0, 5_000),
        Workload("A50", "1 recipient, 50 KB, 20 sessions", 20, 3000, 1, 0, 50_000),
        Workload("A5c1", "1 recipient, 5 KB, 20 sessions, a connection a message", 20, 3000, 1, 0, 5_000, 1),
        Workload("B", "10 recipients, 2 of them suppressed, 5 KB, 20 sessions", 20, 2000, 10, 2, 5_000),
        Workload("Bp", "as B, pipelined", 20, 3000, 10, 2, 5_000, pipelined=True),
        Workload("L", "1 recipient, 5 KB, 1 session: latency", 1, 1000, 1, 0, 5_000),
    )
}
_OURS: Final = re.compile(rb"(?:(?:Received|List-Unsubscribe(?:-Post)?): [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)+")
# Messages a second and CPU of ours, over those of postfix-proxy: at least, at most.
_OWED: Final = {"A5": (2.0, 0.5), "A50": (2.2, 0.5), "A5c1": (1.6, 0.5), "B": (2.2, 0.4), "Bp": (2.8, 0.4)}
Plan = list[list[tuple[bool, str]]]  # for each message its recipients, each with whether it is suppressed
_WARM_UP: Final = Workload("warm-up", "", 10, 300, 2, 1, 5_000)
_VERIFY: Final = (
    Workload("one by one", "", 5, 40, 4, 1, 30_000, 3),
    Workload("pipelined", "", 5, 60, 10, 3, 4_000, 7, pipelined=True),
    Workload("nobody left", "", 2, 10, 2, 2, 1_000, 5),
)

_HEADER: Final = (
    "From: Quill PDF <news@quillpdf.example>\r\nTo: undisclosed-recipients:;\r\nSubject: An offer\r\n"
    "Date: Mon, 01 Jun 2026 10:00:00 +0000\r\nMessage-ID: <offer@quillpdf.example>\r\n"
    "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
)
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789"


def text(octets: int) -> bytes:
    """A message, its dots not stuffed: lines of 72 octets, every thirteenth begins with a dot."""
    lines, length, n = [], 0, 0
    while length < octets:
        line = "".join(_LETTERS[(7 * n + k) % len(_LETTERS)] for k in range(70))
        lines.append("." + line if n % 13 == 5 else line)
        length += len(lines[-1]) + 2
        n += 1
    return (_HEADER + "\r\n".join(lines) + "\r\n").encode()


def recipients(work: Workload, listed: int, seed: int, *, shout: bool = False) -> Plan:
    """Who each message goes to. `shout`: some in capital letters."""
    dice = random.Random(seed)
    plan = []
    for message in range(work.messages):
        kinds = [n < work.suppressed for n in range(work.recipients)]
        dice.shuffle(kinds)
        row = []
        for n, on_list in enumerate(kinds):
            who = (
                common.suppressed(dice.randrange(listed)) if on_list else common.unknown(message * work.recipients + n)
            )
            row.append((on_list, who.upper() if shout and dice.random() < 0.3 else who))
        plan.append(row)
    return plan


# ------------------------------------------------------------------ the client


@dataclass(frozen=True)
class Loaded:
    """What the client saw. `latencies` in milliseconds."""

    seconds: float
    taken: int
    accepted: int
    wrong: int
    first_wrong: str
    latencies: list[float]


class Client:
    """The compiled load client."""

    def __init__(self, directory: Path):
        self._directory, self._program = directory, directory / "load"
        source = Path(__file__).with_name("load.c")
        subprocess.run(["gcc", "-O2", "-o", self._program, source], check=True)

    def run(self, port: int, work: Workload, plan: Plan, *, enforced: bool) -> Loaded:
        """Send it all."""
        people, message, times = (self._directory / n for n in ("people", "message", "times"))
        people.write_text("".join(f"{'-' if s else '+'}{a}\n" for row in plan for s, a in row))
        message.write_bytes(text(work.octets).replace(b"\r\n.", b"\r\n.."))
        shape = (work.sessions, work.messages, work.recipients, work.per_connection)
        numbers = (port, *shape, int(work.pipelined), int(enforced))
        command = [str(part) for part in (self._program, *numbers, people, message, times)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise SystemExit(f"load client: {done.stderr}")
        seconds, taken, accepted, _, wrong, _, *said = done.stdout.split(" ")
        latencies = [float(line) / 1000 for line in times.read_text().split()]
        return Loaded(float(seconds), int(taken), int(accepted), int(wrong), " ".join(said).strip(), latencies)


# ------------------------------------------------------------------ is it right?


def verify(peer: Peer, client: Client, listed: int) -> list[str]:
    """What is wrong with what a relay passes on."""
    wrong = []
    for n, work in enumerate(_VERIFY):
        plan = recipients(work, listed, n, shout=True)
        with sink() as upstream, peer.up(upstream.port) as (port, _):
            seen = client.run(port, work, plan, enforced=peer.enforces)
            sent = {i: sorted(a for s, a in row if not (s and peer.enforces)) for i, row in enumerate(plan)}
            wanted = {i: who for i, who in sent.items() if who}
            _wait(upstream, len(wanted))
            differences = _differences(upstream, wanted, text(work.octets), direct=not peer.enforces)
            wrong += [f"{work.name}: {what}" for what in differences]
        if seen.wrong:
            wrong.append(f"{work.name}: {seen.wrong} wrong replies, the first: {seen.first_wrong}")
    return wrong


def _wait(upstream: Sink, messages: int) -> None:
    """A queue may still hold some; what never comes is found by the comparison."""
    with contextlib.suppress(ServerError):
        upstream.wait_for(lambda: len(upstream.messages) >= messages, 30)
    time.sleep(0.2)  # for what should not come


def _differences(upstream: Sink, wanted: dict[int, list[str]], message: bytes, *, direct: bool) -> Iterator[str]:
    came = {}
    for transaction in upstream.messages:
        number = _number(transaction)
        if number in came:
            yield f"message {number} came twice"
        came[number] = sorted(word.split(">")[0].strip("<") for word in transaction.rcpt_to)
        top, _, below = transaction.data.partition(b"X-Bench-Id:")
        if below != b" %d\r\n" % number + message:
            yield f"message {number} was altered"
        if not direct and not _OURS.fullmatch(top):
            yield f"message {number} has something else than a relay's own fields on top: {top[:200]!r}"
    if came != wanted:
        odd = sorted(n for n in came.keys() | wanted.keys() if came.get(n) != wanted.get(n))
        yield f"{len(odd)} messages with wrong recipients, e.g. {odd[0]}: {came.get(odd[0])}, wanted {wanted.get(odd[0])}"


def _number(transaction: Transaction) -> int:
    found = re.search(rb"^X-Bench-Id: (\d+)\r$", transaction.data, re.MULTILINE)
    return int(found[1]) if found else -1


# ------------------------------------------------------------------ how fast is it?


@dataclass(frozen=True)
class Run:
    """One peer under one workload, once. `cpu` in seconds per 1000 messages, latencies in milliseconds."""

    peer: str
    workload: str
    rate: float
    cpu: float
    p50: float
    p99: float
    wrong: str


def measure(peer: Peer, port: int, pid: int, work: Workload, plan: Plan, client: Client, end: Discard) -> Run:
    """Run one workload through one peer that is up."""
    before, cpu, began = end.messages(), common.cpu_seconds(pid) if pid else 0.0, time.monotonic()
    seen = client.run(port, work, plan, enforced=peer.enforces)
    came = end.wait(before + work.messages, 120 if peer.queues else 2) - before
    took = time.monotonic() - began if peer.queues else seen.seconds
    if peer.queues:
        time.sleep(0.3)  # its files are removed after the sink's reply
    cpu = common.cpu_seconds(pid) - cpu if pid else 0.0
    clean = work.messages * (work.recipients - (work.suppressed if peer.enforces else 0))
    wrong = ""
    if seen.wrong:
        wrong = f"{seen.wrong} wrong replies, the first: {seen.first_wrong}"
    elif (came, seen.taken, seen.accepted) != (work.messages, work.messages, clean):
        wrong = f"{seen.taken} messages and {seen.accepted} recipients accepted, {came} arrived"
    p50, p99 = percentile(seen.latencies, 0.5), percentile(seen.latencies, 0.99)
    return Run(peer.name, work.name, work.messages / took, cpu * 1000 / work.messages, p50, p99, wrong)


def run_rounds(
    peers: Sequence[Peer], works: Sequence[Workload], client: Client, place: Path, given: argparse.Namespace
) -> list[list[Run]]:
    """All runs, by round."""
    rounds: list[list[Run]] = []
    with contextlib.ExitStack() as stack:
        end = stack.enter_context(discard(place))
        standing = [(peer, *stack.enter_context(peer.up(end.port))) for peer in peers]
        for peer, port, pid in standing:
            measure(peer, port, pid, _WARM_UP, recipients(_WARM_UP, given.listed, 0), client, end)
        for n in range(given.rounds):
            rounds.append([])
            for work in works:
                plan = recipients(work, given.listed, 100 + n)
                for peer, port, pid in standing[n % len(standing) :] + standing[: n % len(standing)]:
                    run = measure(peer, port, pid, work, plan, client, end)
                    rounds[-1].append(run)
                    say(f"round {n + 1} {run.workload:<7} {run.peer:<14} {run.rate:6.0f} msg/s  {run.wrong}".rstrip())
    return rounds


def report(rounds: list[list[Run]], works: Sequence[Workload], peers: Sequence[Peer]) -> None:
    """Print a table for each workload."""
    for work in works:
        print(f"\n{work.name}: {work.about}; {work.messages} messages, median of {len(rounds)} rounds")
        lines = []
        for peer in peers:
            runs = [r for one in rounds for r in one if (r.peer, r.workload) == (peer.name, work.name)]
            figures = [statistics.median(getattr(r, f) for r in runs) for f in ("rate", "cpu", "p50", "p99")]
            ratios = [_ratio(rounds, work, peer, base) for base in ("direct", "postfix-proxy")]
            lines.append([peer.name, f"{figures[0]:.0f}", *ratios, *(f"{f:.2f}" for f in figures[1:])])
        common.table(["", "msg/s", "x direct", "x postfix-proxy", "CPU s/1000", "p50 ms", "p99 ms"], lines)


def _ratio(rounds: list[list[Run]], work: Workload, peer: Peer, base: str) -> str:
    """The median of the ratios of the rates in each round."""
    found = []
    for one in rounds:
        rates = {r.peer: r.rate for r in one if r.workload == work.name}
        if base in rates:
            found.append(rates[peer.name] / rates[base])
    return f"{statistics.median(found):.2f}" if found else "-"


def bars(rounds: list[list[Run]], works: Sequence[Workload]) -> list[common.Bar]:
    """What optoutd owes beside postfix-proxy, where both ran: medians of the ratios of each round."""
    found = []
    for work in works:
        pairs = []
        for one in rounds:
            runs = {r.peer: r for r in one if r.workload == work.name}
            if {"optoutd", "postfix-proxy"} <= runs.keys():
                pairs.append((runs["optoutd"], runs["postfix-proxy"]))
        if not pairs:
            continue
        if work.name in _OWED:
            rate, cpu = _OWED[work.name]
            times = statistics.median(theirs.rate / ours.rate for ours, theirs in pairs)
            found.append(common.Bar(f"{work.name}: time a message over postfix-proxy's", times, 1 / rate))
            spent = statistics.median(ours.cpu / theirs.cpu for ours, theirs in pairs)
            found.append(common.Bar(f"{work.name}: CPU a message over postfix-proxy's", spent, cpu))
        if work.sessions > 1:  # all are busy then: who waits for how long is a matter of fairness
            continue
        waits = statistics.median(ours.p50 / theirs.p50 for ours, theirs in pairs)
        found.append(common.Bar(f"{work.name}: median latency over postfix-proxy's", waits, 1.0))
    return found


# ------------------------------------------------------------------ all of it


def _own_copy(ledger: common.Seeded, work: Path) -> common.Seeded:
    """A second daemon needs a database of its own."""
    directory = work / "other-ledger"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(ledger.database.parent, directory)
    return replace(ledger, database=directory / ledger.database.name, key_file=directory / ledger.key_file.name)


def options() -> argparse.Namespace:
    """The command line."""
    made = common.parser(__doc__)
    made.add_argument("--workloads", default=",".join(WORKLOADS), help="some of them, with commas (default: all)")
    made.add_argument("--peers", default="direct,postfix-proxy,optoutd", help="also: postfix-queue")
    made.add_argument("--rounds", type=int, default=3, help="rounds (default 3)")
    made.add_argument("--scale", type=float, default=1.0, help="multiplies the numbers of messages")
    made.add_argument("--listed", type=int, default=1_000_000, help="addresses on the list (default 1,000,000)")
    made.add_argument("--connections", type=int, default=20, help="upstream.connections of optoutd (default 20)")
    made.add_argument("--other", type=Path, help="another checkout, whose daemon runs as a further peer `other`")
    made.add_argument("--profile", type=Path, help="run optoutd under cProfile, which writes here")
    made.add_argument("--no-verify", action="store_true", help="measure only")
    made.add_argument("--list", action="store_true", help="list the workloads")
    given = made.parse_args()
    for known, asked in ((WORKLOADS.keys(), given.workloads), (NAMES, given.peers)):
        if odd := set(asked.split(",")) - set(known):
            made.error(f"not known: {', '.join(sorted(odd))}")
    return given


def main() -> int:
    """Run it."""
    given = options()
    if given.list:
        common.table(["workload", "what"], [[w.name, w.about] for w in WORKLOADS.values()])
        return 0
    works = [WORKLOADS[name] for name in given.workloads.split(",")]
    works = [replace(w, messages=max(int(w.messages * given.scale), w.sessions)) for w in works]
    names = given.peers.split(",")
    if shutil.which("gcc") is None or program("smtp-sink") is None:
        raise SystemExit("needs gcc and Debian's postfix (smtp-sink)")
    with common.place(given) as place:
        client = Client(place)
        ledger = common.seeded(place / f"ledger-{given.listed}", given.listed)
        own = (given.connections, given.profile)
        peers: list[Peer] = [Direct(), Daemon("optoutd", common.CHECKOUT, place, ledger, *own)]
        if given.other:
            peers.append(Daemon("other", given.other.resolve(), place, _own_copy(ledger, place), *own))
            names.append("other")
        if any(name.startswith("postfix") for name in names):
            access = access_map(place, given.listed)
            peers += [PostfixPeer(f"postfix-{kind}", access, proxy=kind == "proxy") for kind in ("proxy", "queue")]
        peers = [peer for name in names for peer in peers if peer.name == name]
        wrong = []
        for peer in peers if not given.no_verify else []:
            found = verify(peer, client, given.listed)
            say(f"verified {peer.name}: {'right' if not found else 'WRONG'}")
            wrong += [f"{peer.name}: {what}" for what in found]
        rounds = run_rounds(peers, works, client, place, given)
        report(rounds, works, peers)
        wrong += [f"{r.peer}, {r.workload}: {r.wrong}" for one in rounds for r in one if r.wrong]
    print()
    print("\n".join(f"WRONG  {what}" for what in wrong) or "nothing lost, nothing altered, nobody suppressed sent to")
    missed = common.judge(bars(rounds, works), given.no_bar)
    return int(bool(wrong) and not given.no_bar) or missed


if __name__ == "__main__":
    sys.exit(main())
