"""A reverse proxy under TLS, as stands before the daemon's public paths; well or badly set up."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler

from tests.httpd import Quiet, listening
from tests.loopback import HOST


@dataclass
class Proxy:
    """`answers`: with this status, whatever is asked; `takes_posts`: passes them on; `ahead`: its clock."""

    backend: int
    port: int = 0
    answers: int = 0
    takes_posts: bool = True
    ahead: timedelta = timedelta()


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(Quiet, BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if proxy.answers or (self.command == "POST" and not proxy.takes_posts):
                self._say(proxy.answers or 405, [], b"a page of the proxy's\n")
                return
            line = http.client.HTTPConnection(HOST, proxy.backend, timeout=20)
            try:
                line.request(self.command, self.path, body, dict(self.headers))
                answer = line.getresponse()
                self._say(answer.status, answer.getheaders(), answer.read())
            except OSError:
                self._say(502, [], b"bad gateway\n")
            finally:
                line.close()

        def do_POST(self) -> None:
            self.do_GET()

        def _say(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "date", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("Date", format_datetime(datetime.now(UTC) + proxy.ahead, usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


@contextmanager
def proxied(context: ssl.SSLContext, backend: int) -> Iterator[Proxy]:
    """One that listens, before this port of loopback."""
    proxy = Proxy(backend)
    with listening(_handler(proxy), tls=context) as proxy.port:
        yield proxy
