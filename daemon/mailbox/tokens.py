"""Access tokens of one mailbox: got when they are needed, kept in memory while they are good, renewed before they end.

A connection that is open does not need a new token: the server ends it when it likes to, and the next log-in gets one.
So nothing happens here by the clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daemon import events
from daemon.config import OAuth2
from daemon.mailbox.command import Command
from daemon.mailbox.failing import Failed
from daemon.mailbox.grants import Granted, account, ask, assertion
from daemon.mailbox.refresh_token import Kept
from daemon.posting import Line

_MARGIN: Final = 300.0  # s before its end; of a token that lives less than ten minutes half of its life
_VAIN: Final = 60.0  # s after a new token was refused too, for which no other is asked for: token servers count
_UNTOLD: Final = 600.0  # s that a token is taken to be good for whose server does not say


@dataclass(frozen=True, slots=True)
class Token:
    """`fresh`: it was got just now, so that another one would be no better."""

    text: str
    fresh: bool


@dataclass(frozen=True, slots=True)
class Means:
    """Where the secrets are: read anew for each request, so that a new one counts from the next on. `secret`: the content
    of a `..._file`; raises Failed("token"). `ca_file`: of the token server. `kept`: the file for a refresh token that the
    server gives in place of ours."""

    secret: Callable[[str], str]
    ca_file: Path | None
    kept: Path


class Tokens:
    """For the thread of one mailbox; `cut` may be called from another."""

    def __init__(self, settings: OAuth2, mailbox: str, login: str, means: Means):
        self.settings, self.mailbox, self.login, self._means = settings, mailbox, login, means
        self._command = Command(settings.token_command) if settings.token_command else None
        self._line: Line | None = None
        self._lock = threading.Lock()
        self._is_cut = False
        self._token, self._until = "", 0.0
        self._vain_until = 0.0
        self._unkept: tuple[str, str] | None = None  # the token of the config, and the newest, which is not on disk

    def get(self) -> Token:
        """One that is good for a while. Raises Failed("token")."""
        if self._token and time.monotonic() < self._until:
            return Token(self._token, fresh=False)
        return self._renew()

    def get_another(self, refused: Token) -> Token | None:
        """The mailbox's server has refused this one. None: another would be no better. Raises Failed("token")."""
        now = time.monotonic()
        if refused.fresh:
            self._vain_until = now + _VAIN
        if refused.fresh or now < self._vain_until:
            return None
        self._token = ""
        return self._renew()

    def _renew(self) -> Token:
        if self._command is not None:  # it has its own memory, and we do not know how long its tokens are good for
            return Token(self._command.token(), fresh=True)
        granted = self._ask()
        seconds = _UNTOLD if granted.seconds is None else granted.seconds
        self._token, self._until = granted.token, time.monotonic() + seconds - min(_MARGIN, seconds / 2)
        return Token(granted.token, fresh=True)

    def _ask(self) -> Granted:
        settings, secret = self.settings, self._means.secret
        if settings.service_account_file:
            found = account(secret(settings.service_account_file))
            url = settings.token_url or found.token_url
            return self._post(url, assertion(found, self.login, settings.scope, url, time.time()), asserted=True)
        client = {"client_id": settings.client_id, "scope": settings.scope}
        if settings.client_secret_file:
            client["client_secret"] = secret(settings.client_secret_file)
        if settings.refresh_token_file:
            return self._refresh(client, secret(settings.refresh_token_file))
        return self._post(settings.token_url, {"grant_type": "client_credentials", **client})

    def _refresh(self, client: dict[str, str], given: str) -> Granted:
        """With the newest refresh token. Should that one have gone bad: with the one that another process of ours has got
        meanwhile (`replay` beside the daemon), or else with the one that was given."""
        kept = Kept(self._means.kept, given)
        newest = self._unkept[1] if self._unkept and self._unkept[0] == given else kept.newest()
        kept.prepare()
        try:
            granted = self._use(client, newest)
        except Failed as failure:
            other = kept.newest()
            other = given if other == newest else other
            if not failure.refused or other == newest:
                raise
            newest, granted = other, self._use(client, other)
        self._keep(kept, given, granted.refresh_token or newest)
        return granted

    def _keep(self, kept: Kept, given: str, newest: str) -> None:
        """A full disk must not cost us the token: then it is kept in memory, and written the next time."""
        self._unkept = None
        if newest != kept.newest():
            try:
                kept.keep(newest)
            except Failed as failure:
                self._unkept = given, newest
                events.refresh_token_not_kept(self.mailbox, failure.why)

    def _use(self, client: dict[str, str], refresh_token: str) -> Granted:
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token, **client}
        return self._post(self.settings.token_url, form)

    def _post(self, url: str, form: dict[str, str], *, asserted: bool = False) -> Granted:
        with self._lock:
            if self._is_cut:
                raise Failed("token", "told to stop")
            self._line = line = Line(url, self._means.ca_file)
        return ask(line, form, asserted=asserted)

    def cut(self) -> None:
        """From another thread: what is under way ends with Failed, and nothing is got any more."""
        with self._lock:
            self._is_cut = True
            if self._line is not None:
                self._line.cut()
        if self._command is not None:
            self._command.cut()
