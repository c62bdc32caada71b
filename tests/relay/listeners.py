"""Listeners with TLS and credentials, and what clients say at them.

The passwords in base64, as they stand in the dialogues:

    AGNybQBzZWNyZXQ=   NUL crm NUL secret        Y3Jt   crm     c2VjcmV0   secret
    AGNybQB3cm9uZw==   NUL crm NUL wrong                        d3Jvbmc=   wrong
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from daemon.relay.access import Brake, Credentials, Policy
from daemon.relay.protocol import Door
from daemon.relay.server import Listening
from tests.certificates import certify
from tests.relay.desk import Desk
from tests.relay.faulty import ENVELOPE, play
from tests.relay.puppet import Puppet

Pair = tuple[Path, Path]  # certificate, key
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]

MESSAGE = ENVELOPE + "C: DATA\nS: 354\nC: ...\nS: 250 2.0.0 taken by puppet\n"
LOG_IN = "C: AUTH PLAIN AGNybQBzZWNyZXQ=\nS: 235 2.7.0\n"
WRONG = "C: AUTH PLAIN AGNybQB3cm9uZw==\n"


def policy(**own: Any) -> Policy:
    """Of whoever has no other, but for these."""
    usual = {"mode": "refuse", "list_id": None, "purpose": "marketing", "senders": (), "credential": ""}
    return Policy(**(usual | own))


CRM = Credentials({"crm": ("secret", policy(credential="crm"))})


def crm(**own: Any) -> Credentials:
    """The one user, with rules of its own."""
    return Credentials({"crm": ("secret", policy(credential="crm", **own))})


def listener(implicit: ssl.SSLContext | None = None, **door: Any) -> Listening:
    return Listening("127.0.0.1:0", Door(**({"policy": policy()} | door)), implicit)


def received(upstream: Puppet) -> list[str]:
    """The `with` of our Received line on each message."""
    return [data.partition(b"(optoutd) with ")[2].partition(b"\r\n")[0].decode() for _, data in upstream.messages]


class Hurried(Brake):
    """Makes nobody wait, and writes down for how long it would have."""

    def __init__(self) -> None:
        super().__init__(per_client=0)
        self.waits: list[float] = []

    def delay(self, peer: str, now: float) -> float:
        """Before an AUTH is looked at."""
        self.waits.append(super().delay(peer, now))
        return 0.0

    def failed(self, peer: str, now: float) -> float:
        """Before a wrong one is answered."""
        self.waits.append(super().failed(peer, now))
        return 0.0


def make_pair(directory: Path) -> Pair:
    """A certificate for localhost and its key."""
    certify(directory / "key.pem", directory / "cert.pem")
    return directory / "cert.pem", directory / "key.pem"


def trusting(pair: Pair) -> ssl.SSLContext:
    """A client's context."""
    return ssl.create_default_context(cafile=str(pair[0]))


async def secure(client: Client, pair: Pair) -> None:
    """STARTTLS, as a client that verifies."""
    await play(client, "C: STARTTLS\nS: 220 2.0.0")
    await client[1].start_tls(trusting(pair), server_hostname="localhost")


@contextlib.asynccontextmanager
async def dialled(desk: Desk, number: int = 0, local: str = "127.0.0.1", **tls: Any) -> AsyncIterator[Client]:
    """A connection to the n-th listener, from this address; the greeting is still to be read."""
    port = desk.server._sockets[number].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(local, 0), **tls)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def closed(client: Client) -> bool:
    """Does nothing follow?"""
    async with asyncio.timeout(5):
        return await client[0].read() == b""
