"""Is there a backup that could be restored, and would it outlive the disk of the database?"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from daemon.doctor.findings import Finding, Look, count, size
from daemon.texts import lasted
from storage import backup, checkup
from storage.engine import Unusable, read_site_key

_LATE: Final = timedelta(hours=3)  # the daemon makes one an hour
_READ_SECONDS: Final = 8.0


def probe(look: Look) -> Iterator[Finding]:
    """The newest one is opened and read, as a restore would."""
    directory = look.loaded.backup_dir
    if directory is None:
        yield look.warn(
            "there are none: storage.backup_dir is not set",
            "name a directory on another disk, and the daemon puts a backup there each hour; or run `optoutd backup DEST` by the clock",
        )
        return
    look.step(str(directory))
    try:
        found = backup.kept(directory)
        mode = directory.stat().st_mode
    except FileNotFoundError:
        found, mode = [], 0
    except OSError as why:
        yield look.fail(f"{directory}: {why.strerror}", "let the daemon's user read and write it")
        return
    if not found:
        yield look.warn(f"none in {directory} yet", "the daemon makes one within an hour of its start; is it running?")
        return
    yield from _newest(look, found)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield look.warn(f"others can get at {directory}", f"addresses are in there; run: chmod 700 {directory}")
    if keys := sorted(p.name for p in directory.glob("*.key")):
        yield look.warn(
            f"a site key lies beside them ({keys[0]})", "keep it elsewhere: whoever has both can ask for addresses"
        )
    yield from _same_disk(look, directory)


def _newest(look: Look, found: list[Path]) -> Iterator[Finding]:
    newest = found[-1]
    taken = datetime.strptime(backup.stamp(newest), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    age = look.house.now - taken
    look.step(f"read {newest.name}")
    try:
        whole = checkup.backup_is_whole(newest, read_site_key(look.loaded.key_file), _READ_SECONDS)
    except (backup.Damaged, Unusable, OSError) as why:
        yield look.fail(
            f"the newest could not be restored: {look.said(why)}",
            "make another (`optoutd backup DEST`), and look at the disk that it lies on; older ones may be whole",
        )
        return
    how = "could be restored" if whole else f"is whole as far as could be read within {_READ_SECONDS:.0f} s"
    text = f"{newest.name} {how}, {size(newest.stat().st_size)}; {count(len(found), 'backup')} in all"
    yield look.ok(text)
    late = f"the newest is {lasted(age)} old"
    if age > _LATE and look.house.running:
        yield look.fail(
            late, "the daemon makes one an hour: its log says why not (event=backup_failed); is the disk full?"
        )
    elif age > _LATE:
        yield look.warn(late, "the daemon makes one an hour while it runs")
    elif age < -timedelta(minutes=5):
        yield look.warn(
            f"the newest is of a time to come ({taken:%Y-%m-%d %H:%M} UTC)", "look at the clock of this machine"
        )


def _same_disk(look: Look, directory: Path) -> Iterator[Finding]:
    if look.loaded.in_postgres or not look.loaded.database.exists():
        return
    if directory.stat().st_dev == look.loaded.database.stat().st_dev:
        yield look.warn(
            "they lie on the same file system as the database",
            "a disk that dies takes both: name one elsewhere, or copy them away",
        )
