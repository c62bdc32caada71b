"""Lists from elsewhere, imported by a program: the description of `imports`, and its answers as the API gives them."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from daemon.exchange.asking import Asked
from daemon.telling import Told
from daemon.web.api import imports, models
from daemon.web.api.answering import told
from daemon.web.api.callers import actor_of
from daemon.web.api.guarding import Guarded, takes
from daemon.web.api.problems import Wrong, may_come
from daemon.web.spool import Refused

T = TypeVar("T")
ROUTER: Final = APIRouter(route_class=Guarded)
Upload = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9_-]+$", description="as the first answer has it")]
_OFTEN: Final = (401, 403, 404, 422, 429)
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "the list as it is, in any of the formats of docs/lists.md",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@ROUTER.post(
    "/imports",
    operation_id="importList",
    summary="Import a list",
    status_code=202,
    response_model=models.Import,
    responses=may_come(401, 403, 408, 413, 415, 422, 429, 503, 507),
    openapi_extra=takes("import") | _BODY,
)
async def begin(request: Request, asked: Annotated[models.Importing, Query()]) -> Response:
    """Nobody is taken off the list by it, and the same list again changes nothing. Look how far it is by its `id`.

    `dry_run`: only count what would change. 415: send the list itself, not a form. 422: it is not understood.
    """
    what = await _or_wrong(_asked(request, asked))
    brought = imports.post(request, actor_of(request), asked.name, what, dry_run=asked.dry_run)
    return told(await _or_wrong(brought), 202)


async def _asked(request: Request, asked: models.Importing) -> Asked:
    return imports.asked(
        request,
        format=asked.format,
        column=asked.column,
        list_id=asked.in_list or "",
        reason=asked.reason,
        as_of=asked.as_of,
    )


@ROUTER.get(
    "/imports/{id}",
    operation_id="showImport",
    summary="How far an import is",
    response_model=models.Import,
    responses=may_come(*_OFTEN),
    openapi_extra=takes("import"),
)
async def one(request: Request, id: Upload) -> Response:
    """Kept until the daemon restarts, or for an hour after it was last asked for; a program sees its own."""
    fact: Told = await _or_wrong(imports.get(request, actor_of(request), id))
    return told(fact)


@ROUTER.get(
    "/imports/{id}/rejects",
    operation_id="showRejects",
    summary="The rows that were bad",
    response_class=Response,
    responses=may_come(*_OFTEN, 409)
    | {200: {"description": "CSV: line, reason, the row", "content": {"text/csv": {"schema": {"type": "string"}}}}},
    openapi_extra=takes("import"),
)
async def rejects(request: Request, id: Upload) -> Response:
    """409: it is still under way."""
    return await _or_wrong(imports.rejects(request, actor_of(request), id))


async def _or_wrong(answer: Awaitable[T]) -> T:
    try:
        return await answer
    except Refused as why:
        raise Wrong(str(why), status=why.status) from None
