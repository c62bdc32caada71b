"""What pages fetch beside themselves: stylesheets, scripts, icons. The stylesheet of the public pages is for everybody."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from daemon.web import colours
from daemon.web.context import context_of
from daemon.web.rendering import SECURITY

_FOR_ALL: Final = "style.css"
_MEDIA_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@cache
def _files() -> Mapping[str, tuple[str, bytes]]:
    """Name -> (media type, octets) of the files in static/."""
    files = Path(__file__).with_name("static").iterdir()
    return {f.name: (_MEDIA_TYPES[f.suffix], f.read_bytes()) for f in files if f.suffix in _MEDIA_TYPES}


@lru_cache(maxsize=8)
def stylesheet(colour: str = "") -> bytes:
    """That of the public pages, with the house's colour ("#rrggbb") if it has one."""
    _, plain = _files()[_FOR_ALL]
    return plain + colours.rules(colour).encode("ascii") if colour else plain


async def _icon(_: Request) -> Response:
    """Browsers ask for it unasked."""
    return _file(*_files()["icon.svg"])


async def _static(request: Request) -> Response:
    context, name = context_of(request), request.path_params["name"]
    if name == _FOR_ALL:
        return _file("text/css", stylesheet(context.colour))
    if name not in _files() or context.inside is None:
        raise HTTPException(404)
    return _file(*_files()[name])


def _file(media_type: str, octets: bytes) -> Response:
    return Response(octets, media_type=media_type, headers={**SECURITY, "Cache-Control": "public, max-age=3600"})


ROUTES: Final = [Route("/favicon.ico", _icon), Route("/static/{name}", _static)]
