"""Gaps in what was read of a mailbox: messages that were missed and found, and numbers that a server gives twice.

The last of each mailbox stands in a row of `meta`, so that somebody can be told of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import Connection

from storage import meta
from storage.write import Write

TOLD_SECONDS: Final = 7 * 86_400  # what is older than that is history
_NAME: Final = "gap "  # before the name of the mailbox, in `meta`


@dataclass(frozen=True, slots=True)
class Gap:
    """In one mailbox, since `first`, for the last time at `last` (seconds since 1970), in this folder.

    `missed`: how many messages since `first`; 0: none, but the server has gone back in its numbers.
    """

    first: int
    last: int
    folder: str
    missed: int


def note(w: Write, mailbox: str, folder: str, missed: int) -> None:
    """One more gap was found."""
    row = meta.get(w.db, _NAME + mailbox)
    before = None if row is None else Gap(**json.loads(bytes(row)))
    if before is not None and w.at - before.last <= TOLD_SECONDS:
        now = Gap(before.first, w.at, folder, before.missed + missed)
    else:
        now = Gap(w.at, w.at, folder, missed)
    meta.put(w.db, _NAME + mailbox, json.dumps(asdict(now), sort_keys=True).encode())


def found(db: Connection, now: int) -> dict[str, Gap]:
    """Mailbox -> its gap, of those that are young enough to be told of. `now`: seconds since 1970."""
    all_of_them = {mailbox: Gap(**json.loads(value)) for mailbox, value in meta.beginning(db, _NAME).items()}
    return {mailbox: gap for mailbox, gap in all_of_them.items() if now - gap.last <= TOLD_SECONDS}
