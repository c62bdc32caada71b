"""Letting operators in: by a password and a cookie, or by the word of a proxy that we trust.

A password file has the password, or its argon2 hash (`optoutd password` makes one); the hash takes tens of milliseconds
and is computed in a thread.

Where `web.user_header` is set, a trusted proxy names the operator in every request: the session is theirs for as long as
it does. From anybody else the field says nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import unicodedata
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal
from urllib.parse import urlsplit

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from daemon.web import clients
from daemon.web.console.sessions import Session, Sessions, digest
from daemon.web.context import Context, Holder, Inside, context_of, inside_of, workers_of
from daemon.web.rendering import SECURITY

_COOKIE: Final = "optoutd_session"
_WANTED: Final = "optoutd_wanted"
_WAY: Final = re.compile(r"/console/[!-~]*")  # nothing that a browser could take for another host
_LONGEST_WAY: Final = 1_000
_ARGON2: Final = "$argon2"


@dataclass(frozen=True, slots=True)
class Entered:
    """Somebody who is in. `shown`: what their browser is still to be told; "" if it knows."""

    operator: Holder
    session: Session
    shown: str = ""


class Stranger(Exception):
    """A proxy let somebody in whom the config does not know by this name."""


def sessions_of(request: Request) -> Sessions:
    """Those of this door."""
    sessions: Sessions = request.state.sessions
    return sessions


def client(request: Request) -> str:
    """The IP address of who asks."""
    return clients.client_of(request, context_of(request).trusted_proxies)


# ------------------------------------------------------------------ who is it?


def who(request: Request) -> Entered | None:
    """The operator of a request. Raises Stranger.

    One who is gone from the config, or has another password since, is not in any more.
    """
    named = _named_by_proxy(request)
    session = sessions_of(request).find(_cookie(request))
    operators = inside_of(request).operators
    if session is not None and session.by_proxy == (named is not None) and named in (None, session.operator):
        operator = operators.get(session.operator)
        if operator is not None and hmac.compare_digest(session.proof, digest(operator.secret)):
            return Entered(operator, session)
    if named is None:
        return None
    if (operator := operators.get(named)) is None:
        raise Stranger(named)
    shown, session = sessions_of(request).begin(operator.name, operator.secret, by_proxy=True)
    return Entered(operator, session, shown)


def _named_by_proxy(request: Request) -> str | None:
    """Whom a trusted proxy has let in; None: it does not say. A field that is there twice names nobody we know."""
    header = inside_of(request).user_header
    if not header or not clients.is_proxied(request, context_of(request).trusted_proxies):
        return None
    return ", ".join(value.strip() for value in request.headers.getlist(header)) or None


def is_misdirected(request: Request, context: Context, inside: Inside) -> bool:
    """Does a browser take us for another host? A page elsewhere may have let its own name lead to our address, to ask us
    what only this machine can (DNS rebinding); what its browser then says in `Host` it cannot change.

    A proxy on this machine and such a page come from the same address. So where the word of a proxy lets operators in, its
    requests, too, must be for a host that we know: the page could write the field in which the proxy names them.
    """
    host = clients.host_of(request)
    known = {urlsplit(context.public_url).hostname, inside.console_host}
    if host and (host in known or clients.is_this_machine(host)):
        return False
    any_host = not inside.user_header and not inside.console_host
    return not (any_host and clients.is_proxied(request, context.trusted_proxies))


# ------------------------------------------------------------------ the password


async def proved(request: Request, name: str, password: str) -> Holder | None:
    """The operator of this name, if that is the password. As slow for every name, whether there is such an operator or not.

    Raises TimeoutError.
    """
    operators = inside_of(request).operators
    operator = operators.get(name)
    kept = operator.secret if operator else ""
    tried = {_cost(o.secret): o.secret for o in operators.values()} | {_cost(kept): kept}
    fits = await workers_of(request).read(lambda: {cost: fits_password(one, password) for cost, one in tried.items()})
    return operator if fits[_cost(kept)] and operator is not None and operator.secret else None


def _cost(secret: str) -> str:
    """What comparing a password with it takes: nothing, or what an argon2 hash says in front. One secret of each cost is
    compared whoever is named, so that the time tells nobody which names there are."""
    return secret.rpartition("$")[0].rpartition("$")[0] if secret.startswith(_ARGON2) else ""


def why_unusable(secret: str) -> str:
    """Why nobody can come in by what a password or token file holds; "" if somebody can."""
    if not secret:
        return "is empty"
    if secret.startswith(_ARGON2):
        try:
            extract_parameters(secret)
        except InvalidHashError:
            return "is no whole argon2 hash (`optoutd password` makes one)"
    return ""


def fits_password(kept: str, given: str) -> bool:
    """Is `given` the password that is kept, as it is or as an argon2 hash? Whatever way its accents were typed."""
    given = composed(given)
    if kept.startswith(_ARGON2):
        try:
            return PasswordHasher().verify(kept.encode("utf-8", "replace"), given.encode("utf-8", "replace"))
        except (VerificationError, InvalidHashError):
            return False
    digests = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (composed(kept), given))
    return hmac.compare_digest(*digests)


def composed(password: str) -> str:
    """A password as it is hashed and compared (Unicode NFC)."""
    return unicodedata.normalize("NFC", password)


# ------------------------------------------------------------------ the cookie


def let_in(request: Request, response: Response, operator: Holder) -> Response:
    """Begin a session, in a cookie of the browser; the one that it had is over, whoever gave it to it."""
    sessions_of(request).end(_cookie(request))
    shown, _ = sessions_of(request).begin(operator.name, operator.secret)
    return tell_browser(request, response, shown)


def tell_browser(request: Request, response: Response, shown: str) -> Response:
    """Have it show this from now on."""
    set_cookie(request, response, _COOKIE, shown, "lax")
    return response


def let_out(request: Request, response: Response) -> Response:
    """End the session."""
    sessions_of(request).end(_cookie(request))
    secure = not _in_clear(request)
    response.delete_cookie(cookie_name(request, _COOKIE), path="/", secure=secure, httponly=True, samesite="lax")
    return response


def cookie_name(request: Request, name: str) -> str:
    """`__Host-`: a browser takes such a cookie from this very host only, and under TLS (RFC 6265bis 4.1.3.2)."""
    return name if _in_clear(request) else f"__Host-{name}"


def set_cookie(request: Request, response: Response, name: str, value: str, samesite: Literal["lax", "strict"]) -> None:
    """For as long as the browser is open."""
    named, secure = cookie_name(request, name), not _in_clear(request)
    response.set_cookie(named, value, path="/", secure=secure, httponly=True, samesite=samesite)


def send_to_entrance(request: Request, entrance: str) -> Response:
    """To the log-in, which leads back to where they wanted to go (`wanted`)."""
    response = RedirectResponse(entrance, HTTPStatus.SEE_OTHER, SECURITY)
    if request.method == "GET":
        way = f"{request.url.path}?{request.url.query}".rstrip("?")
        set_cookie(request, response, _WANTED, base64.urlsafe_b64encode(way.encode()[:_LONGEST_WAY]).decode(), "lax")
    return response


def wanted(request: Request, response: Response, home: str) -> str:
    """Where somebody wanted to go who was sent to the entrance: a page of the console, else `home`. Asked once."""
    name = cookie_name(request, _WANTED)
    shown = request.cookies.get(name, "")
    if shown:
        response.delete_cookie(name, path="/")
    try:
        way = base64.urlsafe_b64decode(shown[: 2 * _LONGEST_WAY]).decode("ascii")
    except ValueError:
        return home
    return way if _WAY.fullmatch(way) else home


def _cookie(request: Request) -> str:
    return request.cookies.get(cookie_name(request, _COOKIE), "")


def _in_clear(request: Request) -> bool:
    """Plain HTTP to this machine: the one place where a cookie need not be Secure."""
    scheme = clients.scheme_of(request, context_of(request).trusted_proxies)
    return scheme == "http" and clients.is_this_machine(clients.host_of(request))
