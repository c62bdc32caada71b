"""The API as an application, mounted by the door where it has rooms for operators."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import daemon
from daemon.web.api import following, imports, people, problems, reviews, standing
from daemon.web.api.guarding import SCHEMES
from daemon.web.api.models import Problem
from daemon.web.api.standing import Counted

PATH: Final = "/api/v1"
# people's last: its path for an address takes whatever follows.
ROUTERS: Final = (standing.OPEN, standing.ROUTER, following.ROUTER, reviews.ROUTER, imports.ROUTER, people.ROUTER)
_ABOUT: Final = """
The suppression list for programs: ask who may be mailed, put people on the list, take them off again, follow what happens.

Every answer about a fact is worded as by the command line's `--json`. Whatever is not done is told as
`application/problem+json` (RFC 9457).
"""


def api() -> FastAPI:
    """The application. Whose requests it answers by which settings, the door around it says in `request.state`."""
    app = FastAPI(
        title="optoutd",
        summary="Who may be mailed, and who may not",
        description=_ABOUT,
        version=daemon.__version__,
        servers=[{"url": PATH}],
        root_path_in_servers=False,
        docs_url=None,  # the pages that FastAPI would make fetch scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        responses={},
    )
    for router in ROUTERS:
        app.include_router(router)
    problems.translate(app)
    app.add_exception_handler(HTTPException, _refused)
    app.state.busy = Counter[str]()
    app.state.under_way = set[bytes]()
    app.state.counted = Counted()
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """Add to the description what FastAPI does not know of."""
    described = app.openapi()
    for operation in (o for path in described["paths"].values() for o in path.values()):
        for parameter in operation.get("parameters", ()):
            parameter["schema"] = _without_null(parameter["schema"])
        operation["responses"] = dict(sorted(operation["responses"].items()))
    components = described["components"]
    components["securitySchemes"] = SCHEMES
    components["schemas"]["Problem"] = Problem.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is there or it is not: no text in a URL is null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    return {**kinds[0], **{k: v for k, v in schema.items() if k != "anyOf"}} if len(kinds) == 1 else schema


async def _refused(request: Request, error: Exception) -> Response:
    """Not with this method: say with which (RFC 9110 15.5.6), over all operations of the path."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        error.headers = {"Allow": ", ".join(sorted(_methods(path)))}
    return problems.refused(error)


def _methods(path: str) -> set[str]:
    routes: list[Any] = [route for router in ROUTERS for route in router.routes]
    return {method for route in routes if route.path_regex.match(path) for method in route.methods} or {"GET"}
