"""Does the daemon's memory stay flat, and bounded?

    python bench/soak.py                              the first two parts, some minutes
    python bench/soak.py --messages 20000 --octets 0  the first part only, shorter
    python bench/soak.py --messages 0 --octets 0 --minutes 60
                                                      the third part only: an hour, a million messages

Three parts, each with the whole daemon as a process of its own, by a config:

    many    100,000 messages through 20 sessions (load.c): of each 10,000 a quarter one by one, pipelined, on a new
            connection each, and to nobody but people on the list; in front of smtp-sink. RSS is printed every 10,000
            messages. Bar: it grows by no more than 4 MB after the first 20,000
    large   500 MB in messages of 10 MB, sent through 50 connections at once to an upstream that reads slowly. Bar: the
            peak of RSS (VmHWM) is no more than 150 MB
    steady  a million messages in an hour, with clicks, pages, mail and scrapes beside them (bench/soak_steady.py). Bars:
            after twenty minutes RSS grows by less than 2 %, and there are no more descriptors, sockets or threads. Until then
            the page caches of SQLite fill, 2 MB a connection, as the database grows

The messages must all be taken, and arrive: octets that are counted but not passed on would be cheap to hold.
Needs gcc and Debian's postfix (smtp-sink).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import common, soak_steady
from bench.common import HOST, Bar, say
from bench.peers import Daemon, Discard, discard
from bench.relay import Client, Workload, recipients, text
from tests.servers import program

_LISTED: Final = 10_000
_TURN: Final = 10_000  # messages between two looks at RSS: some of each kind
_WARM: Final = 20_000  # messages after which it must not grow any more
_GROWTH_MB: Final = 4.0
_PEAK_MB: Final = 150.0
_WORKS: Final = (
    Workload("one by one", "", 20, _TURN // 4, 2, 1, 3_000, 100),
    Workload("pipelined", "", 20, _TURN // 4, 5, 2, 3_000, 50, pipelined=True),
    Workload("a connection a message", "", 20, _TURN // 4, 1, 0, 1_000, 1),
    Workload("nobody left", "", 20, _TURN // 4, 2, 2, 1_000, 100),
)
_SIP: Final = 65_536  # octets that the slow upstream reads at a time,
_SIP_SECONDS: Final = 0.1  # and for how long it then waits: 0.6 MB/s and connection


def memory(pid: int, field: str) -> float:
    """VmRSS or VmHWM of a process, in MB."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


# ------------------------------------------------------------------ many messages


def many(work: Path, ledger: common.Seeded, messages: int) -> tuple[list[tuple[int, float]], list[str]]:
    """(messages so far, RSS in MB) after each turn, and what was wrong."""
    client, seen, wrong = Client(work), list[tuple[int, float]](), list[str]()
    with discard(work) as end, Daemon("many", common.CHECKOUT, work, ledger, 20, None).up(end.port) as (port, pid):
        for turn in range(1, max(messages // _TURN, 1) + 1):
            began = time.monotonic()
            for kind in _WORKS:
                wrong += _send(client, port, kind, end, turn)
            seen.append((turn * _TURN, memory(pid, "VmRSS")))
            rate = _TURN / (time.monotonic() - began)
            say(f"{seen[-1][0]:,} messages, {rate:.0f} msg/s: {seen[-1][1]:.1f} MB")
    return seen, wrong


def _send(client: Client, port: int, kind: Workload, end: Discard, turn: int) -> list[str]:
    """Messages of one kind; what was wrong."""
    before = end.messages()
    said = client.run(port, kind, recipients(kind, _LISTED, turn), enforced=True)
    wanted = kind.messages if kind.recipients > kind.suppressed else 0
    came = end.wait(before + wanted, 10) - before
    if said.wrong or (said.taken, came) != (wanted, wanted):
        return [f"{kind.name}: {said.taken} taken, {came} came, of {wanted}; {said.first_wrong}"]
    return []


# ------------------------------------------------------------------ large messages


@dataclass
class SlowUpstream:
    """Takes everything, a sip of each connection at a time; counts the octets of bodies."""

    port: int = 0
    octets: int = 0
    messages: int = 0

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        writer.write(b"220 slow.example ESMTP\r\n")
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"DATA":
                    writer.write(b"354 go ahead\r\n")
                    await self._body(reader)
                extensions = b"250-slow.example\r\n250-PIPELINING\r\n" if verb == b"EHLO" else b""
                writer.write(extensions + b"250 2.0.0 ok\r\n")
                if verb == b"QUIT":
                    break
        writer.close()

    async def _body(self, reader: asyncio.StreamReader) -> None:
        end = b""
        while end != b"\r\n.\r\n":
            sip = await reader.read(_SIP)
            if not sip:
                raise asyncio.IncompleteReadError(sip, None)
            self.octets += len(sip)
            end = (end + sip)[-5:]
            await asyncio.sleep(_SIP_SECONDS)
        self.messages += 1

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        """Listen; the kernel may hold little for it, or most of a message would be there."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SIP)
        listener.bind((HOST, 0))
        listener.listen(200)
        self.port = listener.getsockname()[1]
        server = await asyncio.start_server(self.converse, sock=listener)
        ready.set()
        await stop.wait()
        server.close()


@contextlib.contextmanager
def slow_upstream() -> Iterator[SlowUpstream]:
    """In a thread of its own."""
    made, ready, stop, loop = SlowUpstream(), threading.Event(), asyncio.Event(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(made.serve(ready, stop),))
    thread.start()
    ready.wait()
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def send_large(port: int, body: bytes) -> str:
    """One message; the reply to its dot."""
    with socket.create_connection((HOST, port), timeout=600) as line, line.makefile("rb") as replies:
        replies.readline()
        line.sendall(b"EHLO bench.example\r\n")
        while replies.readline()[3:4] == b"-":
            pass
        line.sendall(b"MAIL FROM:<news@quillpdf.example>\r\nRCPT TO:<reader@example.com>\r\nDATA\r\n")
        said = [replies.readline() for _ in range(3)]
        if not said[-1].startswith(b"354"):
            return said[-1].decode(errors="replace").strip()
        line.sendall(body)
        return replies.readline().decode(errors="replace").strip()


def large(work: Path, ledger: common.Seeded, octets: int, size: int, connections: int) -> tuple[float, list[str]]:
    """The peak of RSS in MB, and what was wrong."""
    body, number = text(size).replace(b"\r\n.", b"\r\n..") + b".\r\n", max(1, octets // size)
    with (
        slow_upstream() as upstream,
        Daemon("large", common.CHECKOUT, work, ledger, connections, None).up(upstream.port) as (port, pid),
        ThreadPoolExecutor(connections) as threads,
    ):
        before, began = memory(pid, "VmRSS"), time.monotonic()
        said = list(threads.map(lambda _: send_large(port, body), range(number)))
        took, peak = time.monotonic() - began, memory(pid, "VmHWM")
        say(f"{upstream.octets / 1e6:.0f} MB in {took:.0f} s: {before:.1f} MB before, peak {peak:.1f} MB")
    wrong = [reply for reply in said if not reply.startswith("250")]
    if upstream.messages != number or upstream.octets < number * len(body):
        wrong.append(f"{upstream.messages} of {number} messages came, {upstream.octets} octets")
    return peak, wrong


# ------------------------------------------------------------------ all of it


def options() -> argparse.Namespace:
    """The command line."""
    made = common.parser(__doc__)
    made.add_argument(
        "--messages",
        type=int,
        default=100_000,
        help="of the first part, in turns of 10,000 (default 100,000); 0: leave it out",
    )
    made.add_argument(
        "--octets", type=int, default=500_000_000, help="of the second part (default 500 MB); 0: leave it out"
    )
    made.add_argument("--size", type=int, default=10_000_000, help="octets of a large message (default 10 MB)")
    made.add_argument("--connections", type=int, default=50, help="for large messages, at once (default 50)")
    made.add_argument("--minutes", type=float, default=0, help="of the third part (default 0: leave it out)")
    made.add_argument("--steady", type=int, default=1_000_000, help="messages of the third part (default 1,000,000)")
    return made.parse_args()


def main() -> int:
    """Run it."""
    given = options()
    if shutil.which("gcc") is None or program("smtp-sink") is None:
        raise SystemExit("needs gcc and Debian's postfix (smtp-sink)")
    bars: list[Bar] = []
    wrong: list[str] = []
    with common.place(given) as work:
        ledger = common.seeded(work / "ledger", _LISTED)
        if given.messages:
            seen, wrong = many(work, ledger, given.messages)
            common.table(["messages", "RSS MB"], [[f"{n:,}", f"{mb:.1f}"] for n, mb in seen])
            steady = [mb for n, mb in seen if n >= min(_WARM, given.messages)]
            bars.append(Bar(f"growth after {_WARM:,} messages", max(steady) - steady[0], _GROWTH_MB, "MB"))
        if given.octets:
            peak, odd = large(work, ledger, given.octets, given.size, given.connections)
            wrong += odd
            bars.append(Bar(f"peak RSS with {given.connections} large messages at once", peak, _PEAK_MB, "MB"))
        if given.minutes:
            looks, odd = soak_steady.run(work, ledger, _LISTED, _WORKS, given.steady, given.minutes)
            wrong += odd
            bars += soak_steady.bars(looks, given.minutes / 3)
    code = common.judge(bars, given.no_bar)
    print("\n".join(f"WRONG  {what}" for what in wrong[:10]) or "every message was taken and arrived")
    return code or int(bool(wrong) and not given.no_bar)


if __name__ == "__main__":
    sys.exit(main())
