"""The queue of doubtful mail: look, accept, reject. What is shown was written by strangers, and is shown as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final

from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from daemon import telling
from daemon.intake import AlreadyDecided, NobodyNamed, Outdated
from daemon.intake.deciding import concerned
from daemon.mail.rules import RULES
from daemon.web.console import typed
from daemon.web.console.visit import Visit, room
from storage import incoming
from storage.address import Address
from storage.incoming import Item

HOME: Final = "/console/review"
DUE: Final = timedelta(hours=48)  # after it came
PAGE: Final = 50
_MOST_PEOPLE: Final = 10  # of an item, whose suppressions are shown
_MOST_TOLD: Final = 12  # sentences about what could not be decided
_STATES: Final = ("open", "accepted", "rejected", "all")
_WISHES: Final = {
    "opt-out": "asks to be left alone",
    "resubscribe": "wants mail again",
    "hard-bounce": "was reported undeliverable",
    "soft-bounce": "was reported undeliverable for now",
    "complaint": "was reported as spam",
    "review": "may want to be left alone",
}


@dataclass(frozen=True, slots=True)
class Line:
    """An item as the list and its page have it. `accepting`: what accepting does, as a sentence."""

    item: Item
    wish: str
    accepting: str
    due: datetime
    overdue: bool
    rules: tuple[tuple[str, str], ...]


def line(item: Item, now: datetime) -> Line:
    """What is said of an item wherever it is shown."""
    due = item.at + DUE
    late = item.state == "open" and due < now
    rules = tuple((rule, RULES.get(rule, "")) for rule in item.rules)
    return Line(item, _WISHES.get(item.wish, item.wish), _accepting(item), due, late, rules)


def _accepting(item: Item) -> str:
    """As a sentence. Bounces and complaints are about everything, whatever was mailed."""
    lists = [word.removeprefix("list:") for word in item.scope.split(";")]
    of_what = "everything" if "all" in lists else f"the list {' and '.join(lists)}"
    said = telling.accepting(item)
    return f"{said[:1].upper()}{said[1:]}, for {of_what}."


def marked(excerpt: str, words: str) -> list[tuple[str, bool]] | None:
    """The excerpt in pieces, of which those are True that are the writer's own words; None: they are not in it.

    White space may differ. What was read may be of several sentences with others between them: then each counts.
    """
    for some in ([words], re.split(r"(?<=[.!?…])\s+", words)):
        terms = [r"\s+".join(map(re.escape, said.split())) for said in some if said.split()]
        if terms and all(re.search(term, excerpt) for term in terms):
            parts = re.split(f"({'|'.join(terms)})", excerpt)
            return [(part, n % 2 == 1) for n, part in enumerate(parts) if part]
    return None


# ------------------------------------------------------------------ the list


async def queue(visit: Visit) -> Response:
    """GET: what waits, oldest first, or what was decided. POST: decide on those that are ticked."""
    if visit.request.method == "POST":
        return await _decide_all(visit)
    state, beyond = visit.given("state") or "open", typed.number(visit.given("beyond"))
    if state not in _STATES:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    ledger = visit.context.ledger

    def look() -> tuple[list[Item], int]:
        with ledger.connect() as db:
            found = incoming.queue(db, None if state == "all" else state, beyond, PAGE + 1)
            return found, incoming.open_items(db)

    found, open_items = await visit.workers.read(look)
    now, page = visit.context.now(), found[:PAGE]
    return visit.page(
        "review.html",
        lines=[line(item, now) for item in page],
        state=state,
        states=_STATES,
        beyond=page[-1].id if len(found) > PAGE else None,
        first=beyond is None,
        open_items=open_items,
    )


async def _decide_all(visit: Visit) -> Response:
    accepted = _decision(visit)
    ticked = [n for n in map(typed.number, map(str, visit.form.getlist("item")[:PAGE])) if n is not None]
    if not ticked:
        return visit.go(HOME, "Nothing was ticked, so nothing was decided.")
    done, told = 0, list[str]()
    for number in dict.fromkeys(ticked):
        why_not = await _decide(visit, number, accepted)
        done += not why_not
        told += [why_not] if why_not else []
    what = "accepted" if accepted else "rejected"
    said = [f"{done} {what}."] if done else []
    more = [f"{len(told) - _MOST_TOLD} more could not be decided."] if len(told) > _MOST_TOLD else []
    visit.session.said += [*said, *told[:_MOST_TOLD], *more]
    return visit.go(HOME)


def _decision(visit: Visit) -> bool:
    decision = visit.given("decision")
    if decision not in ("accept", "reject"):
        raise HTTPException(HTTPStatus.BAD_REQUEST)
    return decision == "accept"


async def _decide(visit: Visit, number: int, accepted: bool) -> str:
    """Decide on one, in a transaction of its own. Returns why that was not possible, "" if it was."""
    context, note = visit.context, visit.given("note", 1_000)

    def decide() -> str:
        with context.ledger.connect() as db:
            item = incoming.review(db, number)
        if item is None:
            return f"There is no item {number}."
        try:
            visit.inside.intake.decide(item, accepted, note, context.now(), visit.actor)
        except AlreadyDecided:
            return f"Item {number}: somebody else was quicker; it is decided already."
        except NobodyNamed:
            return f"Item {number} names nobody who could be suppressed, so it was not accepted. Suppress them by hand, then reject it."
        except Outdated:
            return f"Item {number}: they have opted out again after this message, and the later word counts. Nothing was lifted; reject it."
        return ""

    try:
        return await visit.workers.write(decide)
    except TimeoutError:
        return f"Item {number}: the database was busy for too long. It may still be decided; look at it again."


# ------------------------------------------------------------------ one item


async def one(visit: Visit) -> Response:
    """GET: all that is known about an item. POST: decide on it, and on to the next open one."""
    number = typed.number(visit.request.path_params["number"])
    if number is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return await (_decided(visit, number) if visit.request.method == "POST" else _shown(visit, number))


async def _shown(visit: Visit, number: int) -> Response:
    facts = await visit.workers.read(lambda: _looked_up(visit, number))
    if facts is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return visit.page("review-item.html", **facts)


def _looked_up(visit: Visit, number: int) -> dict[str, Any] | None:
    context, intake = visit.context, visit.inside.intake
    with context.ledger.connect() as db:
        item = incoming.review(db, number)
        if item is None:
            return None
        people = concerned(item, intake)
        before, behind = incoming.beside(db, number)
        return {
            "line": line(item, context.now()),
            "people": _against(db, visit, people),
            "more_people": max(0, len(people) - _MOST_PEOPLE),
            "parts": marked(item.excerpt, item.words),
            "before": before,
            "behind": behind,
        }


def _against(db: Connection, visit: Visit, people: Sequence[Address]) -> list[tuple[str, list[telling.Told]]]:
    """Whom accepting concerns, each with what stands against them already."""
    site_key, numbers = visit.context.ledger.site_key, visit.context.numbers
    return [(str(person), telling.against(db, site_key, person, numbers)) for person in people[:_MOST_PEOPLE]]


async def _decided(visit: Visit, number: int) -> Response:
    accepted = _decision(visit)
    if why_not := await _decide(visit, number, accepted):
        return visit.go(f"{HOME}/{number}" if "no item" not in why_not else HOME, why_not)
    following = await visit.workers.read(lambda: _next(visit, number))
    said = f"Item {number} was {'accepted' if accepted else 'rejected'}."
    return visit.go(f"{HOME}/{following}" if following else HOME, said + ("" if following else " Nothing else waits."))


def _next(visit: Visit, number: int) -> int | None:
    """The open item behind this one, else the oldest."""
    with visit.context.ledger.connect() as db:
        before, behind = incoming.beside(db, number)
        if behind or before is None:
            return behind
        oldest = incoming.queue(db, "open", None, 1)
    return oldest[0].id if oldest else None


ROUTES: Final = [
    Route(HOME, room("review", queue), methods=["GET", "POST"]),
    Route(f"{HOME}/{{number}}", room("review", one), methods=["GET", "POST"]),
]
