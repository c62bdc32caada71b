"""A request of an operator: who it is, what they may do, and the page they get.

A room is a coroutine that takes a Visit. `room` lets nobody into it who is not logged in or lacks the right; of a form it
has checked before that it came from a page of this very session.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from daemon import events
from daemon.values import Right
from daemon.web.console import access
from daemon.web.console.sessions import Session
from daemon.web.context import Context, Holder, Inside, context_of, inside_of
from daemon.web.rendering import SECURITY, rendered
from storage.engine import Unavailable, Unusable

LOGIN: Final = "/console/login"
# (path, name, the right it takes) of the rooms in the navigation.
ROOMS: Final[tuple[tuple[str, str, Right], ...]] = (
    ("/console/", "Overview", "check"),
    ("/console/suppressions", "Suppressions", "check"),
    ("/console/review", "Review", "review"),
    ("/console/imports", "Imports", "import"),
    ("/console/lists", "Lists", "check"),
    ("/console/undo", "Brake and undo", "lift"),
    ("/console/audit", "Audit", "check"),
    ("/console/hooks", "Webhooks", "check"),
    ("/console/settings", "Settings", "check"),
)
MAX_FORM: Final = 64 * 1024  # octets of a form without a file
_RETRY: Final = {"Retry-After": "10"}


@dataclass
class Visit:
    """One request. `form` is empty unless it was a POST."""

    request: Request
    operator: Holder
    session: Session
    form: FormData = field(default_factory=FormData)

    @property
    def context(self) -> Context:
        """By which settings it is answered."""
        return context_of(self.request)

    @property
    def inside(self) -> Inside:
        """The same of the operators' rooms."""
        return inside_of(self.request)

    @property
    def actor(self) -> str:
        """Who does it, for the audit log."""
        return f"console {self.operator.name}"

    def may(self, right: Right) -> bool:
        """Has the operator this right?"""
        return right in self.operator.rights

    def given(self, name: str, longest: int = 4_000) -> str:
        """A field of the form, else of the query, without space around it; "" if it is not there."""
        value = self.form.get(name, self.request.query_params.get(name, ""))
        return value.strip()[:longest] if isinstance(value, str) else ""

    def page(self, template: str, status: int = 200, **facts: Any) -> Response:
        """A page of the console: templates/console/TEMPLATE with these facts, and those of every page."""
        said, self.session.said = self.session.said, []
        of_all = {
            "house": self.context.house,
            "operator": self.operator,
            "may": self.may,
            "csrf_token": self.session.csrf_token,
            "here": self.request.url.path,
            "rooms": ROOMS,
            "said": said,
        }
        return HTMLResponse(rendered(f"console/{template}", **of_all, **facts), status, SECURITY)

    def go(self, path: str, said: str = "", **query: str) -> Response:
        """On to another page (303), which then says this once."""
        if said:
            self.session.said.append(said)
        asked = f"?{urlencode({k: v for k, v in query.items() if v})}" if any(query.values()) else ""
        return RedirectResponse(path + asked, HTTPStatus.SEE_OTHER, SECURITY)


Room = Callable[[Visit], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


def room(right: Right, within: Room, *, longest: int | None = MAX_FORM) -> Endpoint:
    """The endpoint of a room. `longest`: octets of what a form may bring; None: the room reads it itself, piece by piece, and
    calls `refuse_forged` before it believes any of it."""

    async def endpoint(request: Request) -> Response:
        operator, session = access.who(request)
        if session is None or operator is None:
            return RedirectResponse(LOGIN, HTTPStatus.SEE_OTHER, SECURITY)
        visit = Visit(request, operator, session)
        if request.method == "POST" and longest is not None:
            visit.form = await form_of(request, longest)
            refuse_forged(visit, visit.form.get("csrf_token", ""))
        if right not in operator.rights:
            return visit.page("refused.html", HTTPStatus.FORBIDDEN, right=right)
        try:
            return await within(visit)
        except (Unavailable, Unusable, TimeoutError) as why:
            events.database_unavailable(why if str(why) else "the console had no answer in time")
            return visit.page("later.html", HTTPStatus.SERVICE_UNAVAILABLE)
        finally:
            await visit.form.close()

    return endpoint


async def form_of(request: Request, longest: int) -> FormData:
    """The fields of a form. Raises HTTPException: 413 for too much, 400 for none."""
    stated = request.headers.get("content-length", "")
    if not stated.isdecimal() or len(stated) > 12:
        raise HTTPException(HTTPStatus.LENGTH_REQUIRED)
    if int(stated) > longest:
        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    return await request.form(max_files=1, max_fields=2_000)


def refuse_forged(visit: Visit, brought: object) -> None:
    """Raises HTTPException (403) for a form that is not of a page of this session. `brought`: its csrf_token."""
    if not isinstance(brought, str) or not secrets.compare_digest(
        brought.encode("utf-8", "replace"), visit.session.csrf_token.encode()
    ):
        raise HTTPException(HTTPStatus.FORBIDDEN)
