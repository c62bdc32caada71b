"""What a folder of the config is called on the server, and whether it is one that should be watched.

Courier, Cyrus and cPanel keep everything below `INBOX.`: there "Opt-outs" is INBOX.Opt-outs (RFC 2342), and "A/B" is
INBOX.A.B. A folder that has exactly the configured name is taken first, whatever the server thinks of names.
"""

from __future__ import annotations

from imapclient import IMAPClient
from imapclient.exceptions import IMAPClientError

from daemon.config import Mailbox
from daemon.mailbox.failing import refusals_aside

_NOT_THERE = {b"\\noselect", b"\\nonexistent"}  # RFC 3501 7.2.2, RFC 5258 3


class Names:
    """Of one connection. Names that are not ASCII go as modified UTF-7 (RFC 3501 5.1.3), which every server knows."""

    def __init__(self, client: IMAPClient):
        self._client = client
        self._known: dict[str, str] = {}
        self._prefix, self._delimiter = self._personal()

    def _personal(self) -> tuple[str, str]:
        """Prefix and delimiter of our own folders, as far as the server tells."""
        if self._client.has_capability("NAMESPACE"):
            with refusals_aside():
                for prefix, delimiter in self._client.namespace().personal or ():
                    return _text(prefix), _text(delimiter or "")
        return "", ""

    def of(self, name: str) -> str:
        """What the server calls it."""
        if name not in self._known:
            self._known[name] = self._find(name)
        return self._known[name]

    def _find(self, name: str) -> str:
        path = name.replace("/", self._delimiter) if self._delimiter else name
        below = path if path.startswith(self._prefix) else self._prefix + path
        plain = name.upper() == "INBOX" or below == name or f"{name}{self._delimiter}" == self._prefix
        return name if plain or self.flags(name) is not None else below

    def flags(self, name: str) -> set[bytes] | None:
        """The flags of the folder that the server calls so, in small letters; None if there is none that can be opened."""
        for flags, _, found in self._client.list_folders("", name):
            if str(found) == name or str(found).upper() == name.upper() == "INBOX":
                small = {f.lower() for f in flags}
                return None if small & _NOT_THERE else small
        return None

    def ensure(self, name: str) -> None:
        """Create a folder that is not there, and subscribe to it, so that people's programs show it."""
        called = self.of(name)
        if self.flags(called) is None:
            try:
                self._client.create_folder(called)
            except IMAPClientError:
                if self.flags(called) is None:  # else somebody was quicker, or has opened it while it came about
                    raise
            with refusals_aside():
                self._client.subscribe_folder(called)


def doubtful(client: IMAPClient, names: Names, settings: Mailbox) -> list[str]:
    """Watched folders that are not what they seem, a sentence each."""
    found = []
    for name in settings.folders:
        if b"\\all" in (names.flags(names.of(name)) or ()):  # RFC 6154; Gmail: All Mail, in the user's language
            where = 'folders = ["INBOX"]'
            found.append(
                f"{name} holds every message of the account, those we have filed away too: watch {where} instead"
            )
        if names.of(name) in {names.of(f) for f in (settings.processed_folder, settings.machine_folder) if f}:
            found.append(f"{name} is watched, and it is where mail is filed to: take it out of folders")
    return found


def _text(given: str | bytes) -> str:
    return given.decode("utf-8", "replace") if isinstance(given, bytes) else given
