"""Whom mail to an address may reach, when an MTA behind us reads more into it than we do. Pure.

Postfix sends on what is routed, with its defaults: `ann%b.example`, `b.example!ann` and `"ann@b.example"` in front of a
domain of its own all reach ann@b.example (allow_percent_hack, swap_bangpath, resolve_dequoted_address). Whoever looked up
only the address as it stands would let mail through to somebody who has opted out.
"""

from __future__ import annotations

import re
from typing import Final

from storage.address import Address, NotAnAddress, parse

_READINGS: Final = 16  # of one recipient: more hops than that lead nowhere
_USUAL: Final = re.compile(r"[\w.+-]+\Z")  # a local part that needs no quotes


def is_routed(address: Address) -> bool:
    """May it be more than one address?"""
    local = address.local
    return "%" in local or "!" in local or "@" in local


def meant(recipient: str) -> list[Address]:
    """Whom mail to this recipient may reach: the address itself first. Raises NotAnAddress.

    `recipient` is in the unquoted form, as Postfix asks with: `"a b"@x` is `a b@x`, and quotes that are there belong to
    the local part. A bare name is nobody's address: Postfix would complete it in a way that we do not know.
    """
    found: list[Address] = []
    texts = [recipient]
    for text in texts:  # grows while it runs
        if len(texts) > _READINGS:
            raise NotAnAddress("too many hops")
        local, at, domain = text.rpartition("@")
        try:
            found += [_unquoted(local, domain)] if at else []
        except NotAnAddress:
            if text is recipient:
                raise
        texts += [hop for hop in _hops(local if at else text) if hop not in texts]
    if not found:
        raise NotAnAddress("an address looks like name@example.com")
    return found


def _unquoted(local: str, domain: str) -> Address:
    if not local:
        raise NotAnAddress("nothing before the @")
    if _USUAL.match(local):
        return parse(f"{local}@{domain}")
    return parse('"' + local.replace("\\", "\\\\").replace('"', '\\"') + f'"@{domain}')


def _hops(local: str) -> list[str]:
    """Where a local part leads if it is a route (Postfix's trivial-rewrite: last `%`, first `!`, `@` within quotes)."""
    user, percent, host = local.rpartition("%")
    site, bang, rest = local.partition("!")
    return (
        ([local] if "@" in local else [])
        + ([f"{user}@{host}"] if percent and user and host else [])
        + ([f"{rest}@{site}"] if bang and site and rest else [])
    )
