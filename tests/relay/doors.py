"""A relay with a listener for each policy, a record that remembers, and a client that sends one message."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from daemon.config import Relay
from daemon.gate import Gate
from daemon.relay.access import Policy
from daemon.relay.context import Context
from daemon.relay.protocol import Door
from daemon.relay.server import Listening, Server
from daemon.relay.stamping import Stamping
from daemon.upstream import Endpoint, Pool
from storage.refusals import Outcome, Refusal
from tests.ledgers import LISTS, Books
from tests.relay.desk import Upstream, reply


@dataclass
class Recording:
    """What was written down: `counted` as (outcome, list number, credential, reason) -> recipients."""

    counted: Counter[tuple[Outcome, int, str, int]] = field(default_factory=Counter)
    kept: list[tuple[Refusal, ...]] = field(default_factory=list)

    def note(self, outcome: Outcome, list_number: int, credential: str, reason: int, n: int = 1) -> None:
        """Count recipients."""
        assert n > 0
        self.counted[outcome, list_number, credential, reason] += n

    def keep(self, *of_one_transaction: Refusal) -> None:
        """Keep refusals, and count them, as daemon.register does."""
        assert of_one_transaction
        self.kept.append(of_one_transaction)
        for r in of_one_transaction:
            self.counted[r.outcome, r.list_number, r.credential, r.reason] += 1

    @property
    def totals(self) -> Counter[str]:
        """Recipients by outcome."""
        found: Counter[str] = Counter()
        for (outcome, *_), n in self.counted.items():
            found[outcome] += n
        return found


@dataclass
class Doors:
    """A running relay: the ports of its listeners in the order of their policies, its gate and its record."""

    server: Server
    gate: Gate
    ports: list[int]
    record: Recording


@contextlib.asynccontextmanager
async def doors(
    books: Books,
    upstream: Upstream,
    *policies: Policy,
    stamping: Stamping | None = None,
    connections: int = 20,
    **options: Any,
) -> AsyncIterator[Doors]:
    """A relay in front of `upstream`. `options`: of [relay]."""
    settings = Relay.model_validate({"hostname": "relay.quillpdf.example", **options})
    pool = Pool([Endpoint("127.0.0.1", upstream.port)], hostname=settings.hostname, timeout=5, connections=connections)
    await pool.probe()
    gate, record = books.gate(), Recording()
    context = Context(
        settings,
        gate,
        pool,
        books.ledger.site_key,
        {value: list_id for list_id, value in LISTS.items()},
        books.numbers,
        stamping=stamping,
        record=record,
    )
    server = Server(context, [Listening("127.0.0.1:0", Door(policy)) for policy in policies])
    bound = await server.start()
    try:
        yield Doors(server, gate, [int(b.rpartition(":")[2]) for b in bound], record)
    finally:
        await server.stop()


class Sender:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._reader, self._writer = reader, writer

    async def say(self, *lines: str) -> list[str]:
        """Commands, pipelined; returns a reply each."""
        self.write("".join(f"{line}\r\n" for line in lines).encode("utf-8", "surrogateescape"))
        return [await reply(self._reader) for _ in lines]

    def write(self, octets: bytes) -> None:
        """Octets as they are."""
        self._writer.write(octets)

    async def heard(self) -> str:
        """The next reply."""
        return await reply(self._reader)

    async def send(
        self, recipients: Sequence[str], message: bytes, *, pipelined: bool = False
    ) -> tuple[list[str], str]:
        """One message (still dot-stuffed). Returns the replies to RCPT, and to DATA or the dot."""
        await self.say("MAIL FROM:<news@quillpdf.example>")
        commands = [f"RCPT TO:<{r}>" for r in recipients]
        said = await self.say(*commands) if pipelined else [(await self.say(c))[0] for c in commands]
        (data,) = await self.say("DATA")
        if data.startswith("354"):
            self.write(message + b".\r\n")
            data = await self.heard()
        else:
            await self.say("RSET")
        return said, data


@contextlib.asynccontextmanager
async def sender(port: int) -> AsyncIterator[Sender]:
    """A client that has said EHLO."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        made = Sender(reader, writer)
        assert (await made.heard()).startswith("220 ")
        await made.say("EHLO crm.quillpdf.example")
        yield made
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
