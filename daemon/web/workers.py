"""The threads of the HTTP door: the event loop is the relay's, too, and must not wait for a disk.

Writers take turns anyway, so one thread writes. Readers are a few; each has a gate of its own, whose connection is that
thread's. What takes minutes (a check of the whole record, an import) has a thread apart, and waits for nobody's page.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from daemon import events
from daemon.gate import Gate
from storage.engine import Unavailable, Unusable

COMMIT_SECONDS: Final = 6.0  # a writer waits up to 5 for another process' writer
READ_SECONDS: Final = 30.0
_READERS: Final = 4
_T = TypeVar("_T")


class Stopping(Exception):
    """The door stops, and what takes long ends here."""


class Workers:
    """Where a handler has its work done."""

    def __init__(self) -> None:
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="web-write")
        self._readers = ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="web-read")
        self._long = ThreadPoolExecutor(max_workers=1, thread_name_prefix="web-long")
        self._of_thread = threading.local()
        self._stopping = threading.Event()

    async def write(self, work: Callable[[], _T]) -> _T:
        """Have it written down: work whose turn does not come in time is not begun.

        Raises TimeoutError, and what the work raises. What is late may still be written: doing it twice is harmless.
        """
        return await self._wait(self._writer, work, COMMIT_SECONDS)

    async def read(self, work: Callable[[], _T]) -> _T:
        """Have something looked up. Raises TimeoutError, and what the work raises."""
        return await self._wait(self._readers, work, READ_SECONDS)

    def begin(self, work: Callable[[], _T], over: Callable[[_T | None, str], None]) -> asyncio.Future[_T]:
        """Begin what takes long, behind what was begun before.

        `over`: told, on the event loop, what came of it and "", or None and in half a sentence why nothing did.
        """
        future = asyncio.get_running_loop().run_in_executor(self._long, work)
        future.add_done_callback(lambda ended: over(*_came(ended)))
        return future

    def give_way(self, _: object = None) -> None:
        """Between two pieces of work that takes long: a thread that computes all the time keeps the relay waiting 5 ms for
        each of its turns. Raises Stopping."""
        if self._stopping.is_set():
            raise Stopping
        time.sleep(0.001)

    def gate(self, opened: Callable[[], Gate], of: object) -> Gate:
        """The gate of the reading thread that asks. `of`: what it was opened for; another one gets another gate."""
        if getattr(self._of_thread, "of", None) is not of:
            self._of_thread.gate, self._of_thread.of = opened(), of
        found: Gate = self._of_thread.gate
        return found

    async def _wait(self, pool: ThreadPoolExecutor, work: Callable[[], _T], seconds: float) -> _T:
        return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(pool, work), seconds)

    def stop(self) -> None:
        """Begin nothing more; wait for what is under way, which ends early if it takes long."""
        self._stopping.set()
        for pool in (self._writer, self._readers, self._long):
            pool.shutdown(cancel_futures=True)


def _came(ended: asyncio.Future[_T]) -> tuple[_T | None, str]:
    """What came of work, or why nothing did; told in our log, too, if that is something to be mended."""
    error = None if ended.cancelled() else ended.exception()
    if ended.cancelled() or isinstance(error, Stopping):
        return None, "the daemon was stopped"
    if isinstance(error, (Unavailable, Unusable)):
        events.database_unavailable(error)
        return None, "the database could not be asked"
    if error is not None:
        events.failed("web", error)
        return None, "an error of ours; the log of the daemon has it"
    return ended.result(), ""
