"""A server that does as it is told, and a pool of connections to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from daemon.upstream import Pool
from tests.sink import Sink, sink


@pytest.fixture
def server() -> Iterator[Sink]:
    with sink() as it:
        yield it


@pytest.fixture
async def pool(server: Sink) -> AsyncIterator[Pool]:
    it = Pool("127.0.0.1", server.port, hostname="relay.example", timeout=2)
    yield it
    it.close()
    await asyncio.sleep(0)
