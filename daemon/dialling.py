"""How a connection to an upstream comes about: connect, TLS, greeting, EHLO, AUTH.

What is configured is what happens, or nothing does: a server that does not offer STARTTLS or AUTH, or whose
certificate is not good, gets no word of a message. Nothing said before TLS counts after it (RFC 3207 4.2).
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from daemon.connection import Connection, Lost, Reply

CONNECT_SECONDS: Final = 10
_NEXT_ADDRESS_SECONDS: Final = 0.25  # RFC 8305 5: a host whose IPv6 goes nowhere does not use up the whole time
_EXTENSIONS: Final = frozenset({"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"})
_MAX_INITIAL: Final = 512  # octets of a command line with its CRLF (RFC 5321 4.5.3.1.4), which RFC 4954 4 insists on
_ENHANCED: Final = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?= |\Z)")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server to connect to. `host`: a name or an IP literal without brackets. Raises ValueError if it cannot be used.

    `context` (see `client_context`) belongs to every `tls` but "none". `username`: "" does not log in.
    """

    host: str
    port: int
    tls: Literal["none", "starttls", "implicit"] = "none"
    context: ssl.SSLContext | None = field(default=None, repr=False)
    username: str = ""
    password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if (self.tls == "none") != (self.context is None):
            raise ValueError("TLS needs a context, and a context TLS")
        if "\0" in self.username + self.password:
            raise ValueError("a user name or password with a NUL cannot be sent (RFC 4616 2)")

    def __str__(self) -> str:
        """As in a log."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def client_context(ca_file: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or later with a server whose chain and name are verified, always. Raises ValueError with a sentence.

    `ca_file`: PEM certificates to trust in place of the system's.
    """
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except ssl.SSLError:
        raise ValueError(f"{ca_file} holds no PEM certificate") from None
    except OSError as why:
        raise ValueError(f"{ca_file} cannot be read: {why.strerror}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8997
    return context


async def dial(endpoint: Endpoint, hostname: str, seconds: float) -> Connection:
    """A connection that is ready for MAIL. `hostname`: what we call ourselves; `seconds`: for one reply.

    Raises Lost(connect|tls|greeting|ehlo|auth).
    """
    connection, local = await _connect(endpoint)
    try:
        if endpoint.tls == "implicit":  # RFC 8314 3.3
            await _secure(connection, endpoint, seconds)
        await _greeting(connection, seconds)
        offered = await _hello(connection, hostname, seconds)
        if endpoint.tls == "starttls":
            await _starttls(connection, endpoint, offered, seconds)
            offered = await _hello(connection, hostname, seconds)
        if endpoint.username:
            if endpoint.tls == "none" and not local:
                raise Lost("auth", "a password is sent under TLS or to this machine only")
            await _log_in(connection, endpoint, offered, seconds)
    except BaseException:
        connection.drop()
        raise
    connection.features = {keyword: rest for keyword, rest in offered.items() if keyword in _EXTENSIONS}
    connection.errors = 0  # an EHLO that an old server did not know is no refused recipient
    return connection


async def _connect(endpoint: Endpoint) -> tuple[Connection, bool]:
    """A connection on which nothing was said, and whether its other end is on this machine."""
    loop = asyncio.get_running_loop()
    delay = (
        None if _is_literal(endpoint.host) else _NEXT_ADDRESS_SECONDS
    )  # one address: nothing to race, or to leave open
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            transport, connection = await loop.create_connection(
                Connection, endpoint.host, endpoint.port, happy_eyeballs_delay=delay
            )
    except TimeoutError:
        raise Lost("connect", "timed out") from None
    except UnicodeError:
        raise Lost("connect", "this is no host name") from None
    except OSError as why:
        raise Lost("connect", str(why)) from None
    peer = transport.get_extra_info("peername")  # None: it has gone again
    return connection, peer is not None and ipaddress.ip_address(peer[0]).is_loopback


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _greeting(connection: Connection, seconds: float) -> None:
    """RFC 5321 4.5.3.2.1 would wait 5 minutes for it, but a client waits for us meanwhile, who has no more itself."""
    connection.send(b"", 1)
    reply = await connection.reply(seconds, "greeting")
    if reply.code != 220:
        raise Lost("greeting", reply)


async def _hello(connection: Connection, hostname: str, seconds: float) -> dict[str, str]:
    """EHLO, or HELO with a server that does not know it; the keywords it offers -> their parameters."""
    connection.send(f"EHLO {hostname}\r\n".encode(), 1)
    reply = await connection.reply(seconds, "ehlo")
    if reply.code in (500, 502):
        connection.send(f"HELO {hostname}\r\n".encode(), 1)
        reply = await connection.reply(seconds, "ehlo")
    if reply.code != 250:
        raise Lost("ehlo", reply)
    return _keywords(reply.lines[1:])


def _keywords(lines: Iterable[str]) -> dict[str, str]:
    split = (line.strip().partition(" ") for line in lines)
    return {keyword.upper(): rest.strip() for keyword, _, rest in split}


# ------------------------------------------------------------------ TLS


async def _starttls(connection: Connection, endpoint: Endpoint, offered: dict[str, str], seconds: float) -> None:
    """RFC 3207. Whatever goes wrong ends the connection: going on in clear is what somebody in between would want."""
    if "STARTTLS" not in offered:
        raise Lost("tls", "STARTTLS is not offered")
    connection.send(b"STARTTLS\r\n", 1)
    reply = await connection.reply(seconds, "tls")
    if reply.code != 220:
        raise Lost("tls", reply)
    await _secure(connection, endpoint, seconds)


async def _secure(connection: Connection, endpoint: Endpoint, seconds: float) -> None:
    """The handshake. The certificate must be for the host as configured: never for a name that DNS has led to."""
    assert endpoint.context is not None
    try:
        await connection.secure(endpoint.context, endpoint.host.rstrip("."), seconds)
    except ssl.SSLCertVerificationError as why:
        raise Lost("tls", why.verify_message) from None
    except ssl.SSLError as why:
        raise Lost("tls", (why.reason or "no handshake").replace("_", " ").lower()) from None
    except OSError as why:
        raise Lost("tls", str(why) or "closed by the upstream") from None


# ------------------------------------------------------------------ AUTH


async def _log_in(connection: Connection, endpoint: Endpoint, offered: dict[str, str], seconds: float) -> None:
    """AUTH (RFC 4954), PLAIN (RFC 4616) rather than LOGIN, which is older and in no RFC."""
    user, password = endpoint.username.encode(), endpoint.password.encode()
    mechanisms = offered.get("AUTH", "").upper().split()
    if "PLAIN" in mechanisms:
        command, answers = b"AUTH PLAIN", [b"\0" + user + b"\0" + password]
    elif "LOGIN" in mechanisms:
        command, answers = b"AUTH LOGIN", [user, password]
    else:
        raise Lost("auth", "neither AUTH PLAIN nor AUTH LOGIN is offered")
    answers = [base64.b64encode(answer) for answer in answers]
    if len(answers) == 1 and len(command) + len(answers[0]) + 3 <= _MAX_INITIAL:
        command += b" " + answers.pop()  # in one go: some servers know PLAIN in no other way
    connection.send(command + b"\r\n", 1)
    reply = await connection.reply(seconds, "auth")
    while reply.code == 334 and answers:
        connection.send(answers.pop(0) + b"\r\n", 1)
        reply = await connection.reply(seconds, "auth")
    if reply.code != 235:
        raise Lost("auth", _refusal(reply))


def _refusal(reply: Reply) -> str:
    """The reply in its codes alone: its words may be what we have just sent."""
    enhanced = _ENHANCED.match(reply.lines[-1])
    meaning = {
        421: "going away",
        432: "the password must be changed",
        454: "cannot tell now",
        534: "a stronger mechanism is asked for",
        535: "user name or password refused",
        538: "encryption is asked for",
    }.get(reply.code, "refused")
    return " ".join(filter(None, (str(reply.code), enhanced and enhanced[0], meaning)))
