"""Questions to the ledger, asked in a thread, whose answers leave it as JSON: the event loop is the relay's, too."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from daemon import hand
from daemon.telling import Told
from daemon.web.api.problems import HEADERS, Wrong
from daemon.web.context import context_of, workers_of
from storage import suppressions
from storage.address import Address, NotAnAddress
from storage.engine import refuse_deferred

JSON: Final = "application/json"
Numbers = Mapping[str, int]


def encoded(told: Any) -> bytes:
    """As JSON."""
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def answer(octets: bytes, status: int = 200) -> Response:
    """With what is already JSON."""
    return Response(octets, status, HEADERS, JSON)


def told(fact: Told, status: int = 200) -> Response:
    """With a fact."""
    return answer(encoded(fact), status)


async def looked_up(
    request: Request, question: Callable[[Connection, Numbers], Told], *, of_people: bool = False
) -> Response:
    """With what the ledger says: `question` gets a snapshot, and the numbers of all lists. Raises as `Workers.read`.

    `of_people`: whoever is not in the answer may be mailed. After a restore with a gap nobody knows that: Unavailable.
    """
    ledger = context_of(request).ledger

    def look() -> bytes:
        with ledger.reading() as db:
            if of_people:
                refuse_deferred(lambda sql: db.exec_driver_sql(sql).scalar())
            return encoded(question(db, suppressions.list_numbers(db)))

    return answer(await workers_of(request).read(look))


def person_of(text: str, **where: str) -> Address:
    """Somebody, or a domain. `where`: `pointer` or `parameter`. Raises Wrong (422)."""
    try:
        return hand.person(text)
    except NotAnAddress as why:
        raise Wrong(str(why), **where) from None  # type: ignore[arg-type]  # of the names above


def scope_of(list_id: str | None, numbers: Numbers, request: Request, **where: str) -> int | None:
    """The number of a list; 0: of one that the ledger has not met yet. Raises Wrong (422) for one that is not known."""
    if list_id is None:
        return None
    known = {*numbers, *(x.id for x in context_of(request).house.lists)}
    if list_id not in known:
        raise Wrong(hand.no_such_list(list_id, known), **where)  # type: ignore[arg-type]  # likewise
    return numbers.get(list_id, 0)
