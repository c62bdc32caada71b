"""Templates become pages: the one environment of pages and console. What a template gets is escaped unless it is Markup."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_TEMPLATES: Final = Path(__file__).with_name("templates")


@functools.cache
def environment() -> Environment:
    """Made once; a template is read and compiled when it is first asked for. A name that nobody gave is an error."""
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, **values: object) -> str:
    """The template of this name ("public/message.html") with these values. Raises jinja2.TemplateError: a bug of ours."""
    return environment().get_template(template).render(values)
