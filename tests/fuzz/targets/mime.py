"""Reading mail: no exception, no message that takes long, no address that is none, nothing that cannot be written down."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from daemon.mail import reading, rules, summary, triage
from storage.address import SiteKey
from tests.fuzz.driving import One
from training.house import HOUSE

_TESTS: Final = Path(__file__).parents[2]
_KEY: Final = SiteKey((bytes(32),))
SECONDS: Final = 3.0  # of this thread

BASES: Final = tuple(
    path.read_bytes()
    for place in ("corpus/mail", "mail/seeds")
    for path in sorted((_TESTS / place).iterdir())
    if path.suffix in ("", ".eml")
)
WORDS: Final = (
    b"Content-Type: multipart/mixed; boundary=x\r\n",
    b"Content-Type: multipart/report; report-type=delivery-status; boundary=x\r\n",
    b"Content-Type: message/rfc822\r\n\r\n",
    b"Content-Type: message/delivery-status\r\n\r\n",
    b"Content-Type: text/html; charset=utf-7\r\n\r\n",
    b"Content-Type: text/plain; charset=utf-7\r\n\r\n+2AA-",
    b"=?utf-7?q?+2AA-?=",
    b"Content-Type: text/plain; charset*0*=utf-8''%61; charset*1=b\r\n",
    b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Transfer-Encoding: quoted-printable\r\n",
    b"Content-Transfer-Encoding: x-uuencode\r\n\r\nbegin 644 x\r\n",
    b"Authentication-Results: mx1.quillpdf.example; dmarc=pass header.from=",
    b"\r\n--x\r\n",
    b"\r\n--x--\r\n",
    b"=?utf-8?b?",
    b"=?iso-2022-jp?q?",
    b"?=",
    b"Received: from a by mx1.quillpdf.example",
    b"unsubscribe",
    b"Please remove me from your mailing list",
    b"From: ",
    b'<<>>@,;:"',
    b"<div><blockquote>",
    b"</",
    b"&#x110000;",
    b"\r\n> ",
    b"\r\nOn Mon, Ann wrote:\r\n",
)


def one(octets: bytes) -> None:
    """Read one message as the watcher would."""
    began = time.thread_time()
    found = triage.read(octets, HOUSE, _KEY)
    outside = summary.summary(octets)
    took = time.thread_time() - began
    assert took < SECONDS, f"{took:.1f} s"
    assert set(found.rules) <= set(rules.RULES)
    assert all("@" in address for address in reading.addresses(found))
    for text in _texts([asdict(found), asdict(outside)]):
        assert "\0" not in text  # PostgreSQL takes none
        text.encode()  # nor any database half a character


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one_of_them in value.values() if isinstance(value, dict) else value:
            yield from _texts(one_of_them)


@contextmanager
def ready() -> Iterator[One]:
    """Nothing is needed for it."""
    yield one
