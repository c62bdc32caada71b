"""The fields of a form, out of a body that anybody may have written."""

from __future__ import annotations

import asyncio
import re
import secrets
from http import HTTPStatus
from typing import Final

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

MAX_FORM: Final = 64 * 1024  # octets of a form without a file
_SECONDS: Final = 10.0  # for a form to arrive, and one more for each
_OCTETS: Final = 50_000  # of it
_FIELDS: Final = 2_000
# Python decodes the fields of a form by the charset that it names, and has charsets that fail in odd ways; what we send
# is UTF-8, and so is what comes back (HTML, 4.10.22).
_KINDS: Final = re.compile(
    r"application/x-www-form-urlencoded(\s*;\s*charset=\"?utf-8\"?)?|multipart/form-data\s*;\s*boundary=\"?[!-~]{1,70}?\"?",
    re.IGNORECASE,
)


async def form_of(request: Request, longest: int) -> FormData:
    """The fields of a form. Raises HTTPException: 411 without a length, 413 for too much, 415 for no form, 408, 400."""
    length = length_of(request)
    if length > longest:
        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"At most {longest:,} octets can be sent here.")
    if not _KINDS.fullmatch(request.headers.get("content-type", "").strip()):
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "That is no form.")
    try:
        async with asyncio.timeout(_SECONDS + length / _OCTETS):
            return await request.form(max_files=1, max_fields=_FIELDS)
    except (TimeoutError, ClientDisconnect):
        raise HTTPException(HTTPStatus.REQUEST_TIMEOUT) from None


def length_of(request: Request) -> int:
    """How many octets the body has. Raises HTTPException (411) if nobody can know.

    Where both are given, chunks count and not the stated length (RFC 9112 6.3), so that it would bound nothing.
    """
    stated = request.headers.get("content-length", "")
    if not (stated.isascii() and stated.isdecimal()) or len(stated) > 15 or "transfer-encoding" in request.headers:
        raise HTTPException(HTTPStatus.LENGTH_REQUIRED)
    return int(stated)


def is_same(brought: object, expected: str) -> bool:
    """Is what a form brought the token that it must bring?"""
    if not isinstance(brought, str):
        return False
    return secrets.compare_digest(brought.encode("utf-8", "replace"), expected.encode())
