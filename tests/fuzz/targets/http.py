"""The HTTP door: whatever octets come, its answers are well-formed, none is a bug's, and the connection ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.fuzz.driving import One
from tests.fuzz.talking import ANN, PAUSE, ledger, said, watched
from tests.web.support import ADMIN, door, whole

_STATUS: Final = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) ?[\x20-\x7e]*\Z")
_FIELD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\x20-\x7e\x80-\xff]*\Z")
_BODILESS: Final = (204, 304)

_HOST: Final = b"Host: 127.0.0.1:8025\r\n"
_TOKEN: Final = b"Authorization: Bearer shop-token-shop-token\r\n"
_FORM: Final = b"Content-Type: application/x-www-form-urlencoded\r\n"
_LOGIN: Final = f"username={ADMIN.name}&password=wrong&csrf_token=x".encode()
_PARTS: Final = (
    b'--x\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\nx\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\nemail\r\na@b.example\r\n--x--\r\n'
)


def _asked(line: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return line + b" HTTP/1.1\r\n" + _HOST + b"".join(fields) + length + b"\r\n" + body


BASES: Final = (
    _asked(b"GET /healthz") + _asked(b"GET /readyz") + _asked(b"HEAD /metrics"),
    _asked(b"GET /u/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", b"Accept-Language: de;q=0.5, fr\r\n"),
    _asked(b"POST /u/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", _FORM, body=b"List-Unsubscribe=One-Click"),
    _asked(b"POST /p/aaaa", b"Content-Type: multipart/form-data; boundary=x\r\n", body=_PARTS),
    _asked(b"GET /console/", b"Cookie: optoutd_session=x; optoutd_browser=y\r\n"),
    _asked(b"POST /console/login", _FORM, b"Cookie: optoutd_browser=" + b"a" * 32 + b"\r\n", body=_LOGIN),
    _asked(b"POST /console/imports", b"Content-Type: multipart/form-data; boundary=x\r\n", body=_PARTS),
    _asked(b"GET /static/console.css", b"If-None-Match: x\r\n", b"Range: bytes=0-5\r\n"),
    _asked(b"GET /api/v1/openapi.json") + _asked(b"GET /api/v1/stats", _TOKEN),
    _asked(b"GET /api/v1/suppressions?limit=2&cursor=x", _TOKEN),
    _asked(
        b"POST /api/v1/check",
        _TOKEN,
        b"Content-Type: application/json\r\n",
        body=b'{"addresses":["%b"]}' % ANN.encode(),
    ),
    _asked(
        b"POST /api/v1/suppressions",
        _TOKEN,
        b"Idempotency-Key: k\r\n",
        b"Content-Type: application/json\r\n",
        body=b'{"address":"x@y.example","scope":"all"}',
    ),
    _asked(b"DELETE /api/v1/suppressions/ann%40customer.example?because=x", _TOKEN),
    _asked(b"POST /u/x", b"Transfer-Encoding: chunked\r\n") + b"5\r\nhello\r\n0\r\n\r\n",
)
WORDS: Final = (
    _HOST,
    _TOKEN,
    _FORM,
    b"Host: evil.example\r\n",
    b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity, chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Type: application/json; charset=utf-7\r\n",
    b"Content-Encoding: gzip\r\n",
    b"X-Forwarded-For: 1.2.3.4, [::1\r\n",
    b'Cookie: a="\\012"; ',
    b"%00",
    b"%2e%2e/",
    b"%ff",
    b"//",
    b"?a=b&a=b&",
    b"http://[::1/",
    b"/console/suppressions?q=",
    b"/console/login",
    b"/api/v1/check",
    b"GET ",
    b"PUT ",
    b"OPTIONS * ",
    b" HTTP/1.0\r\n",
    b" HTTP/2.0\r\n",
    b'{"a":' * 20,
    b"\\ud800",
    b"1e999",
    PAUSE,
)


def _look_at(asked: bytes, heard: bytes) -> None:
    """Every response, to the end; the last one may be cut off by a client that says nothing more."""
    head_only = asked[:5].upper() == b"HEAD " or b"HEAD " in asked
    while heard:
        head, end, rest = heard.partition(b"\r\n\r\n")
        assert end, heard[:200]
        line, *lines = head.split(b"\r\n")
        status = _STATUS.match(line)
        assert status, line
        assert all(map(_FIELD.match, lines)), lines
        assert status[1] != b"500", heard[:2000]
        fields = {name.lower(): value for name, _, value in (one.partition(b": ") for one in lines)}
        heard = rest if status[1][0:1] == b"1" or int(status[1]) in _BODILESS else _behind_body(fields, rest, head_only)


def _behind_body(fields: dict[bytes, bytes], rest: bytes, head_only: bool) -> bytes:
    if head_only and (not rest or rest.startswith(b"HTTP/1.1 ")):
        return rest
    if fields.get(b"transfer-encoding") == b"chunked":
        _, end, behind = rest.partition(b"0\r\n\r\n")
        assert end, rest[-200:]
        return behind
    length = int(fields.get(b"content-length", b"%d" % len(rest)))
    assert len(rest) >= length, (fields, len(rest))
    return rest[length:]


@contextmanager
def ready() -> Iterator[One]:
    """A door with all of its rooms."""
    with watched() as failed, ledger() as books, door(books, whole(books)) as web:
        failed.hear(web.loop)

        def one(octets: bytes) -> None:
            heard = said(web.port, octets if PAUSE in octets else octets + PAUSE)
            failed.check()
            _look_at(octets, heard)

        yield one
