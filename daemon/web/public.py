"""The public part of the door: what a reverse proxy may show to everybody."""

from __future__ import annotations

from typing import Final

from starlette.routing import Route

from daemon.web import choosing, oneclick, undoing
from daemon.web.linked import METHODS

# RFC 8058 3.2 wants no redirects, so each has two spellings: without a token it is a bad link.
_LINKS: Final = {"/u": oneclick.unsubscribe, "/p": choosing.choose, "/undo": undoing.undo}
ROUTES: Final = [
    Route(path + end, answer, methods=METHODS) for path, answer in _LINKS.items() for end in ("", "/{token:path}")
]
