"""A PostgreSQL that stands still, and one that is silent: doubt in time, and no more of it once it answers."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from daemon.gate import Answer, Gate, Pass, Refused, Unknown
from daemon.opening import gate_of
from storage import postgres
from storage.address import parse
from storage.engine import WRITE_SECONDS
from storage.postgres import Server, open_server
from storage.questions import Questions
from tests import servers
from tests.ledgers import Books, opened
from tests.servers import Postgres

pytestmark = pytest.mark.postgres

ANN, BOB = parse("ann@example.com"), parse("bob@example.com")
IN_TIME, HEALED = 5.0, 10.0  # seconds


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """One that nobody else needs meanwhile."""
    with servers.postgres() as own:
        yield own


@pytest.fixture
def books(server: Postgres, tmp_path: Path) -> Iterator[Books]:
    """Ann has opted out."""
    where = Server(server.url(server.new_database()))
    postgres.migrate(where, tmp_path / "site.key")
    it = opened(open_server(where, tmp_path / "site.key"))
    it.suppress("ann@example.com")
    yield it
    it.close()


@pytest.fixture
async def gate(books: Books) -> AsyncIterator[Gate]:
    """Whatever happened, nothing of it is left when it is closed."""
    it = gate_of(books.ledger, books.numbers)
    before = asyncio.all_tasks()
    yield it
    await it.close()
    assert asyncio.all_tasks() - {asyncio.current_task()} <= before


async def asked(gate: Gate, after: float = 0.0) -> tuple[Answer, float]:
    """The answer about Bob, who may be mailed, and how long it took."""
    await asyncio.sleep(after)
    began = time.monotonic()
    [answer] = await gate.ask([BOB])
    return answer, time.monotonic() - began


async def heals(gate: Gate) -> None:
    began = time.monotonic()
    while isinstance((await gate.ask([BOB]))[0], Unknown):
        assert time.monotonic() - began < HEALED
        await asyncio.sleep(0.1)
    assert await gate.ask([BOB]) == [Pass()]
    assert isinstance((await gate.ask([ANN]))[0], Refused)


@pytest.mark.parametrize("connected", [True, False])
async def test_a_server_that_stands_still_is_doubt_in_time(server: Postgres, gate: Gate, connected: bool) -> None:
    if connected:
        assert (await asked(gate))[0] == Pass()
    with server.frozen():
        answers = await asyncio.gather(*(asked(gate, after) for after in (0.0, 0.0, 0.1, 1.9, 2.2, 4.5)))
    assert [(type(answer), took < IN_TIME) for answer, took in answers] == [(Unknown, True)] * len(answers)
    await heals(gate)


async def test_it_may_be_closed_while_it_connects(server: Postgres, gate: Gate) -> None:
    with server.frozen():
        assert isinstance((await asked(gate))[0], Unknown)
        began = time.monotonic()
        await gate.close()
        assert time.monotonic() - began < 1
    await heals(gate)


async def test_a_silent_host_before_the_right_one_costs_time_once(books: Books) -> None:
    store = books.ledger.store
    assert isinstance(store, Server)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel takes connections, and nobody answers
        url = store.url.replace("@", f"@127.0.0.1:{silent.getsockname()[1]},")
        questions = Questions(Server(url), books.ledger.site_key)
        gate = Gate(books.lookup(), books.numbers, questions)
        answer, took = await asked(gate)
        assert isinstance(answer, Unknown)
        assert took < IN_TIME
        await heals(gate)
        await gate.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_connection_that_failed_a_while_ago_is_not_held_against_the_server(
    server: Postgres, gate: Gate
) -> None:
    with server.frozen():
        assert isinstance((await asked(gate))[0], Unknown)
        await asyncio.sleep(WRITE_SECONDS)  # nobody asks, and connecting is given up
    assert (await asked(gate))[0] == Pass()
