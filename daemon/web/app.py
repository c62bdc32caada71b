"""The HTTP door as an application: its paths, and what is done around each request.

Everybody may come to the public paths. The operators' rooms (console, API, metrics) are there only if the context has
something to show in them: the door that the world can reach gets none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from daemon import events
from daemon.metrics import http_requests
from daemon.web import console, files, health, metrics, public
from daemon.web.api.app import PATH, api
from daemon.web.api.problems import problem
from daemon.web.badlinks import BadLinks
from daemon.web.checks import Checks
from daemon.web.console.access import is_misdirected
from daemon.web.console.guesses import Guesses
from daemon.web.console.sessions import Sessions
from daemon.web.console.visit import wrong
from daemon.web.context import Context
from daemon.web.errands import Errands
from daemon.web.pages import Page
from daemon.web.remembering import Remembering
from daemon.web.rendering import SECURITY
from daemon.web.uploads import Uploads
from daemon.web.workers import Workers

INSIDE: Final = frozenset(("console", "api", "metrics", "readyz"))  # first words of paths that are for operators
# First words of paths as they are counted; whatever else is asked for is `other`.
_AREAS: Final = INSIDE | {"u", "p", "undo", "healthz", "static"}
_ELSEWHERE: Final = (
    "Operators come to this machine by its own name (127.0.0.1, localhost), by the host of web.public_url, by web.console_host,"
    " or, without web.user_header, through one of web.trusted_proxies; this was asked of another host."
)
_CLOSE: Final = {"Connection": "close"}
_MISDIRECTED: Final = PlainTextResponse(
    _ELSEWHERE + "\n", HTTPStatus.MISDIRECTED_REQUEST, headers={**SECURITY, **_CLOSE}
)
_MISDIRECTED_PROGRAM: Final = problem(HTTPStatus.MISDIRECTED_REQUEST, _ELSEWHERE, headers=_CLOSE)
_NO_SNIFFING: Final = (b"x-content-type-options", b"nosniff")
_ORIGIN: Final = re.compile(r"https?://[^/]*", re.IGNORECASE)


def application(context: Context, workers: Workers) -> Starlette:
    """The routes of the door. `state.context` may be replaced between requests; `state.workers` has the threads."""
    app = Starlette(
        routes=[
            *public.ROUTES,
            *files.ROUTES,
            *health.ROUTES,
            *metrics.ROUTES,
            *console.ROUTES,
            *([] if context.inside is None else [Mount(PATH, app=api())]),  # which takes a while to build
        ],
        exception_handlers={HTTPException: _refused, Exception: _broken},
    )
    app.router.redirect_slashes = False  # RFC 8058 3.2: no redirects
    app.state.context, app.state.workers = context, workers
    return app


async def _refused(request: Request, error: Exception) -> Response:
    """No such page, or not with this method."""
    assert isinstance(error, HTTPException)
    if _first_word(request.scope["path"]) == "console":
        return wrong(request, error)
    return Page(request, "missing").paragraph("missing_text").way_out().answer(error.status_code, error.headers)


async def _broken(request: Request, _: Exception) -> Response:
    """A bug of ours; `Outermost` tells of it."""
    if _first_word(request.scope["path"]) == "console":
        return wrong(request, HTTPException(500))
    return Page(request, "later").paragraph("later_text").way_out().answer(500)


class Outermost:
    """Around the application: one spelling for each path, and nothing is raised out of it."""

    def __init__(self, app: Starlette):
        self._app = app
        self._uploads = Uploads(app.state.workers)
        self._kept: dict[str, object] = {
            "bad_links": BadLinks(),
            "sessions": Sessions(),
            "guesses": Guesses(),
            "remembering": Remembering(),
            "pulse": health.Pulse(),
            "figures": metrics.Figures(),
            "uploads": self._uploads,
            "checks": Checks(app.state.workers),
            "errands": Errands(app.state.workers),
        }

    def close(self) -> None:
        """Nothing is answered any more, and nothing is being worked at."""
        self._uploads.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context, workers = self._app.state.context, self._app.state.workers
        path = plain_path(scope["path"], context.base)
        answer: ASGIApp = self._app
        if _first_word(path) in INSIDE:
            if context.inside is None:
                path = "/"  # where there is nothing
            elif is_misdirected(Request(scope), context, context.inside):
                answer = _MISDIRECTED_PROGRAM if _first_word(path) == "api" else _MISDIRECTED
        state = {**scope.get("state", {}), "context": context, "workers": workers, **self._kept}

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                http_requests.inc(_area(path), f"{message['status'] // 100}xx")
                message = {**message, "headers": _as_it_says(message.get("headers", ()))}
            await send(message)

        try:
            await answer({**scope, "path": path, "headers": _plain(scope["headers"]), "state": state}, receive, counted)
        except Exception as error:  # noqa: BLE001 - told in our log; the client has had its answer from _broken
            events.failed("web", error)


def _plain(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Without backslashes in cookies, where none belongs (RFC 6265 4.1.1): the standard library of many a Python 3.11 and 3.12
    takes the square of their number to read them, seconds for 60 KB, in the event loop."""
    return [(name, value.replace(b"\\", b"") if name == b"cookie" else value) for name, value in headers]


def _as_it_says(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """With the word that no browser may take the answer for anything but what it says it is: also where a library answers."""
    kept = list(headers)
    return kept if any(name.lower() == _NO_SNIFFING[0] for name, _ in kept) else [*kept, _NO_SNIFFING]


def _first_word(path: str) -> str:
    return path.split("/")[1]


def _area(path: str) -> str:
    first = _first_word(path)
    return first if first in _AREAS else "other"


def plain_path(path: str, base: str) -> str:
    """A request's path as the routes know it.

    Without the origin (RFC 9112 3.2.2), without `base`, where a proxy left it there, without needless slashes, and with
    its first word in small letters: whatever a link went through, it should still work.
    """
    path = _ORIGIN.sub("", path, count=1) if path[:4].lower() == "http" else path
    path = path[len(base) :] if base and path.startswith(base + "/") else path
    path = path.replace("\n", "\ufffd")  # routes are patterns, in which nothing stands for a line end
    first, *others = [word for word in path.split("/") if word] or [""]
    return "/".join(["", first.lower(), *others])
