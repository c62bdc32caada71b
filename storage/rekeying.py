"""Several site keys: a new one in front, and the rows of people whose address is known moved to it.

New rows are written under the newest key, lookups try all, so nothing has to move. Which tables hold address keys:

- `suppression`, `person`, `asked_again`, `soft_bounce`: moved here, where `person` knows the address;
- `audit`, `refusal`: what once happened, under the key of that time; whoever reads them asks for all keys;
- `forgotten`, `unproven`, `outbox`: the address is unknown, or the row is gone before long; asked for under all keys.

A row whose address is not known stays under its old key for good, as do the links in mail already sent.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from storage import suppressions
from storage.address import NotAnAddress, SiteKey, forms, parse
from storage.disk import sync_directory
from storage.engine import Ledger, Unusable, read_site_key
from storage.pieces import under
from storage.suppressions import RawRow
from storage.write import Write, write

_AT_ONCE: Final = 1_000  # people a transaction: some tens of milliseconds, for which a live opt-out may have to wait
_MOST_KEYS: Final = 15  # the number of its key takes four bits of a link
_GAP: Final = 0.05  # s between two transactions, in which others get their turn


@dataclass(frozen=True, slots=True)
class Moved:
    """What re-keying did. `moved`: suppression rows; `already`: rows of known people under the newest key before;
    `unknown`: rows whose address is not known, which stay under the key that they have."""

    moved: int
    people: int
    already: int
    unknown: int


@dataclass(frozen=True, slots=True)
class _Move:
    old: bytes
    new: bytes
    address: str


def rekey(
    ledger: Ledger, clock: Callable[[], datetime], actor: str, progress: Callable[[int], object] = lambda _: None
) -> Moved:
    """Move all rows of people whose address is known to the newest site key. `progress` is told people looked at.

    Others may read and write meanwhile, if they know the newest key. Stopped half way it is as good as before: the next
    run goes on. Raises Unavailable.
    """
    rows = people = seen = 0
    for batch in _batches(ledger):
        moves = [move for key, address in batch if (move := _move(ledger.site_key, key, address)) is not None]
        if moves:
            with write(ledger, clock(), actor) as w:
                some, of_them = _apply(w, moves)
            rows, people = rows + some, people + of_them
            time.sleep(_GAP)
        seen += len(batch)
        progress(seen)
    with ledger.reading() as db:
        known = int(db.exec_driver_sql(f"{_ROWS} {_OF_SOMEBODY}").scalar_one())
        total = int(db.exec_driver_sql(_ROWS).scalar_one())
    return Moved(rows, people, max(known - rows, 0), total - known)


_ROWS: Final = "SELECT count(*) FROM suppression s"
_OF_SOMEBODY: Final = "WHERE EXISTS (SELECT 1 FROM person p WHERE p.key = s.key)"


def people(db: Connection) -> int:
    """How many people's addresses are known."""
    return int(db.exec_driver_sql("SELECT count(*) FROM person").scalar_one())


def _batches(ledger: Ledger) -> Iterator[Sequence[tuple[bytes, str]]]:
    """Everybody, in order of key. Who is moved under way to a later key is met again there, and left alone."""
    last = b""
    query = "SELECT key, address FROM person WHERE key > ? ORDER BY key LIMIT ?"
    while True:
        with ledger.connect() as db:
            found = [(bytes(r[0]), str(r[1])) for r in db.exec_driver_sql(query, (last, _AT_ONCE))]
        if not found:
            return
        yield found
        last = found[-1][0]


def _move(site_key: SiteKey, key: bytes, address: str) -> _Move | None:
    """From the old key of this address to the newest; None if it is that, or is no key of this address."""
    try:
        named = forms(parse(address))
    except NotAnAddress:
        return None
    for _, form in named:
        newest, *older = site_key.address_keys(form)
        if key in older:
            return _Move(key, newest, address)
    return None


def _apply(w: Write, moves: Sequence[_Move]) -> tuple[int, int]:
    """One batch. Returns (suppression rows, people) that moved."""
    there = _still_there(w.db, moves)
    moves = [m for m in moves if m.old in there]  # the others were erased just now
    if not moves:
        return 0, 0
    to = {m.old: m.new for m in moves}
    old = suppressions.rows_of(w.db, [m.old for m in moves])
    standing = {r[:3]: r for r in suppressions.rows_of(w.db, [m.new for m in moves])}
    gone, come = list(old), dict[tuple[bytes, int, int], RawRow]()
    asked = _asked(w.db, list(to))
    for row in old:
        new: RawRow = (to[row[0]], *row[1:])
        there_already = standing.get(new[:3])
        other = come.get(new[:3], there_already)
        # Two rows, or those of two older keys, become one: that since when it stands.
        if other is None or row[3] < other[3]:
            if other is there_already and other is not None:
                gone.append(other)
            come[new[:3]] = new
    kept = _asked(w.db, [m.new for m in moves])
    suppressions.replace(w, gone, list(come.values()))
    _ask_again(w.db, [*_renamed(asked, to), *kept])
    _move_people(w.db, moves)
    w.audit("re-keyed", evidence=w.evidence(source="operator", because="re-keyed", rows=len(old), people=len(moves)))
    return len(old), len(moves)


def _still_there(db: Connection, moves: Sequence[_Move]) -> set[bytes]:
    return {bytes(row[0]) for row in under(db, "SELECT key FROM person WHERE key", [m.old for m in moves])}


_Again = tuple[bytes, int, int, int]  # key, scope, reason, at


def _asked(db: Connection, keys: Sequence[bytes]) -> list[_Again]:
    rows = under(db, "SELECT key, scope, reason, at FROM asked_again WHERE key", keys)
    return [(bytes(key), scope, reason, at) for key, scope, reason, at in rows]


def _renamed(asked: Sequence[_Again], to: dict[bytes, bytes]) -> list[_Again]:
    return [(to[key], scope, reason, at) for key, scope, reason, at in asked]


def _ask_again(db: Connection, asked: Sequence[_Again]) -> None:
    if asked:
        db.exec_driver_sql(
            "INSERT INTO asked_again (key, scope, reason, at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (key, scope, reason) DO UPDATE"
            " SET at = CASE WHEN asked_again.at < excluded.at THEN excluded.at ELSE asked_again.at END",
            list(asked),
        )


def _move_people(db: Connection, moves: Sequence[_Move]) -> None:
    """Their address, and the days on which mail to them bounced."""
    db.exec_driver_sql("DELETE FROM person WHERE key = ?", [(m.old,) for m in moves])
    db.exec_driver_sql(
        "INSERT INTO person (key, address) VALUES (?, ?) ON CONFLICT (key) DO NOTHING",
        [(m.new, m.address) for m in moves],
    )
    db.exec_driver_sql(
        "INSERT INTO soft_bounce (key, day) SELECT CAST(? AS BLOB), day FROM soft_bounce WHERE key = ? ON CONFLICT DO NOTHING",
        [(m.new, m.old) for m in moves],
    )
    db.exec_driver_sql("DELETE FROM soft_bounce WHERE key = ?", [(m.old,) for m in moves])


# ------------------------------------------------------------------ the key's file


def add_key(key_file: Path, now: datetime) -> SiteKey:
    """Put a new site key in front of those in the file, which appears whole or not at all. Raises Unusable, OSError.

    Nothing that was written changes: the check value and the audit chain hang on the oldest key, which stays the last.
    """
    before = read_site_key(key_file)
    if len(before.keys) >= _MOST_KEYS:
        raise Unusable(f"site key {key_file}: has {_MOST_KEYS} keys already, and links can tell no more apart")
    key, there = secrets.token_bytes(32), key_file.stat()
    text = f"# since {now.date().isoformat()}\n{key.hex()}\n".encode() + key_file.read_bytes()
    new = key_file.with_name(f".{key_file.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if os.geteuid() == 0:
                os.fchown(file.fileno(), there.st_uid, there.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if read_site_key(new).keys != (key, *before.keys):
            raise Unusable(f"site key {key_file}: cannot be added to; put a line of 64 hex digits on top by hand")
        new.rename(key_file)
    finally:
        new.unlink(missing_ok=True)
    sync_directory(key_file.parent)
    return SiteKey((key, *before.keys))
