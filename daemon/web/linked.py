"""What stands behind links with a token, whichever: how it is asked for, and what is said when it does not work.

    GET, HEAD   a page with buttons; changes nothing, for scanners follow every link in a mail
    POST        does it; commit, then answer: 200 means that it is on disk
    OPTIONS     204

No cookie, no redirect, no log-in. The token is in the path, so no log line repeats a path.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from daemon import events, metrics
from daemon.mail.tokens import Token
from daemon.web.badlinks import BadLinks
from daemon.web.clients import client_of
from daemon.web.context import Context, context_of, workers_of
from daemon.web.forms import WrongForm
from daemon.web.pages import Page
from daemon.web.rendering import SECURITY
from storage.address import SiteKey
from storage.engine import Unavailable, Unusable

METHODS: Final = ("GET", "HEAD", "POST", "OPTIONS")
RETRY_AFTER: Final = {"Retry-After": "60"}  # seconds
T = TypeVar("T")


async def answer(
    request: Request,
    read: Callable[[SiteKey, str], Token | None],
    show: Callable[[Request, Token], Response],
    act: Callable[[Request, Token], Awaitable[Response]],
    *,
    way_out: str = "write",
) -> Response:
    """Answer whatever is asked of a link. `read`: its token, None if it is none of ours; `show`: GET; `act`: POST.

    `act` may raise WrongForm, and what `commit` raises. `way_out`: the text about where else to turn, if nothing works.
    """
    if request.method == "OPTIONS":
        return Response(status_code=204, headers={**SECURITY, "Allow": ", ".join(METHODS)})
    context = context_of(request)
    token = read(context.ledger.site_key, request.path_params.get("token", ""))
    if token is None:
        return await _bad(request, way_out)
    try:
        return await act(request, token) if request.method == "POST" else show(request, token)
    except WrongForm as wrong:
        metrics.oneclick.inc("malformed")
        return Page(request, "wrong").paragraph("wrong_text").way_out(way_out).answer(wrong.status)
    except (Unavailable, Unusable, TimeoutError) as why:
        metrics.oneclick.inc("unavailable")
        events.database_unavailable(why if str(why) else "a click could not be written down in time")
        return Page(request, "later").paragraph("later_text").way_out(way_out).answer(503, RETRY_AFTER)


async def commit(request: Request, recording: Callable[[Context], T]) -> T:
    """Write something down. Raises Unavailable, Unusable, TimeoutError."""
    return await workers_of(request).write(partial(recording, context_of(request)))


async def _bad(request: Request, way_out: str) -> Response:
    """No token of ours: cut off on its way, or guessed. Only such requests ever wait; a person is told whom to write to."""
    context = context_of(request)
    bad_links: BadLinks = request.state.bad_links
    fits = await bad_links.wait(client_of(request, context.trusted_proxies))
    page = Page(request, "bad").paragraph("bad_text").way_out(way_out)
    return page.answer(400) if fits else page.answer(429, RETRY_AFTER)
