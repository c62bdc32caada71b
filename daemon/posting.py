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
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from daemon import __version__

_MOST: Final = 64 * 1024  # octets of a response that are read


class NoAnswer(Exception):
    """The server was not reached, or did not answer in time. The message says why."""


@dataclass(frozen=True, slots=True)
class Response:
    """`body`: at most 64 KB of it; `whole`: is that all? `date`: the server's clock, as it says it, or ""."""

    status: int
    body: bytes
    whole: bool
    date: str


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

    def send(self, body: bytes, fields: Mapping[str, str], seconds: float, rest: float) -> Response:
        """POST this. `seconds`: up to the end of the response's header; `rest`: for its body after that. Raises NoAnswer."""
        end = time.monotonic() + seconds
        try:
            if self._socket is not None:
                with contextlib.suppress(_HungUp):  # on a connection on which nothing happened a server may hang up
                    return self._once(body, fields, end, rest)
            return self._once(body, fields, end, rest)
        except TimeoutError:
            raise NoAnswer(f"no answer within {seconds:.0f} seconds") from None
        except _HungUp as why:
            raise NoAnswer(str(why)) from None

    def _once(self, body: bytes, fields: Mapping[str, str], end: float, rest: float) -> Response:
        try:
            connection = self._socket or self._connect(end)
            connection.settimeout(_left(end))
            connection.sendall(self._head(len(body), fields) + body)
            return self._answer(connection, end, rest)
        except BaseException as why:
            self.close()
            if isinstance(why, TimeoutError) or not isinstance(why, OSError | HTTPException | ValueError):
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
            "Content-Length": str(length),
            "Accept": "*/*",
            **fields,
        }
        lines = [f"POST {self._path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items())]
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _answer(self, connection: socket.socket, end: float, rest: float) -> Response:
        octets = _Timed(connection, end)
        response = HTTPResponse(octets, method="POST")  # type: ignore[arg-type] # of a socket it wants only `makefile`
        response.begin()
        octets.end = min(end, time.monotonic() + rest)
        body = self._finish(response)
        return Response(response.status, body, response.isclosed(), response.headers.get("Date", ""))

    def _finish(self, response: HTTPResponse) -> bytes:
        """The body as far as it comes in time; a connection on which some of it is left is not used again."""
        body = b""
        with contextlib.suppress(OSError, HTTPException, ValueError):
            body = response.read(_MOST)
            if len(body) == _MOST:  # that may have been all: only the end says so
                response.read(1)
        if not response.isclosed() or response.will_close:  # isclosed: all of it was read
            self.close()
        return body

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
