"""DNS, as far as the standard library asks it: addresses and names. SPF, DKIM and DMARC are TXT records, which it cannot ask for."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Final

from daemon.doctor import reach
from daemon.doctor.findings import Finding, Look
from daemon.doctor.reach import Unreached, Where

_NOT_ASKED: Final = "SPF, DKIM and DMARC are not looked at"


def probe(look: Look) -> Iterator[Finding]:
    """The name by which the relay calls itself, there and back."""
    name = look.config.relay.hostname
    if look.config.upstream is None or name == "localhost":
        yield look.ok(f"relay.hostname is not set to a name of yours, nothing to ask; {_NOT_ASKED}")
        return
    try:
        addresses = reach.resolve(look, Where(name, 25, "relay.hostname"))
    except Unreached:
        yield look.warn(
            f"{name} (relay.hostname) has no address",
            "it stands in Received lines and in our EHLO, which strict servers look up: give it an address in DNS",
        )
        return
    look.step(f"the names of {addresses[0]}")
    back = [_name_of(address) for address in addresses]
    if name.lower() in (x.lower() for x in back):
        yield look.ok(f"{name} is {', '.join(addresses)}, and back; {_NOT_ASKED}")
    else:
        yield look.ok(f"{name} is {', '.join(addresses)}; {_NOT_ASKED}")


def _name_of(address: str) -> str:
    try:
        return socket.gethostbyaddr(address)[0]
    except OSError:
        return ""
