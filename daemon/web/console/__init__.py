"""The operators' console: pages without a build step, which work without a script.

Each file is a room: its pages, and what its forms do. `visit` is what they share.
"""

from __future__ import annotations

from typing import Final

from starlette.routing import Route

from daemon.web.console import audit, entrance, imports, overview, review

ROUTES: Final[list[Route]] = [*entrance.ROUTES, *overview.ROUTES, *review.ROUTES, *imports.ROUTES, *audit.ROUTES]
