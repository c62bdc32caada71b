"""Brake and undo: what came of one cause, ended together; and what nobody asked for, kept from acting for a while."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import Response
from starlette.routing import Route

from daemon import telling
from daemon.web.console.begun import begin
from daemon.web.console.people import hand_of
from daemon.web.console.typed import NotUnderstood, moment, numbers_of, until
from daemon.web.console.typed import scope as typed_scope
from daemon.web.console.visit import Visit, room
from daemon.web.context import Context
from daemon.web.errands import Errand
from storage import brake, held, undo
from storage.terms import REASONS, SOURCES, reason_word, scope_word
from storage.undo import Cause, Tally

PATH: Final = "/console/undo"
FIELDS: Final = ("cause", "source", "import", "mailbox", "domain", "diagnostic", "list", "from", "to", "even_opt_outs")
CAUSES: Final = tuple(reason for reason in REASONS if reason != "wanted")


async def _look(visit: Visit) -> Response:
    return await _page(visit)


async def _page(visit: Visit, *, wrong: str = "", about: str = "", because: str = "") -> Response:
    """The room. `wrong`: why the form `about` (undo, narrow, or a word of the brake) was not accepted."""
    states = await visit.workers.read(lambda: _states(visit.context))
    status = HTTPStatus.UNPROCESSABLE_ENTITY if wrong else HTTPStatus.OK
    return visit.page(
        "undo.html",
        status,
        states=states,
        wrong=wrong,
        about=about,
        because=because,
        typed={name: visit.given(name, 400) for name in FIELDS},
        causes=CAUSES,
        sources=SOURCES,
        house_lists=visit.context.house.lists,
    )


def _states(of: Context) -> list[dict[str, Any]]:
    with of.ledger.reading() as db:
        states = telling.brakes(db)
        waiting = {state["what"]: len(held.numbers(db, state["what"])) for state in states if state["pulled"]}
    return [{**state, "name": _name(state["what"]), "waiting": waiting.get(state["what"], 0)} for state in states]


def _name(what: str) -> str:
    """At the beginning of a sentence."""
    said = brake.said(what)
    return said[:1].upper() + said[1:]


# ------------------------------------------------------------------ the brake


async def _brake(visit: Visit) -> Response:
    what, on, because = visit.given("what", 200), visit.given("to", 40) == "pull", visit.given("because")
    if not brake.is_name(what):
        return await _page(visit, wrong="There is no such brake.", about="narrow")
    if not because:
        return await _page(
            visit, wrong="Say why: it is kept in the record.", about=what if what in brake.WHAT else "narrow"
        )
    words, of = (what,), hand_of(visit)
    changed = await visit.workers.write(lambda: of.brake(words if on else (), () if on else words, because))
    state = "wait for a person from now on" if on else "act again"
    return visit.go(PATH, f"{_name(what)} {state}." if changed else "It was so already; nothing was changed.")


# ------------------------------------------------------------------ undoing


async def _count(visit: Visit) -> Response:
    """The dry run: what would be undone."""
    typed = {name: visit.given(name, 400) for name in FIELDS}
    try:
        cause = cause_of(visit.context, typed, await visit.workers.read(lambda: numbers_of(visit.context)))
    except NotUnderstood as problem:
        return await _page(visit, wrong=str(problem), about="undo")
    of = visit.context
    return begin(
        visit,
        "Counting what would be undone",
        "undo-counted.html",
        lambda _: _surveyed(of, cause),
        typed=typed,
        wrong="",
    )


async def _undo(visit: Visit) -> Response:
    typed, because = {name: visit.given(name, 400) for name in FIELDS}, visit.given("because")
    of = visit.context
    try:
        cause = cause_of(of, typed, await visit.workers.read(lambda: numbers_of(of)))
        if not because:
            raise NotUnderstood("Say why: it is kept in the record of everybody whose suppression ends.")
    except NotUnderstood as problem:
        return await _page(visit, wrong=str(problem), about="undo")

    def work(errand: Errand) -> dict[str, Any]:
        return _told(of, undo.undo(of.ledger, cause, because, of.now, visit.actor, errand.reached))

    return begin(visit, "Undoing", "undone.html", work, typed=typed, because=because)


def cause_of(of: Context, typed: Mapping[str, str], numbers: Mapping[str, int]) -> Cause:
    """What the form says is to be undone. Raises NotUnderstood."""
    if not any(typed[name] for name in ("cause", "source", "import", "mailbox", "domain", "diagnostic")):
        raise NotUnderstood("Say what is to be undone: a reason, a source, an import, a mailbox, a domain or a status.")
    if typed["cause"] not in ("", *CAUSES) or typed["source"] not in ("", *SOURCES):
        raise NotUnderstood("There is no such reason or source.")
    scope = typed_scope(typed["list"], of, numbers)
    begin_at, end_at = moment(typed["from"]), until(typed["to"])
    if begin_at and end_at and begin_at > end_at:
        raise NotUnderstood("The window ends before it begins.")
    return Cause(
        REASONS[typed["cause"]] if typed["cause"] else None,
        typed["source"] or None,
        typed["import"].rpartition("/")[2] or None,
        typed["mailbox"] or None,
        scope,
        begin_at,
        end_at,
        typed["even_opt_outs"] == "yes",
        typed["domain"].strip().lower() or None,
        typed["diagnostic"].strip() or None,
    )


def _surveyed(of: Context, cause: Cause) -> dict[str, Any]:
    return _told(of, undo.survey(of.ledger, cause))


def _told(of: Context, tally: Tally) -> dict[str, Any]:
    with of.ledger.connect() as db:
        first = undo.addresses(db, tally.first)
    numbers = numbers_of(of)
    by = [
        (reason_word(reason), scope_word(scope, numbers), number)
        for (reason, scope), number in tally.lifted.most_common()
    ]
    return {"lifted": tally.lifted.total(), "by": by, "own": tally.kept["own"], "again": tally.kept["asked-again"], "first": first}  # fmt: skip


ROUTES: Final = [
    Route(PATH, room("lift", _look), methods=["GET"]),
    Route(PATH, room("lift", _undo), methods=["POST"]),
    Route(PATH + "/count", room("lift", _count), methods=["POST"]),
    Route("/console/brake", room("lift", _brake), methods=["POST"]),
]
