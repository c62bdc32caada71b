"""Many look at a page, and the database is asked once."""

from __future__ import annotations

import asyncio
import time

import pytest

from daemon.web.remembering import Remembering


class Asking:
    """A question that counts how often it is asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked = 0
        self.error = error

    async def __call__(self) -> int:
        self.asked += 1
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        return self.asked


async def test_all_who_ask_at_the_same_time_hear_one_answer() -> None:
    kept, ask = Remembering(), Asking()
    answers = await asyncio.gather(*(kept.get("q", ask, of=1, seconds=60) for _ in range(50)))
    assert answers == [1] * 50
    assert await kept.get("q", ask, of=1, seconds=60) == 1
    assert await kept.get("other", ask, of=1, seconds=60) == 2


async def test_an_answer_grows_old(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    kept, ask = Remembering(), Asking()
    await kept.get("q", ask, of=1, seconds=60)
    clock[0] = 59
    assert await kept.get("q", ask, of=1, seconds=60) == 1
    clock[0] = 61
    assert await kept.get("q", ask, of=1, seconds=60) == 2


async def test_what_took_long_is_kept_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    asked = 0

    async def slow() -> int:
        nonlocal asked
        asked += 1
        clock[0] += 10
        return asked

    kept = Remembering()
    await kept.get("q", slow, of=1, seconds=60)
    clock[0] = 10 + 199
    assert await kept.get("q", slow, of=1, seconds=60) == 1
    clock[0] = 10 + 201
    assert await kept.get("q", slow, of=1, seconds=60) == 2


async def test_an_error_is_told_to_all_and_kept_for_nobody() -> None:
    kept, ask = Remembering(), Asking(ValueError("away"))
    answers = await asyncio.gather(*(kept.get("q", ask, of=1, seconds=60) for _ in range(3)), return_exceptions=True)
    assert [str(a) for a in answers] == ["away"] * 3
    assert ask.asked == 1
    ask.error = None
    assert await kept.get("q", ask, of=1, seconds=60) == 2


async def test_other_settings_get_other_answers() -> None:
    kept, ask = Remembering(), Asking()
    assert await kept.get("q", ask, of="old", seconds=60) == 1
    assert await kept.get("q", ask, of="new", seconds=60) == 2


async def test_what_was_asked_by_the_old_settings_is_no_answer_for_the_new() -> None:
    kept, going = Remembering(), asyncio.Event()

    async def slow() -> str:
        await going.wait()
        return "old"

    async def quick() -> str:
        return "new"

    old = asyncio.create_task(kept.get("q", slow, of="old", seconds=60))
    await asyncio.sleep(0)
    assert await kept.get("q", quick, of="new", seconds=60) == "new"
    going.set()
    assert await old == "old"
    assert await kept.get("q", quick, of="new", seconds=60) == "new"


async def test_who_hangs_up_takes_the_answer_from_nobody() -> None:
    kept, going = Remembering(), asyncio.Event()

    async def slow() -> int:
        await going.wait()
        return 7

    first = asyncio.create_task(kept.get("q", slow, of=1, seconds=60))
    await asyncio.sleep(0)
    second = asyncio.create_task(kept.get("q", slow, of=1, seconds=60))
    await asyncio.sleep(0)
    first.cancel()
    going.set()
    assert await second == 7
