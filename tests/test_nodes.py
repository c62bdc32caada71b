"""What a node does with its leases; time and the database are fakes here, tests/scenarios/test_nodes.py has the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from daemon.nodes import JOBS, NOTICES, Duties
from storage import leases
from storage.engine import Ledger, Unavailable
from storage.postgres import Server
from tests.ledgers import books


@pytest.fixture
def shared(tmp_path: Path) -> Ledger:
    """A ledger in PostgreSQL that nobody asks anything."""
    it = books(tmp_path / "ledger")
    it.close()
    return Ledger(Server("postgresql://optoutd@127.0.0.1:1/none"), it.ledger.site_key)


def test_in_a_file_everything_is_ours(tmp_path: Path) -> None:
    it = books(tmp_path / "ledger")
    duties = Duties(it.ledger)
    assert duties.alone
    assert duties.ours(JOBS)
    asyncio.run(duties.give_up())
    with it.ledger.reading() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM lease").scalar() == 0
    it.close()


async def _follow(shared: Ledger, monkeypatch: pytest.MonkeyPatch, answers: list[set[str] | None]) -> list[set[str]]:
    """What is ours at each change, when the database answers so (None: it is away); each asking takes five seconds."""
    clock, left = [1000.0], iter(answers)
    ended = asyncio.Event()

    def take(_ledger: Ledger, _holder: str, roles: Iterable[str]) -> frozenset[str]:
        assert set(roles) == {JOBS, NOTICES}
        clock[0] += 5
        found = next(left, ...)
        if found is ...:
            loop.call_soon_threadsafe(ended.set)
            raise Unavailable("the end")
        if found is None:
            raise Unavailable("away")
        return frozenset(found)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(leases, "take", take)
    monkeypatch.setattr(leases, "release", lambda *_: None)
    monkeypatch.setattr("daemon.nodes.time.monotonic", lambda: clock[0])
    duties, seen = Duties(shared, every=0), list[set[str]]()

    async def changed() -> None:
        seen.append({role for role in (JOBS, NOTICES) if duties.ours(role)})

    keeping = asyncio.create_task(duties.keep(lambda: [JOBS, NOTICES], changed))
    await ended.wait()
    keeping.cancel()
    await duties.give_up()
    assert not duties.ours(JOBS)
    return seen


async def test_what_is_gained_and_lost_is_told_once(shared: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[set[str] | None] = [set(), {JOBS}, {JOBS}, {JOBS, NOTICES}, {NOTICES}]
    assert await _follow(shared, monkeypatch, answers) == [{JOBS}, {JOBS, NOTICES}, {NOTICES}]


async def test_a_node_that_has_lost_the_database_ends_its_duties_before_another_takes_them(
    shared: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await _follow(shared, monkeypatch, [{JOBS}, None, None, None, None, {JOBS}]) == [{JOBS}, set(), {JOBS}]
    assert await _follow(shared, monkeypatch, [{JOBS}, None, {JOBS}]) == [{JOBS}]
