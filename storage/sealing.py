"""A seal on the small tables that say what suppression rows mean.

Which list a number stands for; which kinds of foreign hashes are asked for; whether all mail is deferred; which site key
is the newest; what the brake holds up. Swapping the ids of two lists would change whom a campaign reaches without touching
a suppression row. So `write` looks at these tables when a transaction begins and when it ends: what it changed itself is
sealed anew; what was changed behind our back is not, and every later check finds it. The seal is a keyed digest in the
meta row `sealed`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from storage import meta
from storage.address import SiteKey

# Not `check` and `needs`, which others write and the opening verifies, nor what bears a seal of its own.
_META: Final = ("brake", "deferred", "hashes", "newest")


def seal(db: Connection, site_key: SiteKey) -> bytes:
    """What the meta row `sealed` has to be: 16 octets; none where the tables cannot be read."""
    return _look(db, site_key)[0]


def _look(db: Connection, site_key: SiteKey) -> tuple[bytes, dict[str, bytes]]:
    """The seal, and the rows of table meta that it is of."""
    try:
        lists = db.exec_driver_sql("SELECT number, id FROM list_number ORDER BY number").all()
        marks = ",".join("?" * len(_META))
        facts = db.exec_driver_sql(f"SELECT name, value FROM meta WHERE name IN ({marks}) ORDER BY name", _META).all()
    except DBAPIError:
        return b"", {}
    return of_rows(site_key, lists, facts), {row[0]: row[1] for row in facts}


def of_rows(site_key: SiteKey, lists: Iterable[Any], facts: Iterable[Any]) -> bytes:
    """The seal over rows (number, id) and (name, value), each in order. Pure."""
    body = repr([[tuple(row) for row in lists], [tuple(row) for row in facts]]).encode()  # tells 1 from '1' and b'1'
    return hashlib.blake2b(body, key=site_key.derive(b"small tables"), digest_size=16).digest()


def is_whole(db: Connection, site_key: SiteKey) -> bool:
    """Are the tables as we left them?"""
    return _is(db, seal(db, site_key))


def _is(db: Connection, ours: bytes) -> bool:
    record = meta.get(db, "sealed")
    return isinstance(record, bytes) and ours != b"" and hmac.compare_digest(ours, record)


def keep(db: Connection, record: bytes) -> None:
    """Write the seal down."""
    meta.put(db, "sealed", record)


def begin(db: Connection, site_key: SiteKey) -> None:
    """Seal what stands there, in a ledger made before there was a seal: there is no better witness."""
    if meta.get(db, "sealed") is None:
        keep(db, seal(db, site_key))


class Watch:
    """The small tables over one writing transaction. `meta`: rows of that table, as they were when it began."""

    def __init__(self, db: Connection, site_key: SiteKey):
        self._db, self._site_key = db, site_key
        self._before, self.meta = _look(db, site_key)
        self._was_whole = _is(db, self._before)

    def end(self) -> None:
        """Seal what the transaction changed, if all was well before."""
        after = seal(self._db, self._site_key)
        if self._was_whole and after != self._before:
            keep(self._db, after)
