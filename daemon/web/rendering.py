"""HTML out of templates: whatever is put into one is escaped, and a name that is not given is an error.

Most of what is shown was written by strangers. So every text that goes into a page also loses the characters that could
make it look like something else (`shown`), whether or not its template says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from daemon import __version__
from storage.terms import when

SECURITY: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the token is in the address of the page
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex",
}
# Control characters but tab and newline; marks that turn the direction of a text around (Unicode UAX 9); line breaks that
# only some programs know; surrogates, which are no text; tags, annotations and what has no width, which nobody sees.
_DECEIVING: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)

_TYPED: Final = re.compile("`([^`]+)`")


def shown(text: object) -> str:
    """A stranger's text, fit to be looked at: what could deceive the reader becomes U+FFFD."""
    return _DECEIVING.sub("\ufffd", str(text).replace("\r\n", "\n"))


def at(moment: datetime | int | str | None) -> Markup:
    """A time: an aware datetime, seconds since 1970, or RFC 3339 in UTC, as it is read and as machines read it."""
    if moment is None:
        return Markup('<span class="quiet">not known</span>')
    try:
        found = _utc(moment)
    except (ValueError, OverflowError, OSError):  # no time, or one that no calendar has
        return Markup.escape(shown(moment))
    return Markup('<time datetime="{}">{:%Y-%m-%d %H:%M} UTC</time>').format(when(found), found)


def _utc(moment: datetime | int | str) -> datetime:
    """Raises ValueError, OverflowError, OSError."""
    if isinstance(moment, int):
        return datetime.fromtimestamp(moment, UTC)
    found = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def number(value: float) -> str:
    """12,345"""
    return f"{value:,}"


def commands(text: str) -> Markup:
    """Advice, in which what is between backticks is something to type or to look for."""
    parts = enumerate(_TYPED.split(shown(text)))
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in parts)


def _final(value: Any) -> Any:
    """What is put into a page, unless we made it as HTML ourselves."""
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def environment() -> Environment:
    """The one of all templates."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_final,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        keep_trailing_newline=True,
    )
    made.filters |= {"shown": shown, "at": at, "number": number, "commands": commands}
    made.globals |= {"version": __version__}
    return made


def prepare_templates(below: str) -> None:
    """Read all whose names begin so."""
    for name in environment().list_templates(filter_func=lambda name: name.startswith(below)):
        environment().get_template(name)


def render(template: str, **facts: Any) -> str:
    """The template (a path below templates/) filled in."""
    return environment().get_template(template).render(**facts)
