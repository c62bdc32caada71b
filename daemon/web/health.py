"""Signs of life: /healthz (the loop runs) and /readyz (mail can be answered for), for whoever starts, watches and balances us.

Whether we are ready, our own parts decide: can the suppression list be asked (which says of schema and site key, too), and
do the listeners listen? An IMAP server or an upstream that is away is told, but no reason to send nobody here: opt-outs
are found later all the same, and clients hear 451 from every node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from daemon.log import masked
from daemon.vitals import MailboxVitals, Vitals
from daemon.web.context import asked, inside_of
from daemon.web.rendering import SECURITY
from storage.address import parse
from storage.engine import Unavailable, Unusable

PATIENCE: Final = 0.8  # s for the database: the answer is there within a second
OK: Final = "ok"
_LONGEST: Final = 120  # characters of a reason
_NOBODY: Final = parse("nobody@optoutd.invalid")  # RFC 2606; whoever it is, it can be asked about
_T = TypeVar("_T")


class Shared(Generic[_T]):
    """Something that may hang, done once at a time: whoever wants it meanwhile waits for the same.

    So a database that does not answer holds one thread, and not one for every look at us.
    """

    def __init__(self) -> None:
        self._running: asyncio.Task[_T] | None = None

    async def ask(self, begin: Callable[[], Coroutine[Any, Any, _T]], seconds: float) -> _T:
        """What comes of it. Raises TimeoutError after so many seconds, in which it goes on; and what it raises."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(begin())
            self._running.add_done_callback(_heard)
        running = self._running
        await asyncio.wait((running,), timeout=seconds)
        if not running.done():
            raise TimeoutError
        return running.result()


def _heard(task: asyncio.Task[Any]) -> None:
    """An error for which nobody waits any more was one of the past."""
    if not task.cancelled():
        task.exception()


class Pulse:
    """Can the suppression list be asked?"""

    def __init__(self) -> None:
        self._asking: Shared[str] = Shared()

    async def database(self, request: Request) -> str:
        """`ok`, or in a few words why not; within PATIENCE."""
        try:
            return await self._asking.ask(lambda: _database(request), PATIENCE)
        except TimeoutError:
            return f"no answer within {PATIENCE} s"


async def _database(request: Request) -> str:
    """The very question that is put for each recipient: also a list that was restored with a gap cannot be asked."""
    try:
        await asked(request, lambda gate: gate.rows(_NOBODY))
    except (Unavailable, Unusable, TimeoutError) as why:
        return masked(why)[:_LONGEST] or "no answer"
    return OK


async def _alive(_: Request) -> Response:
    """That we can answer is the answer."""
    return PlainTextResponse("ok\n", headers=SECURITY)


async def _ready(request: Request) -> Response:
    """200, or 503 when this node can answer for nobody."""
    pulse: Pulse = request.state.pulse
    vitals = inside_of(request).vitals()
    needed = {"database": await pulse.database(request), **_listeners(vitals)}
    ready = all(how == OK for how in needed.values())
    fact = {"ready": ready, "parts": {**needed, **_servers(vitals)}}
    return JSONResponse(fact, 200 if ready else 503, SECURITY)


def _listeners(vitals: Vitals) -> dict[str, str]:
    """Our own doors, of those that the config asks for. This one answers."""
    wanted = ["relay"] if vitals.upstream is not None else []
    return {
        door: OK if vitals.bound.get(door) else "not listening" for door in (*wanted, *({"policy"} & {*vitals.bound}))
    }


def _servers(vitals: Vitals) -> dict[str, str]:
    """Those of others."""
    told = {f"mailbox:{mailbox.name}": _mailbox(mailbox) for mailbox in vitals.mailboxes}
    return told if vitals.upstream is None else {**told, "upstream": vitals.upstream[:_LONGEST] or OK}


def _mailbox(mailbox: MailboxVitals) -> str:
    if not mailbox.ours:
        return "not watched by this node"
    return OK if mailbox.connected else mailbox.trouble[:_LONGEST] or "not connected yet"


ROUTES: Final = (Route("/healthz", _alive), Route("/readyz", _ready))
