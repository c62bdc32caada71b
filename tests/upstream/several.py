"""Several servers, a clock that can be put forward, and an eye on the places."""

from __future__ import annotations

import asyncio

import pytest

from daemon.dialling import Endpoint
from daemon.upstream import Pool
from tests.sink import Sink

Changes = list[tuple[int, str]]


def at(server: Sink) -> Endpoint:
    return Endpoint("127.0.0.1", server.port)


class Clock:
    """The loop's, which can be put forward."""

    def __init__(self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch):
        self.ahead = 0.0
        real = loop.time
        monkeypatch.setattr(loop, "time", lambda: real() + self.ahead)

    def pass_(self, seconds: float) -> None:
        self.ahead += seconds


def places(pool: Pool) -> list[int]:
    """How many are free."""
    return [hop.places._value for hop in pool.hops]


async def until(happened: object, seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not happened():  # type: ignore[operator]
            await asyncio.sleep(0.005)
