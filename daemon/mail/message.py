"""A message taken apart, within limits (RFC 2045, 2046). Never raises.

Our own splitter rather than the email package: that one took seconds on a 300 KB To field and recursed into four
hundred nested multiparts. A message beyond the limits is `unsound`; what has been read of it stays usable.
"""

from __future__ import annotations

import base64
import binascii
import quopri
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from daemon.mail import fields
from daemon.mail.charsets import decode
from daemon.mail.fields import Fields
from daemon.mail.patterns import pattern

RAW_LIMIT: Final = 1_048_576  # octets of a message that are looked at
PARTS_LIMIT: Final = 200
DEPTH_LIMIT: Final = 20

_NOT_BASE64 = pattern(r"[^A-Za-z0-9+/]+")


@dataclass(slots=True)
class Part:
    """A message or body part. `parts`: its children (for message/rfc822: the one enclosed message)."""

    fields: Fields
    content_type: str
    parameters: dict[str, str]
    body: bytes
    parts: list[Part] = field(default_factory=list)

    @property
    def is_attachment(self) -> bool:
        """Was it sent as a file, not to be read in line?"""
        disposition, parameters = fields.parameters(self.fields.get("content-disposition"))
        return disposition == "attachment" or (disposition != "inline" and "filename" in parameters)

    def octets(self) -> bytes:
        """The body without its transfer encoding."""
        return _transfer_decoded(self.body, self.fields.get("content-transfer-encoding"))

    def text(self) -> str:
        """The body as text, without NULs, with \\n line ends."""
        text = decode(self.octets(), self.parameters.get("charset", ""))
        return text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")

    def walk(self) -> Iterator[Part]:
        """This part and all below it, in order, without entering enclosed messages."""
        yield self
        if not self.content_type.startswith("message/"):
            for part in self.parts:
                yield from part.walk()

    def first(self, *content_types: str) -> Part | None:
        """The first part of one of these types."""
        return next((part for part in self.walk() if part.content_type in content_types), None)


@dataclass(slots=True)
class Message:
    """A whole message: the outermost part and what was wrong with it ("" or a reason a person can read)."""

    root: Part
    unsound: str = ""
    raw: bytes = b""

    @property
    def fields(self) -> Fields:
        return self.root.fields

    def enclosed(self) -> Part | None:
        """The returned or forwarded original: message/rfc822, text/rfc822-headers, or a part that calls itself so."""
        part = self.root.first(
            "message/rfc822",
            "message/global",
            "text/rfc822-headers",
            "message/global-headers",
            "message/rfc822-headers",
        )
        if part is None:
            return None
        if part.parts:
            return part.parts[0]
        inner, body, _ = fields.split(part.octets().lstrip(b"\r\n "))
        return Part(inner, "text/plain", {}, body)


def take_apart(raw: bytes) -> Message:
    """Octets to a Message. At most RAW_LIMIT octets are looked at; size alone is nothing wrong."""
    message = Message(Part(Fields(), "text/plain", {}, b""), raw=raw[:RAW_LIMIT])
    message.root = _part(raw[:RAW_LIMIT], "text/plain", 0, message, [0])
    return message


def _part(raw: bytes, default: str, depth: int, message: Message, count: list[int]) -> Part:
    head, body, too_long = fields.split(raw)
    content_type, parameters = fields.parameters(head.get("content-type"))
    if content_type.count("/") != 1:
        content_type = default  # RFC 2045 section 5.2
    part = Part(head, content_type, parameters, body)
    count[0] += 1
    if too_long:
        message.unsound = message.unsound or "a header is longer than 64 KB"
    if depth >= DEPTH_LIMIT:
        message.unsound = message.unsound or f"parts are nested deeper than {DEPTH_LIMIT}"
    elif content_type.startswith("multipart/"):
        _children(part, depth, message, count)
    elif content_type in ("message/rfc822", "message/global"):
        part.parts = [_part(part.octets().lstrip(b"\r\n"), "text/plain", depth + 1, message, count)]
    return part


def _children(part: Part, depth: int, message: Message, count: list[int]) -> None:
    default = "message/rfc822" if part.content_type == "multipart/digest" else "text/plain"
    boundary = part.parameters.get("boundary", "").rstrip()
    if not boundary:
        part.content_type = "text/plain"
        return
    for body in _bodies(part.body, boundary.encode("latin-1", "replace")):
        if count[0] > PARTS_LIMIT:
            message.unsound = message.unsound or f"more than {PARTS_LIMIT} parts"
            return
        part.parts.append(_part(body, default, depth + 1, message, count))
    if not part.parts:
        part.content_type = "text/plain"  # the boundary never comes: all there is to read is the body itself


def _bodies(body: bytes, boundary: bytes) -> Iterator[bytes]:
    """What stands between the delimiter lines (RFC 2046 section 5.1.1); a missing close delimiter is forgiven."""
    delimiter = b"\n--" + boundary
    text = b"\n" + body
    start = -1
    at = text.find(delimiter)
    while at >= 0:
        end_of_line = text.find(b"\n", at + 1)
        end_of_line = len(text) if end_of_line < 0 else end_of_line
        rest = text[at + len(delimiter) : end_of_line].strip()
        if rest in (b"", b"--"):  # else the delimiter of an inner boundary that begins alike
            if start >= 0:
                yield text[start:at].removesuffix(b"\r")
            start = -1 if rest else end_of_line + 1
            if rest:
                return
        at = text.find(delimiter, max(at + 1, end_of_line))
    if start >= 0:
        yield text[start:]


def _transfer_decoded(body: bytes, encoding: str) -> bytes:
    match encoding.strip().lower().strip("\"';"):
        case "quoted-printable":
            return quopri.decodestring(body)
        case "base64":
            bare = _NOT_BASE64.sub("", body.decode("latin-1").partition("=\n\n")[0])
            try:
                return base64.b64decode(
                    bare[: len(bare) // 4 * 4 + (len(bare) % 4 if len(bare) % 4 != 1 else 0)] + "=="
                )
            except (binascii.Error, ValueError):
                return b""
        case _:
            return body
