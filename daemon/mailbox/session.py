"""IMAP as the watcher needs it: one connection, every failure named by its step.

IMAPClient with its known faults cured: IDLE that survives a line cut in two segments, an EOF, and news that comes with
or before the `+`; time-outs everywhere; UIDs only. Nothing here changes a flag: bodies are fetched with PEEK, and a
message leaves its folder only by `file_away`, or, if it is one of ours, by `expunge`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from imapclient import IMAPClient, SocketTimeout
from imapclient.exceptions import IMAPClientReadOnlyError

from daemon.config import Mailbox
from daemon.mailbox.bounded import Client
from daemon.mailbox.failing import Failed, step
from daemon.mailbox.folder_names import Names, doubtful
from daemon.mailbox.login import log_in
from daemon.mailbox.tokens import Tokens
from storage.incoming import Place

__all__ = ["FETCH_OCTETS", "Failed", "Fetched", "Folder", "Session", "connect"]

FETCH_OCTETS: Final = 1_048_576  # at most this much of a message is read
_MOST_FOUND: Final = 50_000  # messages that one search may find: imaplib reads no line of over a million octets
_CONNECT_SECONDS: Final = 10
_READ_SECONDS: Final = 25  # a line gone dead without a FIN is noticed within 30 s of the next poll


@dataclass(frozen=True, slots=True)
class Folder:
    """A selected folder. `told`: the server has said what `uidnext` is; else it is what the messages in it come to."""

    name: str
    uidvalidity: int
    uidnext: int
    told: bool = True


@dataclass(frozen=True, slots=True)
class Fetched:
    """A message as fetched: at most FETCH_OCTETS of it; `size` is the whole."""

    place: Place
    raw: bytes
    size: int
    internaldate: datetime


class Session:
    """A logged-in connection. Not for several threads, but `wake` may be called from another."""

    def __init__(self, settings: Mailbox, client: IMAPClient):
        self._settings, self._client = settings, client
        with step("select"):
            self._names = Names(client)
        self._selected: Folder | None = None
        self._writable = False
        self._exists = 0  # messages in the selected folder, when it was
        self._moves = self._client.has_capability("MOVE")  # asked now: IMAPClient would ask in the middle of an IDLE
        self._uidplus = self._client.has_capability("UIDPLUS")
        self.expunges = self._uidplus  # one message, and no other: RFC 4315
        self.idles = self._client.has_capability("IDLE")
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)

    # ---- folders

    def doubts(self) -> list[str]:
        """What about this server or the folders of the config makes us less use than we could be. Raises Failed("select")."""
        found = self.odd_folders()
        if not self._moves and not self._uidplus and self._settings.processed_folder:
            found.append("the server has neither MOVE nor UIDPLUS: honoured requests stay where they are")
        if not self.idles:
            found.append(
                f"the server has no IDLE: it is asked every {self._settings.poll_seconds} seconds (poll_seconds)"
            )
        return found

    def odd_folders(self) -> list[str]:
        """Watched folders that are not what they seem, a sentence each. Raises Failed("select")."""
        with step("select"):
            return doubtful(self._client, self._names, self._settings)

    def enter(self, name: str, *, writable: bool = True, afresh: bool = False) -> Folder:
        """Be in a folder: SELECT (or EXAMINE) it unless it is the one selected. Raises Failed("select").

        `afresh`: even then, for UIDNEXT is told at that moment only.
        """
        if afresh or self._selected is None or self._selected.name != name or (writable and not self._writable):
            self._selected = None
            with step("select"):
                found = self._select(name, writable)
                self._exists = _number(found.get(b"EXISTS", 0), least=0)
                validity, following = _number(found.get(b"UIDVALIDITY")), _number(found.get(b"UIDNEXT", 0), least=0)
            self._selected, self._writable = Folder(name, validity, following), writable
            if not following:  # some servers keep it to themselves
                self._selected = Folder(name, validity, self._highest() + 1, told=False)
        return self._selected

    def _select(self, name: str, writable: bool) -> dict[bytes, Any]:
        try:
            found: dict[bytes, Any] = self._client.select_folder(self._names.of(name), readonly=not writable)
        except IMAPClientReadOnlyError:  # imaplib takes offence at a folder that may only be read; we read it
            found = self._client.select_folder(self._names.of(name), readonly=True)
        return found

    def _highest(self) -> int:
        return max(self._search_wide(["ALL"]), default=0)

    def ensure(self, name: str) -> None:
        """Create a folder that is not there. Raises Failed("select")."""
        with step("select"):
            self._names.ensure(name)

    # ---- what there is

    @property
    def offers(self) -> frozenset[str]:
        """The capabilities that the server offers to who is logged in (RFC 3501 7.2.1)."""
        return frozenset(c.decode("ascii", "replace").upper() for c in self._client.capabilities())

    @property
    def certificate(self) -> dict[str, Any]:
        """The server's, verified (ssl.SSLSocket.getpeercert); empty in clear."""
        line = self._client.socket()
        return (line.getpeercert() if isinstance(line, ssl.SSLSocket) else None) or {}

    def names(self) -> list[str]:
        """The folders of the account. Raises Failed("select")."""
        with step("select"):
            return [str(name) for _, _, name in self._client.list_folders()]

    def has(self, name: str) -> bool:
        """Is there such a folder? Raises Failed("select")."""
        with step("select"):
            return self._names.flags(self._names.of(name)) is not None

    def count(self, name: str) -> int:
        """How many messages a folder holds. Changes nothing, and selects nothing. Raises Failed("select")."""
        with step("select"):
            return int(self._client.folder_status(self._names.of(name), ["MESSAGES"])[b"MESSAGES"])

    def newest(self, field: str, most: int) -> list[tuple[datetime, bytes]]:
        """(INTERNALDATE, these fields of its header) of the newest messages of the selected folder, at most 16 KB of each.

        Raises Failed(search|fetch).
        """
        assert self._selected is not None
        uids = self.uids_from(max(1, self._selected.uidnext - 10 * most))[-most:]
        with step("fetch"):
            found = self._client.fetch(uids, ["INTERNALDATE", f"BODY.PEEK[HEADER.FIELDS ({field})]<0.16384>"])
            bodies = [(_utc(of.get(b"INTERNALDATE")), _body(of)) for _, of in sorted(found.items())]
        return [(when, body) for when, body in bodies if when.timestamp()]

    # ---- searching and waiting

    def uids_from(self, first: int) -> list[int]:
        """UIDs of at least `first` in the selected folder, in order. (`n:*` also returns the last message if its UID < n.)"""
        assert self._selected is not None
        few = self._selected.uidnext - first < _MOST_FOUND
        found = (self._search if few else self._search_wide)(["UID", f"{first}:*"])
        return sorted({u for u in found if u >= first})

    def uids_since(self, day: datetime) -> list[int]:
        """UIDs of messages whose INTERNALDATE is on or after the day before `day` (SINCE knows no hours or zones)."""
        return sorted(set(self._search_wide(["SINCE", day.date()])))

    def _search_wide(self, criteria: list[Any]) -> list[int]:
        """As `_search` for what may find a great many: some of the messages at a time, a few perhaps twice.

        The newest first. Whatever is removed meanwhile, a message can only move to a lower number, which is still to be
        searched; and what comes in gets the highest.
        """
        if self._exists < _MOST_FOUND:
            return self._search(criteria)
        found, last = list[int](), "*"
        for first in range(self._exists - self._exists % _MOST_FOUND + 1, 0, -_MOST_FOUND):
            found += self._search([f"{first}:{last}", *criteria])
            last = str(first - 1)
        return found

    def _search(self, criteria: list[Any]) -> list[int]:
        with step("search"):
            return [_number(u) for u in self._client.search(criteria)]

    def wait(self, seconds: float) -> None:
        """Return when the selected folder may have changed, when `wake` is called, or after `seconds`.

        A hint, never the truth: search afterwards. Where the server has no IDLE it only waits.
        """
        if not self.idles:
            self._sleep(seconds, self._wake_in)
        else:
            with step("idle"):
                self._idle(seconds)
        with contextlib.suppress(BlockingIOError):
            self._wake_in.recv(64)

    def _idle(self, seconds: float) -> None:
        imap: Any = self._client._imap
        tag = self._client._idle_tag = imap._command("IDLE")
        while imap._get_response() is not None:  # what the server says before its `+` is kept as untagged data
            if imap.tagged_commands[tag] is not None:  # NO or BAD instead of the `+`, whatever it advertises
                del imap.tagged_commands[tag]
                self.idles = False
                self._sleep(seconds, self._wake_in)
                return
        news = bool(imap.untagged_responses.pop("EXISTS", None)) or self._buffered(imap)
        if not news:
            self._sleep(seconds, self._wake_in, self._client.socket())
        self._client.idle_done()  # reads whole lines, with the read time-out; raises at EOF

    @staticmethod
    def _sleep(seconds: float, *sockets: socket.socket) -> None:
        """Until one of them can be read. poll, not select: the relay may hold more than 1,024 descriptors."""
        poll = select.poll()
        for sock in sockets:
            poll.register(sock, select.POLLIN)
        poll.poll(seconds * 1000)

    def _buffered(self, imap: Any) -> bool:
        """Did news come in the same packet as the `+`? Then it lies in a buffer that select() does not see."""
        sock = self._client.socket()
        pending = getattr(sock, "pending", lambda: 0)()
        file = getattr(imap, "_file", None) or imap.file
        sock.setblocking(False)
        try:
            return bool(pending or file.peek(1))
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        finally:
            self._client._set_read_timeout()

    def wake(self) -> None:
        """End a `wait` from another thread."""
        with contextlib.suppress(OSError):
            self._wake_out.send(b"x")

    # ---- messages of the selected folder

    def fetch(self, uid: int) -> Fetched | None:
        """A message, its \\Seen flag untouched; None if it is gone. Raises Failed("fetch")."""
        with step("fetch"):
            wanted = ["INTERNALDATE", "RFC822.SIZE", f"BODY.PEEK[]<0.{FETCH_OCTETS}>"]
            found = self._client.fetch([uid], wanted).get(uid)
            if not found or b"RFC822.SIZE" not in found:
                return None
            size, raw = _number(found[b"RFC822.SIZE"], least=0), _body(found)
        if not raw and size:  # NIL for what it cannot read: nothing in it is not what it says
            raise Failed("fetch", "the server gives no body", refused=True)
        assert self._selected is not None
        place = Place(self._settings.name, self._selected.name, self._selected.uidvalidity, uid)
        return Fetched(place, raw[:FETCH_OCTETS], size, _utc(found.get(b"INTERNALDATE")))

    def identities(self, uids: Sequence[int]) -> dict[int, tuple[int, datetime]]:
        """UID -> (size, INTERNALDATE) of those of these messages that are there. Raises Failed("fetch")."""
        with step("fetch"):
            found = self._client.fetch(list(uids), ["INTERNALDATE", "RFC822.SIZE"])
            known = {uid: of for uid, of in found.items() if b"RFC822.SIZE" in of}
            return {u: (_number(f[b"RFC822.SIZE"], least=0), _utc(f.get(b"INTERNALDATE"))) for u, f in known.items()}

    def present(self, uid: int) -> bool:
        """Is the message still in the selected folder? One whose UID was given to another (storage.watched) is not."""
        return uid > 0 and uid in self._search(["UID", str(uid)])

    def holds(self, message_id: str) -> bool:
        """Is a message with this Message-ID in the selected folder?"""
        return bool(message_id) and bool(self.with_id(message_id))

    def with_id(self, message_id: str) -> list[int]:
        """The UIDs of the messages with this Message-ID in the selected folder."""
        return self._search(["HEADER", "Message-ID", message_id])

    def file_away(self, uid: int, folder: str) -> bool:
        """Move a message, flags and date kept. False: this server cannot move without risking other people's mail.

        MOVE (RFC 6851); else COPY, \\Deleted, UID EXPUNGE (RFC 4315); never a plain EXPUNGE, which would remove what
        people have marked. Raises Failed("move").
        """
        with step("move"):
            if self._moves:
                self._client.move([uid], self._names.of(folder))
            elif self._uidplus:
                if not self._copied(uid, folder):
                    self._client.copy([uid], self._names.of(folder))
                self._client.add_flags([uid], [b"\\Deleted"], silent=True)
                self._client.uid_expunge([uid])
            else:
                return False
        return True

    def _copied(self, uid: int, folder: str) -> bool:
        """Did we copy it before, and only its expunging failed? Then it is marked, and its copy lies there."""
        assert self._selected is not None
        source, fields = self._selected.name, "BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)]"
        found = self._client.fetch([uid], ["FLAGS", fields]).get(uid, {})
        if b"\\Deleted" not in found.get(b"FLAGS", ()):
            return False
        header = _body(found)
        self.enter(folder, writable=False)
        held = self.holds(header.partition(b":")[2].strip().decode("ascii", "replace"))
        self.enter(source)
        return held

    # ---- messages of ours

    def append(self, folder: str, raw: bytes, when: datetime) -> None:
        """Put a message into a folder, seen already, for nobody is to read it. Raises Failed("append")."""
        with step("append"):
            self._client.append(self._names.of(folder), raw, [b"\\Seen"], when)

    def expunge(self, uid: int) -> None:
        """Remove this one message from the selected folder; only where the server `expunges`. Raises Failed("expunge")."""
        with step("expunge"):
            self._client.add_flags([uid], [b"\\Deleted"], silent=True)
            self._client.uid_expunge([uid])

    def close(self) -> None:
        """Log out, or at least let go."""
        with contextlib.suppress(Exception):
            self._client.logout()
        with contextlib.suppress(Exception):
            self._client.shutdown()
        self._wake_in.close()
        self._wake_out.close()


def connect(settings: Mailbox, secret: str | Tokens, ca_file: Path | None) -> Session:
    """Connect, secure, log in with a password or with tokens. Raises Failed(connect|tls|token|login|select); never goes
    on without TLS."""
    context = None
    if settings.tls != "none":
        with step("tls"):
            context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    timeout = SocketTimeout(_CONNECT_SECONDS, _READ_SECONDS)
    implicit = settings.tls == "implicit"
    with step("connect"):
        client = Client(
            settings.host, settings.port, ssl=implicit, ssl_context=context if implicit else None, timeout=timeout
        )
    try:
        client.normalise_times = False
        _keep_alive(client.socket())
        if settings.tls == "starttls":
            with step("tls"):
                client.starttls(context)
        log_in(client, settings, secret)
        return Session(settings, client)
    except BaseException:
        with contextlib.suppress(Exception):
            client.shutdown()
        raise


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _body(found: dict[bytes, Any]) -> bytes:
    """What was asked for of a message; b"" for NIL. Raises ValueError."""
    raw = next((v for k, v in found.items() if k.startswith(b"BODY[")), b"") or b""
    if not isinstance(raw, bytes):
        raise ValueError("a body that is none")
    return raw


def _number(value: Any, *, least: int = 1) -> int:
    """A number as RFC 9051 has them; IMAPClient gives some of SELECT in a list. Raises ValueError."""
    one = value[0] if isinstance(value, list | tuple) and value else value
    if not isinstance(one, int | bytes):
        raise ValueError("a number is missing")
    number = int(one)
    if not least <= number < 2**32:
        raise ValueError("a number that is none")
    return number


def _utc(when: Any) -> datetime:
    """INTERNALDATE as an aware datetime; where a server sends none, or one that is none, the epoch: older than anything."""
    epoch = datetime.fromtimestamp(0, UTC)
    with contextlib.suppress(OverflowError, ValueError):  # the year 1, east of Greenwich; a zone of 99 hours
        return max(when.astimezone(UTC), epoch) if isinstance(when, datetime) and when.tzinfo else epoch
    return epoch
