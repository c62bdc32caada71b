"""One-click opt-out (RFC 8058): what stands behind the `https` link that the relay stamps.

    POST        `List-Unsubscribe=One-Click`, from a mail program or from a button of the page: opts out
                `all=1` beside it: of everything, whatever list the link names

The answer says nothing of whether we know the person, or knew of the wish before.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from daemon.mail import tokens
from daemon.mail.tokens import Token
from daemon.web import forms, linked
from daemon.web.context import Context, context_of
from daemon.web.forms import WrongForm
from daemon.web.leaving import leave, undo_link
from daemon.web.pages import Page
from storage.address import SiteKey
from storage.terms import ALL

_FIELD: Final = ("List-Unsubscribe", "One-Click")


async def unsubscribe(request: Request) -> Response:
    """Answer whatever is asked of /u/TOKEN."""
    return await linked.answer(request, read, _choice, _post)


def read(site_key: SiteKey, text: str) -> Token | None:
    """The token of a stamped link."""
    return tokens.read(site_key, "link", text)


def _choice(request: Request, token: Token) -> Response:
    """What may be left."""
    context = context_of(request)
    title = context.title(token.list_number)
    others = len(context.lists()) > 1
    link = f"{context.base}/p/{request.path_params['token'].lower()}" if others else ""
    page = Page(request, "title", "choice", list_title=title or "", of_list=title is not None, lists_link=link)
    return page.paragraph("choose_all" if title is None else "choose").answer(200)


async def _post(request: Request, token: Token) -> Response:
    given = forms.first(await forms.posted(request))
    if given.get(_FIELD[0]) != _FIELD[1]:
        raise WrongForm(400)
    context = context_of(request)
    title = context.title(token.list_number)
    everything = title is None or given.get("all") == "1"
    regret = await linked.commit(request, partial(record, token=token, everything=everything))
    return _done(request, None if everything else title, undo_link(context, regret))


def record(context: Context, token: Token, *, everything: bool) -> str:
    """Suppress whom the token names, within its list or `everything`; a token to undo it. Raises Unavailable, Unusable."""
    words = "=".join(_FIELD) + "&all=1" * everything
    return leave(context, token, [ALL if everything else token.list_number], "one-click", words)


def _done(request: Request, title: str | None, undo: str) -> Response:
    of_list = title is not None
    page = Page(request, "done", "done", list_title=title or "", of_list=of_list, undo_link=undo)
    return page.paragraph("done_list" if of_list else "done_all", "underway").answer(200)
