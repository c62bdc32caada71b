"""A reverse proxy under TLS, as stands before the daemon's public paths; well or badly set up."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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
    class Handler(BaseHTTPRequestHandler):
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

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the tests."""


@contextmanager
def proxied(context: ssl.SSLContext, backend: int) -> Iterator[Proxy]:
    """One that listens, before this port of loopback."""
    proxy = Proxy(backend)
    server = _Server((HOST, 0), _handler(proxy))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    proxy.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
