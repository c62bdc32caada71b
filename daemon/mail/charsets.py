"""Octets to text, whatever the label says. Never raises.

Labels lie: UTF-8 goes out as us-ascii, windows-1252 as iso-8859-1, gb18030 as gb2312. Python's codecs also include
things that are no charsets (`zip`, `idna`, `unicode_escape`), some slow on purpose: only the ones named here are used.
"""

from __future__ import annotations

import codecs
from typing import Final

from daemon.mail.patterns import pattern

# label (without - and _) -> codec. A label that Microsoft widened is read as the wider one.
_WIDER: Final[dict[str, str]] = {
    "usascii": "ascii", "ascii": "ascii", "ansix3.41968": "ascii", "646": "ascii", "": "ascii",
    "iso88591": "cp1252", "latin1": "cp1252", "iso885911": "cp874", "tis620": "cp874", "iso88599": "cp1254",
    "gb2312": "gb18030", "gbk": "gb18030", "cp936": "gb18030", "xgbk": "gb18030", "hzgb2312": "hz",
    "euckr": "cp949", "ksc56011987": "cp949", "ksc5601": "cp949", "iso88598i": "iso8859_8", "logical": "iso8859_8",
    "shiftjis": "cp932", "xsjis": "cp932", "sjis": "cp932", "windows31j": "cp932", "big5": "big5hkscs",
    "iso2022jp": "iso2022_jp_ext", "unicode11utf7": "utf_7", "utf8mb4": "utf_8", "xmaccyrillic": "mac_cyrillic",
    "iso88598": "cp1255", "iso88596": "cp1256",
}  # fmt: skip
_ALLOWED: Final = frozenset(
    "ascii utf-8 utf-16 utf-16-be utf-16-le utf-32 utf-7 gb18030 hz cp949 cp932 cp874 big5 big5hkscs euc_jp iso2022_jp"
    " iso2022_jp_1 iso2022_jp_2 iso2022_jp_3 iso2022_jp_ext iso2022_kr johab koi8-r koi8-u koi8-t cp437 cp850 cp852 "
    "cp855 cp866"
    " cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 iso8859-1 iso8859-2 iso8859-3 iso8859-4 iso8859-5"
    " iso8859-6 iso8859-7 iso8859-8 iso8859-9 iso8859-10 iso8859-11 iso8859-13 iso8859-14 iso8859-15 iso8859-16"
    " mac-roman mac-cyrillic mac-greek mac-latin2 ptcp154 kz1048 tis-620".split()
)
_HALVES: Final = pattern("[\ud800-\udfff]")
_SINGLE_OCTET: Final = ("cp125", "iso8859", "koi8", "mac", "cp874", "cp4", "cp8", "ascii")


def codec(label: str) -> str:
    """The codec for a MIME charset label; "ascii" when the label is unknown or names no charset."""
    bare = label.strip().strip("\"'").lower().replace("-", "").replace("_", "").replace(" ", "")[:40]
    try:
        name = codecs.lookup(_WIDER.get(bare) or label.strip().strip("\"'")[:40]).name
    except (LookupError, ValueError):
        return "ascii"
    return name if name in _ALLOWED else "ascii"


def decode(octets: bytes, label: str = "") -> str:
    """Text of `octets`; where they contradict the label, the octets win."""
    name = codec(label)
    if b"\x1b$" in octets and (name == "ascii" or name.startswith("iso2022")):
        return octets.decode("iso2022_jp_ext", "replace")  # RFC 1468, labelled or not
    if octets.isascii() and name.startswith(("ascii", "cp125", "iso8859", "utf-8", "koi8")):
        return octets.decode("ascii")
    if name.startswith(_SINGLE_OCTET):  # hardly any real text in these is valid UTF-8 by chance
        utf8 = _strict_utf8(octets)
        if utf8 is not None:
            return utf8
    if name == "ascii":
        name = "cp1252"
    try:
        text = octets.decode(name, "replace")
        return whole(text) if name == "utf-7" else text  # the one codec that lets halves of characters through
    except (UnicodeError, ValueError, LookupError):
        return octets.decode("latin-1")


def whole(text: str) -> str:
    """The text without halves of characters (surrogates, which JSON and UTF-7 can spell) and NULs: no database takes them."""
    return _HALVES.sub("\ufffd", text).replace("\x00", "")


def _strict_utf8(octets: bytes) -> str | None:
    """UTF-8 text, or None. A character cut off at the end (the message was cut at 1 MiB) is forgiven."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        return decoder.decode(octets, final=False)
    except UnicodeDecodeError:
        return None
