"""Lists from elsewhere, imported by a program: a list is the body of a request, and goes in without a question."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from daemon.telling import Told
from daemon.web.api import models
from daemon.web.api.answering import told
from daemon.web.api.callers import actor_of
from daemon.web.api.guarding import Guarded, takes
from daemon.web.api.problems import Wrong, may_come
from daemon.web.context import context_of, inside_of
from daemon.web.multipart import pieces
from daemon.web.spool import Refused, too_large
from daemon.web.uploads import Upload, rejects_of, uploads_of, wish
from storage.terms import when

ROUTER: Final = APIRouter(route_class=Guarded)
Id = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9_-]+$", description="as the first answer has it")]
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
    try:
        return told(_fact(await _brought(request, asked)), 202)
    except Refused as why:
        raise _wrong(why) from None


async def _brought(request: Request, asked: models.Importing) -> Upload:
    """Raises Refused, and HTTPException for a body that does not come."""
    context, uploads, most = context_of(request), uploads_of(request), inside_of(request).max_upload
    what = wish(
        context,
        format=asked.format,
        column=asked.column,
        list_id=asked.in_list or "",
        reason=asked.reason,
        as_of=asked.as_of,
    )
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise Wrong("Send the list itself as the body, not a form.", status=415)
    stated = request.headers.get("content-length", "0")
    if not stated.isdecimal() or len(stated) > 15 or int(stated) > most:
        raise too_large(most)
    with uploads.arriving(context) as spool:
        async for piece in pieces(request):
            await spool.put(piece)
        return await uploads.begin(context, spool, actor_of(request), asked.name, what, at_once=not asked.dry_run)


@ROUTER.get(
    "/imports/{id}",
    operation_id="showImport",
    summary="How far an import is",
    response_model=models.Import,
    responses=may_come(*_OFTEN),
    openapi_extra=takes("import"),
)
async def one(request: Request, id: Id) -> Response:
    """Kept until the daemon restarts, or for an hour after it was last asked for; a program sees its own."""
    return told(_fact(_own(request, id)))


@ROUTER.get(
    "/imports/{id}/rejects",
    operation_id="showRejects",
    summary="The rows that were bad",
    response_class=Response,
    responses=may_come(*_OFTEN, 409)
    | {200: {"description": "CSV: line, reason, the row", "content": {"text/csv": {"schema": {"type": "string"}}}}},
    openapi_extra=takes("import"),
)
async def rejects(request: Request, id: Id) -> Response:
    """409: it is still under way."""
    try:
        return rejects_of(_own(request, id))
    except Refused as why:
        raise _wrong(why) from None


def _own(request: Request, number: str) -> Upload:
    """What this program brought. Raises Wrong (404), for those of others too."""
    try:
        return uploads_of(request).find(number, actor_of(request))
    except Refused as why:
        raise _wrong(why) from None


def _wrong(why: Refused) -> Wrong:
    return Wrong(str(why), status=why.status)


def _fact(upload: Upload) -> Told:
    """An upload as a JSON object. `import`: the number by which it can be undone."""
    u, tally = upload.understood, upload.tally
    return {
        "id": upload.id,
        "state": upload.stage,
        "file": upload.name,
        "began": when(upload.began),
        "size": upload.size,
        "read": upload.octets,
        "format": u.format,
        "encoding": u.encoding,
        "delimiter": u.delimiter or None,
        "column": u.column,
        "description": u.description,
        "counts": None if tally is None else asdict(tally),
        "import": upload.run,
        "again": upload.again,
        "error": upload.trouble or None,
    }
