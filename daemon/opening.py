"""Opening the ledger as a config says: what the daemon and every command do first, and no more than that."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from daemon.config import Config, Loaded
from storage import suppressions
from storage.address import SiteKey
from storage.engine import Ledger, Unavailable, Unusable, migrate, open_ledger, revision
from storage.journal import NAME as JOURNAL
from storage.journal import Journal
from storage.write import write


class Busy(Exception):
    """Another daemon has this database, or a port is taken: exit 75."""


def now() -> datetime:
    """The clock of the whole daemon."""
    return datetime.now(UTC)


def announce(database: Path, site_key: SiteKey) -> None:
    """Leave in our own lock which site key is the newest that we know: whoever moves rows to a newer one must not."""
    _lock_of(database).write_text(_newest(site_key))


def knows_newest(database: Path, site_key: SiteKey) -> bool:
    """Is the newest of these site keys known to the daemon that holds the lock?"""
    try:
        return _lock_of(database).read_text() == _newest(site_key)
    except (OSError, UnicodeDecodeError):
        return False


def _newest(site_key: SiteKey) -> str:
    """Says nothing about the key."""
    return site_key.derive(b"newest", number=len(site_key.keys)).hex()[:16]


def _lock_of(database: Path) -> Path:
    return database.with_name(database.name + ".lock")


@contextmanager
def sole_owner(database: Path) -> Iterator[None]:
    """Hold the lock beside the database: one daemon, and no restore under it. Raises Busy."""
    home = database.parent
    home.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(_lock_of(database), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.geteuid() == 0:  # a lock that root made first must not keep the daemon's user out
            os.fchown(descriptor, home.stat().st_uid, home.stat().st_gid)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another optoutd is running on {database}") from None
        yield
    finally:
        os.close(descriptor)


def open_for(
    loaded: Loaded, *, allow_create: bool = False, journal_failed: Callable[[OSError], object] = lambda _: None
) -> Ledger:
    """The ledger of a config. `journal_failed` is told when its journal cannot be written. Raises Unavailable, Unusable."""
    storage = loaded.config.storage
    ledger = open_ledger(
        loaded.database,
        loaded.key_file,
        same_person=storage.same_person,
        keep_addresses=storage.keep_addresses,
        allow_create=allow_create,
    )
    if loaded.backup_dir is not None:
        ledger.journal = _journal(loaded.backup_dir, ledger, journal_failed)
    return ledger


def _journal(directory: Path, ledger: Ledger, failed: Callable[[OSError], object]) -> Journal:
    """What root makes (a command in a shell) belongs to whom the database belongs to: the daemon goes on with it."""
    owner = ledger.path.stat()
    return Journal(directory / JOURNAL, ledger.site_key, failed, (owner.st_uid, owner.st_gid))


def open_for_run(loaded: Loaded, journal_failed: Callable[[OSError], object] = lambda _: None) -> Ledger:
    """As `open_for`, creating both halves if both are missing and bringing an older schema up to date."""
    if loaded.database.exists() and loaded.key_file.exists():
        with suppress(Unavailable):  # garbled: the opening below says so
            revision(loaded.database)
            migrate(loaded.database)
    create = loaded.config.storage.create
    if not create and not loaded.database.exists() and not loaded.key_file.exists():
        raise Unusable(f"no database at {loaded.database}, and storage.create = false: put database and key in place")
    return open_for(loaded, allow_create=create, journal_failed=journal_failed)


def number_lists(ledger: Ledger, config: Config) -> dict[str, int]:
    """List id -> number, every list of the config numbered. Raises Unavailable."""
    ids = [x.id for x in config.list]
    with ledger.connect() as db:
        known = suppressions.list_numbers(db)
    if all(i in known for i in ids):
        return known
    with write(ledger, now(), "service") as w:
        return suppressions.number_lists(w, ids)
