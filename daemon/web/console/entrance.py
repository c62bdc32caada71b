"""The console's entrance: log in, log out."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from daemon import events
from daemon.web.console import access
from daemon.web.console.forms import form_of, is_same
from daemon.web.console.guesses import SECONDS, Guesses, TooMany
from daemon.web.console.visit import LOGIN, Visit, room, stranger
from daemon.web.context import Holder, context_of
from daemon.web.rendering import SECURITY, render

HOME: Final = "/console/"
# Octets of the form: everybody may send it, and to compose accents (NFC) takes the square of a long row of them.
_MAX_LOGIN: Final = 8 * 1024
_BROWSER: Final = "optoutd_browser"  # a random number of this browser; the form must bring what only we make of it
_MADE_BY_US: Final = re.compile(r"[A-Za-z0-9_-]{32}")
_SECRET: Final = secrets.token_bytes(32)


async def login(request: Request) -> Response:
    """GET: the form. POST: 303 in, 403 for a wrong name or password (or a forged form), 429 after ten of them a minute."""
    if request.method == "POST":
        return await _log_in(request)
    try:
        entered = access.who(request)
    except access.Stranger as unknown:
        return stranger(request, str(unknown))
    if entered is None:
        return _form(request, HTTPStatus.OK)
    return access.tell_browser(request, _in(request), entered.shown) if entered.shown else _in(request)


def _in(request: Request) -> Response:
    response = RedirectResponse(HOME, HTTPStatus.SEE_OTHER, SECURITY)
    response.headers["location"] = access.wanted(request, response, HOME)
    return response


async def _log_in(request: Request) -> Response:
    form = await form_of(request, _MAX_LOGIN)
    name, password, brought = (str(form.get(n, "")) for n in ("username", "password", "csrf_token"))
    browser = _browser(request)
    if not browser or not is_same(brought, _token_of(browser)):
        raise HTTPException(HTTPStatus.FORBIDDEN, "This form is too old, or none of ours. Load the page again.")
    client, guesses = access.client(request), _guesses(request)
    if guesses.too_many(client):
        return _form(request, HTTPStatus.TOO_MANY_REQUESTS, retry=SECONDS)
    try:
        operator = await _prove(request, client, name, password)
    except (TooMany, TimeoutError):
        return _form(request, HTTPStatus.SERVICE_UNAVAILABLE, retry=10)
    if operator is None:
        events.console_login_refused(client)
        return _form(request, HTTPStatus.FORBIDDEN)
    events.console_entered(operator.name, client)
    return access.let_in(request, _in(request), operator)


async def _prove(request: Request, client: str, name: str, password: str) -> Holder | None:
    """Raises TooMany, TimeoutError."""
    guesses = _guesses(request)
    async with guesses.turn(client):
        operator = await access.proved(request, name, password)
    if operator is not None:
        guesses.forgive(client)
    return operator


def _form(request: Request, status: HTTPStatus, *, retry: float = 0) -> Response:
    """The form to log in. `retry`: seconds after which it makes sense to try again."""
    browser = _browser(request) or secrets.token_urlsafe(24)
    page = render("console/login.html", house=context_of(request).house, csrf_token=_token_of(browser), status=status)
    response = HTMLResponse(page, status, {**SECURITY, **({"Retry-After": f"{retry:.0f}"} if retry else {})})
    access.set_cookie(request, response, _BROWSER, browser, "strict")
    return response


def _browser(request: Request) -> str:
    """The number of this browser; "" if it has none that we could have made."""
    shown = request.cookies.get(access.cookie_name(request, _BROWSER), "")
    return shown if _MADE_BY_US.fullmatch(shown) else ""


def _token_of(browser: str) -> str:
    return hmac.new(_SECRET, browser.encode(), hashlib.sha256).hexdigest()


def _guesses(request: Request) -> Guesses:
    guesses: Guesses = request.state.guesses
    return guesses


async def _log_out(visit: Visit) -> Response:
    return access.let_out(visit.request, RedirectResponse(LOGIN, HTTPStatus.SEE_OTHER, SECURITY))


ROUTES: Final = [
    Route("/console/login", login, methods=["GET", "POST"]),
    Route("/console/logout", room(None, _log_out), methods=["POST"]),
]
