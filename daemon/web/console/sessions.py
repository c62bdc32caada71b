"""Who is logged in: kept in memory, so a restart logs everybody out, and a log-out is one at once.

What the browser has is a random number; what is kept is its digest.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

IDLE_SECONDS: Final = 2 * 3600.0
LONGEST_SECONDS: Final = 12 * 3600.0
_MOST: Final = 1_000  # sessions; the one that was idle longest goes first
_MOST_EACH: Final = 50  # of one operator: a program that comes through a proxy without a cookie begins one each time


@dataclass(slots=True)
class Session:
    """One browser of one operator. `csrf_token`: what each of its forms must bring; `said`: to be shown on the next page.

    `proof`: a digest of the secret that let them in: another secret, and the session is over. `by_proxy`: it was the word
    of a proxy that did.
    """

    operator: str
    proof: bytes
    by_proxy: bool
    began: float
    seen: float
    csrf_token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    said: list[str] = field(default_factory=list)


class Sessions:
    """All of one door. For one event loop."""

    def __init__(self) -> None:
        self._all: OrderedDict[bytes, Session] = OrderedDict()

    def begin(self, operator: str, secret: str, *, by_proxy: bool = False) -> tuple[str, Session]:
        """Log somebody in; returns what their browser shows from now on, and the session."""
        shown = secrets.token_urlsafe(32)
        now = time.monotonic()
        theirs = [key for key, session in self._all.items() if session.operator == operator]
        for key in theirs[: max(0, len(theirs) - _MOST_EACH + 1)]:
            del self._all[key]
        session = self._all[digest(shown)] = Session(operator, digest(secret), by_proxy, now, now)
        while len(self._all) > _MOST:
            self._all.popitem(last=False)
        return shown, session

    def find(self, shown: str) -> Session | None:
        """Whose it is; None: nobody's (any more)."""
        key = digest(shown)
        session, now = self._all.get(key), time.monotonic()
        if session is None:
            return None
        if now - session.seen > IDLE_SECONDS or now - session.began > LONGEST_SECONDS:
            del self._all[key]
            return None
        session.seen = now
        self._all.move_to_end(key)
        return session

    def end(self, shown: str) -> None:
        """Log out."""
        self._all.pop(digest(shown), None)


def digest(shown: str) -> bytes:
    """What is kept of what must not be."""
    return hashlib.sha256(shown.encode("utf-8", "surrogateescape")).digest()
