"""Site key, database and the record in it: one after the other, since each needs the one before."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from daemon import opening
from daemon.config import ConfigError
from daemon.doctor import files
from daemon.doctor.findings import Finding, Look, count, size
from storage import audit, checkup, deferral, disk
from storage.engine import REVISION, Ledger, Unavailable, Unusable, WrongKey, read_site_key
from storage.sqlite import File

PAGES_SECONDS: Final = 5.0
RECORD_SECONDS: Final = 5.0
FULL: Final = 64_000_000  # octets; with less room nothing can be relied on
NARROW: Final = 500_000_000
LONG_LOG: Final = 256_000_000
_SLOW_SECONDS: Final = 0.05  # for one question; a campaign asks one for each recipient
_CLOCKS: Final = timedelta(seconds=5)
_STALE: Final = timedelta(days=3)  # the daemon verifies the whole record each night
_KEEP_A_COPY: Final = "is a copy of it kept apart from the backups? without it they cannot be read"


def probe(look: Look) -> Iterator[Finding]:
    """The site key first, then what it opens."""
    loaded, database = look.loaded, look.of("database")
    if not loaded.in_postgres and not loaded.database.exists() and not loaded.key_file.exists():
        yield from _nothing_yet(database)
        return
    room = loaded.in_postgres or (yield from _room(database))
    look.step(f"read {loaded.key_file}")
    try:
        keys = len(read_site_key(loaded.key_file).keys)
    except Unusable as why:
        said, _, run = str(why).partition("; run: ")  # it says what to run if the file is only open to others
        yield look.fail(said, f"run: {run}" if run else _key_advice(look))
        return
    database.step("open the database")
    try:
        ledger = opening.open_for(loaded)
    except WrongKey as why:
        yield look.fail(str(why), _key_advice(look))
        return
    except (Unusable, Unavailable, ConfigError, OSError) as why:
        yield look.ok(f"{loaded.key_file}: {count(keys, 'key')}; of which database cannot be told while none opens")
        yield _closed(database, why, room=room)
        return
    try:
        yield look.ok(f"{loaded.key_file}: {count(keys, 'key')}, the database's; {_KEEP_A_COPY}")
        yield from _database(database, ledger)
        yield from _record(look.of("audit chain"), ledger)
    finally:
        ledger.close()


def _key_advice(look: Look) -> str:
    return (
        f"put the key file that belongs to this database at {look.loaded.key_file}, mode 600, owned by the daemon's user; it is in"
        " no backup but one made --with-key. Never make a new one in its place: the list cannot be read with another"
    )


def _closed(look: Look, why: Exception, *, room: bool) -> Finding:
    """A database that does not open."""
    database = look.loaded.database
    if not look.loaded.in_postgres and not database.exists():
        return look.fail(f"{database} is gone, and its site key is there", _advice(look))
    said = _said(look, why)
    if not room:
        return look.fail(said, "make room first")
    said, colon, to_do = said.partition(": ") if isinstance(why, Unusable) else (said, "", "")
    return look.fail(said, to_do if colon else _advice(look))  # Unusable says what to do


def _said(look: Look, why: Exception) -> str:
    """Without the URL of a server: a user name before a host looks like somebody's address."""
    url = look.config.storage.url.partition("?")[0]
    return look.said(str(why).replace(f"database {url}", "the database"))


def _advice(look: Look) -> str:
    if look.loaded.in_postgres:
        return (
            "is PostgreSQL running, is storage.url right, and does it let this machine in? until then every recipient is"
            " answered 451; try: psql with the host, user and database of storage.url"
        )
    return (
        "if it was moved, or its disk is not mounted, put it back; else stop the daemon and `optoutd restore` the newest backup"
        " (docs/backup.md). Until then every recipient is answered 451"
    )


def _nothing_yet(look: Look) -> Iterator[Finding]:
    loaded = look.loaded
    home = loaded.database.parent
    text = f"neither {loaded.database} nor {loaded.key_file} is there yet"
    if look.house.running:
        yield look.fail(
            text + ", and the daemon runs", "stop the daemon, then put database and key back (docs/backup.md)"
        )
    elif not loaded.config.storage.create:
        yield look.fail(text, "storage.create is false: put database and key in place (docs/backup.md)")
    elif home.exists() and not os.access(home, os.W_OK):
        yield look.fail(f"{text}, and {home} cannot be written", f"let the daemon's user write {home}")
    else:
        yield look.warn(
            text, "the first `optoutd run` makes both; if this is no first start, is the disk mounted that has them?"
        )


# ------------------------------------------------------------------ the database


def _database(look: Look, ledger: Ledger) -> Iterator[Finding]:
    """What it holds, and whether it can go on."""
    try:
        look.step("count the suppressions")
        holds = f"{count(checkup.rows(ledger), 'suppression')}, schema {REVISION}"
        if isinstance(ledger.store, File):
            yield from _file(look, ledger, holds)
        else:
            yield from _server(look, ledger, holds)
        look.step("begin to write")
        yield from _writing(look, ledger)
        with ledger.connect() as db:
            gap, last = deferral.deferred(db), checkup.newest_row(db)
    except (Unavailable, Unusable) as why:
        yield look.fail(_said(look, why), _advice(look))
        return
    if gap is not None:
        yield look.fail(
            f"restored from a backup, with a gap since {gap.since:%Y-%m-%d %H:%M} UTC: every recipient is answered 451",
            "`optoutd restore --status` says what has to be replayed to end this",
        )
    yield from _time_of_record(look.of("clock"), last)


def _time_of_record(look: Look, last: datetime | None) -> Iterator[Finding]:
    if last is not None and last - look.house.now > timedelta(minutes=5):
        yield look.fail(
            f"it is {look.house.now:%Y-%m-%d %H:%M} UTC here, and the record has a row of {last:%Y-%m-%d %H:%M} UTC",
            "the clock was set back, or was ahead: set it right (timedatectl, chronyc tracking) before anything else",
        )


def _file(look: Look, ledger: Ledger, holds: str) -> Iterator[Finding]:
    found, free = ledger.path.stat(), disk.free(ledger.path.parent) or 0
    look.step("SQLite's own check of the file")
    wrong = checkup.pages(ledger, PAGES_SECONDS)
    if wrong:
        yield look.fail(f"{ledger.path} is damaged: {look.said(wrong)}", _advice(look))
    else:
        part = "" if wrong == "" else f"; not all of it was read within {PAGES_SECONDS:.0f} s"
        yield look.ok(f"{ledger.path}: {holds}, {size(found.st_size)}, {size(free)} free{part}")
    if (log := checkup.log_size(ledger)) > LONG_LOG:
        yield look.warn(
            f"its log (-wal) has grown to {size(log)}: somebody has been reading for very long",
            "look for a command that hangs (a backup, a report) and end it; the daemon then writes the log back by itself",
        )
    home = ledger.path.parent.stat()
    if found.st_uid != home.st_uid and home.st_uid != 0 and not home.st_mode & stat.S_ISVTX:
        owner = files.user_name(home.st_uid)
        yield look.fail(
            f"{ledger.path} belongs to {files.user_name(found.st_uid)}, its directory to {owner}",
            f"the daemon runs as {owner} and cannot write it; run: chown {owner} {ledger.path}*",
        )


def _room(look: Look) -> Generator[Finding, None, bool]:
    """Is there some? Asked before the database is opened, which wants some itself."""
    database = look.loaded.database
    try:
        free, octets = disk.free(database.parent) or 0, database.stat().st_size
    except OSError:
        return True  # it is not there, which is told in a moment
    if free < FULL:
        yield look.fail(
            f"the disk is full: {size(free)} free at {database.parent}",
            "make room: requests wait in the mailbox and clicks get 503 until they can be recorded",
        )
    elif free < max(NARROW, octets):
        yield look.warn(
            f"{size(free)} free at {database.parent}",
            "make room: a migration or a backup needs as much as the database",
        )
    return free >= FULL


def _server(look: Look, ledger: Ledger, holds: str) -> Iterator[Finding]:
    began = look.house.now
    with ledger.connect() as db:
        there = checkup.server(db)
        off = there.clock - opening.now()
    line = there.tls or "in clear"
    yield look.ok(f"PostgreSQL {there.version}, {line}, {there.seconds * 1000:.1f} ms a question: {holds}")
    if there.is_standby:
        yield look.fail(
            "this server is a standby: it takes no writes", "let storage.url lead to the primary (docs/postgresql.md)"
        )
    if there.seconds > _SLOW_SECONDS:
        yield look.warn(
            f"a question takes {there.seconds * 1000:.0f} ms, and each recipient is one",
            "bring the daemon closer to the database, or look what keeps the server busy",
        )
    if abs(off) > _CLOCKS:
        yield look.of("clock").warn(
            f"the database's clock and ours differ by {abs(off).total_seconds():.0f} s (ours: {began:%H:%M:%S} UTC)",
            "let both machines keep time by NTP",
        )


def _writing(look: Look, ledger: Ledger) -> Iterator[Finding]:
    try:
        checkup.try_to_write(ledger, look.house.now, note=look.house.traces)
    except (Unavailable, Unusable) as why:
        yield look.fail(
            f"cannot be written: {_said(look, why)}",
            "opt-outs cannot be recorded: is the file or its disk read-only, is the disk full, or does another program hold it?",
        )
        return
    if look.house.traces:
        yield look.ok("a row was written (job_run `doctor`)")


# ------------------------------------------------------------------ the record


def _record(look: Look, ledger: Ledger) -> Iterator[Finding]:
    look.step("verify the new rows of the record")
    try:
        last, whole = checkup.record(ledger, RECORD_SECONDS)
    except audit.ChainBroken as broken:
        yield look.fail(
            f"somebody changed the record, or the list, from outside: {look.said(broken)}",
            "keep a copy of this database, run `optoutd audit verify`, and compare with your backups (docs/audit.md)",
        )
        return
    except (Unavailable, Unusable) as why:
        yield look.fail(_said(look, why), _advice(look))
        return
    text = (
        f"whole up to row {last:,}"
        if whole
        else f"{last:,} rows; not all new ones in {RECORD_SECONDS:.0f} s, those read are whole"
    )
    yield look.ok(text)
    at = None
    with suppress(Unavailable), ledger.connect() as db:
        at = audit.last_run(db, "verify_audit")
    age = None if at is None else look.house.now.timestamp() - at
    if age is not None and age > _STALE.total_seconds():
        yield look.warn(
            f"the whole record was last verified {age / 86_400:.0f} days ago",
            "the daemon does it each night while it runs; by hand: optoutd audit verify",
        )
