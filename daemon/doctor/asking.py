"""An HTTP request, and whether it was optoutd that answered."""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from daemon import __version__
from daemon.web.rendering import SECURITY

SECONDS: Final = 8.0  # for each step of it
_MOST: Final = 1_000_000  # octets of an answer
_POLICY: Final = "Content-Security-Policy"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said. `date`: by its clock; `is_ours`: it has the very policy that all our answers have."""

    status: int
    body: bytes
    date: datetime | None
    is_ours: bool


class Line:
    """To one server. Its certificate is verified; no redirect is followed. Use it in `with`; raises OSError, HTTPException."""

    def __init__(self, host: str, port: int, *, secure: bool = False):
        self._line: http.client.HTTPConnection
        if secure:
            context = ssl.create_default_context()
            self._line = http.client.HTTPSConnection(host, port, timeout=SECONDS, context=context)
        else:
            self._line = http.client.HTTPConnection(host, port, timeout=SECONDS)

    def __enter__(self) -> Line:
        self._line.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()

    @property
    def certificate(self) -> dict[str, Any]:
        """The server's (ssl.SSLSocket.getpeercert); empty in clear."""
        line: object = self._line.sock
        return (line.getpeercert() if isinstance(line, ssl.SSLSocket) else None) or {}

    def ask(self, path: str, body: str | None = None) -> Answer:
        """GET, or with a body POST of a form."""
        fields = {"User-Agent": f"optoutd-doctor/{__version__}"}
        if body is not None:
            fields["Content-Type"] = "application/x-www-form-urlencoded"
        self._line.request("GET" if body is None else "POST", path, body, fields)
        response = self._line.getresponse()
        ours = SECURITY[_POLICY] in response.headers.get_all(_POLICY, [])  # a proxy may add one of its own
        return Answer(response.status, response.read(_MOST), _moment(response.headers.get("Date", "")), ours)


def _moment(date: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(date)
    except ValueError:
        return None
    return found if found.tzinfo else None
