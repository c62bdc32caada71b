"""backup, restore: for the day on which the disk is gone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli import common
from daemon.cli.bars import bar
from daemon.cli.common import CONFIG, DATAERR, NO, NOINPUT, TEMPFAIL, USAGE, AsJson, Stop, note, tell
from storage.terms import when

if TYPE_CHECKING:
    from daemon.config import Loaded
    from storage.address import SiteKey
    from storage.deferral import Deferred
    from storage.restoring import Restored


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(backup)
    app.command()(restore)


# ------------------------------------------------------------------ backup


def backup(
    dest: Annotated[
        str, typer.Argument(metavar="DEST", help="A directory, or the name of a file that is not there yet.")
    ],
    with_key: Annotated[
        bool, typer.Option("--with-key", help="Put a copy of the site key beside it, in a file of its own.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy the database into one file.

    The copy is of this moment, and the daemon goes on. It has its name only when it is whole and was looked at. The site
    key is never in it: whoever has only one of the two can do nothing with it, so keep them apart.
    """
    from storage import backup as backups

    loaded = common.loaded()
    ledger = common.ledger(loaded)
    now = common.now()
    file = Path(dest) / backups.name(now) if Path(dest).is_dir() else Path(dest)
    key = file.with_suffix(".key") if with_key else None
    _refuse_existing(file, key)
    try:
        made = backups.take(ledger, file, now)
        if key is not None:
            _copy_key(loaded.key_file, key, made.file)
    except backups.NotWritten as why:
        raise Stop(str(why), TEMPFAIL if why.full else CONFIG) from None
    except backups.Damaged as why:
        raise Stop(f"the copy is not whole, and was thrown away: {why}; run `optoutd audit verify`", NO) from None
    fact = {
        "file": str(made.file),
        "octets": made.octets,
        "taken": when(made.taken),
        "head": str(made.head),
        "suppressions": made.suppressions,
        "key": str(key) if key else None,
    }
    tell(fact, as_json, f"{made.file}: {_many(made.suppressions, 'suppression')}, audit head {made.head}")
    if key is None:
        note(f"the site key is not in it: {loaded.key_file} (keep a copy of that somewhere else)")
    else:
        note(f"site key: {key} (move it somewhere else: whoever has both can ask for addresses)")


def _copy_key(key_file: Path, key: Path, made: Path) -> None:
    """Who asked for both gets both or neither."""
    from storage.backup import copy_key

    try:
        copy_key(key_file, key)
    except BaseException:
        made.unlink()
        raise


def _refuse_existing(*files: Path | None) -> None:
    for file in filter(None, files):
        if file.exists() or file.is_symlink():
            raise Stop(f"{file} is there already: name a directory, or a file that is not there yet", USAGE)
        if not file.parent.is_dir():
            raise Stop(f"there is no directory {file.parent}: make it first", CONFIG)


def _many(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


# ------------------------------------------------------------------ restore


def restore(
    source: Annotated[str | None, typer.Argument(metavar="SRC", help="A backup, or a directory: its newest.")] = None,
    defer: Annotated[
        bool, typer.Option("--defer", help="Answer 451 to all until what may be missing was replayed.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also over a database that is not empty; it is kept under another name.")
    ] = False,
    done: Annotated[
        bool, typer.Option("--done", help="End --defer: all that was missing is recorded again, you say.")
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="Is everybody deferred, and until what?")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup in place, and replay the journal.

    The daemon must be stopped. All is verified first, and then takes its place at once or not at all. What neither the
    backup nor the journal in storage.backup_dir knows is told, with the command that closes the gap.
    """
    if [source is not None, done, status].count(True) != 1:
        raise Stop("give one of SRC, --done and --status", USAGE)
    if source is None and (defer or force):
        raise Stop("--defer and --force go with SRC", USAGE)
    loaded = common.loaded()
    if source is not None:
        _restore(loaded, Path(source), as_json, defer=defer, force=force)
    elif done:
        _done(loaded)
    else:
        _status(loaded, as_json)


def _restore(loaded: Loaded, source: Path, as_json: bool, *, defer: bool, force: bool) -> None:
    from daemon.opening import Busy
    from storage import restoring
    from storage.audit import ChainBroken
    from storage.backup import Damaged, NotWritten
    from storage.engine import read_site_key

    source = _backup_of(source)
    if not loaded.key_file.exists():
        raise Stop(f"the site key {loaded.key_file} is not there: put your copy of it back first", CONFIG)
    site_key, now = read_site_key(loaded.key_file), common.now()
    try:
        with _place(loaded, site_key) as database, bar("audit rows", None) as progress:
            found = restoring.restore(
                source,
                database,
                site_key,
                loaded.backup_dir,
                now,
                common.actor(),
                defer=defer,
                force=force,
                progress=progress,
            )
    except Busy as why:
        raise Stop(f"{why}: stop it first", TEMPFAIL) from None
    except restoring.InUse as why:
        raise Stop(f"{why}: wait for it to end, or stop it", TEMPFAIL) from None
    except restoring.NotEmpty as why:
        raise Stop(f"{why}: nothing done; with --force it is kept under another name", NO) from None
    except Damaged as why:
        raise Stop(f"{why}: take an older one", DATAERR) from None
    except ChainBroken as why:
        raise Stop(f"{source}: its record was changed ({why}): take another one", NO) from None
    except NotWritten as why:
        raise Stop(f"{why}: nothing done", TEMPFAIL) from None
    _tell(found, loaded, now, as_json)


@contextmanager
def _place(loaded: Loaded, site_key: SiteKey) -> Iterator[Path]:
    """Where the file is to be put. For PostgreSQL it is one of ours, which is copied there at the end of the block."""
    from daemon.opening import server_of, sole_owner

    if not loaded.in_postgres:
        with sole_owner(loaded.database):
            yield loaded.database
        return
    server = server_of(loaded)
    from storage.engine import Ledger
    from storage.postgres import move_in, revision
    from storage.sqlite import File

    if revision(server) is not None:
        raise Stop(f"{server.name} is not empty: nothing done; make an empty one, and name that in storage.url", NO)
    with tempfile.TemporaryDirectory(prefix="optoutd-restore-", dir=loaded.key_file.parent) as directory:
        file = Path(directory) / "optoutd.db"
        yield file
        ledger = Ledger(File(file), site_key)
        move_in(server, ledger)
        ledger.close()


def _backup_of(source: Path) -> Path:
    """The file, or the newest backup in a directory. Raises Stop(66)."""
    from storage.backup import newest

    try:
        found = newest(source) if source.is_dir() else source
        if found is None:
            raise Stop(f"{source}: there is no backup in it (a file optoutd-...Z.db)", NOINPUT)
        with found.open("rb"):
            return found
    except FileNotFoundError:
        raise Stop(f"{source}: there is no such file", NOINPUT) from None
    except OSError as why:
        raise Stop(f"{source}: {why.strerror} (run it as the daemon's user, or as root)", NOINPUT) from None


def _tell(found: Restored, loaded: Loaded, now: datetime, as_json: bool) -> None:
    replays = _replays(loaded, found.uncovered)
    fact: dict[str, Any] = {
        "taken": when(found.taken),
        "head": found.head,
        "journal_lines": found.lines,
        "unreadable_lines": found.unreadable,
        "added": found.added,
        "ended": found.ended,
        "erased": found.erased,
        "suppressions": found.suppressions,
        "uncovered_since": when(found.uncovered),
        "uncovered_until": when(now),
        "journal_whole": found.whole,
        "kept_aside": str(found.aside) if found.aside else None,
        "deferred": found.deferred,
        "replay": replays,
    }
    journal = f"the journal's {_many(found.lines, 'line')} replayed: {found.added} added, {found.ended} ended"
    if found.erased:
        journal += f", {found.erased} erased"
    since = f"restored as of {when(found.taken)}; " + (journal if found.lines else "the journal knows nothing later")
    tell(fact, as_json, f"{since}; {_many(found.suppressions, 'suppression')}")
    if found.unreadable:
        note(f"{_many(found.unreadable, 'line')} of the journal are damaged or not ours, and were left out")
    if not found.whole:
        note("the journal has a hole: what came after it was replayed, what is in it is not known")
    if found.aside:
        note(f"the old database is now {found.aside}")
    again = " To find it again:" if replays else ""
    note(f"what changed between {when(found.uncovered)} and {when(now)} may be missing.{again}")
    for command in replays:
        note(f"    {command}")
    note("clicks on links, and what was entered by hand, are in no mailbox: see docs/backup.md")
    if found.deferred:
        note("until then everybody is answered 451; `optoutd restore --status` says what is left")


def _replays(loaded: Loaded, since: datetime) -> list[str]:
    """A day more than needed: mail is sometimes read late, and to read it twice is harmless."""
    day = (since - timedelta(days=1)).date().isoformat()
    return [f"optoutd replay {box.name} --since {day} --apply" for box in loaded.config.mailbox]


# ------------------------------------------------------------------ deferred


def _done(loaded: Loaded) -> None:
    from storage import deferral
    from storage.write import write

    with write(common.ledger(loaded), common.now(), common.actor()) as w:
        ended = deferral.end(w, "the operator says that what was missing is recorded again")
    if not ended:
        raise Stop("nobody is deferred", NO)
    note("from now on everybody is answered again")


def _status(loaded: Loaded, as_json: bool) -> None:
    from storage.deferral import deferred

    with common.ledger(loaded).connect() as db:
        found = deferred(db)
    left = _left(loaded, found)
    fact = {"deferred": found is not None, "since": when(found.since) if found else None, "left": left}
    text = (
        f"everybody is answered 451: changes since {when(found.since)} may be missing"
        if found
        else "nobody is deferred"
    )
    tell(fact, as_json, text)
    for command in left:
        note(f"still to be done: {command}")
    if found and not left:
        note("no mailbox is configured: record what you know, then `optoutd restore --done`")


def _left(loaded: Loaded, found: Deferred | None) -> list[str]:
    if found is None:
        return []
    names = {box.name for box in loaded.config.mailbox if box.name not in found.closed}
    return [command for command in _replays(loaded, found.since) if command.split()[2] in names]
