"""Who asks, and for which host: the peer of the connection, or whoever a proxy that we trust says it stands for."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Sequence
from typing import Final

from starlette.requests import HTTPConnection

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_LONGEST: Final = 64  # characters of an address with port and brackets
_PROXIES: Final = 10  # of ours, one behind the other
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::[0-9]{1,5})?")  # RFC 9110 7.2


def client_of(request: HTTPConnection, trusted: Sequence[str]) -> str:
    """The IP address of the client; "" if it has none. `trusted`: addresses and networks of our proxies.

    X-Forwarded-For is read from its end, where our own proxies have added to it: the first address that is none of theirs
    is the client, whatever stands before it. What is no address is no client; the proxy that was told so stands for it.
    """
    client = _peer(request)
    if client is None:
        return ""
    for said in reversed(_entries(request, "x-forwarded-for")[-_PROXIES:]):
        found = _address(said)
        if found is None or not _is_trusted(client, tuple(trusted)):
            break
        client = found
    return str(client)


def scheme_of(request: HTTPConnection, trusted: Sequence[str]) -> str:
    """`https` or `http`: how the client speaks to us, or to our proxy (the last entry of X-Forwarded-Proto)."""
    if is_proxied(request, trusted):
        said = _entries(request, "x-forwarded-proto")[-1:]
        if said and said[0].lower() in ("http", "https"):
            return said[0].lower()
    return str(request.scope["scheme"])


def is_proxied(request: HTTPConnection, trusted: Sequence[str]) -> bool:
    """Was it sent by a proxy that we trust?"""
    peer = _peer(request)
    return peer is not None and _is_trusted(peer, tuple(trusted))


def host_of(request: HTTPConnection) -> str:
    """The host that the client means, in small letters, without port and brackets; "" if it names none, or two."""
    named = request.headers.getlist("host")
    found = _HOST.fullmatch(named[0].strip()) if len(named) == 1 else None
    return (found[1] or found[2]).lower().removesuffix(".") if found else ""


def is_this_machine(host: str) -> bool:
    """Does this name of a host lead nowhere but to loopback? (RFC 6761 6.3)"""
    found = _address(host)
    return found.is_loopback if found else host == "localhost" or host.endswith(".localhost")


def _peer(request: HTTPConnection) -> _Address | None:
    return _address(request.client.host) if request.client else None


def _entries(request: HTTPConnection, header: str) -> list[str]:
    return [entry.strip() for line in request.headers.getlist(header) for entry in line.split(",")]


def _address(text: str) -> _Address | None:
    """An address as proxies write it: bare, with a port, in brackets. IPv4 that came over an IPv6 socket is IPv4."""
    if len(text) > _LONGEST:
        return None
    text = text.partition("]")[0][1:] if text.startswith("[") else text
    text = text.partition(":")[0] if text.count(":") == 1 else text
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None) or found


def _is_trusted(address: _Address, trusted: tuple[str, ...]) -> bool:
    return any(address.version == network.version and address in network for network in _networks(trusted))


@functools.lru_cache(maxsize=8)
def _networks(trusted: tuple[str, ...]) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(text, strict=False) for text in trusted)
