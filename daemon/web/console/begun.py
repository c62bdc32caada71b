"""What an operator has begun and may take long: the page that says how far it is, and then what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from daemon.web.console.visit import Visit, room
from daemon.web.errands import MOST_EACH, Errand, errands_of
from daemon.web.rendering import SECURITY

PATH: Final = "/console/begun"
_AGAIN: Final = 2  # s until the page asks again


def begin(visit: Visit, title: str, template: str, work: Callable[[Errand], Any], **known: Any) -> Response:
    """Have something done that takes long, and go to its page. `template`: of what came of it, with these facts.

    Raises HTTPException (429) where too much of this operator's waits already.
    """
    errands = errands_of(visit.request)
    if errands.has_enough(visit.operator.name):
        sentence = (
            f"{MOST_EACH} things that you have begun have not ended yet. Nothing was begun: try again when some have."
        )
        raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, sentence)
    errand = errands.begin(Errand(visit.operator.name, title, template, known), work)
    return visit.go(f"{PATH}/{errand.number}")


def _errand(visit: Visit) -> Errand:
    """Raises HTTPException: there is none of this number, or not of this operator."""
    number = visit.request.path_params["number"]
    errand = errands_of(visit.request).find(number, visit.operator.name)
    if errand is None:
        raise HTTPException(404)
    return errand


async def _page(visit: Visit) -> Response:
    errand = _errand(visit)
    facts: Mapping[str, Any] = {"errand": errand, **errand.known}
    if errand.is_over and not errand.trouble:
        return visit.page(errand.template, came=errand.came, **facts)
    response = visit.page("begun.html", errand=errand)
    if not errand.is_over:
        response.headers["Refresh"] = str(_AGAIN)
    return response


async def _file(visit: Visit) -> Response:
    """A paper as a file. Raises HTTPException where there is none."""
    errand = _errand(visit)
    text = errand.came.get("paper") if isinstance(errand.came, dict) else None
    if text is None:
        raise HTTPException(404)
    headers = {**SECURITY, "Content-Disposition": f'attachment; filename="{errand.known["file"]}"'}
    return Response(text.encode("utf-8", "backslashreplace"), media_type="text/plain", headers=headers)


ROUTES: Final = [
    Route(PATH + "/{number}", room("check", _page), methods=["GET"]),
    Route(PATH + "/{number}/file", room("check", _file), methods=["GET"]),
]
