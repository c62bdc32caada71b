"""What is posted to a page: at most so many octets, read in so much time, and never trusted to be a form."""

from __future__ import annotations

import asyncio
import re
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

MAX_BODY: Final = 4096  # octets; RFC 8058's are under 200
BODY_SECONDS: Final = 10.0
MAX_FIELDS: Final = 20
_BOUNDARY: Final = re.compile(r'\bboundary=(?:"([^"]{1,70})"|([^\s";,]{1,70}))', re.IGNORECASE)  # RFC 2046 5.1.1
_NAME: Final = re.compile(rb'^content-disposition:[^\n]*?[;\s]name="?([^"\n;]{1,40})', re.IGNORECASE | re.MULTILINE)


class WrongForm(Exception):
    """What came is not what a page of ours, or a mail program, sends. `status`: the HTTP status that says why."""

    def __init__(self, status: int):
        super().__init__(status)
        self.status = status


async def posted(request: Request, *, more: int = 0) -> list[tuple[str, str]]:
    """The fields (name, value) of a form, in order. `more`: fields beyond the few that every form may have.

    Raises WrongForm: too much (413), too slow (408).
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _body(request, MAX_BODY + 48 * more)
    except (TimeoutError, ClientDisconnect):
        raise WrongForm(408) from None
    if body is None:
        raise WrongForm(413)
    return pairs(request.headers.get("content-type", ""), body, MAX_FIELDS + more)


async def _body(request: Request, limit: int) -> bytes | None:
    """The octets that came; None: more than we read."""
    stated = request.headers.get("content-length", "0")
    if not stated.isdecimal() or len(stated) > 9 or int(stated) > limit:
        return None
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            return None
    return body


def first(found: list[tuple[str, str]]) -> dict[str, str]:
    """The first of each name."""
    return dict(reversed(found))


def pairs(content_type: str, body: bytes, most: int = MAX_FIELDS) -> list[tuple[str, str]]:
    """The fields of a form. No form, an unreadable one, or one of more than `most` fields: none.

    RFC 8058 3.2 wants multipart/form-data (RFC 7578) and allows application/x-www-form-urlencoded, which is also what
    a body without a type is taken for: a wish is not lost for a header.
    """
    kind = content_type.partition(";")[0].strip().lower()
    found: list[tuple[str, str]] = []
    if kind in ("application/x-www-form-urlencoded", ""):
        if body.count(b"&") < most:
            found = parse_qsl(body.decode("ascii", "replace"), keep_blank_values=True)
    elif kind == "multipart/form-data" and (boundary := _BOUNDARY.search(content_type)):
        found = _parts(body, f"--{boundary[1] or boundary[2]}".encode("latin-1", "replace"), most)
    return [(name, value.strip()) for name, value in found]


def _parts(body: bytes, delimiter: bytes, most: int) -> list[tuple[str, str]]:
    """(name, value) of the parts of a multipart body, with any line ends."""
    parts = body.replace(b"\r\n", b"\n").split(delimiter)[1:]
    if len(parts) > most + 1:  # the last one is the end
        return []
    found = []
    for part in parts:
        head, _, value = part.partition(b"\n\n")
        if name := _NAME.search(head):
            found.append((name[1].decode("ascii", "replace"), value.decode("ascii", "replace")))
    return found
