"""The operators' console: pages without a build step, which work without a script.

Each file is a room: its pages, and what its forms do. `visit` is what they share.
"""

from __future__ import annotations

from typing import Final

from starlette.routing import Route

from daemon.web.console import begun, entrance, forgetting, overview, people, undoing

ROUTES: Final[list[Route]] = [
    *entrance.ROUTES,
    *overview.ROUTES,
    *people.ROUTES,
    *forgetting.ROUTES,
    *undoing.ROUTES,
    *begun.ROUTES,
]
