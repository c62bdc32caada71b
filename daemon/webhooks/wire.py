"""One POST at a time to one server, over HTTP/1.1 (RFC 9112): verified TLS, no redirects, and never longer than it may take.

The stdlib's client reads the response; connecting and the clock are our own, because its time-out counts anew with each
octet, so that a server which sends one now and then would hold us for ever.
"""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from daemon import __version__

SECONDS: Final = 10.0  # for connecting, sending, and the response up to the end of its header
_REST_SECONDS: Final = 1.0  # for the rest of it
_MOST: Final = 64 * 1024  # octets of a response that are read, so that its connection can be used again
_WORDS: Final = {
    HTTPStatus.GONE: "the receiver says that it is gone for good: take the hook out of the config, or mend its url",
    HTTPStatus.UNAUTHORIZED: "the receiver did not accept the signature, or wants a log-in",
    HTTPStatus.FORBIDDEN: "the receiver did not accept the signature, or wants a log-in",
    HTTPStatus.NOT_FOUND: "the receiver knows nothing at this url",
}


class NoAnswer(Exception):
    """The server was not reached, or did not answer in time. The message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`trouble`: "" if the receiver has it, else why not."""

    status: int
    trouble: str


class Line:
    """To one server; its connection is kept between two posts. For one thread, but for `cut`."""

    def __init__(self, url: str, ca_file: Path | None = None):
        found = urlsplit(url)
        self._host, self._secure = found.hostname or "", found.scheme == "https"
        self._port = found.port or (443 if self._secure else 80)
        self._path = (found.path or "/") + (f"?{found.query}" if found.query else "")
        self._named = found.netloc
        self._ca_file = str(ca_file) if ca_file else None
        self._context: ssl.SSLContext | None = None
        self._socket: socket.socket | None = None
        self._is_cut = False

    def post(self, body: bytes, fields: Mapping[str, str]) -> Answer:
        """Send this. Raises NoAnswer."""
        end = time.monotonic() + SECONDS
        if self._socket is not None:
            with contextlib.suppress(_HungUp):  # on a connection on which nothing happened a server may hang up
                return self._once(body, fields, end)
        try:
            return self._once(body, fields, end)
        except _HungUp as why:
            raise NoAnswer(str(why)) from None

    def _once(self, body: bytes, fields: Mapping[str, str], end: float) -> Answer:
        try:
            connection = self._socket or self._connect(end)
            connection.settimeout(_left(end))
            connection.sendall(self._head(len(body), fields) + body)
            return self._answer(connection, end)
        except BaseException as why:
            self.close()
            if not isinstance(why, OSError | HTTPException | ValueError):  # ValueError: a host's name that is none
                raise
            raise _told(why) from None

    def _connect(self, end: float) -> socket.socket:
        connection = socket.create_connection((self._host, self._port), _left(end))
        self._socket = connection  # at once, so that `cut` finds it
        if self._is_cut:
            raise TimeoutError
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._secure:
            self._context = self._context or ssl.create_default_context(cafile=self._ca_file)
            connection.settimeout(_left(end))
            self._socket = connection = self._context.wrap_socket(connection, server_hostname=self._host)
        return connection

    def _head(self, length: int, fields: Mapping[str, str]) -> bytes:
        said = {
            "Host": self._named,
            "User-Agent": f"optoutd/{__version__}",
            "Content-Type": "application/json",
            "Content-Length": str(length),
            "Accept": "*/*",
            **fields,
        }
        lines = [f"POST {self._path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items())]
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _answer(self, connection: socket.socket, end: float) -> Answer:
        octets = _Timed(connection, end)
        response = HTTPResponse(octets, method="POST")  # type: ignore[arg-type] # of a socket it wants only `makefile`
        response.begin()
        octets.end = min(end, time.monotonic() + _REST_SECONDS)
        self._finish(response)
        return Answer(response.status, "" if 200 <= response.status < 300 else _trouble(response.status))

    def _finish(self, response: HTTPResponse) -> None:
        """What the receiver has to say beyond the status is not listened to, and may not keep us."""
        with contextlib.suppress(OSError, HTTPException, ValueError):
            response.read(_MOST)
        if not response.isclosed() or response.will_close:  # isclosed: all of it was read
            self.close()
        response.close()

    def close(self) -> None:
        """Hang up."""
        connection, self._socket = self._socket, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()

    def cut(self) -> None:
        """From another thread: a post that is under way ends with NoAnswer, and there is no other."""
        self._is_cut = True
        connection = self._socket
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _HungUp(NoAnswer):
    """The connection was closed before there was an answer."""


def _told(why: OSError | HTTPException | ValueError) -> NoAnswer:
    """What went wrong, in words of ours: what a server says is nobody's to log."""
    match why:
        case TimeoutError():
            return NoAnswer(f"no answer within {SECONDS:.0f} seconds")
        case ssl.SSLCertVerificationError():
            return NoAnswer(f"its certificate: {why.verify_message}")
        case ConnectionResetError() | BrokenPipeError() | ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return _HungUp("it hung up without an answer")
        case HTTPException():
            return NoAnswer("it does not speak HTTP")
        case OSError():
            return NoAnswer(f"not reached: {why.strerror or type(why).__name__}")
        case _:
            return NoAnswer("not reached: its name is none")


class _Timed(io.RawIOBase):
    """What a socket receives until a moment."""

    def __init__(self, connection: socket.socket, end: float):
        self._connection, self.end = connection, end

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What HTTPResponse asks a socket for."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: object) -> int:
        """What has come. Raises TimeoutError."""
        self._connection.settimeout(_left(self.end))
        return self._connection.recv_into(buffer)  # type: ignore[arg-type] # a buffer, as RawIOBase names it


def _left(end: float) -> float:
    """Seconds. Raises TimeoutError if there are none."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _trouble(status: int) -> str:
    if 300 <= status < 400:
        return f"HTTP {status}: the receiver redirects, which is not followed: name the new place in the config"
    known = _WORDS.get(HTTPStatus(status)) if status in HTTPStatus._value2member_map_ else None
    return f"HTTP {status}: {known}" if known else f"HTTP {status}"
