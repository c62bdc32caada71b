"""A form with a file in it (RFC 7578), read as it comes: the file goes where it is told, and never into memory.

The fields before the file are known when it begins, so that nobody's file is taken who may not bring one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

PATIENCE_SECONDS: Final = 30.0  # for the next piece
_MOST_FIELDS: Final = 50
_LONGEST_FIELD: Final = 8_000  # octets
MOST_BEFORE: Final = 64 * 1024  # octets of a form that may come before its file, or before its end if it has none


async def pieces(request: Request) -> AsyncIterator[bytes]:
    """The body, as it comes. Raises HTTPException: 408 if it does not come on, 400 if the client has gone."""
    stream = request.stream()
    try:
        while True:
            async with asyncio.timeout(PATIENCE_SECONDS):
                piece = await anext(stream, None)
            if piece is None:
                return
            if piece:
                yield piece
    except TimeoutError:
        raise HTTPException(HTTPStatus.REQUEST_TIMEOUT) from None
    except ClientDisconnect:
        raise HTTPException(HTTPStatus.BAD_REQUEST) from None


@dataclass
class _Parts:
    """What the parser has told since it was asked last."""

    fields: dict[str, str] = field(default_factory=dict)
    file_name: str | None = None
    octets: bytearray = field(default_factory=bytearray)  # of the file, not yet taken
    ended: bool = False
    _header: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _disposition: bytes = b""
    _name: str = ""
    _is_file: bool = False
    _text: bytearray = field(default_factory=bytearray)

    def begin(self) -> None:
        self._disposition, self._text = b"", bytearray()

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def headers_end(self) -> None:
        kind, options = parse_options_header(self._disposition)
        name, file_name = options.get(b"name"), options.get(b"filename")
        if kind != b"form-data" or name is None:
            raise FormParserError("a part that is no field")
        self._name, self._is_file = name.decode("utf-8", "replace"), file_name is not None
        if file_name is None:
            return
        if self.file_name is not None:
            raise FormParserError("more than one file")
        self.file_name = file_name.decode("utf-8", "replace")

    def data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.octets += data[start:end]
        else:
            self._text += data[start:end]
            if len(self._text) > _LONGEST_FIELD:
                raise FormParserError("a field that is too long")

    def part_end(self) -> None:
        if not self._is_file:
            self.fields[self._name] = self._text.decode("utf-8", "replace")
            if len(self.fields) > _MOST_FIELDS:
                raise FormParserError("too many fields")

    def end(self) -> None:
        self.ended = True

    def taken(self) -> bytes:
        """What of the file has come since."""
        octets, self.octets = bytes(self.octets), bytearray()
        return octets


async def read_form(
    request: Request, may: Callable[[dict[str, str]], object], put: Callable[[bytes], Awaitable[object]]
) -> tuple[dict[str, str], str | None]:
    """The fields, and the name of the file (None: there was none), whose octets went to `put`.

    `may` hears the fields that stand before the file when it begins, and raises if it may not come. Raises HTTPException (400)
    for what is no such form, 413 for one that is long before it is known whether it may come, and what `put` raises.
    """
    parts = _Parts()
    parser = _parser(request, parts)
    asked, before = False, 0
    try:
        async for piece in pieces(request):
            parser.write(piece)
            before += len(piece)
            if parts.file_name is None and before > MOST_BEFORE:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            if parts.file_name is not None:
                if not asked:
                    may(parts.fields)
                    asked = True
                await put(parts.taken())
        parser.finalize()
    except FormParserError:
        raise HTTPException(HTTPStatus.BAD_REQUEST) from None
    if not parts.ended:
        raise HTTPException(HTTPStatus.BAD_REQUEST)
    if not asked:
        may(parts.fields)
    return parts.fields, parts.file_name


def _parser(request: Request, parts: _Parts) -> MultipartParser:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    try:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": parts.begin,
                "on_header_field": parts.header_field,
                "on_header_value": parts.header_value,
                "on_header_end": parts.header_end,
                "on_headers_finished": parts.headers_end,
                "on_part_data": parts.data,
                "on_part_end": parts.part_end,
                "on_end": parts.end,
            },
        )
    except FormParserError:
        raise HTTPException(HTTPStatus.BAD_REQUEST) from None
