"""The operators' console: pages without a build step, which work without a script.

Each file is a room: its pages, and what its forms do. `visit` is what they share.
"""

from __future__ import annotations

from typing import Final

from starlette.routing import Route

from daemon.web.console import (
    audit,
    begun,
    entrance,
    forgetting,
    held,
    hooks,
    imports,
    lists,
    overview,
    people,
    review,
    settings,
    undoing,
)

_ROOMS: Final = (
    entrance,
    overview,
    people,
    forgetting,
    review,
    imports,
    lists,
    undoing,
    held,
    begun,
    audit,
    hooks,
    settings,
)
ROUTES: Final[list[Route]] = [route for room in _ROOMS for route in room.ROUTES]
