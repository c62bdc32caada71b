"""How much may still be written where our files lie."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from storage.engine import Ledger


def free(ledger: Ledger) -> Mapping[str, int]:
    """`database` (of SQLite), `backups`, `log` (where stderr is a file) -> octets that we may still write there."""
    database, journal = ledger.store.path, ledger.journal
    places: dict[str, Path | int | None] = {
        "database": None if database is None else database.parent,
        "backups": None if journal is None else journal.path.parent,
        "log": _log(),
    }
    return {of: octets for of, place in places.items() if place is not None and (octets := _free(place)) is not None}


def _log() -> int | None:
    """Our stderr, if it is a file: a journal keeps itself small."""
    try:
        return 2 if stat.S_ISREG(os.fstat(2).st_mode) else None
    except OSError:  # it is closed
        return None


def _free(place: Path | int) -> int | None:
    """None: there is nothing yet."""
    try:
        found = os.statvfs(place)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
