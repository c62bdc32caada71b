"""Header fields: splitting a header block (RFC 5322 section 2.2) and decoding encoded words (RFC 2047)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from daemon.mail.charsets import decode
from daemon.mail.patterns import pattern

HEADER_LIMIT: Final = 65_536  # octets of one header block

_NAME = pattern(r"^[!-9;-~]{1,200}[ \t]{0,3}:")
_ENCODED_WORD = pattern(r"=\?([^?\s]{1,60})\?([bq])\?([^?]*)\?=")
_LOOKS_LIKE_FIELD = pattern(r"[a-z][a-z0-9-]{0,60}:(?!//)")
_PARAMETER = pattern(r";\s*([^\s=;*]{1,60})(\*\d{0,2}\*?)?\s{0,5}=\s{0,5}(?:\"([^\"]{0,2000})\"|([^\s;\"]{0,2000}))")


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one header block, in order; names in lower case, values unfolded and otherwise raw."""

    items: tuple[tuple[str, str], ...] = ()

    def all(self, name: str) -> list[str]:
        """The values of every field of this name, top first."""
        return [value for key, value in self.items if key == name]

    def get(self, name: str) -> str:
        """The value of the topmost field of this name; "" if there is none."""
        return next((value for key, value in self.items if key == name), "")

    def __contains__(self, name: object) -> bool:
        return any(key == name for key, _ in self.items)


def split(raw: bytes) -> tuple[Fields, bytes, bool]:
    """A message or part -> (its fields, its body, was the header block longer than HEADER_LIMIT?)."""
    items: list[tuple[str, list[bytes]]] = []
    position, limit = 0, min(len(raw), HEADER_LIMIT + 1)
    body = len(raw)
    for start, line, after in _lines(raw):
        if not line.strip(b"\r"):
            body = after
            break
        if start > limit:
            return _fields(items), raw[start:], True
        if line[:1] in b" \t" and items:
            items[-1][1].append(line)
        elif (named := _NAME.match(line[:210].decode("latin-1"))) is not None:
            items.append((named[0][:-1].strip().lower(), [line[named.end() :]]))
        elif not (position == 0 and line.startswith((b"From ", b">From "))):  # an mbox separator is no field
            body = start  # like every mail program: what is no field begins the body
            break
        position = after
    return _fields(items), raw[body:], position > HEADER_LIMIT


def _lines(raw: bytes) -> Iterator[tuple[int, bytes, int]]:
    start = 0
    while start < len(raw):
        end = raw.find(b"\n", start)
        end = len(raw) if end < 0 else end
        yield start, raw[start:end].rstrip(b"\r"), end + 1
        start = end + 1


def _fields(items: list[tuple[str, list[bytes]]]) -> Fields:
    return Fields(
        tuple(
            (name, decode(b" ".join(x.strip() for x in lines), "utf-8" if _is_utf8(lines) else "").strip())
            for name, lines in items
        )
    )


def _is_utf8(lines: list[bytes]) -> bool:
    try:
        b"".join(lines).decode()
    except UnicodeDecodeError:
        return False
    return True


def words(value: str) -> str:
    """A field value with its encoded words decoded. Line breaks inside become spaces; what an injected header field
    or empty line begins is left out (nothing after it was meant to be read as part of the value)."""
    out: list[str] = []
    last, pending, label = 0, b"", ""
    for found in _ENCODED_WORD.finditer(value):
        between = value[last : found.start()]
        octets = _b(found[3]) if found[2] in "bB" else _q(found[3])
        charset = found[1].partition("*")[0]  # RFC 2231 language suffix
        if pending and (between.strip() or charset.lower() != label.lower()):
            out.append(decode(pending, label))
            pending = b""
        if between.strip() or not last:
            out.append(between)
        pending, label, last = pending + octets, charset, found.end()
    if pending:
        out.append(decode(pending, label))
    return _harmless("".join(out) + value[last:])


def _b(text: str) -> bytes:
    bare = text.strip().rstrip("=").encode("ascii", "ignore")
    try:
        return base64.b64decode(bare[: len(bare) // 4 * 4 + (len(bare) % 4 if len(bare) % 4 != 1 else 0)] + b"==")
    except (binascii.Error, ValueError):
        return b""


def _q(text: str) -> bytes:
    return binascii.a2b_qp(text.encode("latin-1", "replace"), header=True)


def _harmless(text: str) -> str:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    kept = [lines[0]]
    for line in lines[1:]:
        if not line.strip() or _LOOKS_LIKE_FIELD.match(line.strip()):
            break
        kept.append(line)
    return " ".join(x.strip() for x in kept).replace("\x00", "").strip()


def parameters(value: str) -> tuple[str, dict[str, str]]:
    """A structured value as of Content-Type -> (its first token in lower case, parameters with lower-case names).

    RFC 2231 continuations are joined; their charset marks are left in (nothing here needs file names).
    """
    out: dict[str, str] = {}
    for found in _PARAMETER.finditer(value[:8000]):
        name = found[1].lower()
        text = found[3] if found[3] is not None else found[4]
        out[name] = out[name] + text if name in out and found[2] and found[2] != "*0" else out.get(name, text)
    return value.partition(";")[0].strip().lower()[:100], out
