"""What the world sees of us (`web.public_url`), and the programs that we tell of changes."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from daemon import opening, webhooks
from daemon.config import ConfigError
from daemon.doctor import reach
from daemon.doctor.asking import SECONDS, Answer, Line
from daemon.doctor.findings import Finding, Look, count
from daemon.doctor.reach import Unreached, Where
from daemon.mail import tokens
from daemon.options import Webhook
from storage.engine import Unavailable, Unusable, read_site_key

_CLOCKS: Final = timedelta(seconds=60)
_ONE_CLICK: Final = "List-Unsubscribe=One-Click"
_HAIRPIN: Final = "; some networks do not let a machine reach its own public name: then try it from another one"


def probe(look: Look) -> Iterator[Finding]:
    """Through the proxy and back, as a mail program would: a link is shown and, if it is none of ours, refused."""
    url = look.config.web.public_url
    if not url:
        if look.config.upstream is not None and look.config.relay.stamp:
            yield look.warn(
                "web.public_url is not set: no one-click links are stamped, which large providers ask of bulk senders",
                "give it the https address by which the world reaches web.public_listen (docs/pages.md)",
            )
        else:
            yield look.ok("web.public_url is not set, and nothing is stamped")
        return
    found = urlsplit(url)
    where = Where(found.hostname or "", found.port or 443, "web.public_url", "implicit")
    try:
        reach.connect(look, where)
        look.step(f"GET {url}/healthz")
        with Line(where.host, where.port, secure=True) as line:
            yield from _asked(look, line, found.path)
    except Unreached as why:
        yield look.fail(f"{where}: {look.said(why)}", why.advice + _HAIRPIN)
    except ssl.SSLCertVerificationError as why:
        yield look.fail(f"{where}: tls: {look.said(why.verify_message)}", reach.of_tls(why.verify_message, where))
    except (OSError, http.client.HTTPException) as why:
        said = look.said(why) or type(why).__name__
        yield look.fail(f"{where}: {said}", "does the proxy there speak HTTPS? its error log says more" + _HAIRPIN)


def _asked(look: Look, line: Line, base: str) -> Iterator[Finding]:
    certificate = line.certificate
    alive = line.ask(f"{base}/healthz")
    now = opening.now()
    yield from _reached(look, alive, reach.tls_words(certificate, now))
    yield from reach.ending(look, "web.public_url", certificate, "renew it: links in all mail sent so far lead there")
    if alive.date is not None and abs(alive.date - now) > _CLOCKS:
        yield look.of("clock").warn(
            f"the clock of web.public_url and ours differ by {abs(alive.date - now).total_seconds():.0f} s",
            "let both machines keep time by NTP",
        )
    if alive.is_ours and alive.status == 200:
        yield from _links(look, line, base)


def _reached(look: Look, alive: Answer, tls: str) -> Iterator[Finding]:
    url = look.config.web.public_url
    if alive.is_ours and alive.status == 200:
        yield look.ok(f"{url}: reached, {tls}")
    elif look.house.running is False:
        yield look.ok(
            f"{url}: reached, {tls}; HTTP {alive.status}, what is behind it can be tried when the daemon runs"
        )
    elif alive.status in (502, 503, 504):
        yield look.fail(
            f"{url}: HTTP {alive.status}: the proxy does not reach optoutd",
            f"let it pass requests on to http://{look.config.web.public_listen or look.config.web.listen}; its error log says why",
        )
    else:
        yield look.fail(
            f"{url}/healthz: HTTP {alive.status}, and not from optoutd",
            "links in mail lead to another site: let the proxy pass /u/, /p/, /undo/, /static/ and /healthz on to us",
        )


def _links(look: Look, line: Line, base: str) -> Iterator[Finding]:
    """A link of ours that names nobody: looking at it changes nothing. A POST to what is none: refused, by us."""
    look.step("GET and POST a link")
    try:
        token = tokens.make(read_site_key(look.loaded.key_file), "link", tokens.NOBODY, 0)
    except Unusable:
        return  # told as `site key`
    shown = line.ask(f"{base}/u/{token}")
    if not (shown.is_ours and shown.status == 200):
        yield look.fail(
            f"a link of ours is answered HTTP {shown.status}",
            "is it another optoutd that answers there, with another site key? or does the proxy change paths?",
        )
    refused = line.ask(f"{base}/u/none-of-ours", _ONE_CLICK)
    if not (refused.is_ours and refused.status in (400, 429)):
        yield look.fail(
            f"POST to a link: HTTP {refused.status}, and not from optoutd: nobody can opt out with one click",
            "let the proxy pass POST with its body on to us, without log-in, redirect or challenge",
        )
    elif shown.is_ours and shown.status == 200:
        yield look.ok("a link of ours is shown, and POST comes through (what is no link of ours was refused)")


# ------------------------------------------------------------------ webhooks


def webhook(settings: Webhook, look: Look) -> Iterator[Finding]:
    """Reached, and as far as TLS; never a POST: a receiver takes each for a change. How the last ones went the ledger knows."""
    found = urlsplit(settings.url)
    secure = found.scheme == "https"
    port = found.port or (443 if secure else 80)
    where = Where(found.hostname or "", port, f"[[webhook]] {settings.name}", "implicit" if secure else "none")
    try:
        reach.connect(look, where)
        certificate = _handshake(look, where, settings) if secure else {}
    except Unreached as why:
        yield look.fail(f"{where}: {look.said(why)}", why.advice)
    else:
        yield look.ok(f"{where}: reached, {reach.tls_words(certificate, look.house.now)}; no POST was made")
        yield from reach.ending(look, str(where), certificate, "tell whoever runs the receiver")
    yield from _standing(look, settings)


def _handshake(look: Look, where: Where, settings: Webhook) -> dict[str, Any]:
    look.step(f"TLS with {where}")
    context = ssl.create_default_context(cafile=str(look.loaded.file(settings.ca_file)) if settings.ca_file else None)
    try:
        with (
            socket.create_connection((where.host, where.port), SECONDS) as line,
            context.wrap_socket(line, server_hostname=where.host) as secured,
        ):
            return dict(secured.getpeercert() or {})
    except ssl.SSLCertVerificationError as why:
        raise Unreached("tls", why.verify_message, reach.of_tls(why.verify_message, where)) from None
    except OSError as why:
        raise Unreached("tls", why.strerror or why, reach.of_tls(str(why), where)) from None


def _standing(look: Look, settings: Webhook) -> Iterator[Finding]:
    look.step("how the last changes went")
    if not look.loaded.in_postgres and not look.loaded.database.exists():
        return
    try:
        ledger = opening.open_for(look.loaded)
    except (Unavailable, Unusable, ConfigError, OSError):
        return  # told as `database`
    try:
        with ledger.connect() as db:
            (fact, *_) = webhooks.standing(db, [settings])
    except Unavailable:
        return
    finally:
        ledger.close()
    if fact["failures"]:
        yield look.fail(
            f"{count(fact['failures'], 'failure')} in a row, {count(fact['waiting'], 'change')} waiting: {look.said(fact['trouble'])}",
            "look at the receiver; what waits is sent by itself, see `optoutd hooks`",
        )
    if fact["undelivered"]:
        yield look.warn(
            f"{count(fact['undelivered'], 'change')} could not be told and were given up",
            f"`optoutd hooks list`; when the receiver is well: optoutd hooks again {settings.name}",
        )
