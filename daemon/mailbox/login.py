"""Logging in to IMAP: with a password, or with an access token (XOAUTH2, OAUTHBEARER); and saying who we are.

A server that refuses a token we have had for a while is offered a new one, once.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from typing import Final

from imapclient import IMAPClient

from daemon import __version__
from daemon.config import Mailbox
from daemon.mailbox import advising
from daemon.mailbox.failing import Failed, refusals_aside, step
from daemon.mailbox.tokens import Tokens

# Where both mechanisms are offered and only this one is what the provider's own pages describe.
_XOAUTH2: Final = re.compile(r"(?:^|\.)(?:office365|outlook|gmail|googlemail|google)\.com\.?$", re.IGNORECASE)


def log_in(client: IMAPClient, settings: Mailbox, secret: str | Tokens) -> None:
    """With a password or a token; then tell name and version to a server that likes to know. Raises Failed(token|login)."""
    if isinstance(secret, Tokens):
        _with_token(client, settings, secret)
    else:
        _with_password(client, settings, secret)
    with step("login"):
        client.capabilities()  # what a server offers before and after differs
        if client.has_capability("ID"):  # NetEase opens no folder for a client that has not said who it is (RFC 2971)
            with refusals_aside():
                client.id_({"name": "optoutd", "version": __version__})


def _offered(client: IMAPClient) -> set[str]:
    """What the server offers before the log-in."""
    with step("login"):
        return {c.decode("ascii", "replace").upper() for c in client.capabilities()}


class _Answers:
    """What we answer to the server's challenges: first the secret; then, to its reasons for not taking it, as we must.

    There is no third: with each answer of ours the time begins anew in which the server has to say something.
    """

    def __init__(self, first: str, last: bytes):
        self._answers: list[str | bytes] = [last, first]
        self.reasons = b""

    def __call__(self, challenge: bytes) -> str | bytes:
        if not self._answers:
            raise ValueError("the server asks again and again for what it has been told")
        self.reasons = challenge if len(self._answers) == 1 else b""
        return self._answers.pop()


# ------------------------------------------------------------------ passwords


def _with_password(client: IMAPClient, settings: Mailbox, password: str) -> None:
    offered = _offered(client)
    by_plain = not (settings.username + password).isascii() or "LOGINDISABLED" in offered  # LOGIN knows ASCII only
    if "LOGINDISABLED" in offered and "AUTH=PLAIN" not in offered:
        advice = advising.of("LOGINDISABLED") if settings.tls == "none" else advising.of_password(settings.host, "")
        raise Failed("login", "the server takes no passwords (LOGINDISABLED)", refused=True, advice=advice)
    line = f"\0{settings.username}\0{password}"  # RFC 4616
    try:
        with step("login"):
            if by_plain:
                client.sasl_login("PLAIN", _Answers(line, b""))
            else:
                client.login(settings.username, password)
    except Failed as failure:
        raise _advised(failure, advising.of_password(settings.host, str(failure.why)), line, password) from None


# ------------------------------------------------------------------ tokens


def _with_token(client: IMAPClient, settings: Mailbox, tokens: Tokens) -> None:
    mechanism = _mechanism(settings, _offered(client))
    token = tokens.get()
    while True:
        try:
            _bear(client, settings, mechanism, tokens.login, token.text)
            return
        except Failed as failure:
            another = tokens.get_another(token) if failure.refused else None
            if another is None:
                raise
            token = another


def _mechanism(settings: Mailbox, offered: set[str]) -> str:
    assert settings.oauth2 is not None
    if settings.oauth2.mechanism != "auto":
        return settings.oauth2.mechanism.upper()
    order = ["XOAUTH2", "OAUTHBEARER"] if _XOAUTH2.search(settings.host) else ["OAUTHBEARER", "XOAUTH2"]
    known = [m for m in order if f"AUTH={m}" in offered]
    if not known:
        advice = "use password_file; or, if the server hides what it takes before TLS or on this port, give mechanism"
        raise Failed("login", "the server offers neither OAUTHBEARER nor XOAUTH2", refused=True, advice=advice)
    return known[0]


def _bear(client: IMAPClient, settings: Mailbox, mechanism: str, login: str, token: str) -> None:
    """One AUTHENTICATE. Raises Failed("login")."""
    if mechanism == "OAUTHBEARER":  # RFC 7628; the name as in RFC 5801 4
        name = login.replace("=", "=3D").replace(",", "=2C")
        first = f"n,a={name},\1host={settings.host}\1port={settings.port}\1auth=Bearer {token}\1\1"
        last = b"\1"
    else:  # developers.google.com/gmail/imap/xoauth2-protocol
        first, last = f"user={login}\1auth=Bearer {token}\1\1", b""
    bearer = _Answers(first, last)
    try:
        with step("login"):
            client.sasl_login(mechanism, bearer)
    except Failed as failure:
        failure = Failed("login", f"{failure.why}{_told(bearer.reasons)}", refused=failure.refused)
        raise _advised(failure, advising.of_refused_token(settings.host, str(failure.why)), first, token) from None


def _told(reasons: bytes) -> str:
    """The JSON object in which a server says why it takes no token: status, scope, whatever it likes to tell."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(reasons)
        if isinstance(found, dict):
            words = [f"{k} {v}" for k, v in found.items() if k in ("status", "scope", "schemes") and isinstance(v, str)]
            return f" ({', '.join(words)[:200]})" if words else ""
    return ""


def _advised(failure: Failed, advice: str, *secrets: str) -> Failed:
    """The same with advice for a log-in, and without what was sent, which a server may repeat. `secrets`: the widest first."""
    advice = advice if failure.refused else failure.advice
    why = str(failure.why)
    for form in (form for s in secrets for form in (s, base64.b64encode(s.encode()).decode())):
        why = why.replace(form, "<...>") if form else why
    return Failed(failure.step, why, refused=failure.refused, advice=advice)
