"""Lists of others: rows, bad rows, or a refusal that says why; nothing else, and every row is bounded."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from daemon.exchange.formats import FORMATS, open_list
from daemon.exchange.rows import Bad, Entry, NotUnderstood, Skipped
from storage.terms import REASONS, SOURCES
from tests.fuzz.driving import One

_LISTS: Final = Path(__file__).parents[2] / "exchange/lists"
SECONDS: Final = 5.0
BASES: Final = (
    *(path.read_bytes() for path in sorted(_LISTS.iterdir())),
    "email;reason;since\r\njörg@bücher.example;complaint;2024-01-02\r\n".encode("utf-16"),
    b'email\tscope\n"ann\n@x.example"\tlist:offers;list:newsletter\n',
    b"".join(b"%032x\n" % n for n in range(3)),
    b'[{"email":"ann@customer.example","created":1700000000}]',
    b'{"items":[{"address":"ann@customer.example","created_at":"Mon, 01 Jan 2024 00:00:00 UTC"}]}',
)
WORDS: Final = (
    b'"',
    b'""',
    b",",
    b";",
    b"\t",
    b"|",
    b"{",
    b"}",
    b"[" * 30,
    b"]",
    b"null",
    b"\\ud800",
    b"\\u0000",
    b"1e400",
    b"-0",
    b"NaN",
    b"true",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xfe\xff",
    b"email",
    b"Email Address",
    b"reason",
    b"unsubscribed",
    b"subscribed",
    b"0000-00-00",
    b"9999-12-31T23:59:60+99:99",
    b"99999999999999999999",
    b"list:offers",
    b"d41d8cd98f00b204e9800998ecf8427e",
    b"# ",
    b"REJECT",
    b"=cmd|'/c calc'!A1",
)


def one(octets: bytes) -> None:
    """These octets as a list, of which the beginning says what it is, and as each of two formats by name."""
    began = time.thread_time()
    for kind in ("auto", FORMATS[len(octets) % len(FORMATS)]):
        try:
            rows = open_list(io.BytesIO(octets), format=kind).found()
            for row in rows:
                _look_at(row)
        except NotUnderstood as why:
            _look_at_refusal(str(why))
    took = time.thread_time() - began
    assert took < SECONDS, f"{took:.1f} s"


def _look_at_refusal(sentence: str) -> None:
    assert sentence
    assert sentence.isprintable()
    assert len(sentence) < 1_000, len(sentence)


def _look_at(row: Entry | Skipped | Bad) -> None:
    assert row.line >= 1
    match row:
        case Bad():
            assert row.why
            assert len(row.text) <= 500
        case Entry():
            assert bool(row.address) != bool(row.hashed), row
            assert row.reason in ("", *REASONS), row
            assert row.source in ("", *SOURCES), row
            assert row.since is None or row.since.tzinfo is not None
            assert len(row.note) <= 2_000, len(row.note)


@contextmanager
def ready() -> Iterator[One]:
    """Nothing is needed for it."""
    yield one
