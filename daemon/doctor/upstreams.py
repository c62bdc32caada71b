"""The mail server behind the relay, and those that stand in for it: as far as MAIL, and with --probe a whole message."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress
from email.headerregistry import Address as Mailbox
from typing import Final

from daemon import notices, own_mail, relaying
from daemon.config import ConfigError, host_port
from daemon.connection import Connection, Lost, Reply
from daemon.dialling import Endpoint, dial
from daemon.doctor import reach
from daemon.doctor.findings import Finding, Look, size
from daemon.doctor.reach import Unreached, Where
from daemon.values import EVERYWHERE

_REPLY_SECONDS: Final = 8.0
_GOODBYE_SECONDS: Final = 2.0
_DOWN_SECONDS: Final = 0.02  # for the turns of the loop that closing takes
_WANTED: Final = ("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN")
_LOOP: Final = "a message would go round for ever: name the mail server behind the relay"


def probe(look: Look) -> Iterator[Finding]:
    """Each server in turn; the test message goes by the first."""
    if look.config.upstream is None:
        yield look.ok("no [upstream]: no relay")
        return
    try:
        servers = relaying.endpoints(look.loaded)
    except ConfigError as why:
        yield look.fail(look.said(why), "mend it in the config, then `optoutd check-config`")
        return
    for at, server in servers:
        yield from _server(look, f"[{at}]", server, sends=look.house.traces and at == "upstream")


def _server(look: Look, section: str, server: Endpoint, *, sends: bool) -> Iterator[Finding]:
    where = Where(server.host, server.port, section, server.tls)
    try:
        addresses = reach.connect(look, where)
        if _is_our_own(look, addresses, server.port):
            yield look.fail(f"{where} is the relay's own listener", _LOOP)
            return
        look.step(f"greeting, EHLO{', TLS' * (server.tls != 'none')}{', AUTH' * bool(server.username)} with {where}")
        yield from asyncio.run(_converse(look, where, server, sends=sends))
    except Unreached as why:
        yield look.fail(f"{where}: {look.said(why)}", why.advice)
    except Lost as lost:
        yield look.fail(f"{where}: {look.said(lost)}", _advice(lost, where))


def _advice(lost: Lost, where: Where) -> str:
    match lost.step:
        case "auth":
            return f"are username and password_file of {where.section} right, and may this user send from here?"
        case "greeting":
            return (
                reach.of_step("greeting", str(lost), where)
                + "; until it greets with 220, clients of the relay hear 451"
            )
        case "ehlo":
            return "does it dislike relay.hostname, by which we greet it? its log says why"
        case "mail" | "rcpt" | "data" | "body" | "dot":
            return "it is reached, but does not take a message of ours: its log says why"
        case _:
            return reach.of_step(lost.step, str(lost), where)


def _is_our_own(look: Look, addresses: list[str], port: int) -> bool:
    """A name of ours that leads back to the relay: by its text alone it is not known."""
    ours = [host_port(x.address) for x in look.config.relay.listeners()]
    return any(p == port and (host in (a, *EVERYWHERE) and _is_here(a)) for host, p in ours for a in addresses)


def _is_here(address: str) -> bool:
    """Is this an address of this machine? Then a socket can have it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


async def _converse(look: Look, where: Where, server: Endpoint, *, sends: bool) -> list[Finding]:
    """Up to where MAIL would come, and what there is to say about it. Raises Lost."""
    hostname = look.config.relay.hostname
    connection = await dial(server, hostname, _REPLY_SECONDS)
    try:
        found = [look.ok(f"{where}: {_offered(look, connection, server)}"), *_certificate(look, where, connection)]
        found += _sizes(look, connection)
        if sends:
            look.step(f"send a message by {where}")
            found.append(await _send(look, connection))
    finally:
        await _say_goodbye(connection)
    return found


async def _say_goodbye(connection: Connection) -> None:
    """QUIT, and wait until the line is down: this loop ends with us."""
    if not connection.gone:
        connection.send(b"QUIT\r\n", 1)
        with suppress(Lost):
            await connection.reply(_GOODBYE_SECONDS, "quit")
    connection.drop()
    await asyncio.sleep(_DOWN_SECONDS)


def _offered(look: Look, connection: Connection, server: Endpoint) -> str:
    lacks = [word for word in _WANTED if word not in connection.features]
    words = [reach.tls_words(connection.certificate, look.house.now)]
    words += [f"logged in as {server.username}"] if server.username else []
    words += [f"lacks {', '.join(lacks)} (so the relay does not offer it)" if lacks else f"offers {', '.join(_WANTED)}"]
    return "; ".join(words)


def _certificate(look: Look, where: Where, connection: Connection) -> Iterator[Finding]:
    advice = "tell whoever runs that server: after that clients of the relay hear 451"
    yield from reach.ending(look, str(where), connection.certificate, advice)


def _sizes(look: Look, connection: Connection) -> Iterator[Finding]:
    limit = connection.features.get("SIZE", "")
    if limit.isdigit() and 0 < int(limit) < 1_000_000:
        yield look.warn(f"it takes no message over {size(int(limit))}", "let it take what your campaigns have")


# ------------------------------------------------------------------ --probe


async def _send(look: Look, connection: Connection) -> Finding:
    """A message to the house itself: the only way to know that the server takes any. Raises Lost."""
    config = look.config
    to = config.house.operators_mail or next(iter(config.house.addresses), "")
    if not to:
        return look.warn("no message was sent: there is nobody to send it to", "set house.operators_mail")
    for line in ("MAIL FROM:<>", f"RCPT TO:<{to}>", "DATA"):
        reply = await _ask(connection, line, line.partition(" ")[0].lower())
        if not reply.good:
            return look.fail(f"{line}: {look.said(reply)}", "it takes no message of ours: its log says why")
    connection.send(_message(look, to).replace(b"\r\n.", b"\r\n..") + b".\r\n", 1)
    reply = await connection.reply(_REPLY_SECONDS, "dot")
    if not reply.good:
        return look.fail(f"the message was refused: {look.said(reply)}", "its log says why")
    return look.ok(f"took a message to {to}, which should arrive in a moment: {look.said(reply)}")


async def _ask(connection: Connection, line: str, step: str) -> Reply:
    connection.send(f"{line}\r\n".encode(), 1)
    return await connection.reply(_REPLY_SECONDS, step)


def _message(look: Look, to: str) -> bytes:
    """With CRLF line ends. Automatic mail with a null sender: our own intake reads nothing into it."""
    config, now = look.config, look.house.now
    sender = Mailbox("optoutd doctor", addr_spec=notices.sender_of(config.notices.sender, config.house) or to)
    text = (
        f"`optoutd doctor --probe` on {socket.gethostname()} sent this through the [upstream] of {look.loaded.path}.\n"
        "That it is here is the answer; nothing has to be done.\n"
    )
    name = f"doctor.{now.timestamp():.6f}"
    return own_mail.compose(sender, to, "optoutd doctor: a test message", text, now, name).as_bytes()
