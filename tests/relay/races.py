"""Opt-outs that race with mail on its way through the relay, and who was right.

A writer (another thread, or another process) commits one opt-out a message, at a random moment of its dialogue. All
times are of the one monotonic clock of the machine. Addresses are used once, so an address tells its race.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Final

from daemon.gate import Answer, Gate
from daemon.relay.access import Policy
from storage.address import Address
from tests.ledgers import Books, books
from tests.relay.doors import Doors, Sender, doors, sender
from tests.relay.puppet import Puppet, puppet

HERE: Final = "newsletter"
OTHER: Final = "offers"
POLICIES: Final = [
    Policy(mode, list_id, "marketing", (), "") for mode in ("refuse", "strip") for list_id in (None, HERE)
]
AT_ONCE: Final = 6  # dialogues
STEPS: Final = 8
LIST_ID: Final = b"List-Id: <newsletter.quillpdf.example>\r\n"

Commit = Callable[[str, str | None], float]  # (address, list or None for all) -> when it had returned


@dataclass
class Race:
    """One message, and the opt-out of one of its recipients. Times: seconds, 0 for not at all."""

    recipients: tuple[str, ...]
    leaver: str
    scope: str | None
    door: int
    names_list: bool  # the message has a List-Id
    step: int  # of the dialogue at which the writer is told; STEPS: when the dot is out
    waits: bool  # the client goes on only when it is committed
    body: bytes
    pipelined: bool
    pauses: tuple[float, ...]
    committed: float = 0
    dot_sent: float = 0  # the client's
    asked: float = 0  # the last question about the leaver began
    first_asked: float = 0
    reply: str = ""
    reached: tuple[str, ...] = ()  # whom the upstream has it for

    @property
    def counts(self) -> bool:
        """Is the opt-out about this message? One from another list, or from a list that nobody names, is not."""
        return self.scope is None or (self.scope == HERE and (self.names_list or POLICIES[self.door].list_id == HERE))

    @property
    def fell(self) -> str:
        """When the commit returned."""
        if not self.counts:
            return "of no concern"
        if self.committed < self.first_asked:
            return "before RCPT"
        if self.committed < self.asked:
            return "between RCPT and the last question"
        return "after the last question began"

    def wrong(self) -> str | None:
        """What of the promise is broken."""
        got_it = self.leaver in self.reached
        if got_it and self.counts and self.committed < self.dot_sent:
            return "delivered, though the opt-out was committed before the client's dot"
        if got_it and self.counts and self.committed < self.asked:
            return "delivered, though the opt-out was committed before the last question"
        if got_it and self.asked < self.dot_sent:
            return "delivered, and nobody asked between the two dots"
        if not self.counts and self.reached != self.recipients:
            return "not delivered to all, though nobody left this list"
        if bool(self.reached) != (self.reply.startswith("250 ") and "nothing sent" not in self.reply):
            return "the client was told another thing than what happened"
        if not self.reply.startswith(("250 ", "451 4.7.1", "550 5.7.1", "554 5.5.1")):
            return "an answer that no race explains"
        return None


@dataclass
class Outcome:
    """What came of some races."""

    races: list[Race]
    took: float

    @property
    def wrong(self) -> list[tuple[str, Race]]:
        """Broken promises."""
        return [(why, race) for race in self.races if (why := race.wrong())]

    def table(self) -> Counter[tuple[str, str]]:
        """(when the commit fell, what became of the message) -> races."""
        return Counter((r.fell, _became(r)) for r in self.races)

    def nearest(self) -> tuple[float, float]:
        """Seconds between a commit and the last question: the nearest before it, and the nearest behind it."""
        apart = [r.asked - r.committed for r in self.races if r.counts and r.asked > r.dot_sent]
        return min((a for a in apart if a > 0), default=0), min((-a for a in apart if a <= 0), default=0)


def _became(race: Race) -> str:
    if race.leaver in race.reached:
        return "delivered"
    if race.reply.startswith("451"):
        return "withdrawn, 451"
    return "left out, others have it" if race.reached else "refused"


def drawn(random: Random, number: int) -> Race:
    """A race of any kind."""
    recipients = tuple(f"r{number}.{n}@example.com" for n in range(random.choice((1, 1, 2, 3, 6))))
    return Race(
        recipients,
        random.choice(recipients),
        random.choices((None, HERE, OTHER), (4, 5, 1))[0],
        random.randrange(len(POLICIES)),
        random.random() < 0.7,
        random.randrange(STEPS + 1),
        random.random() < 0.2,
        b"".join(b"%d " % n * 12 + b"\r\n" for n in range(random.choice((3, 40, 2000)))),
        random.random() < 0.5,
        tuple(random.choice((0, 0, 0.001, 0.003)) for _ in range(STEPS + 1)),
    )


@dataclass
class Track:
    """Where races are run."""

    relay: Doors
    upstream: Puppet
    commit: Commit
    asked: dict[str, tuple[float, float]] = field(default_factory=dict)  # address -> first and last question
    writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "writer"))

    async def run(self, races: Sequence[Race]) -> Outcome:
        """All of them, some at a time."""
        began, waiting = time.monotonic(), iter(races)
        await asyncio.gather(*(self._client(waiting) for _ in range(AT_ONCE)))
        self.writer.shutdown()
        reached = {rcpts[0][1:-1]: rcpts for rcpts, _ in self.upstream.messages}
        assert len(reached) == len(self.upstream.messages), "a message came twice"
        for race in races:
            found = [reached[r] for r in race.recipients if r in reached]
            race.reached = tuple(r[1:-1] for rcpts in found for r in rcpts)
            race.first_asked, race.asked = self.asked[race.leaver]
        return Outcome(list(races), time.monotonic() - began)

    async def _client(self, races: Iterator[Race]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            lines = [await stack.enter_async_context(sender(port)) for port in self.relay.ports]
            for race in races:
                await self._one(race, lines[race.door])

    async def _one(self, race: Race, client: Sender) -> None:
        committing: list[asyncio.Future[float]] = []

        async def at(step: int) -> None:
            if race.step == step:
                job = self.writer.submit(self.commit, race.leaver, race.scope)
                committing.append(asyncio.wrap_future(job))
                if race.waits:
                    await committing[0]
            if race.pauses[step]:
                await asyncio.sleep(race.pauses[step])

        await at(0)
        await client.say("MAIL FROM:<news@quillpdf.example>")
        await at(1)
        commands = [f"RCPT TO:<{r}>" for r in race.recipients]
        if race.pipelined:
            await client.say(*commands)
        else:
            for command in commands:
                await client.say(command)
        await at(2)
        (race.reply,) = await client.say("DATA")
        await at(3)
        if race.reply.startswith("354"):
            await self._message(race, client, at)
        else:
            await client.say("RSET")
        if not committing:  # all were refused
            race.step, race.waits = STEPS, False
            await at(STEPS)
        race.committed = await committing[0]

    async def _message(self, race: Race, client: Sender, at: Callable[[int], Awaitable[None]]) -> None:
        header = (LIST_ID if race.names_list else b"") + b"Subject: x\r\n\r\n"
        half = len(race.body) // 2
        client.write(header)
        await at(4)
        client.write(race.body[:half])
        await at(5)
        client.write(race.body[half:])
        await at(6)
        await at(7)
        race.dot_sent = time.monotonic()
        client.write(b".\r\n")
        await at(8)
        race.reply = await client.heard()

    def note(self, address: Address) -> None:
        """A question about somebody begins now."""
        now, name = time.monotonic(), str(address)
        self.asked[name] = (self.asked.get(name, (now, now))[0], now)


def _watch(gate: Gate, note: Callable[[Address], None]) -> None:
    """Note when each question begins, and about whom."""
    may, may_all = gate.may, gate.may_all

    def one(rcpt_to: Address, *rest: str) -> Answer:
        note(rcpt_to)
        return may(rcpt_to, *rest)  # type: ignore[arg-type]

    def several(rcpt_tos: Sequence[Address], *rest: str) -> Sequence[Answer]:
        for address in rcpt_tos:
            note(address)
        return may_all(rcpt_tos, *rest)  # type: ignore[arg-type]

    gate.may, gate.may_all = one, several  # type: ignore[method-assign, assignment]


# ------------------------------------------------------------------ writers


def by_thread(ledger: Books) -> Commit:
    """Commits in whichever thread calls it."""

    def commit(address: str, scope: str | None) -> float:
        ledger.suppress(address, scope)
        return time.monotonic()

    return commit


def _write(directory: Path, line: Connection) -> None:
    """The other process."""
    commit = by_thread(books(directory))
    line.send("ready")
    while (asked := line.recv()) is not None:
        line.send(commit(*asked))


@contextlib.contextmanager
def by_process(directory: Path) -> Iterator[Commit]:
    """Commits in another process, with a ledger of its own in the same directory."""
    here, there = multiprocessing.Pipe()
    spawning = multiprocessing.get_context("spawn")
    process = spawning.Process(target=_write, args=(directory, there))
    process.start()
    there.close()  # so that the end of the process is the end of the line

    def commit(address: str, scope: str | None) -> float:
        here.send((address, scope))
        return float(here.recv())

    try:
        assert here.recv() == "ready"
        yield commit
    finally:
        with contextlib.suppress(OSError):
            here.send(None)
        here.close()
        process.join(10)
        process.kill()
        process.join()
        process.close()


async def run(directory: Path, number: int, seed: int, *, another_process: bool = False) -> Outcome:
    """So many races in a new ledger."""
    ledger, random = books(directory), Random(seed)
    with contextlib.ExitStack() as stack:
        commit = stack.enter_context(by_process(directory)) if another_process else by_thread(ledger)
        async with puppet() as upstream, doors(ledger, upstream, *POLICIES) as relay:
            track = Track(relay, upstream, commit)
            _watch(relay.gate, track.note)
            return await track.run([drawn(random, n) for n in range(number)])
