"""Addresses that mail servers have rewritten on the way, led back to what they were.

BATV (draft-levine-smtp-batv: `prvs=TAG=ann@`, Barracuda's `btv1==TAG==ann@`) signs a return path, SRS (`SRS0=HASH=DAY=
example.com=ann@forwarder`) carries one through a forwarder, and VERP (`bounces+ann=example.com@our.example`) writes the
recipient into it.
"""

from __future__ import annotations

from typing import Final

from daemon.config import House
from daemon.mail.addresses import spec
from daemon.mail.patterns import pattern

_BATV = pattern(r"(?:(?:ms)?prvs\d?=[a-z0-9._-]{1,40}=|btv1==[a-z0-9._-]{1,40}==)([^@]{1,64})@([^@]{1,255})\Z")
_BATV_TAIL = pattern(r"prvs=([^@=/]{1,64})/[a-z0-9]{4,40}@([^@]{1,255})\Z")
_SRS0 = pattern(r"srs0[=+-][^=@]{1,20}=[a-z2-7]{2}=([^=@\s]{1,255})=([^@\s]{1,255})@[^@]{1,255}\Z")
_SRS1 = pattern(r"srs1[=+-][^=@]{1,20}=[^=@\s]{1,255}=([=+-][^=@]{1,20}=[a-z2-7]{2}=[^@\s]{1,320})@([^@]{1,255})\Z")
_RETURNS: Final = ("bounces", "bounce", "returns", "return", "errors")  # as return paths are called


def undone(address: str) -> str:
    """The address before BATV and SRS; as it stands if it bears neither."""
    for _ in range(3):  # one may be wrapped in the other
        before = _unwrapped(address)
        if before is None:
            return address
        address = before
    return address


def _unwrapped(address: str) -> str | None:
    if found := _SRS1.match(address):
        return spec(f"SRS0{found[1]}@{found[2]}")
    if found := _SRS0.match(address):
        return spec(f"{found[2]}@{found[1]}")
    if found := _BATV.match(address) or _BATV_TAIL.match(address):
        return spec(f"{found[1]}@{found[2]}")
    return None


def verp(address: str, house: House) -> str | None:
    """Whom a bounce to this return path of ours is about; None if it is no VERP address of one of our domains."""
    local, _, domain = undone(address).rpartition("@")
    head, equals, of = local.rpartition("=")
    if not equals or not house.owns(domain):
        return None
    named = next((head.partition(word)[2] for word in _RETURNS if word in head.lower()), "")
    if named[:1] not in ("+", "-"):
        named = head[min((at for at in (head.find("+"), head.find("-")) if at >= 0), default=len(head)) :]
    return spec(f"{named[1:]}@{of}") if len(named) > 1 else None
