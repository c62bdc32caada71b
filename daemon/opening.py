"""Opening the ledger as a config says: what the daemon and every command do first, and no more than that."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from daemon.config import Config, Loaded
from daemon.gate import Gate, Lookup, Questions
from storage import lookup, suppressions
from storage.address import Address, SiteKey
from storage.engine import Ledger, Unavailable, Unusable, read_site_key
from storage.journal import NAME as JOURNAL
from storage.journal import Journal
from storage.lookup import Row
from storage.sqlite import File, migrate, open_ledger, revision
from storage.write import write

if TYPE_CHECKING:
    from storage.postgres import Server


_NEVER_REACHED: Final = "the database has not been reached since the start"


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
    return site_key.marks()[-1].hex()


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


@contextmanager
def sole_daemon(loaded: Loaded) -> Iterator[None]:
    """As `sole_owner` of an SQLite file; a database in PostgreSQL is for several nodes. Raises Busy."""
    if loaded.in_postgres:
        yield
        return
    with sole_owner(loaded.database):
        yield


def server_of(loaded: Loaded) -> Server:
    """The PostgreSQL of a config. Raises Unusable where the driver is missing, ConfigError for a missing password."""
    try:
        from storage.postgres import Server
    except ImportError:
        raise Unusable(
            "storage.url is in PostgreSQL, for which psycopg is missing: install optoutd[postgres]"
        ) from None
    storage = loaded.config.storage
    return Server(storage.url, loaded.secret(storage.password_file) if storage.password_file else None)


def is_running(loaded: Loaded) -> bool:
    """Does a daemon have this database right now? (Asked by those who would work faster without one.) Of several nodes
    one always may."""
    if loaded.in_postgres:
        return True
    try:
        with loaded.database.with_name(loaded.database.name + ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # held, or not ours to look at
        return True
    return False


def open_for(
    loaded: Loaded, *, allow_create: bool = False, journal_failed: Callable[[OSError], object] = lambda _: None
) -> Ledger:
    """The ledger of a config. `journal_failed` is told when its journal cannot be written. Raises Unavailable, Unusable."""
    ledger = _open_server(loaded) if loaded.in_postgres else _open_file(loaded, allow_create)
    _keep_journal(loaded, ledger, journal_failed)
    ledger.compare_with_journal()
    return ledger


def _keep_journal(loaded: Loaded, ledger: Ledger, failed: Callable[[OSError], object]) -> None:
    """What root makes (a command in a shell) belongs to whom the database belongs to: the daemon goes on with it."""
    if loaded.backup_dir is not None:
        owner = ledger.path if isinstance(ledger.store, File) else loaded.key_file
        found = owner.stat()
        ledger.journal = Journal(loaded.backup_dir / JOURNAL, ledger.site_key, failed, (found.st_uid, found.st_gid))


def _open_server(loaded: Loaded) -> Ledger:
    storage, server = loaded.config.storage, server_of(loaded)
    from storage.postgres import open_server

    return open_server(server, loaded.key_file, same_person=storage.same_person, keep_addresses=storage.keep_addresses)


def _open_file(loaded: Loaded, allow_create: bool) -> Ledger:
    storage = loaded.config.storage
    return open_ledger(
        loaded.database,
        loaded.key_file,
        same_person=storage.same_person,
        keep_addresses=storage.keep_addresses,
        allow_create=allow_create,
    )


def open_for_run(loaded: Loaded, journal_failed: Callable[[OSError], object] = lambda _: None) -> Ledger:
    """As `open_for`, creating both halves if both are missing and bringing an older schema up to date.

    Not in PostgreSQL, where other nodes may be at work: there `optoutd migrate` does it when the operator says so.
    """
    if loaded.in_postgres:
        return _open_or_wait(loaded, journal_failed)
    if loaded.database.exists() and loaded.key_file.exists() and _has_schema(loaded.database):
        migrate(loaded.database, read_site_key(loaded.key_file))
    create = loaded.config.storage.create
    if not create and not loaded.database.exists() and not loaded.key_file.exists():
        raise Unusable(f"no database at {loaded.database}, and storage.create = false: put database and key in place")
    ledger = open_for(loaded, allow_create=create, journal_failed=journal_failed)
    ledger.compare_with_journal(alone=True)
    return ledger


def _has_schema(database: Path) -> bool:
    """One that is garbled has none, as far as we can see: opening it says so."""
    try:
        return bool(revision(database))
    except Unavailable:
        return False


def _open_or_wait(loaded: Loaded, journal_failed: Callable[[OSError], object]) -> Ledger:
    """A server that is away does not hold us back: its ledger answers doubt until it is there, and is checked then."""
    try:
        return open_for(loaded, journal_failed=journal_failed)
    except Unavailable:
        storage = loaded.config.storage
        site_key = read_site_key(loaded.key_file)
        ledger = Ledger(server_of(loaded), site_key, storage.same_person, storage.keep_addresses)
        _keep_journal(loaded, ledger, journal_failed)
        return ledger


class Away:
    """The lookup of a ledger that was never reached: which number a list has is not known, so nothing can be asked."""

    def rows(self, address: Address) -> list[Row]:
        """Raises Unavailable."""
        return self.rows_of_all([address])[0]

    def rows_of_all(self, addresses: Iterable[Address]) -> list[list[Row]]:
        """Raises Unavailable."""
        raise Unavailable(_NEVER_REACHED)

    def sweep(self, texts: Sequence[str]) -> list[Sequence[Row] | None]:
        """Raises Unavailable."""
        self.rows_of_all(())
        return []

    def close(self) -> None:
        """Nothing is open."""


class Unnumbered(Mapping[str, int]):
    """The numbers of the lists of a ledger that was never reached. None at all would be taken for lists that we do not have,
    and a click that leaves one of them for the wish to leave everything."""

    def __getitem__(self, list_id: str) -> int:
        raise Unavailable(_NEVER_REACHED)

    def __iter__(self) -> Iterator[str]:
        raise Unavailable(_NEVER_REACHED)

    def __len__(self) -> int:
        raise Unavailable(_NEVER_REACHED)


def lookup_of(ledger: Ledger, *, for_lists: bool = False) -> Lookup:
    """What answers the question before a recipient, at once. `for_lists`: it will be asked of a great many."""
    if isinstance(ledger.store, File):
        by_page = {"mapped": 0} if for_lists else {}
        return lookup.Lookup(ledger.path, ledger.site_key, **by_page)
    from storage import questions

    return questions.Lookup(_server(ledger), ledger.site_key)


def gate_of(ledger: Ledger, numbers: dict[str, int]) -> Gate:
    """The gate for the event loop, which must not stand still for a database on the other side of a network."""
    waits: Questions | None = None
    if not isinstance(ledger.store, File):
        from storage import questions

        waits = questions.Questions(_server(ledger), ledger.site_key)
    return Gate(lookup_of(ledger), numbers, waits)


def _server(ledger: Ledger) -> Server:
    from storage.postgres import Server

    assert isinstance(ledger.store, Server)
    return ledger.store


def number_lists(ledger: Ledger, config: Config) -> dict[str, int]:
    """List id -> number, every list of the config numbered. Raises Unavailable, Unusable."""
    ledger.compare_with_journal()  # of a server that was away when we opened it
    ids = [x.id for x in config.list]
    with ledger.connect() as db:
        known = suppressions.list_numbers(db)
    if all(i in known for i in ids):
        return known
    with write(ledger, now(), "service") as w:
        return suppressions.number_lists(w, ids)
