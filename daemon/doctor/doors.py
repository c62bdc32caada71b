"""Our own doors: is each there while the daemon runs, and could it be opened while it does not?"""

from __future__ import annotations

import errno
import http.client
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from daemon import relaying
from daemon.config import ConfigError, Listener, host_port, is_loopback
from daemon.doctor import certificates, reach
from daemon.doctor.asking import Line
from daemon.doctor.findings import Finding, Look, count
from daemon.relay import tls
from daemon.values import EVERYWHERE

SECONDS: Final = 5.0
_OURS: Final = b"ESMTP optoutd"
Ask = Callable[[str, int], Iterator[Finding]]


# ------------------------------------------------------------------ a door, whichever


def _door(look: Look, option: str, address: str, ask: Ask) -> Iterator[Finding]:
    """`option`: before the address, in a text; `ask`: what is found by talking to whoever listens there."""
    host, port = host_port(address)
    if not port:
        yield look.ok(f"{option}{address}: any free port will do")
        return
    host = EVERYWHERE.get(host, host)
    look.step(f"connect to {address}")
    if _listens(host, port):
        if look.house.running is False:
            yield look.fail(
                f"{option}{address}: another program listens there",
                f"the daemon will not start: give it another port, or end that program (ss -tlnp 'sport = {port}')",
            )
            return
        try:
            yield from ask(host, port)
        except (OSError, smtplib.SMTPException, http.client.HTTPException) as why:
            yield look.fail(
                f"{option}{address}: {look.said(why) or type(why).__name__}",
                f"is it the daemon that listens there (ss -tlnp 'sport = {port}')? if so, its log says more",
            )
    elif look.house.running:
        yield look.fail(
            f"{option}{address}: the daemon runs, but does not listen there",
            "was the config changed after it was started? listeners change with a restart only",
        )
    else:
        yield from _could_open(look, option, address)


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), SECONDS).close()
    except OSError:
        return False
    return True


def _could_open(look: Look, option: str, address: str) -> Iterator[Finding]:
    host, port = host_port(address)
    try:
        for family, kind, protocol, _, name in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(name)
    except OSError as why:
        yield look.fail(f"{option}{address}: {why.strerror}", _cannot_open(why, port))
    else:
        yield look.ok(f"{option}{address}: free for the daemon, which does not run")


def _cannot_open(why: OSError, port: int) -> str:
    match why.errno:
        case errno.EADDRINUSE:
            return (
                f"another program has it: give the daemon another port, or end that program (ss -tlnp 'sport = {port}')"
            )
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address: see `ip address`, and mend it in the config"
        case errno.EACCES:
            return "ports below 1024 are root's: use a higher one, or give the unit CAP_NET_BIND_SERVICE"
        case _:
            return "mend it in the config"


# ------------------------------------------------------------------ relay


def relay(look: Look) -> Iterator[Finding]:
    """Listeners and their certificates."""
    if look.config.upstream is None:
        yield look.ok("no [upstream]: it does not start")
        return
    try:
        relaying.listening(look.loaded)
    except ConfigError as error:
        for problem in error.problems:
            yield look.fail(look.said(problem), "mend it, then `optoutd check-config`")
        return
    judged: set[tuple[str, str]] = set()
    for listener in look.config.relay.listeners():
        pair = listener.cert_file or "", listener.key_file or ""
        if listener.tls != "none" and pair not in judged:
            judged.add(pair)
            yield from _own_certificate(look, listener)
        yield from _door(look, "", listener.address, partial(_smtp, look, listener))


def _own_certificate(look: Look, listener: Listener) -> Iterator[Finding]:
    """Does the file say what a client wants to see?"""
    cert, key = look.loaded.file(listener.cert_file or ""), look.loaded.file(listener.key_file or "")
    hostname = look.config.relay.hostname
    days = tls.days_left(cert, look.house.now)
    wrong = certificates.trouble(cert, key, hostname)
    if days is not None and days < 0:
        ended = f"{cert}: ended {count(-days, 'day')} ago"
        yield look.fail(ended, "renew it, then reload the daemon (systemctl reload optoutd): clients do not come in")
    elif wrong:
        yield look.fail(
            f"{cert}: {look.said(wrong)}",
            f"get a certificate for {hostname}, or set relay.hostname to the name that clients use and it has",
        )
    elif days is not None and days <= reach.SOON:
        yield look.warn(
            f"{cert}: ends in {count(days, 'day')}", "renew it, then reload the daemon; why was it not renewed?"
        )
    else:
        yield look.ok(f"{cert}: for {hostname}, {days} more days, and the key is its")


class _Line(smtplib.SMTP):
    """A client that remembers how it was greeted."""

    greeting = b""

    def connect(self, *where: Any, **options: Any) -> tuple[int, bytes]:
        """As it does; anything but 220 raises SMTPConnectError in whoever makes the client."""
        code, self.greeting = super().connect(*where, **options)
        return code, self.greeting


class _TlsLine(_Line, smtplib.SMTP_SSL):
    """The same, under TLS from the start."""


def _smtp(look: Look, listener: Listener, host: str, port: int) -> Iterator[Finding]:
    look.step(f"EHLO at {listener.address}")
    context = certificates.any_server()
    with (
        _TlsLine(host, port, "localhost", timeout=SECONDS, context=context)
        if listener.tls == "implicit"
        else _Line(host, port, "localhost", timeout=SECONDS)
    ) as line:
        if _OURS not in line.greeting:
            yield look.fail(
                f"{listener.address}: greets with {look.said(line.greeting.decode('ascii', 'replace'))}",
                f"another program listens there (ss -tlnp 'sport = {port}'): give one of the two another port",
            )
            return
        line.ehlo()
        if listener.tls == "starttls":
            line.starttls(context=context)
            line.ehlo()
        auth = "AUTH" if line.has_extn("auth") else "no AUTH"
        yield look.ok(f"{listener.address}: answers ({listener.mode}, tls {listener.tls}, {auth})")
        if isinstance(line.sock, ssl.SSLSocket):
            yield from _served(look, listener, line.sock)


def _served(look: Look, listener: Listener, line: ssl.SSLSocket) -> Iterator[Finding]:
    """A certificate that was renewed counts only when the daemon has read it."""
    served, cert = line.getpeercert(binary_form=True), look.loaded.file(listener.cert_file or "")
    if served != tls.first(cert):
        yield look.warn(
            f"{listener.address}: shows another certificate than {cert} has",
            "it was renewed, and the daemon has not read it: systemctl reload optoutd (or kill -HUP)",
        )


# ------------------------------------------------------------------ web


def web(look: Look) -> Iterator[Finding]:
    """The HTTP doors."""
    settings = look.config.web
    if not settings.listen and not settings.public_listen:
        yield look.ok("no [web]: no console, no one-click links, no metrics")
        return
    for option in ("listen", "public_listen"):
        if address := str(getattr(settings, option)):
            yield from _door(look, f"{option} ", address, partial(_http, look, f"{option} {address}"))
    wanted = settings.admin_password_file or settings.operator or settings.token
    if settings.listen and wanted and not is_loopback(host_port(settings.listen)[0]):
        yield look.warn(
            f"listen {settings.listen}: others can reach it, so it has no console, API or metrics",
            'set web.listen = "127.0.0.1:8025" for operators, and web.public_listen for everybody else',
        )


def _http(look: Look, named: str, host: str, port: int) -> Iterator[Finding]:
    look.step(f"GET /healthz at {named}")
    with Line(host, port) as line:
        answer = line.ask("/healthz")
    if answer.is_ours and answer.status == 200:
        yield look.ok(f"{named}: answers")
    else:
        yield look.fail(
            f"{named}: HTTP {answer.status}, and not from optoutd",
            f"another program listens there (ss -tlnp 'sport = {port}'): give one of the two another port",
        )


# ------------------------------------------------------------------ policy service


def policy(look: Look) -> Iterator[Finding]:
    """The policy service for Postfix."""
    if not look.config.postfix.policy:
        yield look.ok("no policy service (postfix.policy is not set)")
        return
    yield from _door(look, "", look.config.postfix.policy, lambda _host, _port: _policy(look))


def _policy(look: Look) -> Iterator[Finding]:
    """Not asked: each question is counted as mail."""
    yield look.ok(f"{look.config.postfix.policy}: listens")
