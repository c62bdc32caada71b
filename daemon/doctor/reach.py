"""Reaching a server step by step, and what to do when a step fails: whose fault is it most likely, and what to try?"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from daemon.doctor.findings import Finding, Look, count

CONNECT_SECONDS: Final = 8.0
SOON: Final = 14  # days left of a certificate


class Unreached(Exception):
    """A server could not `step`: resolve, connect, tls. `advice`: what to do."""

    def __init__(self, step: str, why: object, advice: str):
        super().__init__(f"{step}: {why}")
        self.advice = advice


@dataclass(frozen=True, slots=True)
class Where:
    """A server, the section of the config that names it, and its TLS ("" where there is nothing to choose)."""

    host: str
    port: int
    section: str
    tls: str = ""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def connect(look: Look, where: Where) -> list[str]:
    """Resolve the name and open a connection, which is closed again. Returns the IP addresses. Raises Unreached."""
    addresses = resolve(look, where)
    look.step(f"connect to {where}")
    try:
        socket.create_connection((where.host, where.port), CONNECT_SECONDS).close()
    except OSError as why:
        raise Unreached("connect", why.strerror or why, of_step("connect", str(why), where)) from None
    return addresses


def resolve(look: Look, where: Where) -> list[str]:
    """The IP addresses of a host. Raises Unreached."""
    look.step(f"resolve {where.host}")
    try:
        found = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as why:
        said = why.strerror if isinstance(why, OSError) else "this is no host name"
        raise Unreached("resolve", said, of_step("resolve", str(why), where)) from None
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def of_step(step: str, why: str, where: Where) -> str:
    """What to do when a server fails at a step. `why`: in the words of whatever failed."""
    match step:
        case "resolve":
            return f"is the name right ({where.section}), and does DNS work here? try: getent hosts {where.host}"
        case "connect" | "greeting" if _speaks_tls_first(where):
            return f'port {where.port} usually wants TLS from the start: {where.section} tls = "implicit"'
        case "connect" if "refused" in why.lower():
            return (
                f"nothing listens there: does the server run, and are host and port of {where.section} right? a firewall may"
                f" refuse, too; try: nc -vz {where.host} {where.port}"
            )
        case "connect":
            return (
                f"no way there, or nobody answers: are host and port of {where.section} right, is a firewall in between?"
                f" try: nc -vz {where.host} {where.port}"
            )
        case "tls":
            return of_tls(why, where)
        case _:
            return f"does the server's own log say more? it is the one that {where.section} names"


def _speaks_tls_first(where: Where) -> bool:
    return where.port in (465, 993) and where.tls in ("none", "starttls")


def of_tls(why: str, where: Where) -> str:
    """What to do when TLS fails."""
    said = why.lower().replace("_", " ")
    if "expired" in said:
        return (
            f"renew the certificate of {where.host} (if it is right, the clock of this machine is wrong: see `clock`)"
        )
    if "not yet valid" in said:
        return "is the clock of this machine right? see `clock`"
    if "mismatch" in said or "not valid for" in said:
        return f"give {where.section} the host name that stands in the certificate, or get one for {where.host}"
    if "self-signed" in said or "self signed" in said or "unable to get" in said:
        return (
            f"it is from an authority that this machine does not know: if it is your own, name its certificate in ca_file of"
            f" {where.section}; else the server leaves out a certificate in between, which is its operator's to mend"
        )
    if "starttls" in said:
        return f'it offers no STARTTLS on port {where.port}: use the port with TLS from the start, and {where.section} tls = "implicit"'
    if "wrong version" in said or "record layer" in said:
        return f'no TLS is spoken on port {where.port} at first: {where.section} tls = "starttls", or the port with TLS from the start'
    return f"try: openssl s_client -connect {where}" + (" -starttls ..." if where.tls == "starttls" else "")


def ending(look: Look, what: str, certificate: Mapping[str, Any], advice: str) -> Iterator[Finding]:
    """The certificate of a server (`what`: host and port, or the option) ends soon."""
    days = _days_left(certificate, look.house.now)
    if days is not None and days <= SOON:
        yield look.warn(f"the certificate of {what} ends in {count(days, 'day')}", advice)


def _days_left(certificate: Mapping[str, Any], now: datetime) -> int | None:
    """Whole days until this certificate (as SSLSocket.getpeercert tells it) ends; None in clear."""
    ends = certificate.get("notAfter")
    return None if not ends else int((ssl.cert_time_to_seconds(str(ends)) - now.timestamp()) // 86_400)


def tls_words(certificate: Mapping[str, Any], now: datetime) -> str:
    """How the line is guarded, for a text."""
    days = _days_left(certificate, now)
    return "in clear" if days is None else f"TLS (certificate for {days} more days)"
