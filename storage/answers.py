"""Verbs on answers that a program may ask for again: a request with a key of its own is carried out once.

given     what the request with this key came to
keep      note what it came to, in the transaction of what it did
forget    what is a day old
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from sqlalchemy import Connection

from storage.address import SiteKey
from storage.write import Write

SECONDS: Final = 86_400  # how long an answer is kept


class Answer(NamedTuple):
    """What a request came to. `ref`: the evidence of what it did; 0: it did nothing."""

    status: int
    ref: int


class Once(NamedTuple):
    """A request that is to be carried out once: digests of whose it is, and of what it asks."""

    key: bytes
    request: bytes


class AnotherRequest(Exception):
    """The key was given before with another request."""


def once(site_key: SiteKey, key: tuple[str, ...], request: tuple[str, ...]) -> Once:
    """A request by its key (whose, which) and by what it asks. Keyed digests: what it asks has somebody's address in it."""
    secret = site_key.derive(b"answered")
    return Once(*(_digest(secret, texts) for texts in (key, request)))


def _digest(secret: bytes, texts: tuple[str, ...]) -> bytes:
    return hashlib.blake2b("\0".join(texts).encode(), key=secret, digest_size=32).digest()


def given(db: Connection, it: Once) -> Answer | None:
    """What this request came to; None: it is new. Raises AnotherRequest."""
    row = db.exec_driver_sql("SELECT request, status, ref FROM answered WHERE key = ?", (it.key,)).first()
    if row is None:
        return None
    if bytes(row[0]) != it.request:
        raise AnotherRequest
    return Answer(row[1], row[2])


def keep(w: Write, it: Once, answer: Answer) -> None:
    """Note it."""
    statement = "INSERT INTO answered (key, at, request, status, ref) VALUES (?, ?, ?, ?, ?)"
    w.db.exec_driver_sql(statement, (it.key, w.at, it.request, *answer))


def forget(w: Write) -> None:
    """Drop what is a day old."""
    w.db.exec_driver_sql("DELETE FROM answered WHERE at < ?", (w.at - SECONDS,))
