"""What is begun and not waited for: whose it is, how it ends, and when it is forgotten."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daemon import events
from daemon.web import errands
from daemon.web.errands import Errand, Errands
from daemon.web.workers import Workers
from storage.engine import Unavailable


@pytest.fixture
def workers() -> Iterator[Workers]:
    """The threads."""
    made = Workers()
    yield made
    made.stop()


@pytest.fixture
def all_of(workers: Workers) -> Errands:
    """Those of one door."""
    return Errands(workers)


async def done(all_of: Errands, work: Callable[[Errand], Any], operator: str = "admin") -> Errand:
    """An errand that has ended."""
    errand = all_of.begin(Errand(operator, "Test", "x.html", {}), work)
    async with asyncio.timeout(10):
        while not errand.is_over:
            await asyncio.sleep(0.001)
    return errand


async def test_what_came_of_it_is_kept(all_of: Errands) -> None:
    def work(errand: Errand) -> int:
        errand.step()
        return 7

    errand = await done(all_of, work)
    assert (errand.came, errand.done, errand.trouble, errand.is_over) == (7, 1, "", True)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(Unavailable("the disk"), "could not be asked"), (ValueError("ann@example.com"), "an error of ours")],
)
async def test_what_went_wrong_is_told_without_particulars(
    all_of: Errands, error: Exception, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[BaseException] = []
    monkeypatch.setattr(events, "failed", lambda _, why: told.append(why))
    monkeypatch.setattr(events, "database_unavailable", told.append)

    def fail(_: Errand) -> None:
        raise error

    errand = await done(all_of, fail)
    assert sentence in errand.trouble
    assert str(error) not in errand.trouble
    assert (told, errand.is_over) == ([error], True)


async def test_it_is_found_by_whoever_began_it(all_of: Errands) -> None:
    errand = await done(all_of, lambda _: 1)
    assert all_of.find(errand.number, "admin") is errand
    assert all_of.find(errand.number, "kim") is None
    assert all_of.find("x", "admin") is None


async def test_it_is_forgotten_after_a_while_and_when_there_are_many(
    all_of: Errands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "_MOST", 3)
    first, *others = [await done(all_of, lambda _: 1) for _ in range(5)]
    assert all_of.find(first.number, "admin") is None
    assert all_of.find(others[-1].number, "admin") is others[-1]
    monkeypatch.setattr(errands, "KEPT_SECONDS", 0.0)
    assert all_of.find(others[-1].number, "admin") is None


async def test_a_door_that_stops_breaks_it_off_between_two_steps(workers: Workers, all_of: Errands) -> None:
    under_way, steps = threading.Event(), 0

    def work(errand: Errand) -> None:
        nonlocal steps
        under_way.set()
        while True:
            steps += 1
            errand.reached(steps)

    errand = all_of.begin(Errand("admin", "Test", "x.html", {}), work)
    behind = all_of.begin(Errand("admin", "Test", "x.html", {}), work)
    await asyncio.to_thread(under_way.wait, 10)
    await asyncio.to_thread(workers.stop)
    await asyncio.sleep(0)
    assert errand.trouble == behind.trouble == "the daemon was stopped"
    assert errand.done == steps
    assert not behind.began
