"""Logging in to a mailbox of the config, with the secrets that it names: for the daemon, `doctor` and `replay`."""

from __future__ import annotations

from daemon.config import ConfigError, Loaded, Mailbox
from daemon.mailbox import tokens
from daemon.mailbox.session import Failed, Session, connect
from daemon.mailbox.tokens import Tokens


def tokens_of(loaded: Loaded, settings: Mailbox) -> Tokens | None:
    """Where its access tokens come from, if it is not a password that opens it. Keeps them in memory."""
    oauth2 = settings.oauth2
    if oauth2 is None:
        return None
    ca_file = loaded.file(oauth2.ca_file) if oauth2.ca_file else None
    kept = loaded.scratch / f"oauth2-{settings.name}.json"
    means = tokens.Means(lambda name: _secret(loaded, name, "token"), ca_file, kept)
    return Tokens(oauth2, settings.name, oauth2.login or settings.username, means)


def log_in(loaded: Loaded, settings: Mailbox, given: Tokens | None = None) -> Session:
    """A session; `given`: tokens of an earlier log-in. Secrets are read each time, so that a new one counts from the next
    on. Raises Failed."""
    ca_file = loaded.file(settings.ca_file) if settings.ca_file else None
    secret = given or tokens_of(loaded, settings) or _secret(loaded, settings.password_file, "login")
    return connect(settings, secret, ca_file)


def _secret(loaded: Loaded, name: str, step: str) -> str:
    try:
        return loaded.secret(name)
    except ConfigError as why:
        raise Failed(step, why, advice="the daemon's user must be able to read this file") from None
