"""Opening the ledger as a config says: what the daemon and every command do first, and no more than that."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from daemon.config import Config, Loaded
from storage import suppressions
from storage.engine import Ledger, Unavailable, Unusable, migrate, open_ledger, revision
from storage.write import write


class Busy(Exception):
    """Another daemon has this database, or a port is taken: exit 75."""


def now() -> datetime:
    """The clock of the whole daemon."""
    return datetime.now(UTC)


@contextmanager
def sole_owner(database: Path) -> Iterator[None]:
    """Hold the lock beside the database: one daemon, and no restore under it. Raises Busy."""
    database.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(database.with_name(database.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another optoutd is running on {database}") from None
        yield
    finally:
        os.close(descriptor)


def is_running(database: Path) -> bool:
    """Does a daemon have this database right now? (Asked by those who would work faster without one.)"""
    try:
        with database.with_name(database.name + ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # held, or not ours to look at
        return True
    return False


def open_for(loaded: Loaded, *, allow_create: bool = False) -> Ledger:
    """The ledger of a config. Raises Unavailable, Unusable."""
    storage = loaded.config.storage
    return open_ledger(
        loaded.database,
        loaded.key_file,
        same_person=storage.same_person,
        keep_addresses=storage.keep_addresses,
        allow_create=allow_create,
    )


def open_for_run(loaded: Loaded) -> Ledger:
    """As `open_for`, creating both halves if both are missing and bringing an older schema up to date."""
    if loaded.database.exists() and loaded.key_file.exists():
        with suppress(Unavailable):  # garbled: the opening below says so
            revision(loaded.database)
            migrate(loaded.database)
    create = loaded.config.storage.create
    if not create and not loaded.database.exists() and not loaded.key_file.exists():
        raise Unusable(f"no database at {loaded.database}, and storage.create = false: put database and key in place")
    return open_for(loaded, allow_create=create)


def number_lists(ledger: Ledger, config: Config) -> dict[str, int]:
    """List id -> number, every list of the config numbered. Raises Unavailable."""
    ids = [x.id for x in config.list]
    with ledger.connect() as db:
        known = suppressions.list_numbers(db)
    if all(i in known for i in ids):
        return known
    with write(ledger, now(), "service") as w:
        return suppressions.number_lists(w, ids)
