"""What goes by the clock, kind by kind: some thousand rows a transaction, found on a connection that only reads.

    candidates(db, ...) -> numbers; forget(w, numbers) -> how many went

A suppression is never ended here, and what explains a standing one stays: what goes is what only tells of
the past.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import Connection

from storage.terms import seconds
from storage.write import Write

MOST: Final = 2_000  # rows a transaction: tens of milliseconds, for which a live opt-out may have to wait
_AT_ONCE: Final = 500  # numbers a statement
_ORDINARY: Final = ("ordinary", "auto-reply")  # labels
# SEARCH SINCE knows whole days of the server's own time zone, so what is older by this is in no answer to it.
_MARGIN: Final = timedelta(days=2)
# What is about a person. The particulars of an import or an export name nobody, and an import's explain rows that no
# index leads to.
_PERSONAL: Final = ("suppressed", "lifted", "bounce", "complaint", "review-accepted", "review-rejected", "erased")


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


# ------------------------------------------------------------------ evidence

_STANDS: Final = (
    "SELECT 1 FROM audit a JOIN suppression s ON s.key = a.key AND s.evidence = e.id WHERE a.evidence = e.id"
)
_ENDED: Final = (
    f"e.detail IS NOT NULL AND NOT EXISTS ({_STANDS})"
    """ AND e.detail NOT LIKE '%"cause": {%'"""  # of an undoing, which names nobody, and without which it looks like a wish
    f" AND NOT EXISTS (SELECT 1 FROM audit a WHERE a.evidence = e.id AND a.event NOT IN ({_marks(_PERSONAL)}))"
)


def old_evidence(db: Connection, before: datetime, after: int = 0) -> list[int]:
    """Evidence from before a day on which no suppression stands any more, with ids above `after`; some at a time."""
    query = f"SELECT e.id FROM evidence e WHERE e.id > ? AND e.at < ? AND {_ENDED} ORDER BY e.id LIMIT ?"
    found = [row[0] for row in db.exec_driver_sql(query, (after, seconds(before), *_PERSONAL, MOST))]
    return _without_moved(db, found)


def _without_moved(db: Connection, numbers: list[int]) -> list[int]:
    """Less what rows stand on that were moved to another site key, which no audit row names: the whole table says so."""
    if not numbers or db.exec_driver_sql("SELECT 1 FROM audit WHERE event = 're-keyed' LIMIT 1").first() is None:
        return numbers
    query = "SELECT DISTINCT evidence FROM suppression WHERE evidence >= ? AND evidence <= ?"
    stand = {row[0] for row in db.exec_driver_sql(query, (numbers[0], numbers[-1]))}
    return [number for number in numbers if number not in stand]


def forget_evidence(w: Write, numbers: Sequence[int], before: datetime) -> int:
    """Forget the particulars, and the plain addresses of people of whom nothing stands and nothing younger is told.

    Returns how many particulars went: what has come to stand on one meanwhile keeps it.
    """
    gone = 0
    for start in range(0, len(numbers), _AT_ONCE):
        some = tuple(numbers[start : start + _AT_ONCE])
        inner = f"SELECT e.id FROM evidence e WHERE e.id IN ({_marks(some)}) AND {_ENDED}"
        ended = [row[0] for row in w.db.exec_driver_sql(inner, (*some, *_PERSONAL))]
        if not ended:
            continue
        w.forget_evidence(ended)
        w.db.exec_driver_sql(
            f"DELETE FROM person WHERE key IN (SELECT a.key FROM audit a WHERE a.evidence IN ({_marks(ended)}) AND a.key IS NOT NULL)"
            " AND NOT EXISTS (SELECT 1 FROM suppression s WHERE s.key = person.key)"
            " AND NOT EXISTS (SELECT 1 FROM audit a WHERE a.key = person.key AND a.at >= ?)",
            (*ended, seconds(before)),
        )
        gone += len(ended)
    return gone


# ------------------------------------------------------------------ ordinary mail


class Watched(NamedTuple):
    """A folder as it was numbered at a time (RFC 9051 2.3.1.1)."""

    mailbox: str
    folder: str
    uidvalidity: int


def watched(db: Connection) -> list[Watched]:
    """Every folder that was ever watched."""
    return [Watched(*row) for row in db.exec_driver_sql("SELECT mailbox, folder, uidvalidity FROM watched_folder")]


# Everything that lay in the folder when it was first seen has been looked at: UIDs are read in ascending order, so an
# ended one from `uidnext` on says that all below it are ended, or gone.
_PASSED: Final = (
    "EXISTS (SELECT 1 FROM incoming j WHERE j.mailbox = watched_folder.mailbox AND j.folder = watched_folder.folder"
    " AND j.uidvalidity = watched_folder.uidvalidity AND j.uid >= watched_folder.uidnext AND j.state <> 'reading')"
)


def old_messages(db: Connection, of: Watched, before: datetime) -> list[tuple[int, int]]:
    """(row, UID) of ordinary mail that came before a day; some at a time, lowest UID first.

    None while it is not sure that all that lay in the folder at first sight has been read, and none without a date. The
    last that was read always stays: it tells how far we have come.
    """
    query = (
        "SELECT i.id, i.uid FROM incoming i JOIN watched_folder ON watched_folder.mailbox = i.mailbox"
        " AND watched_folder.folder = i.folder AND watched_folder.uidvalidity = i.uidvalidity"
        f" WHERE i.mailbox = ? AND i.folder = ? AND i.uidvalidity = ? AND i.label IN ({_marks(_ORDINARY)})"
        f" AND i.state IN ('done', 'settled') AND i.evidence IS NULL AND i.internaldate BETWEEN ? AND ? AND {_PASSED}"
        " AND i.uid < (SELECT max(j.uid) FROM incoming j WHERE j.mailbox = i.mailbox AND j.folder = i.folder"
        " AND j.uidvalidity = i.uidvalidity AND j.state <> 'reading')"
        " AND NOT EXISTS (SELECT 1 FROM review r WHERE r.incoming = i.id) ORDER BY i.uid LIMIT ?"
    )
    dated = (86_400, seconds(before - _MARGIN))  # a server that tells no date gives us the first day of 1970
    return [(row[0], row[1]) for row in db.exec_driver_sql(query, (*of, *_ORDINARY, *dated, MOST))]


def forget_messages(w: Write, of: Watched, messages: Sequence[tuple[int, int]], before: datetime) -> None:
    """Delete these sightings, and move the beginning of the folder past them, so that they are not taken for new.

    New is what has a UID from `uidnext` on or came since `since` (mailbox.folders): both go up. Under another
    UIDVALIDITY nothing older than that is looked at again, either. What is unread has higher UIDs than what was read.
    """
    w.db.exec_driver_sql(
        f"UPDATE watched_folder SET since = ? WHERE mailbox = ? AND folder = ? AND since < ? AND {_PASSED}",
        (seconds(before), of.mailbox, of.folder, seconds(before)),
    )
    following = max(uid for _, uid in messages) + 1
    w.db.exec_driver_sql(
        "UPDATE watched_folder SET uidnext = ? WHERE mailbox = ? AND folder = ? AND uidvalidity = ? AND uidnext < ?",
        (following, *of, following),
    )
    w.db.exec_driver_sql("DELETE FROM incoming WHERE id = ?", [(number,) for number, _ in messages])


# ------------------------------------------------------------------ decided reviews


def decided_reviews(db: Connection, before: datetime) -> list[int]:
    """Items that were decided before a day and still show somebody; some at a time."""
    query = (
        "SELECT id FROM review WHERE state <> 'open' AND decided < ?"
        " AND (excerpt <> '' OR words <> '' OR sender <> '' OR addresses <> '[]') ORDER BY id LIMIT ?"
    )
    return [row[0] for row in db.exec_driver_sql(query, (seconds(before), MOST))]


def forget_reviews(w: Write, numbers: Sequence[int]) -> None:
    """What was written, by whom and about whom goes; the decision, its rules and its note stay."""
    w.db.exec_driver_sql(
        "UPDATE review SET excerpt = '', words = '', sender = '', addresses = '[]' WHERE id = ? AND state <> 'open'",
        [(number,) for number in numbers],
    )
