"""Authentication-Results (RFC 8601): what our own server did not write proves nobody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from daemon.mail.message import take_apart
from daemon.mail.trust import dmarc
from tests.fuzz.driving import One
from training.house import HOUSE

_OURS: Final = HOUSE.authserv_id.encode()
_FAR: Final = b"Received: from a.example by mx.elsewhere.example; Mon, 1 Jan 2024 00:00:00 +0000\r\n"
_PASS: Final = b"; dmarc=pass header.from=customer.example\r\n"
BASES: Final = (
    b"Authentication-Results: " + _OURS + _PASS,
    b"Authentication-Results: mx.elsewhere.example" + _PASS,
    b'Authentication-Results: mx.elsewhere.example (it is); spf=pass smtp.mailfrom="a;dmarc=pass"' + _PASS,
    b"Authentication-Results: mx2.elsewhere.example 1" + _PASS + _FAR + b"Authentication-Results: x" + _PASS,
    b"Authentication-Results: mx.elsewhere.example" + _PASS + _FAR + b"Authentication-Results: " + _OURS + _PASS,
)
WORDS: Final = (
    b"dmarc=pass",
    b"; dmarc = pass (p=none)",
    b"header.from=customer.example",
    b"header.from=",
    b"mx.elsewhere.example",
    b"(" * 40,
    b")",
    b'"',
    b'\\"',
    b"\r\n\t",
    b"Authentication-Results: ",
    b"ARC-Authentication-Results: i=1; ",
    b"Received: ",
    b" by ",
    _FAR,
)


def one(octets: bytes) -> None:
    """A header with these fields on top."""
    fields = take_apart(octets + b"From: ann@customer.example\r\n\r\nhello\r\n").root.fields
    said = dmarc(fields, HOUSE, "customer.example")
    assert said in ("pass", "fail", "none")
    above, far, _ = (b"\r\n" + octets).partition(b"\r\n" + _FAR)
    if said != "none" and _OURS not in octets.lower():
        raise AssertionError(f"{said}, and our server wrote nothing")
    if said != "none" and far and _OURS not in above.lower() and octets.startswith(b"Authentication-Results: "):
        raise AssertionError(f"{said}, and our server wrote nothing above what came from elsewhere")


@contextmanager
def ready() -> Iterator[One]:
    """Nothing is needed for it."""
    yield one
