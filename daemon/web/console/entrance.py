"""The console's entrance: log in, log out."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from daemon import events
from daemon.web.console import access
from daemon.web.console.visit import LOGIN, MAX_FORM, Visit, form_of, room
from daemon.web.context import context_of
from daemon.web.rendering import SECURITY, render

HOME: Final = "/console/"
_BROWSER: Final = "optoutd_browser"  # a random number of this browser; the form must bring what only we make of it
_SECRET: Final = secrets.token_bytes(32)


async def login(request: Request) -> Response:
    """GET: the form. POST: 303 in, 403 for a wrong name or password (or a forged form), 429 after ten of them a minute."""
    if request.method == "POST":
        return await _log_in(request)
    operator, _ = access.who(request)
    return RedirectResponse(HOME, HTTPStatus.SEE_OTHER, SECURITY) if operator else _form(request, 200)


async def _log_in(request: Request) -> Response:
    form = await form_of(request, MAX_FORM)
    name, password, brought = (str(form.get(n, "")) for n in ("username", "password", "csrf_token"))
    browser = request.cookies.get(_BROWSER, "")
    if not browser or not secrets.compare_digest(brought.encode("utf-8", "replace"), _token_of(browser).encode()):
        raise HTTPException(HTTPStatus.FORBIDDEN)
    client, guesses = _client(request), request.state.guesses
    if guesses.too_many(client):
        return _form(request, HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": "60"})
    operator = await access.proved(request, name, password)
    if operator is None:
        guesses.failed(client)
        events.console_login_refused(client)
        return _form(request, HTTPStatus.FORBIDDEN)
    events.console_entered(operator.name)
    return access.let_in(request, RedirectResponse(HOME, HTTPStatus.SEE_OTHER, SECURITY), operator)


def _form(request: Request, status: int, headers: dict[str, str] | None = None) -> Response:
    browser = request.cookies.get(_BROWSER) or secrets.token_urlsafe(24)
    page = render("console/login.html", house=context_of(request).house, csrf_token=_token_of(browser), status=status)
    response = HTMLResponse(page, status, {**SECURITY, **(headers or {})})
    response.set_cookie(_BROWSER, browser, path=LOGIN, httponly=True, samesite="strict")
    return response


def _token_of(browser: str) -> str:
    return hmac.new(_SECRET, browser.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


def _client(request: Request) -> str:
    return request.client.host if request.client else ""


async def _log_out(visit: Visit) -> Response:
    access.sessions_of(visit.request).end(visit.request.cookies.get(access.COOKIE, ""))
    response = RedirectResponse(LOGIN, HTTPStatus.SEE_OTHER, SECURITY)
    response.delete_cookie(access.COOKIE, path="/")
    return response


ROUTES: Final = [
    Route("/console/login", login, methods=["GET", "POST"]),
    Route("/console/logout", room("check", _log_out), methods=["POST"]),
]
