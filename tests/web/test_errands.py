"""What is begun and not waited for: whose it is, how it ends, and when it is forgotten."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from daemon import events
from daemon.web import errands
from daemon.web.errands import Errand, Errands
from daemon.web.workers import Workers
from storage.engine import Unavailable


def done(work: Callable[[Errand], Any], of: Errands | None = None, operator: str = "admin") -> Errand:
    """An errand that has ended: where it began is no thread."""

    loops: list[asyncio.AbstractEventLoop] = []

    def begin(run: Callable[[], None]) -> asyncio.Future[None]:
        run()
        loops.append(asyncio.new_event_loop())
        return asyncio.Future(loop=loops[-1])

    errand = (of or Errands()).begin(begin, Errand(operator, "Test", "x.html", {}), work)
    for loop in loops:
        loop.close()
    return errand


def test_what_came_of_it_is_kept() -> None:
    def work(errand: Errand) -> int:
        errand.step()
        return 7

    errand = done(work)
    assert (errand.came, errand.done, errand.trouble, errand.is_over) == (7, 1, "", True)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(Unavailable("the disk"), "could not be asked"), (ValueError("ann@example.com"), "it is our bug")],
)
def test_what_went_wrong_is_a_sentence_without_particulars(
    error: Exception, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[BaseException] = []
    monkeypatch.setattr(events, "failed", lambda _, why: told.append(why))
    monkeypatch.setattr(events, "database_unavailable", told.append)

    def fail(_: Errand) -> None:
        raise error

    errand = done(fail)
    assert sentence in errand.trouble
    assert str(error) not in errand.trouble
    assert (told, errand.is_over) == ([error], True)


def test_it_is_found_by_whoever_began_it() -> None:
    all_of = Errands()
    errand = done(lambda _: 1, all_of)
    assert all_of.find(errand.number, "admin") is errand
    assert all_of.find(errand.number, "kim") is None
    assert all_of.find("x", "admin") is None


def test_it_is_forgotten_after_a_while_and_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "_MOST", 3)
    all_of = Errands()
    first, *others = [done(lambda _: 1, all_of) for _ in range(5)]
    assert all_of.find(first.number, "admin") is None
    assert all_of.find(others[-1].number, "admin") is others[-1]
    monkeypatch.setattr(errands, "KEPT_SECONDS", 0.0)
    assert all_of.find(others[-1].number, "admin") is None


async def test_a_door_that_stops_breaks_it_off_between_two_steps() -> None:
    workers, under_way, steps = Workers(), threading.Event(), 0

    def work(errand: Errand) -> None:
        nonlocal steps
        under_way.set()
        while True:
            steps += 1
            errand.reached(steps)

    errand = workers.errands.begin(workers.begin, Errand("admin", "Test", "x.html", {}), work)
    await asyncio.to_thread(under_way.wait, 10)
    await asyncio.to_thread(workers.stop)
    assert "The daemon was stopped" in errand.trouble
    assert errand.done == steps
