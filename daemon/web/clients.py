"""Who asks: the peer of the connection, or whoever a proxy that we trust says it stands for."""

from __future__ import annotations

import functools
import ipaddress
from typing import Final

from starlette.requests import HTTPConnection

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_LONGEST: Final = 64  # characters of an address with port and brackets


def client_of(request: HTTPConnection, trusted: tuple[str, ...]) -> str:
    """The IP address of the client; "" if it has none. `trusted`: addresses and networks of our proxies.

    Of an X-Forwarded-For the last entry counts, which our own proxy has added: the others say what they like.
    """
    peer = _peer(request)
    if peer is not None and _is_trusted(peer, trusted):
        said = _last(request, "x-forwarded-for")
        return str(_address(said) or peer)
    return "" if peer is None else str(peer)


def scheme_of(request: HTTPConnection, trusted: tuple[str, ...]) -> str:
    """`https` or `http`: how the client speaks to us, or to our proxy (the last entry of X-Forwarded-Proto)."""
    peer = _peer(request)
    if peer is not None and _is_trusted(peer, trusted):
        said = _last(request, "x-forwarded-proto").lower()
        if said in ("http", "https"):
            return said
    return str(request.scope["scheme"])


def _peer(request: HTTPConnection) -> _Address | None:
    return _address(request.client.host) if request.client else None


def _last(request: HTTPConnection, header: str) -> str:
    lines = request.headers.getlist(header)
    return lines[-1].rpartition(",")[2].strip() if lines else ""


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


def _is_trusted(peer: _Address, trusted: tuple[str, ...]) -> bool:
    return any(peer.version == network.version and peer in network for network in _networks(trusted))


@functools.lru_cache(maxsize=8)
def _networks(trusted: tuple[str, ...]) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(text, strict=False) for text in trusted)
