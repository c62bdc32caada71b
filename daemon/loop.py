"""The event loop, with two habits of asyncio's cured that years of running would show.

- A name server that does not answer holds a thread for half a minute, and asyncio takes it from those in which all else is
  done: after a few tries nobody would read `/metrics`, renew a lease or look after the duties. Here each name is asked
  for once at a time, in a thread that nobody else needs and nobody waits for at the end.
- Without a free file descriptor asyncio tries to accept a thousand times in a row, logs each, and does more of it
  every second. Here whoever waits at the door is hung up on (a client comes again), and the log says it once a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
from typing import Any, Final

from daemon import events

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE)
_MOST_WAITING: Final = 4096  # clients in the queue of a socket, more than any of ours holds
_TOLD_SECONDS: Final = 60.0


class Loop(asyncio.SelectorEventLoop):
    """As asyncio's own."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: dict[tuple[Any, ...], asyncio.Future[Any]] = {}
        self._spare: int | None = _spare()
        self._told_at = -_TOLD_SECONDS

    def close(self) -> None:
        """As asyncio's."""
        super().close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    # ---- names

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        """As socket.getaddrinfo, whose own time-outs are the resolver's: whoever asks has one of his own. Raises OSError."""
        question = (host, port, family, type, proto, flags)
        answer = self._asked.get(question)
        if answer is None:
            answer = self.create_future()
            try:
                threading.Thread(target=self._ask, args=(question, answer), name=f"name {host}", daemon=True).start()
            except RuntimeError as why:  # for want of memory
                raise OSError(errno.EAGAIN, str(why)) from None
            self._asked[question] = answer
        return await asyncio.shield(answer)  # others may wait for it, too

    def _ask(self, question: tuple[Any, ...], answer: asyncio.Future[Any]) -> None:
        found: Any
        try:
            found = socket.getaddrinfo(*question)
        except (OSError, UnicodeError) as why:
            found = why
        with contextlib.suppress(RuntimeError):  # the loop is closed: we have stopped
            self.call_soon_threadsafe(self._answered, question, answer, found)

    def _answered(self, question: tuple[Any, ...], answer: asyncio.Future[Any], found: Any) -> None:
        del self._asked[question]
        if isinstance(found, Exception):
            answer.set_exception(found)
            answer.exception()  # nobody may wait for it any more, and that is no fault
        else:
            answer.set_result(found)

    # ---- descriptors

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """As asyncio's, but for a client that could not be let in for want of a descriptor."""
        error, listening = context.get("exception"), context.get("socket")
        if listening is None or not isinstance(error, OSError) or error.errno not in _EXHAUSTED:
            super().call_exception_handler(context)
            return
        if self.time() - self._told_at >= _TOLD_SECONDS:
            self._told_at = self.time()
            events.descriptors_exhausted(str(error.strerror))
        self._hang_up_on_all(listening.fileno())

    def _hang_up_on_all(self, number: int) -> None:
        """With the one descriptor that was put by, so that there is nobody left whom asyncio would try to let in."""
        if self._spare is not None:
            os.close(self._spare)
        door = socket.socket(fileno=number)
        try:
            for _ in range(_MOST_WAITING):
                door.accept()[0].close()
        except OSError:  # nobody waits any more; or another thread was quicker, and asyncio tells us again
            pass
        finally:
            door.detach()
            self._spare = _spare()


def _spare() -> int | None:
    """A descriptor that is put by; None while there is none."""
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
