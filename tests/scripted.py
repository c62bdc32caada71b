"""Servers that live in the test's own event loop and do what they are told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol, TypeVar


class Scripted(Protocol):
    """`converse` is one connection, which keeps its task in `tasks`; `port`: 0 for any, then the one it got."""

    port: int
    tasks: set[asyncio.Task[None]]

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""


S = TypeVar("S", bound=Scripted)


@contextlib.asynccontextmanager
async def listening(made: S, host: str = "127.0.0.1") -> AsyncIterator[S]:
    """Have it listen; in the end its conversations are broken off."""
    server = await asyncio.start_server(made.converse, host, made.port, limit=1 << 20)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        tasks = tuple(made.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
