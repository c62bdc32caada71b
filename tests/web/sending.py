"""Forms that a `Visitor` cannot send: a field several times, and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlencode

from tests.web.support import FORM, Answer
from tests.web.visitor import Visitor

_BOUNDARY: Final = "----boundary-of-a-test"


def send(visitor: Visitor, path: str, content_type: str, body: bytes) -> Answer:
    """A body as it is."""
    cookies = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())
    return visitor.web.ask("POST", path, f"Content-Type: {content_type}", f"Cookie: {cookies}", body=body)


def post_all(visitor: Visitor, path: str, **fields: str | Sequence[str]) -> Answer:
    """A form in which a field may be there more than once."""
    body = urlencode({"csrf_token": visitor.csrf_token, **fields}, doseq=True).encode()
    return send(visitor, path, FORM, body)


def multipart(fields: Mapping[str, str], name: str, octets: bytes) -> tuple[str, bytes]:
    """(content type, body) of a form with these fields, and then a file `file`."""
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode()
        for k, v in fields.items()
    ]
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
    head += "Content-Type: text/csv\r\n\r\n"
    end = f"\r\n--{_BOUNDARY}--\r\n".encode()
    return f"multipart/form-data; boundary={_BOUNDARY}", b"".join([*parts, head.encode(), octets, end])


def upload(visitor: Visitor, octets: bytes, name: str = "old.csv", **fields: str) -> Answer:
    """A list, as the form of /console/imports sends it."""
    content_type, body = multipart({"csrf_token": visitor.csrf_token, **fields}, name, octets)
    return send(visitor, "/console/imports", content_type, body)
