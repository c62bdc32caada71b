"""The list, the audit log and the relay's refusals, a page at a time: for programs that keep a copy, or watch."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from sqlalchemy import Connection
from starlette.responses import Response

from daemon import telling
from daemon.telling import Told
from daemon.web.api import models
from daemon.web.api.answering import Numbers, looked_up, scope_of
from daemon.web.api.guarding import Guarded, takes
from daemon.web.api.problems import Wrong, may_come
from storage import journal, pages
from storage.pages import Place, Wanted
from storage.terms import REASONS

ROUTER: Final = APIRouter(route_class=Guarded)
_KEY, _SCOPE, _REASON = 16, 4, 1  # octets in a cursor
_PROBLEMS: Final = may_come(401, 403, 422, 429, 503)


@ROUTER.get(
    "/suppressions",
    operation_id="list",
    summary="All who are on the list, or some of them",
    response_model=models.Page,
    responses=_PROBLEMS,
    openapi_extra=takes("export"),
)
async def listing(request: Request, asked: Annotated[models.Asked, Query()]) -> Response:
    """A page of them, in order of key. Go on with `cursor` until `next` is null: a page may be short, or empty, before that."""
    beyond = _place(asked.cursor)

    def question(db: Connection, numbers: Numbers) -> Told:
        scope = scope_of(asked.list_id, numbers, request, parameter="list")
        if asked.list_id is not None and not scope:
            return {"suppressions": [], "next": None}  # a list that the ledger has not met yet
        wanted = Wanted(scope, REASONS[asked.reason] if asked.reason else None, asked.source, asked.since)
        rows, after = pages.listing(db, wanted, asked.limit, beyond)
        return {"suppressions": [telling.listed(row, numbers) for row in rows], "next": _cursor(after)}

    return await looked_up(request, question, of_people=True)


def _cursor(place: Place | None) -> str | None:
    if place is None:
        return None
    key, scope, reason = place
    octets = key + scope.to_bytes(_SCOPE) + reason.to_bytes(_REASON)
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")


def _place(cursor: str | None) -> Place:
    """Raises Wrong (422)."""
    if cursor is None:
        return pages.START
    try:
        octets = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
    except binascii.Error:
        octets = b""
    if len(octets) != _KEY + _SCOPE + _REASON:
        raise Wrong("This is no `next` of ours.", parameter="cursor")
    key, scope, reason = octets[:_KEY], octets[_KEY:-_REASON], octets[-_REASON:]
    return key, int.from_bytes(scope, signed=True), int.from_bytes(reason)


@ROUTER.get(
    "/changes",
    operation_id="changes",
    summary="What has happened since",
    response_model=models.Changes,
    responses=_PROBLEMS,
    openapi_extra=takes("export"),
)
async def changes(request: Request, asked: Annotated[models.After, Query()]) -> Response:
    """The audit log behind a sequence number, with the addresses that are known. Ask again with `after` = `next`.

    An import is one row for many people, and has no address: read the list once more after it.
    """

    def question(db: Connection, numbers: Numbers) -> Told:
        found = pages.changes(db, asked.after, asked.limit)
        return {
            "changes": [telling.changed(*row, numbers) for row in found],
            "next": found[-1][0].seq if found else asked.after,
            "more": len(found) == asked.limit,
            "epoch": journal.epoch_of(db),
        }

    return await looked_up(request, question)


@ROUTER.get(
    "/refusals",
    operation_id="refusals",
    summary="Whom the relay refused",
    response_model=models.Refusals,
    responses=_PROBLEMS,
    openapi_extra=takes("export"),
)
async def refusals(request: Request, asked: Annotated[models.RefusedSince, Query()]) -> Response:
    """Recipients whom the relay refused, or left out, or would have. Ask again with `cursor` = `next` and the same `since`."""

    def question(db: Connection, numbers: Numbers) -> Told:
        found, after = pages.refusals(db, asked.since, asked.limit, asked.cursor)
        told: list[Any] = [telling.turned_away(number, of, numbers) for number, of in found]
        return {"refusals": told, "next": after, "more": len(found) == asked.limit}

    return await looked_up(request, question)
