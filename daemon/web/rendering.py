"""HTML out of templates: whatever is put into one is escaped, and a name that is not given is an error."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

SECURITY: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the token is in the address of the page
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex",
}


@cache
def environment() -> Environment:
    """The one of all templates."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        keep_trailing_newline=True,
    )


def render(template: str, **facts: Any) -> str:
    """The template (a path below templates/) filled in."""
    return environment().get_template(template).render(**facts)


_MEDIA_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@cache
def static_files() -> Mapping[str, tuple[str, bytes]]:
    """Name -> (media type, octets) of the files in static/."""
    files = Path(__file__).with_name("static").iterdir()
    return {f.name: (_MEDIA_TYPES[f.suffix], f.read_bytes()) for f in files if f.suffix in _MEDIA_TYPES}
