"""The canary: a message of our own that asks to be left alone, as a customer would. Pure.

It comes from an address that nobody can have (RFC 6761 section 6.4), a new one each time, and bears a token that only
this site can have made, of this very address.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import Final

from daemon.config import House
from daemon.mail import addresses, message, tokens
from storage.address import SiteKey, parse, person

CHANCE_OCTETS: Final = 15
_DOMAIN: Final = "optoutd.invalid"
_FIELD: Final = "X-Optoutd-Canary"
_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Canary:
    """A message, and what it is known by."""

    address: str
    token: str
    message_id: str
    raw: bytes


def compose(site_key: SiteKey, house: House, now: datetime, chance: bytes) -> Canary:
    """A new one. `chance`: CHANCE_OCTETS random octets, which make its address."""
    name = base64.b32encode(chance).decode("ascii").lower()
    address = f"canary-{name}@{_DOMAIN}"
    token = tokens.make(site_key, "canary", _key(site_key, address), 0, day=int(now.timestamp()) // _DAY)
    message_id = f"<{name}@{_DOMAIN}>"
    lines = [
        f"From: optoutd self-test <{address}>",
        f"To: {next(iter(house.addresses), address)}",
        "Subject: optoutd self-test: unsubscribe",
        f"Date: {format_datetime(now)}",
        f"Message-ID: {message_id}",
        f"{_FIELD}: {token}",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        "Please remove me from all of your mailing lists.",
        "",
    ]
    return Canary(address, token, message_id, "\r\n".join(lines).encode())


def token_of(raw: bytes, site_key: SiteKey) -> str:
    """The token of a canary of this site, in small letters; "" if this is none: no token, one of another site or address."""
    fields = message.take_apart(raw).fields
    text = fields.get(_FIELD.lower()).strip()
    token = tokens.read(site_key, "canary", text)
    authors = [address for _, address in addresses.read(fields.get("from"))]
    if token is None or len(authors) != 1 or not authors[0].endswith(f"@{_DOMAIN}"):
        return ""
    keys = site_key.address_keys(person(parse(authors[0]), ()))
    return text.lower() if token.address_key in keys else ""


def _key(site_key: SiteKey, address: str) -> bytes:
    return site_key.address_key(person(parse(address), ()))
