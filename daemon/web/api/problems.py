"""Whatever is not done is told as a problem (RFC 9457): what is wrong, for people, and where, for programs.

Nothing of what was sent is repeated but the names of its fields, and nothing of what went wrong within us.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from daemon import events
from storage.engine import Unavailable, Unusable

MEDIA_TYPE: Final = "application/problem+json"
HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
RETRY_AFTER: Final = "5"  # seconds
_MOST: Final = 20  # of the mistakes in one request are told
_LONGEST: Final = 100  # characters of a name that a client made up
_WHAT_HAPPENED: Final = {
    400: "The request could not be read.",
    401: "The request has no token, or one that is not known.",
    403: "The token does not have the right that this takes.",
    404: "There is no such thing.",
    405: "Not with this method.",
    408: "The body did not come in time.",
    409: "Not as things are now: somebody else was quicker, or is at it.",
    413: "The body is too large.",
    415: "The body is not of the media type that is read here.",
    422: "Something in the request is not as it must be.",
    429: "Too many requests of this program at once.",
    507: "There is no room on the disk for the list.",
    503: "The database cannot be asked just now: nothing is known, nor whether a change was carried out. Send it again.",
}

Mistake = Mapping[str, str]  # "pointer" (RFC 6901, into the body) or "parameter", and "detail"


class Wrong(Exception):
    """A request that is well-formed, and cannot be done all the same: 422, or 404 and 409 where `status` says so.

    `pointer`: which part of the body it is about; `parameter`: or which parameter; `more`: members of the problem.
    """

    def __init__(
        self, detail: str, *, status: int = 422, pointer: str = "", parameter: str = "", more: Mapping[str, Any] = {}
    ):
        super().__init__(detail)
        self.detail, self.status, self.more = detail, status, more
        where = {"pointer": pointer} if pointer else {"parameter": parameter} if parameter else None
        self.mistakes: Sequence[Mistake] = [{**where, "detail": detail}] if where else []


def problem(
    status: int,
    detail: str,
    mistakes: Sequence[Mistake] = (),
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] = {},
) -> Response:
    """The answer."""
    told = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    if mistakes:
        told["errors"] = list(mistakes)
    octets = json.dumps(told, ensure_ascii=False).encode("utf-8", "replace")
    return Response(octets, status, {**HEADERS, **(headers or {})}, MEDIA_TYPE)


def may_come(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These problems, for the description of an operation."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _WHAT_HAPPENED[status], "content": content} for status in statuses}


# ------------------------------------------------------------------ what is raised, as answers


def translate(app: FastAPI) -> None:
    """Have what is raised in this application answered with a problem."""
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(Wrong, _wrong)
    app.add_exception_handler(Exception, _broken)
    for doubt in (Unavailable, Unusable, TimeoutError):
        app.add_exception_handler(doubt, _doubtful)


def refused(error: HTTPException) -> Response:
    """The answer to a request that the routing refused, or the way in."""
    said = error.detail if error.detail != HTTPStatus(error.status_code).phrase else ""
    detail = said or _WHAT_HAPPENED.get(error.status_code, error.detail)
    return problem(error.status_code, detail, headers=error.headers)


async def _wrong(_: Request, error: Exception) -> Response:
    assert isinstance(error, Wrong)
    return problem(error.status, error.detail, error.mistakes, more=error.more)


async def _not_valid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    return problem(422, _WHAT_HAPPENED[422], [_mistake(e) for e in found[:_MOST]])


async def _doubtful(_: Request, why: Exception) -> Response:
    events.database_unavailable(why if str(why) else "the API had no answer in time")
    return problem(503, _WHAT_HAPPENED[503], headers={"Retry-After": RETRY_AFTER})


async def _broken(_: Request, __: Exception) -> Response:
    """A bug of ours; the door's outermost loop tells of it."""
    return problem(500, "Something went wrong on our side; the log says where.")


def _mistake(error: Mapping[str, Any]) -> Mistake:
    """What pydantic found, without the value in which it found it."""
    where, *path = error["loc"]
    said = str(error.get("ctx", {}).get("error") or error["msg"]) if error["type"] == "json_invalid" else error["msg"]
    detail = said.removeprefix("Value error, ")
    if where == "body":
        return {"pointer": _pointer(path) if error["type"] != "json_invalid" else "", "detail": detail}
    return {"parameter": _name(path[-1] if path else where), "detail": detail}


def _pointer(path: Iterable[object]) -> str:
    """RFC 6901."""
    return "".join("/" + _name(step).replace("~", "~0").replace("/", "~1") for step in path)


def _name(step: object) -> str:
    return str(step)[:_LONGEST]
