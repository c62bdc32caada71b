"""Answers of the database that many may ask for, asked once: a page that is loaded again and again costs nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

_T = TypeVar("_T")
# An answer is kept for so many times as long as it took, so that asking is 5 % of a thread at most.
_TIMES: Final = 20.0


class Remembering:
    """The last answer to each question of a door. For one event loop.

    `of`: what the questions were asked of (the settings of the door); others get other answers.
    """

    def __init__(self) -> None:
        self._of: object = None
        self._kept: dict[str, tuple[float, Any]] = {}  # until when, what
        self._asking: dict[str, asyncio.Task[Any]] = {}

    async def get(self, name: str, ask: Callable[[], Awaitable[_T]], *, of: object, seconds: float) -> _T:
        """The answer to the question of this name, not older than `seconds` (or than 20 times as long as it took).

        Who asks while it is being asked waits for the same answer. Raises what `ask` raises, and keeps that for nobody.
        """
        if of is not self._of:
            self._of, self._kept, self._asking = of, {}, {}
        until, answer = self._kept.get(name, (0.0, None))
        if until > time.monotonic():
            found: _T = answer
            return found
        asking: asyncio.Task[_T] | None = self._asking.get(name)
        if asking is None:
            asking = self._asking[name] = asyncio.create_task(self._ask(name, ask, of, seconds))
            asking.add_done_callback(_heard)
        return await asyncio.shield(asking)  # who hangs up takes the answer from nobody else

    async def _ask(self, name: str, ask: Callable[[], Awaitable[_T]], of: object, seconds: float) -> _T:
        began = time.monotonic()
        try:
            answer = await ask()
        finally:
            if of is self._of:
                del self._asking[name]
        ended = time.monotonic()
        if of is self._of:
            self._kept[name] = ended + max(seconds, _TIMES * (ended - began)), answer
        return answer


def _heard(asked: asyncio.Task[Any]) -> None:
    """An error that nobody waited for is told by whoever asks next."""
    if not asked.cancelled():
        asked.exception()
