"""The keys of a great many addresses at once, for whole lists: what address.keys_of says of each, at a fraction of the cost.

Nearly all addresses of a list are of the plainest kind, with one personal form; only those are dealt with here. The others
are left to the caller, who parses them one by one. Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from storage.address import KEY_OCTETS, FormKind, NotAnAddress, SiteKey, keys_of, parse

_REMEMBERED: Final = 50_000  # domains
# Nothing in it that another form, a route or a quotation mark could hide in.
_LOCAL: Final = re.compile(rb"[a-z0-9._-]{1,64}@")

Keys = Sequence[tuple[bytes, FormKind]]


@dataclass(frozen=True, slots=True)
class Swept:
    """`own`: for each site key, newest first, the key of each text, b"" where it is not a plain address.

    `hashed`: the same for each kind of foreign hash: the first 16 octets of the digest of the address in small letters.
    `domains`: of each text the keys of its domain and that domain's parents, None where it is not a plain address.
    `wanted`: every key there is to ask for, once, sorted: neighbours in the table lie on the same page.
    """

    own: list[list[bytes]]
    hashed: list[list[bytes]]
    domains: list[Keys | None]
    wanted: list[bytes]


def sweep(site_key: SiteKey, texts: Sequence[str], kinds: Sequence[str] = ()) -> Swept:
    """The keys of those of these texts that are plain addresses, as they stand (no space around them).

    `kinds`: the foreign hashes (`md5`, `sha256`) that there are rows of.
    """
    known: dict[bytes, Keys | None] = {}
    domains: list[Keys | None] = []
    octets = _lowered(texts)
    local = _LOCAL.match
    for number, text in enumerate(octets):
        found = local(text)
        if found is None:
            domains.append(None)
            octets[number] = b""
            continue
        domain = text[found.end() :]
        keys = known.get(domain, ())
        if keys == ():
            keys = known[domain] = _domain_keys(site_key, domain.decode())
        domains.append(keys)
        if keys is None:
            octets[number] = b""
    own = [_digests(hasher, octets) for hasher in site_key.hashers]
    hashed = [[_hash(kind, text) for text in octets] for kind in kinds]
    wanted = {key for keys in known.values() for key, _ in keys or ()}
    wanted.update(*own, *hashed)
    wanted.discard(b"")
    return Swept(own, hashed, domains, sorted(wanted))


def own_keys(hasher: hashlib.blake2b, texts: Sequence[str], is_plain: Callable[[bytes], bool]) -> list[bytes]:
    """Only the keys under which these are written: b"" for what is not a plain address.

    `is_plain`: of a domain in small letters (has it addresses of one form only?), as `PlainDomains` remembers it.
    """
    octets = _lowered(texts)
    local = _LOCAL.match
    for number, text in enumerate(octets):
        found = local(text)
        if found is None or not is_plain(text[found.end() :]):
            octets[number] = b""
    return _digests(hasher, octets)


class PlainDomains(dict[bytes, bool]):
    """Which domains have addresses of one form only; remembered, for a list has few. `but`: domains to be left aside."""

    def __init__(self, site_key: SiteKey, but: Iterable[str] = ()):
        super().__init__()
        self._site_key, self._but = site_key, frozenset(but)

    def __missing__(self, domain: bytes) -> bool:
        if len(self) > _REMEMBERED:
            self.clear()
        name = domain.decode()
        self[domain] = found = name not in self._but and _domain_keys(self._site_key, name) is not None
        return found


def _lowered(texts: Sequence[str]) -> list[bytes]:
    """Each in small letters, b"" for what is not ASCII; all at once, which is much cheaper than one by one."""
    joined = "\n".join(texts)
    if not joined.isascii() or joined.count("\n") != len(texts) - 1:
        joined = "\n".join([text if text.isascii() and "\n" not in text else "" for text in texts])
    return joined.lower().encode().split(b"\n") if texts else []


def _domain_keys(site_key: SiteKey, domain: str) -> Keys | None:
    """None for a domain whose addresses have other forms, or that is none."""
    try:
        somebody = parse(f"x.y@{domain}")  # the dot shows who takes addresses with and without it for one
    except NotAnAddress:
        return None
    keys = keys_of(site_key, somebody)
    if somebody.domain != domain or {kind for _, kind in keys} != {"exact", "domain"}:
        return None
    return [(key, kind) for key, kind in keys if kind == "domain"]


def _hash(kind: str, text: bytes) -> bytes:
    return hashlib.new(kind, text, usedforsecurity=False).digest()[:KEY_OCTETS] if text else b""


def _digests(hasher: hashlib.blake2b, octets: Sequence[bytes]) -> list[bytes]:
    copy = hasher.copy
    made = []
    for text in octets:
        if text:
            keyed = copy()
            keyed.update(text)
            made.append(keyed.digest())
        else:
            made.append(b"")
    return made
