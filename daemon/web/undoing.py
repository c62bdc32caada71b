"""The page that gives back, behind two kinds of link: of a notice (30 days), and of the page after a click (an hour).

    POST        `undo=1`: undoes the opt-out that the notice is about, or what this very click changed

Its answer is the same whatever there was to undo.
"""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from daemon.intake import clicking, undoing
from daemon.mail import tokens
from daemon.mail.tokens import Token
from daemon.web import forms, linked
from daemon.web.context import Context, context_of
from daemon.web.forms import WrongForm
from daemon.web.pages import Page
from storage.address import SiteKey
from storage.write import write


async def undo(request: Request) -> Response:
    """Answer whatever is asked of /undo/TOKEN."""
    return await linked.answer(request, _read, _ask, _post, way_out="write_again")


def _read(site_key: SiteKey, text: str) -> Token | None:
    return tokens.read(site_key, "undo", text) or tokens.read(site_key, "regret", text)


def _is_good(context: Context, token: Token) -> bool:
    now = context.now()
    return clicking.in_time(token.click, now) if token.click else undoing.in_time(token, now)


def _ask(request: Request, token: Token) -> Response:
    if not _is_good(context_of(request), token):
        return _expired(request)
    return Page(request, "undo", "undo").paragraph("undo_text").answer(200)


async def _post(request: Request, token: Token) -> Response:
    given = forms.first(await forms.posted(request))
    if given.get("undo") != "1":
        raise WrongForm(400)
    if not await linked.commit(request, partial(_record, token=token)):
        return _expired(request)
    return Page(request, "undone").paragraph("undone_text").way_out("write_again").answer(200)


def _record(context: Context, token: Token) -> bool:
    """False: it came too late. Raises Unavailable, Unusable."""
    if not _is_good(context, token):
        return False
    now = context.now()
    with write(context.ledger, now, "web") as w:
        if token.click:
            clicking.regret(w, token)
        else:
            undoing.by_link(w, token, now, "page")
    return True


def _expired(request: Request) -> Response:
    return Page(request, "expired").paragraph("expired_text").way_out("write_again").answer(400)
