"""A program that is told: a real HTTP server in a thread, which writes down what it hears and answers as a test likes.

It verifies each signature by the words of the scheme, with nothing of ours.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.httpd import Quiet, listening
from tests.loopback import HOST

SECRET = "a secret of more than 24 characters"
PATIENCE = 20.0


@dataclass
class Receiver:
    """`answer(change)` says with which status; `heard`: the bodies, as they came."""

    port: int
    scheme: str = "http"
    secret: bytes = SECRET.encode()
    heard: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    connections: int = 0
    answer: Callable[[dict[str, Any]], int] = lambda change: 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def url(self) -> str:
        """Where it is told."""
        return f"{self.scheme}://{HOST}:{self.port}/hook?of=optoutd"

    def addresses(self) -> list[Any]:
        """Whom it was told of, in order."""
        return [change["address"] for change in self.heard]

    def until(self, true: Callable[[], object]) -> None:
        """Wait for something."""
        until(true, lambda: (self.heard, self.wrong))

    def take(self, body: bytes, fields: dict[str, str]) -> int:
        """One request; returns the status."""
        content = fields["webhook-id"].encode() + b"." + fields["webhook-timestamp"].encode() + b"." + body
        right = base64.b64encode(hmac.new(self.secret, content, hashlib.sha256).digest()).decode()
        given = [part.partition(",")[2] for part in fields["webhook-signature"].split(" ")]
        if right not in given:
            self.wrong.append("signature")
            return 401
        change = json.loads(body)
        if change["id"] != fields["webhook-id"]:
            self.wrong.append("id")
        self.heard.append(change)
        self.ids.append(fields["webhook-id"])
        self.at.append(time.monotonic())
        return self.answer(change)


def until(true: Callable[[], object], tell: Callable[[], object] = lambda: "") -> None:
    """Wait for something."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, tell()
        time.sleep(0.005)


def _handler(of: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(Quiet, BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def setup(self) -> None:
            of.connections += 1
            super().setup()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path != "/hook?of=optoutd" or self.headers["content-type"] != "application/json":
                of.wrong.append(self.path)
            status = of.take(body, {k.lower(): v for k, v in self.headers.items()})
            self.send_response(status)
            for name, value in of.headers.items():
                self.send_header(name, value)
            if "Transfer-Encoding" not in of.headers and "Content-Length" not in of.headers:
                self.send_header("Content-Length", str(len(of.body)))
            self.end_headers()
            self.wfile.write(of.body)
            self.wfile.flush()

    return Handler


@contextmanager
def receiver(*, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """One that listens."""
    it = Receiver(port, "https" if tls else "http")
    with listening(_handler(it), port, tls) as it.port:
        yield it


@contextmanager
def raw(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that says what `talk` says on each connection; gives its URL."""
    listening = socket.create_server((HOST, 0))
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=_talk, args=(connection,), daemon=True).start()

    def _talk(connection: socket.socket) -> None:
        with connection:
            try:
                talk(connection)
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{listening.getsockname()[1]}/hook"
    finally:
        ended.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()
