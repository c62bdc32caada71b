"""What waits by one brake, decided together: counted first, then confirmed."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from daemon.intake import bulk
from daemon.web.console.begun import begin
from daemon.web.console.visit import Visit, room
from daemon.web.errands import Errand
from storage import brake

_DECISIONS: Final = {"accept": "accepted", "reject": "rejected"}


async def _count(visit: Visit) -> Response:
    """The dry run: what would be decided."""
    what, intake = _what(visit), visit.inside.intake
    return begin(
        visit, "Counting what waits", "held-counted.html", lambda _: bulk.survey(intake, what), **_known(visit, what)
    )


async def _decide(visit: Visit) -> Response:
    what, note, of, intake = _what(visit), visit.given("note", 1_000), visit.context, visit.inside.intake
    accepted, actor = visit.given("decision") == "accept", visit.actor

    def work(errand: Errand) -> bulk.Tally:
        return bulk.decide(intake, what, accepted, note, of.now, actor, errand.reached)

    return begin(visit, "Deciding what waits", "held-decided.html", work, **_known(visit, what))


def _what(visit: Visit) -> brake.What:
    """Raises HTTPException: our own pages ask for nothing else."""
    what = visit.given("what", 200)
    if not brake.is_name(what) or visit.given("decision") not in _DECISIONS:
        raise HTTPException(HTTPStatus.BAD_REQUEST)
    return what


def _known(visit: Visit, what: brake.What) -> dict[str, Any]:
    decision = visit.given("decision")
    return {"what": what, "name": brake.said(what), "decision": decision, "word": _DECISIONS[decision]}


ROUTES: Final = [
    Route("/console/brake/count", room("review", _count), methods=["POST"]),
    Route("/console/brake/decide", room("review", _decide), methods=["POST"]),
]
