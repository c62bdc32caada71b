"""Lists from elsewhere, brought by a form: looked at first, then imported; and what was imported before."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from daemon.exchange.asking import Asked
from daemon.exchange.formats import FORMATS
from daemon.web.console import typed
from daemon.web.console.forms import length_of
from daemon.web.console.visit import Visit, refuse_forged, room
from daemon.web.multipart import read_form
from daemon.web.spool import Refused, too_large
from daemon.web.uploads import Upload, Uploads, rejects_of, uploads_of, wish
from storage import imports
from storage.imports import Run
from storage.terms import REASONS

HOME: Final = "/console/imports"
PAGE: Final = 25
_EACH_SECONDS: Final = 2  # a page under way is looked at again
_BESIDE: Final = 64 * 1024  # octets of a form that are not the file
_FIELDS: Final = ("format", "column", "list", "reason", "as_of")


async def home(visit: Visit) -> Response:
    """GET: a form for a list, what is under way, and earlier imports. POST: here is a list."""
    if visit.request.method == "POST":
        return await _brought(visit)
    return await _home(visit)


async def _home(
    visit: Visit, status: HTTPStatus = HTTPStatus.OK, wrong: str = "", given: Mapping[str, str] | None = None
) -> Response:
    before = typed.number(visit.request.query_params.get("before", ""))
    found = await visit.workers.read(lambda: _earlier(visit, before))
    return visit.page(
        "imports.html",
        status,
        wrong=wrong,
        given={name: (given or {}).get(name, "") for name in _FIELDS},
        formats=FORMATS,
        reasons=tuple(REASONS),
        lists=sorted(visit.context.numbers),
        most=visit.inside.max_upload,
        uploads=[upload for upload in uploads_of(visit.request) if upload.stage != "cancelled"],
        runs=found[:PAGE],
        before=found[PAGE - 1][0].id if len(found) > PAGE else None,
        first=before is None,
    )


def _earlier(visit: Visit, before: int | None) -> list[tuple[Run, bool]]:
    with visit.context.ledger.connect() as db:
        return imports.runs(db, before, PAGE + 1)


async def _brought(visit: Visit) -> Response:
    """Take a list in; it is counted then."""
    given: dict[str, str] = {}
    try:
        upload = await _taken_in(visit, given)
    except Refused as why:
        return await _home(visit, why.status, str(why), given)
    return visit.go(f"{HOME}/{upload.id}")


async def _taken_in(visit: Visit, given: dict[str, str]) -> Upload:
    """Raises Refused, and HTTPException for what is not a form of ours. `given`: gets what was said beside the file."""
    request, context, uploads = visit.request, visit.context, uploads_of(visit.request)
    if length_of(request) > visit.inside.max_upload + _BESIDE:
        raise too_large(visit.inside.max_upload)

    def may(fields: dict[str, str]) -> None:
        refuse_forged(visit, fields.get("csrf_token", ""))
        given.update({name: fields.get(name, "").strip() for name in _FIELDS})
        _wish(visit, given)  # what is wrong is said before a gigabyte has come

    with uploads.arriving(context) as spool:
        _, name = await read_form(request, may, spool.put)
        if not name or not spool.size:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "Choose a file: there was none, or it is empty.")
        return await uploads.begin(context, spool, visit.actor, name, _wish(visit, given))


def _wish(visit: Visit, given: Mapping[str, str]) -> Asked:
    kind, column, list_id, reason, as_of = (given[name] for name in _FIELDS)
    return wish(visit.context, format=kind, column=column, list_id=list_id, reason=reason, as_of=as_of)


# ------------------------------------------------------------------ one list


async def one(visit: Visit) -> Response:
    """GET: what a list was taken for, what it would change, how far it is, what came of it. POST: import it, or cancel."""
    upload = _found(visit)
    if visit.request.method == "POST":
        return _decided(visit, uploads_of(visit.request), upload)
    page = visit.page("import.html", upload=upload, tally=upload.tally, understood=upload.understood)
    if upload.under_way:
        page.headers["Refresh"] = str(_EACH_SECONDS)
    return page


def _found(visit: Visit) -> Upload:
    try:
        return uploads_of(visit.request).find(visit.request.path_params["id"])
    except Refused as why:
        raise HTTPException(why.status) from None


def _decided(visit: Visit, uploads: Uploads, upload: Upload) -> Response:
    if visit.given("decision") == "cancel":
        uploads.cancel(upload)
        return visit.go(HOME, "It was cancelled. What was imported before that stays.")
    if visit.given("decision") != "import":
        raise HTTPException(HTTPStatus.BAD_REQUEST)
    try:
        uploads.go_on(visit.context, upload, visit.actor)
    except Refused as why:
        return visit.go(f"{HOME}/{upload.id}", str(why))
    return visit.go(f"{HOME}/{upload.id}")


async def rejects(visit: Visit) -> Response:
    """The rows that could not go in, as a file."""
    try:
        return rejects_of(_found(visit))
    except Refused as why:
        raise HTTPException(why.status) from None


ROUTES: Final = [
    Route(HOME, room("import", home, longest=None), methods=["GET", "POST"]),
    Route(f"{HOME}/{{id}}", room("import", one), methods=["GET", "POST"]),
    Route(f"{HOME}/{{id}}/rejects.csv", room("import", rejects)),
]
