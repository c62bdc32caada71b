"""The webhooks: are the programs told of changes, and what were they never told?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.routing import Route

from daemon import webhooks
from daemon.web.console.visit import Visit, room
from storage import hooks
from storage.engine import Ledger
from storage.suppressions import list_numbers
from storage.write import Write, write

PATH: Final = "/console/hooks"
_PAGE: Final = 100  # changes on one
_LARGEST: Final = 2**63 - 1


async def overview(visit: Visit) -> Response:
    """How it is with each hook, and the changes that were given up (of one hook, if `hook` names it)."""
    name, after = visit.given("hook", 64), _number(visit.given("after", 20)) or 0
    facts = await visit.workers.read(partial(_facts, visit, name, after))
    return visit.page("hooks.html", **facts, of=name)


def _facts(visit: Visit, name: str, after: int) -> dict[str, Any]:
    ledger = visit.context.ledger
    with ledger.reading() as db:
        states = webhooks.standing(db, visit.inside.hooks)
        numbers = list_numbers(db)
        lost = [webhooks.untold(x, numbers) for x in hooks.lost(db, name or None, after, _PAGE + 1)]
    for state in states:
        state["host"] = urlsplit(state["url"] or "").netloc  # a path may be what lets one in there
    page = lost[:_PAGE]
    return {"hooks": states, "lost": page, "next": page[-1]["id"] if len(lost) > _PAGE else None}


# ------------------------------------------------------------------ what may be done


async def again(visit: Visit) -> Response:
    """Have changes sent again: those that were chosen, or all of a hook."""
    chosen = await _chosen(visit)
    done = await _do(visit, lambda w: hooks.again(w, chosen))
    return visit.go(PATH, _said(done, "to be sent again: look again in a moment"))


async def drop(visit: Visit) -> Response:
    """Let changes go, once the operator has said why on a page of its own: nothing brings them back."""
    chosen, because = await _chosen(visit), visit.given("because", 500)
    if not chosen:
        return visit.go(PATH, _said(0, ""))
    if not because:
        status = HTTPStatus.UNPROCESSABLE_ENTITY if "because" in visit.form else HTTPStatus.OK
        facts = {"hook": visit.given("hook", 64) if "id" not in visit.form else "", "missing": "because" in visit.form}
        return visit.page("hooks-drop.html", status, chosen=chosen, **facts)
    done = await _do(visit, lambda w: hooks.drop(w, chosen, because))
    return visit.go(PATH, _said(done, "dropped: no program will hear of that"))


async def _chosen(visit: Visit) -> list[int]:
    """The ids in the form; all of a hook that is named instead (up to the id that the operator has seen)."""
    name, last = visit.given("hook", 64), _number(visit.given("upto", 20)) or _LARGEST
    if name and "id" not in visit.form:
        found = await visit.workers.read(partial(_all, visit.context.ledger, name))
        return [number for number in found if number <= last]
    given = (_number(value) for value in visit.form.getlist("id") if isinstance(value, str))
    return [number for number in given if number]


def _all(ledger: Ledger, name: str) -> list[int]:
    with ledger.connect() as db:
        return hooks.ids_of(db, name)


async def _do(visit: Visit, verb: Callable[[Write], int]) -> int:
    context = visit.context

    def act() -> int:
        with write(context.ledger, context.now(), visit.actor) as w:
            return verb(w)

    return await visit.workers.write(act)


def _said(done: int, what: str) -> str:
    if not done:
        return "Nothing was chosen, or it is gone by now."
    return f"{done:,} {'change' if done == 1 else 'changes'} {what}."


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= _LARGEST else None


ROUTES: Final = [
    Route(PATH, room("check", overview)),
    Route(f"{PATH}/again", room("export", again), methods=["POST"]),
    Route(f"{PATH}/drop", room("export", drop), methods=["POST"]),
]
