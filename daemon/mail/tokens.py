"""Signed tokens of ours: they carry an address key, never an address. Pure.

30 octets: version (high nibble) and number of the site key (low nibble), address key 16, list number 2, MAC 11;
written as 48 characters of base32 (RFC 4648) without padding, in any case. A link that was stamped has no expiry and
can only take away. Two purposes give back: an `undo` token, in which two more octets say on which day it was made (52
characters), and a `regret` token, in which ten more name one click on a page of ours (64 characters). A `canary` token,
with a day as well, says that a message is our own test of the mailbox.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from daemon.mail.patterns import pattern
from storage.address import KEY_OCTETS, SiteKey

Purpose = Literal["link", "received", "undo", "regret", "canary"]
VERSION: Final = 1
LENGTH: Final = 48  # characters
UNDO_LENGTH: Final = 52
UNDO_DAYS: Final = 30
CLICK_OCTETS: Final = 10
NOBODY: Final = bytes(KEY_OCTETS)  # the address key of a message with several recipients
_MAC_OCTETS: Final = 11
_SAID_OCTETS: Final = 1 + KEY_OCTETS + 2
_LENGTHS: Final = {"undo": UNDO_LENGTH, "canary": UNDO_LENGTH, "regret": 64}
_DATED: Final = ("undo", "canary")
_CANDIDATE = pattern(r"(?<![a-z0-9])(?:[a-z2-7]{48}|[a-z2-7]{52})(?![a-z0-9])")


@dataclass(frozen=True, slots=True)
class Token:
    """What a valid token says: whose (an address key; NOBODY: several recipients), and of which list (0: none).

    `day`: when an `undo` or `canary` token was made, in days since 1970; 0 for the others. `click`: which one a `regret` token is
    about, as whoever recorded it calls it; b"" for the others.
    """

    address_key: bytes
    list_number: int
    day: int = 0
    click: bytes = b""


def make(
    site_key: SiteKey, purpose: Purpose, address_key: bytes, list_number: int, *, day: int = 0, click: bytes = b""
) -> str:
    """A token under the newest site key. `list_number` 0..65535, `day` for `undo` and `canary` only, `click` for `regret` only.

    Raises ValueError for what does not fit.
    """
    number = len(site_key.keys)
    fits = number <= 15 and len(address_key) == KEY_OCTETS and 0 <= list_number < 65536 and 0 <= day < 65536
    if not fits or (purpose in _DATED) != bool(day) or len(click) != CLICK_OCTETS * (purpose == "regret"):
        raise ValueError("a token takes at most 15 site keys, a 16-octet address key, 16-bit numbers; a day to undo")
    said = bytes([VERSION << 4 | number]) + address_key + list_number.to_bytes(2, "big")
    said += day.to_bytes(2, "big") if purpose in _DATED else click
    return _base32(said + _mac(site_key, purpose, number, said))


_PAIRS: Final = [a + b for a in "abcdefghijklmnopqrstuvwxyz234567" for b in "abcdefghijklmnopqrstuvwxyz234567"]
_SHIFTS: Final = range(230, -1, -10)  # 24 pairs of characters are 240 bits


def _base32(octets: bytes) -> str:
    """RFC 4648 base32 in small letters without padding. Of the usual 30 octets in a quarter of base64's time."""
    if len(octets) != 30:
        return base64.b32encode(octets).decode("ascii").rstrip("=").lower()
    number = int.from_bytes(octets, "big")
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in _SHIFTS])


def read(site_key: SiteKey, purpose: Purpose, text: str) -> Token | None:
    """The token in `text` (exactly its characters, any case), or None if it is not one of ours for this purpose."""
    length = _LENGTHS.get(purpose, LENGTH)
    if len(text) != length or not text.isascii():
        return None
    try:
        octets = base64.b32decode(text.upper() + "=" * (-length % 8))
    except (binascii.Error, ValueError):
        return None
    if base64.b32encode(octets).decode("ascii").rstrip("=") != text.upper():
        return None  # the last character of an undo token has bits to spare
    said, mac = octets[:-_MAC_OCTETS], octets[-_MAC_OCTETS:]
    version, number = said[0] >> 4, said[0] & 15
    if version != VERSION or not 1 <= number <= len(site_key.keys):
        return None
    if not hmac.compare_digest(mac, _mac(site_key, purpose, number, said)):
        return None
    list_number = int.from_bytes(said[1 + KEY_OCTETS : _SAID_OCTETS], "big")
    address_key, more = said[1 : 1 + KEY_OCTETS], said[_SAID_OCTETS:]
    if purpose == "regret":
        return Token(address_key, list_number, click=more)
    return Token(address_key, list_number, int.from_bytes(more, "big"))


def find(site_key: SiteKey, purposes: Iterable[Purpose], text: str) -> Iterator[Token]:
    """The valid tokens for any of the purposes that stand in a text, in order."""
    for found in _CANDIDATE.finditer(text):
        for purpose in purposes:
            token = read(site_key, purpose, found[0])
            if token is not None:
                yield token


def _mac(site_key: SiteKey, purpose: Purpose, number: int, said: bytes) -> bytes:
    hasher = _hasher(site_key, purpose, number).copy()
    hasher.update(said)
    return hasher.digest()


@lru_cache(maxsize=64)
def _hasher(site_key: SiteKey, purpose: Purpose, number: int) -> hashlib.blake2b:
    """Keyed once: every message that passes the relay gets a token."""
    name = purpose.encode("ascii")
    key = site_key.derive(b"token:" + name, number=number)
    return hashlib.blake2b(name + b"\x00", key=key, digest_size=_MAC_OCTETS)
