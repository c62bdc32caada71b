"""A ledger to ask at, a policy service, and requests as Postfix writes them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from daemon import postfix
from daemon.gate import Purpose
from daemon.postfix import Context, Request, Server
from tests.ledgers import LISTS, Books
from tests.loopback import HOST

ROOT = Path(__file__).parents[2]
MAIN_CF = re.findall(r"```main\.cf\n(.*?)```", (ROOT / "docs/policy-service.md").read_text(), re.DOTALL)
ANN = "ann@customer.example"
OPTED_OUT = f"550 5.7.1 <{ANN}> has opted out (ref "
# How a client may write ann@customer.example, and what Postfix 3.7 then asks about.
SPELLINGS = {
    '"ann"@customer.example': ANN,
    "ANN@Customer.EXAMPLE.": "ANN@Customer.EXAMPLE.",
    "ann+offers@customer.example": "ann+offers@customer.example",
    r"a\nn@customer.example": ANN,
    "ann (who else)@customer.example": ANN,
    'ann@"customer.example"': ANN,
    "@elsewhere.example:ann@customer.example": ANN,
    "ann%customer.example": "ann%customer.example",
    "ann%customer.example@mta.example.org": "ann%customer.example@mta.example.org",
    '"ann%customer.example"@mta.example.org': "ann%customer.example@mta.example.org",
    "ann%customer.example%mta.example.org@mta.example.org": "ann%customer.example%mta.example.org@mta.example.org",
    "customer.example!ann": "customer.example!ann",
    "customer.example!ann@mta.example.org": "customer.example!ann@mta.example.org",
    "mta.example.org!customer.example!ann": "mta.example.org!customer.example!ann",
    "mta.example.org!ann%customer.example": "mta.example.org!ann%customer.example",
    '"ann@customer.example"@mta.example.org': "ann@customer.example@mta.example.org",
    "ann@customer.example@mta.example.org": "ann@customer.example@mta.example.org",
}


def action(context: Context, asked: Request) -> str:
    """What stands behind `action=`, asked from outside the loop."""
    return asyncio.run(postfix.action(context, asked))


# ------------------------------------------------------------------ a desk to ask at


@dataclass
class Desk:
    """A context, and what it counted."""

    books: Books
    counted: list[tuple[str, str | None, str, int, int]] = field(default_factory=list)

    def context(self, **other: Any) -> Context:
        """With two users, unless told otherwise."""
        users: dict[str, tuple[str | None, Purpose]] = {
            "crm": ("offers", "marketing"),
            "app": (None, "service"),
        }
        plain = Context(self.books.gate(), self.books.ledger.site_key, users, frozenset(LISTS), note=self._note)
        return replace(plain, **other)

    def _note(self, *facts: Any) -> None:
        self.counted.append(facts)


def rcpt(recipient: str = ANN, policy_context: str = "", sasl_username: str = "", state: str = "RCPT") -> Request:
    return Request(state, recipient, sasl_username, policy_context)


def written(asked: Request) -> bytes:
    """As Postfix writes it, with some of the other attributes."""
    lines = f"""request=smtpd_access_policy
protocol_state={asked.state}
protocol_name=ESMTP
client_address=127.0.0.1
helo_name=crm.example
sender=news@quillpdf.example
recipient={asked.recipient}
recipient_count=0
ccert_subject=
sasl_username={asked.sasl_username}
policy_context={asked.policy_context}"""
    return lines.encode("utf-8", "surrogateescape") + b"\n\n"


@dataclass
class Service:
    """A running server."""

    server: Server
    port: int

    async def ask(self, *pieces: bytes) -> bytes:
        """Send these one after the other on a connection of its own, then nothing more; all that comes back."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            with contextlib.suppress(OSError):  # it may have hung up
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                writer.write_eof()
            async with asyncio.timeout(10):
                return await self._all(reader)
        finally:
            writer.close()

    @staticmethod
    async def _all(reader: asyncio.StreamReader) -> bytes:
        """To its end. A socket closed over octets that nobody read resets the connection: so be it."""
        came = b""
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65_536):
                came += piece
        return came


@contextlib.asynccontextmanager
async def serving(context: Context, port: int = 0) -> AsyncIterator[Service]:
    server = Server([f"{HOST}:{port}"], context)
    (bound,) = await server.start()
    try:
        yield Service(server, int(bound.rpartition(":")[2]))
    finally:
        await server.stop()


GOOD = written(rcpt("bob@customer.example"))
