"""A request of an operator: who it is, what they may do, and the page they get.

A room is a coroutine that takes a Visit. `room` lets nobody into it who is not logged in or lacks the right; of a form it
has checked before that it came from a page of this very session.
"""

from __future__ import annotations

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
from daemon.web.console.forms import MAX_FORM, form_of, is_same
from daemon.web.console.sessions import Session
from daemon.web.context import Context, Holder, Inside, context_of, inside_of, workers_of
from daemon.web.rendering import SECURITY, render
from daemon.web.workers import Workers
from storage.engine import Unavailable, Unusable

LOGIN: Final = "/console/login"
_MOST_SAID: Final = 20  # sentences that wait for the next page
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
    def workers(self) -> Workers:
        """The threads for what it takes."""
        return workers_of(self.request)

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
            "here": self.request.scope["path"],  # request.url would read the Host field, whatever is in it
            "rooms": ROOMS,
            "said": said,
        }
        return HTMLResponse(render(f"console/{template}", status=status, **of_all, **facts), status, SECURITY)

    def go(self, path: str, said: str = "", **query: str) -> Response:
        """On to another page (303), which then says this once."""
        if said:
            self.session.said.append(said)
        del self.session.said[:-_MOST_SAID]  # of a program that never looks at a page
        asked = f"?{urlencode({k: v for k, v in query.items() if v})}" if any(query.values()) else ""
        return RedirectResponse(path + asked, HTTPStatus.SEE_OTHER, SECURITY)


Room = Callable[[Visit], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


def room(right: Right | None, within: Room, *, longest: int | None = MAX_FORM) -> Endpoint:
    """The endpoint of a room. `right`: None, if it is open to every operator. `longest`: octets of what a form may bring;
    None: the room reads it itself, piece by piece, and calls `refuse_forged` before it believes any of it."""

    async def endpoint(request: Request) -> Response:
        try:
            entered = access.who(request)
        except access.Stranger as unknown:
            return stranger(request, str(unknown))
        if entered is None:
            return access.send_to_entrance(request, LOGIN)
        return _told(request, entered, await _answer(_visit(request, entered), right, within, longest))

    return endpoint


async def _answer(visit: Visit, right: Right | None, within: Room, longest: int | None) -> Response:
    """What is said in the room. Raises HTTPException."""
    if right is not None and not visit.may(right):
        return visit.page("refused.html", HTTPStatus.FORBIDDEN, right=right)
    reads = visit.request.method == "POST"
    if reads and longest is not None:
        visit.form = await form_of(visit.request, longest)
    try:
        if reads and longest is not None:
            refuse_forged(visit, visit.form.get("csrf_token"))
        return await within(visit)
    except (Unavailable, Unusable, TimeoutError) as why:
        events.database_unavailable(why if str(why) else "the console had no answer in time")
        return visit.page("later.html", HTTPStatus.SERVICE_UNAVAILABLE)
    finally:
        await visit.form.close()


def refuse_forged(visit: Visit, brought: object) -> None:
    """Raises HTTPException (403) for a form that is not of a page of this session. `brought`: its csrf_token."""
    if not is_same(brought, visit.session.csrf_token):
        sentence = "This form is of a page from before you logged in, or not of ours. Nothing was changed: load the page again."
        raise HTTPException(HTTPStatus.FORBIDDEN, sentence)


def stranger(request: Request, named: str) -> Response:
    """What somebody sees whom a proxy let in, and whom we do not know."""
    return _outside(request, "stranger.html", HTTPStatus.FORBIDDEN, named=named)


def wrong(request: Request, error: HTTPException) -> Response:
    """The console's page for what went wrong before a room was reached, or within it: 404, 403, 413 and so on."""
    status, sentence = error.status_code, "" if error.detail == HTTPStatus(error.status_code).phrase else error.detail
    try:
        entered = access.who(request)
    except access.Stranger as unknown:
        return stranger(request, str(unknown))
    if entered is None:
        response = _outside(request, "wrong.html", status, sentence=sentence)
    else:
        response = _told(request, entered, _visit(request, entered).page("wrong.html", status, sentence=sentence))
    response.headers.update(error.headers or {})
    return response


def _outside(request: Request, template: str, status: int, **facts: Any) -> Response:
    page = render(f"console/{template}", house=context_of(request).house, status=status, **facts)
    return HTMLResponse(page, status, SECURITY)


def _visit(request: Request, entered: access.Entered) -> Visit:
    return Visit(request, entered.operator, entered.session)


def _told(request: Request, entered: access.Entered, response: Response) -> Response:
    return access.tell_browser(request, response, entered.shown) if entered.shown else response
