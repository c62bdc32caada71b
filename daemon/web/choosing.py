"""The page with all lists of the house, behind the same links: what is not kept is left.

    POST        `action=save` and `keep=ID` for each list to keep: opts out of the others
                `action=leave-all`: of everything

It takes away only, and shows every list as kept: it must not tell whoever holds the link what was left before.
"""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from daemon.mail.tokens import Token
from daemon.web import forms, linked
from daemon.web.context import Context, context_of
from daemon.web.forms import WrongForm
from daemon.web.leaving import leave, undo_link
from daemon.web.oneclick import read
from daemon.web.pages import Page
from storage.terms import ALL


async def choose(request: Request) -> Response:
    """Answer whatever is asked of /p/TOKEN."""
    return await linked.answer(request, read, _lists, _post)


def _lists(request: Request, _: Token) -> Response:
    context = context_of(request)
    lists = [(x.id, x.title or x.id) for x in context.lists().values()]
    page = Page(request, "title", "lists", lists=lists)
    return page.paragraph("lists_text" if lists else "choose_all").answer(200)


async def _post(request: Request, token: Token) -> Response:
    context = context_of(request)
    lists = context.lists()
    given = await forms.posted(request, more=len(lists))
    match forms.first(given).get("action"):
        case "leave-all":
            regret = await linked.commit(request, partial(_record, token=token, scopes=[ALL], words="action=leave-all"))
            page = Page(request, "done", "done", of_list=False, undo_link=undo_link(context, regret))
            return page.paragraph("done_all", "underway").answer(200)
        case "save":
            kept = {value for name, value in given if name == "keep"}
            left = [number for number, found in lists.items() if found.id not in kept]
            return await _leave(request, token, left) if left else _nothing(request)
        case _:
            raise WrongForm(400)


async def _leave(request: Request, token: Token, left: list[int]) -> Response:
    context = context_of(request)
    regret = await linked.commit(request, partial(_record, token=token, scopes=left, words="action=save"))
    titles = [context.title(number) for number in left]
    return (
        Page(request, "done", "left", titles=titles, undo_link=undo_link(context, regret))
        .paragraph("done_lists")
        .answer(200)
    )


def _nothing(request: Request) -> Response:
    return Page(request, "kept").paragraph("kept_text").way_out().answer(200)


def _record(context: Context, token: Token, scopes: list[int], words: str) -> str:
    return leave(context, token, scopes, "page", words)
