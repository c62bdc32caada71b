"""The public pages: plain HTML that works without a script, in the reader's language, and never names the address.

Nothing is in line, so that the Content-Security-Policy needs no exception; whatever comes from the config is escaped.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from daemon.web.context import Context

SECURITY: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the token is in the address of the page
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex",
}
_LANGUAGES_READ: Final = 20  # of an Accept-Language
_ENGLISH: Final = "en"

_PAGE: Final = """<!DOCTYPE html>
<html lang="{lang}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{heading} - {name}</title>
<link rel="stylesheet" href="{base}/static/style.css">
</head>
<body>
<main>
<p class="house">{name}</p>
<h1>{heading}</h1>
{body}
</main>
</body>
</html>
"""
# RFC 8058 3.1: a mail program posts this field; the buttons do the same. No action: it goes to the page's own address.
_FORM: Final = """<form method="post"{class_}>
<input type="hidden" name="List-Unsubscribe" value="One-Click">{all_}
<button type="submit">{label}</button>
</form>"""
_ALL: Final = '\n<input type="hidden" name="all" value="1">'


@functools.cache
def texts() -> Mapping[str, Mapping[str, str]]:
    """Language -> name of a text -> the text (daemon/web/texts.toml)."""
    return tomllib.loads(Path(__file__).with_name("texts.toml").read_text(encoding="utf-8"))


@functools.cache
def stylesheet() -> bytes:
    """The one stylesheet."""
    return Path(__file__).with_name("static").joinpath("style.css").read_bytes()


def language(accepted: str, otherwise: str) -> str:
    """The language to answer in: the most wanted one of an Accept-Language (RFC 9110 12.5.4) that we have."""
    wanted = []
    for place, part in enumerate(accepted.split(",")[:_LANGUAGES_READ]):
        found = re.fullmatch(r"\s*([A-Za-z]{2})(?:-[A-Za-z0-9-]{1,40})?\s*(?:;\s*q=([01](?:\.\d{0,3})?))?\s*", part)
        if found and found[1].lower() in texts() and (weight := float(found[2] or 1)) > 0:
            wanted.append((-weight, place, found[1].lower()))
    if wanted:
        return min(wanted)[2]
    return otherwise if otherwise in texts() else _ENGLISH


class Page:
    """A page being written for one reader. `paragraph` and `button` add to it; `answer` is the whole response."""

    def __init__(self, request: Request, heading: str, *, list_title: str = ""):
        self._context: Context = request.state.context  # not of `app`: that may be a mounted one
        self._language = language(request.headers.get("accept-language", ""), self._context.house.language)
        self._texts, self._list = texts()[self._language], list_title
        self._heading = self._say(heading)
        self._body: list[str] = []

    def paragraph(self, *names: str) -> Page:
        """A paragraph for each of these texts."""
        self._body += [f"<p>{self._say(name)}</p>" for name in names]
        return self

    def button(self, name: str, *, everything: bool, second: bool = False) -> Page:
        """A button that opts out. `everything`: of all mail, else of what the link names."""
        class_, all_ = ' class="second"' if second else "", _ALL if everything else ""
        self._body.append(_FORM.format(class_=class_, all_=all_, label=self._say(name)))
        return self

    def way_out(self) -> Page:
        """Where else somebody can turn whom this page does not help, if the house has such a place."""
        return self.paragraph("write") if self._context.house.addresses else self

    def answer(self, status: int, headers: Mapping[str, str] | None = None) -> Response:
        """The page as a response with this status."""
        html = _PAGE.format(
            lang=self._language,
            heading=self._heading,
            name=escape(self._context.house.name),
            base=escape(self._context.base),
            body="\n".join(self._body),
        )
        said = {"Content-Language": self._language, "Vary": "Accept-Language"}
        return HTMLResponse(html, status, {**SECURITY, **said, **(headers or {})})

    def _say(self, name: str) -> str:
        house = self._context.house
        return escape(self._texts[name]).format(
            name=escape(house.name), list=escape(self._list), address=_mail_link(house.addresses)
        )


def _mail_link(addresses: Iterable[str]) -> str:
    address = next(iter(addresses), "")
    return f'<a href="mailto:{escape(quote(address, safe="@+"))}">{escape(address)}</a>'
