"""The first page: is the promise being kept?"""

from __future__ import annotations

from typing import Final

from starlette.responses import Response
from starlette.routing import Route

from daemon.web.console.visit import Visit, room


async def overview(visit: Visit) -> Response:
    """How the parts of the daemon are."""
    return visit.page("overview.html", vitals=visit.inside.vitals())


ROUTES: Final = [Route("/console", room("check", overview))]
