"""Signed tokens of ours: they carry an address key, never an address (DESIGN section 5). Pure.

30 octets: version (high nibble) and number of the site key (low nibble), address key 16, list number 2, MAC 11;
written as 48 characters of base32 (RFC 4648) without padding, in any case. No expiry.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from storage.address import KEY_OCTETS, SiteKey

Purpose = Literal["link", "received"]
VERSION: Final = 1
LENGTH: Final = 48  # characters
NOBODY: Final = bytes(KEY_OCTETS)  # the address key of a message with several recipients
_MAC_OCTETS: Final = 11


@dataclass(frozen=True, slots=True)
class Token:
    """What a valid token says: whose (an address key; NOBODY: several recipients), and of which list (0: none)."""

    address_key: bytes
    list_number: int


def make(site_key: SiteKey, purpose: Purpose, address_key: bytes, list_number: int) -> str:
    """A token under the newest site key. `list_number` 0..65535. Raises ValueError for what does not fit."""
    number = len(site_key.keys)
    if number > 15 or len(address_key) != KEY_OCTETS or not 0 <= list_number < 65536:
        raise ValueError("a token takes at most 15 site keys, a 16-octet address key and a 16-bit list number")
    said = bytes([VERSION << 4 | number]) + address_key + list_number.to_bytes(2, "big")
    return base64.b32encode(said + _mac(site_key, purpose, number, said)).decode("ascii").lower()


def read(site_key: SiteKey, purpose: Purpose, text: str) -> Token | None:
    """The token in `text` (exactly LENGTH characters, any case), or None if it is not one of ours for this purpose."""
    if len(text) != LENGTH or not text.isascii():
        return None
    try:
        octets = base64.b32decode(text.upper())
    except (binascii.Error, ValueError):
        return None
    said, mac = octets[:-_MAC_OCTETS], octets[-_MAC_OCTETS:]
    version, number = said[0] >> 4, said[0] & 15
    if version != VERSION or not 1 <= number <= len(site_key.keys):
        return None
    if not hmac.compare_digest(mac, _mac(site_key, purpose, number, said)):
        return None
    return Token(said[1 : 1 + KEY_OCTETS], int.from_bytes(said[1 + KEY_OCTETS :], "big"))


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
