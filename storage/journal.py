"""The journal of keys: what was done to the suppression rows since a backup, so that a restored ledger can catch up.

A line a row, in a file beside the backups, and no personal data in it:

    + 0f1e...  list:offers 3 opt-out 1767225600  1 100 101 1/1 1767225601 a1b2c3d4e5f60718

that is: what happened (`+` a row came, `-` a row went, `x` a person was erased, `k` a site key came, `=` an audited change
of no row, `r` a restore), the address key (of a `k` line: the mark of the site key), scope and number of the list,
reason, since; epoch, audit head before and after the transaction, which of its lines this is, when; and a MAC under the
site key, so that nobody else's line is replayed.

A line is on disk after its transaction is committed and before whoever wrote it goes on. A crash between the two loses
the lines of that one transaction, until the next start makes up for them out of the audit log. Because each says which
audit row it follows, a hole shows when it is read.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple

from sqlalchemy import Connection

from storage import meta
from storage.address import SiteKey
from storage.disk import sync_directory
from storage.terms import ALL, REASONS

Sign = Literal["+", "-", "x", "k", "=", "r"]
Change = tuple[
    Sign, bytes, int, int, int
]  # sign, key, scope, reason, since; an `x` or `k` line has zeros after its key

NAME: Final = "journal.log"
_FIRST_EPOCH: Final = 1
_MAC: Final = 8  # octets: who guesses one in 2^64 has it easier elsewhere
_LONGEST: Final = 400  # octets of a line; what is longer is none of ours
_MOST_MISSED: Final = 1_000  # audit rows that are worth going through when the daemon starts
_NAMED: Final = frozenset(
    ("suppressed", "lifted", "bounce", "complaint", "review-accepted", "review-rejected", "exported")
)
_END: Final = 10 * _LONGEST  # octets at the end of a file in which its last transactions are
_WORDS: Final = {int(reason): word for word, reason in REASONS.items()}
_LINE: Final = re.compile(
    rb"([-+xk=r]) ([0-9a-f]{32}|-) (all|list:[a-z0-9-]{1,32}|-) (\d{1,10}) ([a-z-]{1,20}) (-?\d{1,18})"
    rb" (\d{1,9}) (\d{1,18}) (\d{1,18}) (\d{1,9})/(\d{1,9}) (\d{1,18}) ([0-9a-f]{16})\n?\Z"
)


class Line(NamedTuple):
    """A line as read. `number`: of the list (0: all). `place` of `lines`: which line of its transaction. Times: seconds UTC.

    In an `r` line `since` is the epoch that was restored, and `before` how far its journal was replayed.
    """

    sign: Sign
    key: bytes
    scope: str
    number: int
    reason: int
    since: int
    epoch: int
    before: int
    seq: int
    place: int
    lines: int
    at: int


def epoch_of(db: Connection) -> int:
    """How often this ledger was restored, and once more: after a restore, audit numbers are given a second time."""
    value = meta.get(db, "epoch")
    return _FIRST_EPOCH if value is None else int(bytes(value))


# ------------------------------------------------------------------ writing


@dataclass
class Journal:
    """The journal that is being written. Several processes may: each line is appended under a lock on the file.

    `failed` is told when it cannot be written; what was to be recorded is in the database all the same. `owner`: the
    (user, group) that a new file is given to when root makes it, so that the daemon can go on with it.
    """

    path: Path
    site_key: SiteKey = field(repr=False)
    failed: Callable[[OSError], object] = lambda _: None
    owner: tuple[int, int] | None = None
    behind: bool = field(default=False, init=False)  # something is missing in it that no backup has yet

    def lines(self, db: Connection, before: int, after: int, at: int, changes: Sequence[Change]) -> bytes:
        """What a transaction about to be committed will be written as. `before`, `after`: its audit heads."""
        epoch = epoch_of(db)
        ids = _list_ids(db) if any(c[2] != ALL for c in changes) else {}
        changes = changes or [("=", b"", ALL, 0, 0)]
        hasher, many = _hasher(self.site_key), len(changes)
        where = f"{epoch} {before} {after}"
        return b"".join(
            _line(hasher, change, ids, f"{where} {place}/{many} {at}") for place, change in enumerate(changes, 1)
        )

    def missed(self, db: Connection, told: tuple[int, int], here: tuple[int, int]) -> bytes:
        """The lines that a crash has kept from it: of all rows that the audit log names after `told`, as they stand now.

        `told`, `here`: (epoch, audit head) of the journal and of the database. As one transaction. b"": they do not tell
        all (an import names no keys), or there are too many; a backup has to do.
        """
        after = "SELECT event, key, scope, reason, at FROM audit WHERE seq > ? ORDER BY seq LIMIT ?"
        named = db.exec_driver_sql(after, (told[1], _MOST_MISSED + 1)).fetchall() if told[0] == here[0] else []
        if not named or len(named) > _MOST_MISSED or any(row[0] not in _NAMED for row in named):
            return b""
        rows = dict.fromkeys((bytes(r[1]), int(r[2]), int(r[3])) for r in named if None not in r[1:4])
        changes = [self._stands(db, *row) for row in rows]
        return self.lines(db, told[1], here[1], int(named[-1][4]), changes)

    @staticmethod
    def _stands(db: Connection, key: bytes, scope: int, reason: int) -> Change:
        since = db.exec_driver_sql(
            "SELECT since FROM suppression WHERE key = ? AND scope = ? AND reason = ?", (key, scope, reason)
        ).scalar()
        return ("-", key, scope, reason, 0) if since is None else ("+", key, scope, reason, int(since))

    def append(self, text: bytes) -> None:
        """Put lines on disk. Raises nothing: a promise must not hang on its second copy."""
        try:
            with self._locked() as descriptor:
                _append(descriptor, text)
        except OSError as why:
            self.behind = True
            self.failed(why)

    def restored(self, before: tuple[int, int], after: tuple[int, int], at: int) -> None:
        """Note a restore: (epoch, seq) up to which the old ledger was known, and those of the new one. Raises OSError."""
        change: Change = ("r", b"", ALL, 0, before[0])
        where = f"{after[0]} {before[1]} {after[1]} 1/1 {at}"
        with self._locked() as descriptor:
            _append(descriptor, _line(_hasher(self.site_key), change, {}, where))

    def rotate(self, stamp: str) -> None:
        """Begin a new file; the old one is kept as `journal-STAMP.log`. Raises OSError."""
        with self._locked() as descriptor:
            if os.fstat(descriptor).st_size:
                self.path.rename(self.path.with_name(f"journal-{stamp}.log"))
                sync_directory(self.path.parent)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file that is `journal.log` now, and stays it for as long as we hold the lock."""
        while True:
            descriptor = self._open()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if self._is_there(os.fstat(descriptor)):
                    yield descriptor
                    return
            finally:
                os.close(descriptor)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        if not self.path.parent.is_dir():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._give_away(self.path.parent)
        descriptor = os.open(self.path, flags, 0o600)
        if os.fstat(descriptor).st_size == 0:  # new
            self._give_away(descriptor)
            sync_directory(self.path.parent)
        return descriptor

    def _give_away(self, new: Path | int) -> None:
        if self.owner is not None and os.geteuid() == 0:
            with suppress(OSError):
                os.chown(new, *self.owner)

    def _is_there(self, ours: os.stat_result) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(ours, self.path.stat())
        return False


def _append(descriptor: int, text: bytes) -> None:
    """All or nothing; and on a line of its own, whatever a crash has left before it."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        text = b"\n" + text
    try:
        rest = memoryview(text)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, size)
        raise


def _line(hasher: hashlib.blake2b, change: Change, ids: dict[int, str], where: str) -> bytes:
    sign, key, scope, reason, since = change
    if sign in "+-":
        word = "all" if scope == ALL else f"list:{ids.get(scope, scope)}"
        body = f"{sign} {key.hex()} {word} {scope} {_WORDS.get(reason, '-')} {since} {where} ".encode()
    else:
        body = f"{sign} {key.hex() or '-'} - 0 - {since} {where} ".encode()
    return body + _mac(hasher, body) + b"\n"


def _hasher(site_key: SiteKey) -> hashlib.blake2b:
    return hashlib.blake2b(key=site_key.derive(b"journal"), digest_size=_MAC)


def _mac(hasher: hashlib.blake2b, body: bytes) -> bytes:
    copy = hasher.copy()
    copy.update(body)
    return copy.hexdigest().encode()


def _list_ids(db: Connection) -> dict[int, str]:
    return {row[0]: row[1] for row in db.exec_driver_sql("SELECT number, id FROM list_number")}


# ------------------------------------------------------------------ what is kept


def segments(directory: Path) -> list[Path]:
    """All files of the journal in a directory, the one being written last."""
    return sorted(directory.glob("journal*.log"), key=lambda p: (p.name == NAME, p.name))


def prune(directory: Path, oldest: str) -> int:
    """Delete what the backup with the stamp `oldest` and all later ones contain. Returns how many files. Raises OSError."""
    gone = [p for p in segments(directory) if p.name != NAME and p.name < f"journal-{oldest}.log"]
    for path in gone:
        path.unlink()
    return len(gone)


# ------------------------------------------------------------------ reading


def parse(octets: bytes, hasher: hashlib.blake2b) -> Line | None:
    """A line of a journal written with our key, or None."""
    found = _LINE.match(octets) if len(octets) <= _LONGEST else None
    if found is None or not hmac.compare_digest(_mac(hasher, octets[: found.start(13)]), found[13]):
        return None
    sign, key, scope, reason = (found[n].decode() for n in (1, 2, 3, 5))
    number, since, *where = (int(found[n]) for n in (4, 6, 7, 8, 9, 10, 11, 12))
    numbered = int(REASONS[reason]) if reason in REASONS else 0
    epoch, before, seq, place, lines, at = where
    octet_key = b"" if key == "-" else bytes.fromhex(key)
    # The pattern lets no other sign through.
    return Line(sign, octet_key, scope, number, numbered, since, epoch, before, seq, place, lines, at)  # type: ignore[arg-type]


def read(directory: Path, site_key: SiteKey) -> Iterator[Line | None]:
    """Every line of a journal in the order in which it was written; None for one that is not ours, or damaged. Raises OSError."""
    hasher = _hasher(site_key)
    for path in segments(directory):
        with path.open("rb") as file:
            while octets := file.readline(_LONGEST + 1):
                if octets.strip():
                    yield parse(octets, hasher)


def reached(directory: Path, site_key: SiteKey) -> tuple[int, int]:
    """(epoch, seq) of the last transaction that a journal tells of, (0, 0) if of none; reads the ends of its files only.

    A restore is none: its line is there before its database is. Raises OSError.
    """
    hasher, found = _hasher(site_key), (0, 0)
    for path in segments(directory):
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END))
            lines = (parse(octets + b"\n", hasher) for octets in file.read(_END).split(b"\n"))
            found = max((found, *((line.epoch, line.seq) for line in lines if line is not None and line.sign != "r")))
    return found


@dataclass
class Since:
    """What a journal knows of the time after a backup.

    `rows`: (key, scope word, reason) -> (sign, since, list number), as they stood in the end. `erased`: the keys of people
    who were erased; `site_keys`: marks of keys that were added (`SiteKey.marks`). `until`: up to when backup and journal
    together know everything (seconds UTC). `whole`: is there no hole in it? `reached`: (epoch, seq) of the last transaction
    it knows. `lines`: of how many; `unreadable`: of how many more.
    """

    rows: dict[tuple[bytes, str, int], tuple[Sign, int, int]]
    erased: list[bytes]
    site_keys: list[bytes]
    until: int
    whole: bool
    reached: tuple[int, int]
    lines: int
    unreadable: int


def since(lines: Iterable[Line | None], backup: tuple[int, int], taken: int) -> Since:
    """Add up what came after a backup. `backup`: its (epoch, audit head); `taken`: when it was taken (seconds UTC)."""
    rows: dict[tuple[bytes, str, int], tuple[tuple[int, int, int], Sign, int, int]] = {}
    erased: dict[bytes, None] = {}
    site_keys: list[bytes] = []
    transactions: dict[tuple[int, int], _Transaction] = {}
    counted = unreadable = 0
    for line in lines:
        if line is None:
            unreadable += 1
            continue
        if (line.epoch, line.seq) <= backup:
            continue
        counted += 1
        _count(transactions, line)
        order = (line.epoch, line.seq, line.place)
        if line.sign == "x":
            erased[line.key] = None
        elif line.sign == "k":
            site_keys.append(line.key)
        elif line.sign in "+-" and line.reason:
            named = (line.key, line.scope, line.reason)
            if named not in rows or rows[named][0] < order:
                rows[named] = (order, line.sign, line.since, line.number)
    until, whole = _known_until(transactions, backup, taken)
    final = {named: row[1:] for named, row in rows.items()}
    return Since(final, list(erased), site_keys, until, whole, max(transactions, default=backup), counted, unreadable)


@dataclass
class _Transaction:
    """What is known of one: `missing` has a bit for each of its lines that we have not seen."""

    at: int
    missing: int
    follows: tuple[int, int]


def _count(transactions: dict[tuple[int, int], _Transaction], line: Line) -> None:
    follows = (line.since, line.before) if line.sign == "r" else (line.epoch, line.before)
    named = (line.epoch, line.seq)
    if named not in transactions:
        transactions[named] = _Transaction(line.at, (1 << line.lines) - 1, follows)
    if 0 < line.place <= line.lines:
        transactions[named].missing &= ~(1 << (line.place - 1))


def _known_until(
    transactions: dict[tuple[int, int], _Transaction], backup: tuple[int, int], taken: int
) -> tuple[int, bool]:
    """Go from the backup's head from one transaction to the next, as long as none is missing between."""
    here, until = backup, taken
    for named in sorted(transactions):
        step = transactions[named]
        if step.follows > here or step.missing:
            return until, False
        here, until = named, max(until, step.at)
    return until, True
