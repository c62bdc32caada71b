"""HTML out of templates: whatever is put into one is escaped, and a name that is not given is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

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
    made = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(shown=shown, at=at, number=number)
    return made


def rendered(template: str, **facts: Any) -> str:
    """The template (a path below templates/) filled in."""
    return environment().get_template(template).render(**facts)


# Controls but for tab and line end; what turns the direction of text, or is not seen at all; halves of characters.
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def shown(text: object) -> str:
    """Text of somebody else's, with U+FFFD for each character that would not be seen, or would change how others are."""
    return _UNSEEN.sub("\ufffd", str(text).replace("\r\n", "\n"))


def at(moment: datetime | int | str) -> Markup:
    """A time: an aware datetime, seconds since 1970, or RFC 3339."""
    if isinstance(moment, int):
        moment = datetime.fromtimestamp(moment, UTC)
    elif isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    utc = moment.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        utc.strftime("%Y-%m-%dT%H:%M:%SZ"), utc.strftime("%Y-%m-%d %H:%M UTC")
    )


def number(of: int) -> str:
    """1,234,567"""
    return f"{of:,}"


_MEDIA_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@cache
def static_files() -> Mapping[str, tuple[str, bytes]]:
    """Name -> (media type, octets) of the files in static/."""
    files = Path(__file__).with_name("static").iterdir()
    return {f.name: (_MEDIA_TYPES[f.suffix], f.read_bytes()) for f in files if f.suffix in _MEDIA_TYPES}
