"""Imports for programs: a list is the body of a request, and goes in without a question.

Plain coroutines, for whoever has checked the token and its right (`import`). They raise spool.Refused, whose `status` and
sentence are the answer.
"""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from daemon.exchange.asking import Asked
from daemon.telling import Told
from daemon.web.context import context_of, inside_of
from daemon.web.multipart import pieces
from daemon.web.spool import Refused, too_large
from daemon.web.uploads import Upload, rejects_of, uploads_of, wish
from storage.terms import when


def asked(request: Request, *, format: str, column: str, list_id: str, reason: str, as_of: str) -> Asked:
    """What a query asks for, "" for what it does not say. Raises Refused (422)."""
    return wish(context_of(request), format=format, column=column, list_id=list_id, reason=reason, as_of=as_of)


async def post(request: Request, actor: str, name: str, what: Asked, *, dry_run: bool) -> Told:
    """POST /api/v1/imports with the list as its body: 202, and what `get` says. `name`: of the file, for the record.

    `dry_run`: only count. Raises Refused: 413, 415 for a form, 422 for a list that is not understood, 429, 507; and
    starlette's HTTPException for a body that does not come.
    """
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the list itself as the body, not a form.")
    context, uploads, most = context_of(request), uploads_of(request), inside_of(request).max_upload
    stated = request.headers.get("content-length", "0")
    if not stated.isdecimal() or len(stated) > 15 or int(stated) > most:
        raise too_large(most)
    with uploads.arriving(context) as spool:
        async for piece in pieces(request):
            await spool.put(piece)
        return told(await uploads.begin(context, spool, actor, name, what, at_once=not dry_run))


async def get(request: Request, actor: str, number: str) -> Told:
    """GET /api/v1/imports/ID: how far it is. Raises Refused (404), for those of others too."""
    return told(uploads_of(request).find(number, actor))


async def rejects(request: Request, actor: str, number: str) -> Response:
    """GET /api/v1/imports/ID/rejects: the bad rows as CSV. Raises Refused: 404, 409 while it is under way."""
    return rejects_of(uploads_of(request).find(number, actor))


def told(upload: Upload) -> Told:
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
