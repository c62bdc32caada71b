"""How much an IMAP server may say to one command, and how long it may take over it.

imaplib takes a literal of any size, and its time-out counts anew with each octet: a server that says gigabytes would fill
the machine, one that says an octet now and then would hold the mailbox for ever.
"""

from __future__ import annotations

import io
import socket
import time
from typing import Any, Final

from imapclient import IMAPClient
from imapclient.imap4 import IMAP4WithTimeout
from imapclient.tls import IMAP4_TLS

OCTETS: Final = 16 * 1024 * 1024  # of the answer to one command: sixteen times what we fetch of a message
SECONDS: Final = 300.0  # for all of it; silence has a time-out of its own


class _Octets(io.RawIOBase):
    """What a socket receives, within bounds that begin anew with each command."""

    def __init__(self, received: socket.socket):
        self._socket = received
        self.renew()

    def renew(self) -> None:
        """A command was sent."""
        self._left, self._end = OCTETS, time.monotonic() + SECONDS

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Some more. Raises OSError (TimeoutError)."""
        if time.monotonic() > self._end:
            raise TimeoutError(f"no whole answer within {SECONDS:.0f} seconds")
        count = self._socket.recv_into(buffer)
        self._left -= count
        if self._left < 0:
            raise OSError(f"an answer of more than {OCTETS:,} octets")
        return count


class _Bounded:
    """Beside one of imaplib's classes."""

    _octets: _Octets

    def open(self, *where: Any, **how: Any) -> None:
        """Connect."""
        beside: Any = super()
        beside.open(*where, **how)
        self.bound()

    def bound(self) -> None:
        """From here on. What was read ahead is lost: call it where nothing can have been, or must not be believed."""
        this: Any = self
        self._octets = _Octets(this.sock)
        name = "_file" if hasattr(self, "_file") else "file"  # Python 3.14 renamed it
        getattr(self, name).close()  # the socket itself stays open
        setattr(self, name, io.BufferedReader(self._octets))

    def send(self, data: bytes) -> None:
        """Part of a command."""
        self._octets.renew()
        beside: Any = super()
        beside.send(data)


class _Clear(_Bounded, IMAP4WithTimeout):  # type: ignore[misc] # imapclient ships no types, so its classes are Any
    """Without TLS, or before STARTTLS."""


class _Tls(_Bounded, IMAP4_TLS):  # type: ignore[misc] # imapclient ships no types, so its classes are Any
    """Under TLS from the first octet."""


class Client(IMAPClient):  # type: ignore[misc] # imapclient ships no types, so its classes are Any
    """IMAPClient, its server's answers within bounds."""

    def _create_IMAP4(self) -> _Bounded:  # noqa: N802 - overrides IMAPClient's method of this name
        connect = getattr(self._timeout, "connect", None)
        if self.ssl:
            return _Tls(self.host, self.port, self.ssl_context, connect)
        return _Clear(self.host, self.port, connect)

    def starttls(self, ssl_context: Any = None) -> Any:
        """As IMAPClient; what was said in clear is not read on."""
        said = super().starttls(ssl_context)
        self._imap.bound()
        return said
