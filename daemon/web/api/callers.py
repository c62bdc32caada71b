"""Who calls, and what they may do: a token (RFC 6750), compared in constant time with those of all programs.

No cookies, so there is nothing that a page of somebody else could make a browser send.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request

from daemon.values import Right
from daemon.web.context import Holder, inside_of

_REALM: Final = 'Bearer realm="optoutd"'
MOST_AT_ONCE: Final = 16  # requests of one program: the threads that answer them are the console's, too


def let_in(request: Request, right: Right) -> Holder:
    """The program that calls, if it may. Raises HTTPException: 401, 403."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise HTTPException(401, "Send a token: Authorization: Bearer TOKEN", {"WWW-Authenticate": _REALM})
    holder = _known(inside_of(request).programs, token.strip())
    if holder is None:
        headers = {"WWW-Authenticate": f'{_REALM}, error="invalid_token"'}
        raise HTTPException(401, "There is no such token.", headers)
    demand(holder, right)
    request.state.program = holder
    return holder


def demand(program: Holder, right: Right) -> None:
    """Raises HTTPException (403) if the program has not this right."""
    if right not in program.rights:
        headers = {"WWW-Authenticate": f'{_REALM}, error="insufficient_scope", scope="{right}"'}
        raise HTTPException(403, f"This takes the right {right!r}, which the token does not have.", headers)


def _known(programs: tuple[Holder, ...], token: str) -> Holder | None:
    """Whose it is. It takes as long whatever is given: all are compared, as digests."""
    given, found = _digest(token), None
    for program in programs:
        if hmac.compare_digest(_digest(program.secret), given) and program.secret:
            found = program
    return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def program_of(request: Request) -> Holder:
    """The program that was let in."""
    program: Holder = request.state.program
    return program


def actor_of(request: Request) -> str:
    """Who does it, for the audit log."""
    return f"api {program_of(request).name}"


@contextmanager
def a_turn(request: Request, program: Holder) -> Iterator[None]:
    """One of the requests that a program may have under way. Raises HTTPException (429)."""
    busy: Counter[str] = request.app.state.busy
    if busy[program.name] >= MOST_AT_ONCE:
        raise HTTPException(429, f"More than {MOST_AT_ONCE} requests of this program at once.", {"Retry-After": "1"})
    busy[program.name] += 1
    try:
        yield
    finally:
        busy[program.name] -= 1
        if not busy[program.name]:
            del busy[program.name]
