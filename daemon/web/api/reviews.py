"""The queue of doubtful mail: what waits for a person, and what the person decides."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request
from sqlalchemy import Connection
from starlette.responses import Response

from daemon import telling
from daemon.intake import AlreadyDecided, NobodyNamed, Outdated
from daemon.telling import Told
from daemon.web.api import models
from daemon.web.api.answering import Numbers, looked_up, told
from daemon.web.api.callers import actor_of
from daemon.web.api.guarding import Guarded, takes
from daemon.web.api.problems import Wrong, may_come
from daemon.web.context import context_of, inside_of, workers_of
from storage import incoming
from storage.suppressions import Added

ROUTER: Final = APIRouter(route_class=Guarded)
Number = Annotated[int, Path(ge=1, le=2**63 - 1, description="as the queue has it")]
_OFTEN: Final = (401, 403, 422, 429, 503)


@ROUTER.get(
    "/reviews",
    operation_id="listReviews",
    summary="What waits for a decision",
    response_model=models.Queue,
    responses=may_come(*_OFTEN),
    openapi_extra=takes("review"),
)
async def queue(request: Request, asked: Annotated[models.InState, Query()]) -> Response:
    """Doubtful mail, oldest first. `state`: decided ones, or all."""

    def question(db: Connection, _: Numbers) -> Told:
        state = None if asked.state == "all" else asked.state
        found = incoming.reviews(db, state, beyond=asked.after, most=asked.limit)
        after = found[-1].id if len(found) == asked.limit else None
        return {"reviews": [telling.waiting(item) for item in found], "next": after}

    return await looked_up(request, question)


@ROUTER.get(
    "/reviews/{id}",
    operation_id="showReview",
    summary="One item of the queue",
    response_model=models.Item,
    responses=may_come(*_OFTEN, 404),
    openapi_extra=takes("review"),
)
async def one(request: Request, id: Number) -> Response:
    """With the writer's words, and what accepting would do."""

    def question(db: Connection, _: Numbers) -> Told:
        item = _found(db, id)
        more = {"note": item.note or None, "accepting": f"{telling.accepting(item)} ({item.scope})"}
        return telling.in_full(item) | more

    return await looked_up(request, question)


def _found(db: Connection, number: int) -> incoming.Item:
    item = incoming.review(db, number)
    if item is None:
        raise Wrong(f"There is no item {number} in the queue.", status=404)
    return item


def _decision(verb: str, summary: str) -> dict[str, object]:
    return {
        "path": f"/reviews/{{id}}/{verb}",
        "operation_id": f"{verb}Review",
        "summary": summary,
        "response_model": models.Decided,
        "responses": may_come(*_OFTEN, 400, 404, 408, 409, 413, 415),
        "openapi_extra": takes("review"),
    }


@ROUTER.post(**_decision("accept", "Do what the mail asks"))  # type: ignore[arg-type]  # each is what `post` takes
async def accept(request: Request, id: Number, body: models.Decision) -> Response:
    """Suppresses (or lifts, or records) what `accepting` says, and has the message filed away.

    409: somebody was quicker, or it names nobody, or the person has asked again since.
    """
    return await _decide(request, id, body, accepted=True)


@ROUTER.post(**_decision("reject", "Leave the mail as it is"))  # type: ignore[arg-type]  # likewise
async def reject(request: Request, id: Number, body: models.Decision) -> Response:
    """Closes the item; nothing else happens. 409: somebody was quicker."""
    return await _decide(request, id, body, accepted=False)


async def _decide(request: Request, number: int, body: models.Decision, *, accepted: bool) -> Response:
    try:
        added = await workers_of(request).write(partial(_carry_out, request, number, body.note, accepted))
    except AlreadyDecided:
        raise Wrong("Somebody has decided on this already.", status=409) from None
    except NobodyNamed:
        raise Wrong("This mail names nobody: suppress the person by address, and reject it.", status=409) from None
    except Outdated:
        raise Wrong("The person has opted out again after this mail: reject it.", status=409) from None
    refs = list(dict.fromkeys(a.evidence for a in added if a.evidence))
    return told({"id": number, "state": "accepted" if accepted else "rejected", "refs": refs})


def _carry_out(request: Request, number: int, note: str, accepted: bool) -> list[Added]:
    context = context_of(request)
    with context.ledger.connect() as db:
        item = _found(db, number)
    return inside_of(request).intake.decide(item, accepted, note, context.now(), actor_of(request))
