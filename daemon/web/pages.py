"""The public pages: plain HTML that works without a script, in the reader's language, and never names the address.

Nothing is in line, so that the Content-Security-Policy needs no exception; whatever comes from the config is escaped.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from daemon.web.context import context_of
from daemon.web.rendering import SECURITY, prepare_templates, render

RIGHT_TO_LEFT: Final = ("ar", "he")
_LANGUAGES_READ: Final = 20  # of an Accept-Language
# Nothing in it can share out the same space in two ways: a header of 60 KB of it would take seconds.
_RANGE: Final = re.compile(r"([A-Za-z]{2})(?:-[A-Za-z0-9-]{1,40})?(?:\s*;\s*q=([01](?:\.[0-9]{0,3})?))?")
_ENGLISH: Final = "en"
_ALSO: Final = {"nb": "no", "nn": "no", "iw": "he"}  # what browsers call a language that we call otherwise
_ISOLATED: Final = "\u2068{}\u2069"  # a name in Latin script must not turn an Arabic sentence round (UAX 9)


@functools.cache
def texts() -> Mapping[str, Mapping[str, str]]:
    """Language -> name of a text -> the text (daemon/web/texts/)."""
    files = sorted(Path(__file__).with_name("texts").glob("*.toml"))
    return {file.stem: tomllib.loads(file.read_text(encoding="utf-8")) for file in files}


def prepare() -> None:
    """Read now what every page is made of: later there may be no free descriptor to open a file, or another version in its place."""
    texts()
    prepare_templates("public/")


def language(accepted: str, otherwise: str) -> str:
    """The language to answer in: the most wanted one of an Accept-Language (RFC 9110 12.5.4) that we have."""
    wanted = []
    for place, part in enumerate(accepted.split(",", _LANGUAGES_READ)[:_LANGUAGES_READ]):
        found = _RANGE.fullmatch(part.strip())
        name = found[1].lower() if found else ""
        name = _ALSO.get(name, name)
        if found and name in texts() and (weight := float(found[2] or 1)) > 0:
            wanted.append((-weight, place, name))
    if wanted:
        return min(wanted)[2]
    return otherwise if otherwise in texts() else _ENGLISH


class Page:
    """A page being written for one reader: texts by their names, then `answer` is the whole response.

    `template`: what stands below the paragraphs; `values`: what it needs for that.
    """

    def __init__(
        self, request: Request, heading: str, template: str = "message", *, list_title: str = "", **values: object
    ):
        self._context = context_of(request)
        self._language = language(request.headers.get("accept-language", ""), self._context.house.language)
        self._texts, self._list = texts()[self._language], list_title
        self._heading, self._template, self._values = self._say(heading), template, values
        self._paragraphs: list[Markup] = []

    def paragraph(self, *names: str) -> Page:
        """A paragraph for each of these texts."""
        self._paragraphs += [self._say(name) for name in names]
        return self

    def way_out(self, name: str = "write") -> Page:
        """Where else somebody can turn whom this page does not help, if the house has such a place."""
        return self.paragraph(name) if self._context.house.addresses else self

    def answer(self, status: int, headers: Mapping[str, str] | None = None) -> Response:
        """The page as a response with this status."""
        html = render(
            f"public/{self._template}.html",
            language=self._language,
            direction="rtl" if self._language in RIGHT_TO_LEFT else "ltr",
            heading=self._heading,
            name=self._context.house.name,
            base=self._context.base,
            paragraphs=self._paragraphs,
            say=self._say,
            **self._values,
        )
        said = {"Content-Language": self._language, "Vary": "Accept-Language"}
        return HTMLResponse(html, status, {**SECURITY, **said, **(headers or {})})

    def _say(self, name: str) -> Markup:
        house = self._context.house
        text: Markup = escape(self._texts[name])
        return text.format(
            name=self._inserted(house.name), list=self._inserted(self._list), address=_mail_link(house.addresses)
        )

    def _inserted(self, text: str) -> str:
        return _ISOLATED.format(text) if self._language in RIGHT_TO_LEFT else text


def _mail_link(addresses: Iterable[str]) -> Markup:
    address = next(iter(addresses), "")
    return Markup('<a href="mailto:{}" dir="ltr">{}</a>').format(quote(address, safe="@+"), address)
