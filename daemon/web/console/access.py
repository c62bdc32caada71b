"""Letting operators in: passwords, the cookie, and how often somebody may guess.

A password file has the password, or its argon2 hash (`optoutd password` makes one); the hash takes tens of
milliseconds and is computed in a thread.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from starlette.requests import Request
from starlette.responses import Response

from daemon.web.console.sessions import Session, Sessions
from daemon.web.context import Holder, inside_of, workers_of

COOKIE: Final = "optoutd_session"
_ARGON2: Final = "$argon2"
_FAILURES, _PER_SECONDS = 10, 60.0  # of one client; then 429
_MOST_CLIENTS: Final = 10_000
_ABSENT: Final = Holder("", secrets.token_urlsafe(32), frozenset())  # whoever gives an unknown name waits as long


def sessions_of(request: Request) -> Sessions:
    """Those of this door."""
    sessions: Sessions = request.state.sessions
    return sessions


def who(request: Request) -> tuple[Holder | None, Session | None]:
    """The operator of a request's session; one who is gone from the config has none any more."""
    session = sessions_of(request).find(request.cookies.get(COOKIE, ""))
    operator = inside_of(request).operators.get(session.operator) if session else None
    return (operator, session) if operator else (None, None)


async def proved(request: Request, name: str, password: str) -> Holder | None:
    """The operator of this name, if that is the password. As slow for a name that there is not."""
    operator = inside_of(request).operators.get(name)
    known = operator if operator is not None and operator.secret else _ABSENT
    fits = await workers_of(request).read(lambda: fits_password(known.secret, password))
    return operator if fits and known is operator else None


def fits_password(kept: str, given: str) -> bool:
    """Is `given` the password that is kept, as it is or as an argon2 hash?"""
    if kept.startswith(_ARGON2):
        try:
            return PasswordHasher().verify(kept, given)
        except (VerificationError, InvalidHashError):
            return False
    digests = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (kept, given))
    return hmac.compare_digest(*digests)


def let_in(request: Request, response: Response, operator: Holder) -> Response:
    """Begin a session, in a cookie of the browser."""
    shown = sessions_of(request).begin(operator.name)
    response.set_cookie(COOKIE, shown, path="/", secure=not _in_clear(request), httponly=True, samesite="lax")
    return response


def _in_clear(request: Request) -> bool:
    """Plain HTTP to loopback: the one place where a cookie need not be Secure."""
    if request.url.scheme != "http":
        return False
    host = request.url.hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guesses:
    """Failed log-ins of the last minute, by client."""

    def __init__(self) -> None:
        self._failed: OrderedDict[str, list[float]] = OrderedDict()

    def too_many(self, client: str) -> bool:
        """Must this client wait?"""
        return len(self._recent(client)) >= _FAILURES

    def failed(self, client: str) -> None:
        """One more."""
        self._failed[client] = [*self._recent(client), time.monotonic()]
        self._failed.move_to_end(client)
        while len(self._failed) > _MOST_CLIENTS:
            self._failed.popitem(last=False)

    def _recent(self, client: str) -> list[float]:
        since = time.monotonic() - _PER_SECONDS
        return [at for at in self._failed.get(client, ()) if at > since]
