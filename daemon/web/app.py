"""The HTTP door as an application: its paths, and what is done around each request.

Everybody may come to the public paths. The operators' rooms (console, API, metrics) are there only if the context has
something to show in them: the door that the world can reach gets none.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from daemon import events
from daemon.web import console, oneclick
from daemon.web.checks import Checks
from daemon.web.console.access import Guesses
from daemon.web.console.sessions import Sessions
from daemon.web.context import Context, context_of
from daemon.web.pages import SECURITY, Page, stylesheet
from daemon.web.rendering import static_files
from daemon.web.uploads import Uploads
from daemon.web.workers import Workers

INSIDE: Final = frozenset(("console", "api", "metrics", "readyz"))  # first words of paths that are for operators
_ORIGIN: Final = re.compile(r"https?://[^/]*", re.IGNORECASE)


def application(context: Context, workers: Workers) -> Starlette:
    """The routes of the door. `state.context` may be replaced between requests; `state.workers` has the threads."""
    app = Starlette(
        routes=[
            Route("/u", oneclick.unsubscribe, methods=oneclick.METHODS),
            Route("/u/{token:path}", oneclick.unsubscribe, methods=oneclick.METHODS),
            Route("/static/style.css", _style),
            Route("/healthz", _alive),
            Route("/static/{name}", _static),
            *console.ROUTES,
        ],
        exception_handlers={HTTPException: _refused, Exception: _broken},
    )
    app.router.redirect_slashes = False  # RFC 8058 3.2: no redirects
    app.state.context, app.state.workers = context, workers
    return app


async def _alive(_: Request) -> Response:
    """That we can answer is the answer."""
    return PlainTextResponse("ok\n", headers=SECURITY)


async def _style(_: Request) -> Response:
    headers = {**SECURITY, "Cache-Control": "public, max-age=3600"}
    return Response(stylesheet(), media_type="text/css", headers=headers)


async def _static(request: Request) -> Response:
    """A file of the console."""
    found = static_files().get(request.path_params["name"])
    if found is None or context_of(request).inside is None:
        raise HTTPException(404)
    media_type, octets = found
    return Response(octets, media_type=media_type, headers={**SECURITY, "Cache-Control": "public, max-age=3600"})


async def _refused(request: Request, error: Exception) -> Response:
    """No such page, or not with this method."""
    assert isinstance(error, HTTPException)
    return Page(request, "missing").paragraph("missing_text").way_out().answer(error.status_code, error.headers)


async def _broken(request: Request, _: Exception) -> Response:
    """A bug of ours; `Outermost` tells of it."""
    return Page(request, "later").paragraph("later_text").way_out().answer(500)


class Outermost:
    """Around the application: one spelling for each path, and nothing is raised out of it."""

    def __init__(self, app: Starlette):
        self._app = app
        self._uploads = Uploads(app.state.workers)
        checks = Checks(app.state.workers)
        self._of_console = {
            "sessions": Sessions(),
            "guesses": Guesses(),
            "uploads": self._uploads,
            "checks": checks,
        }

    def close(self) -> None:
        """Nothing is answered any more, and nothing is being worked at."""
        self._uploads.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context, workers = self._app.state.context, self._app.state.workers
        path = plain_path(scope["path"], context.base)
        if context.inside is None and path.split("/")[1] in INSIDE:
            path = "/"  # where there is nothing
        state = {**scope.get("state", {}), "context": context, "workers": workers, **self._of_console}
        try:
            await self._app({**scope, "path": path, "state": state}, receive, send)
        except Exception as error:  # noqa: BLE001 - told in our log; the client has had its answer from _broken
            events.failed("web", error)


def plain_path(path: str, base: str) -> str:
    """A request's path as the routes know it.

    Without the origin (RFC 9112 3.2.2), without `base`, where a proxy left it there, without needless slashes, and with
    its first word in small letters: whatever a link went through, it should still work.
    """
    path = _ORIGIN.sub("", path, count=1) if path[:4].lower() == "http" else path
    path = path[len(base) :] if base and path.startswith(base + "/") else path
    first, *others = [word for word in path.split("/") if word] or [""]
    return "/".join(["", first.lower(), *others])
