"""An upstream that does one thing wrong at one step, and what one looks at afterwards to see that nothing was lost."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from daemon.steps import Steps
from storage.refusals import Outcome, Refusal
from tests.relay.desk import Desk
from tests.relay.faulty import free_places, until
from tests.relay.puppet import USUAL, Puppet

LATE: Final = 0.05  # seconds that a slow upstream thinks; the relay waits longer
WORDS: Final = {"refuses 4xx": "450 4.2.0 not now", "refuses 5xx": "550 5.2.0 never", "421": "421 4.3.2 going away"}
REPLAY: Final = ("RSET", "MAIL again", "RCPT again")  # of one who left the list that the header names
STEPS: Final = ("connect", "EHLO", "MAIL", "RCPT 1", "RCPT 2", *REPLAY, "DATA", "body", "dot")
TROUBLES: Final = (*WORDS, "hangs", "drops", "garbage", "answers late", "answers in single octets")
_STEP: Final = {
    "GREETING": "connect",
    "DOT": "dot",
    "RCPT <bob@example.com>": "RCPT 1",
    "RCPT <carl@example.com>": "RCPT 2",
}


@dataclass
class Troubled(Puppet):
    """Does its `trouble` whenever it comes to `step`, until it is well ("")."""

    step: str = ""
    trouble: str = ""
    pipelining: bool = True
    struck: asyncio.Event = field(default_factory=asyncio.Event)
    readers: dict[asyncio.StreamWriter, asyncio.StreamReader] = field(default_factory=dict)
    replays: bool = False  # it was told to start a message again

    def __post_init__(self) -> None:
        if not self.pipelining:
            self.says["EHLO"] = USUAL["EHLO"].replace(b"250-PIPELINING\r\n", b"")
        if self.step == "body":
            self.does["BODY"] = self._in_the_body
            self.bite = 1 if self.trouble == "answers in single octets" else self.bite

    def recover(self) -> None:
        """From now on it behaves."""
        self.trouble, self.replays = "", False
        self.does.clear()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.readers[writer] = reader
        try:
            await super()._converse(reader, writer)
        finally:
            del self.readers[writer]

    async def _answer(self, verb: str, writer: asyncio.StreamWriter, line: str = "") -> bool:
        self.replays = self.replays or verb == "RSET"
        if not self.trouble or self.step != self._step(verb, line):
            return await super()._answer(verb, writer, line)
        self.struck.set()
        match self.trouble:
            case "answers late":
                await asyncio.sleep(LATE)
                return await super()._answer(verb, writer, line)
            case "answers in single octets":
                await self._spell(self.says.get(verb, USUAL[verb]), writer)
                return True
            case "takes it and drops":
                self.struck.clear()
                return await self._drop_after_taking(writer)
        await self._misbehave(writer, self.trouble)
        return False

    def _step(self, verb: str, line: str) -> str:
        if self.replays and verb in ("MAIL", "RCPT"):
            return f"{verb} again"
        address = line[8:].partition(" ")[0]
        return _STEP.get(f"RCPT {address}" if verb == "RCPT" else verb, verb)

    async def _in_the_body(self, writer: asyncio.StreamWriter) -> None:
        self.struck.set()
        if self.trouble == "answers late":
            await asyncio.sleep(LATE)
        elif self.trouble != "answers in single octets":
            await self._misbehave(writer, self.trouble)

    async def _misbehave(self, writer: asyncio.StreamWriter, trouble: str) -> None:
        if trouble == "hangs":
            while await self.readers[writer].read(65_536):
                pass
        if trouble in ("hangs", "drops"):
            raise ConnectionResetError
        writer.write(b"\x00\xff what?\r\n" if trouble == "garbage" else WORDS[trouble].encode() + b"\r\n")

    @staticmethod
    async def _spell(said: bytes, writer: asyncio.StreamWriter) -> None:
        for n in range(len(said)):
            writer.write(said[n : n + 1])
            await asyncio.sleep(0)

    async def _drop_after_taking(self, writer: asyncio.StreamWriter) -> bool:
        asyncio.get_running_loop().call_soon(writer.transport.abort)
        return True


@dataclass
class Tally:
    """A record (daemon.relay.context.Record) that can be read."""

    counts: Counter[str] = field(default_factory=Counter)

    def note(self, outcome: Outcome, list_number: int, credential: str, reason: int, n: int = 1) -> None:
        """Count recipients."""
        self.counts[outcome] += n

    def keep(self, *of_one_transaction: Refusal) -> None:
        """Count those, too."""
        self.counts.update(refusal.outcome for refusal in of_one_transaction)


async def nothing_is_left(desk: Desk, upstream: Puppet, places: int = 20) -> None:
    """No client, no connection that is out, no socket but the idle ones; the places are all free."""
    pool = desk.server.pool
    await until(lambda: not desk.server._clients)
    assert free_places(desk) == places, "a place of the pool is lost"
    assert (pool._homes, pool.waiting) == ({}, 0)
    with contextlib.suppress(TimeoutError):
        await until(lambda: len(upstream.open) == sum(not c.gone for c in pool.hops[0].idle), 2)
    assert len(upstream.open) == len(pool.hops[0].idle), "a socket is lost"


def unfinished() -> list[Steps]:
    """Steps that wait for something which may never come."""
    return [thing for thing in gc.get_objects() if isinstance(thing, Steps) and not thing.done]
