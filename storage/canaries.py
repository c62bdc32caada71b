"""The canary of each mailbox: a message of ours that asks to be left alone, to see that such a wish is honoured.

What is under way and what came of it stand in a row of `meta` for each mailbox that has one. A run is written down before
its message is sent, so that whoever comes after a crash knows what may have been left: a message, a suppression.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from sqlalchemy import Connection

from storage import meta, suppressions
from storage.address import parse
from storage.incoming import Place
from storage.terms import Reason
from storage.write import Write

ACTOR: Final = "canary"  # in the record; no person, program or mailbox is called so
_NAME: Final = "canary "  # before the name of the mailbox, in `meta`


@dataclass(frozen=True, slots=True)
class Run:
    """A message of ours: when it was sent (seconds since 1970), from which address, with which token, into which folder."""

    began: int
    address: str
    token: str
    message_id: str
    folder: str


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it. `step`: where it failed, "" if it did not; `seconds`: step -> how long after the beginning it was done."""

    at: int
    step: str = ""
    why: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """Of one mailbox; times in seconds since 1970.

    `first`: since when it has one; `due`: when the next is to be sent; `run`: the last that was sent, `open` while it has
    no result, `left` while something of it may be left. `passed`: when one was refused last, as it should be.
    `skipped`: why none can be sent there, "" if they can.
    """

    first: int
    due: int
    run: Run | None = None
    open: bool = False
    left: bool = False
    result: Result | None = None
    passed: int | None = None
    failed: int | None = None
    skipped: str = ""


def state(db: Connection, mailbox: str) -> State | None:
    """None: it has no canary."""
    value = meta.get(db, _NAME + mailbox)
    return None if value is None else _read(bytes(value))


def states(db: Connection) -> dict[str, State]:
    """Of all mailboxes that have a canary, also of those that are not in the config any more."""
    return {mailbox: _read(value) for mailbox, value in meta.beginning(db, _NAME).items()}


def _read(value: bytes) -> State:
    found: dict[str, Any] = json.loads(value)
    run, result = found["run"], found["result"]
    found |= {"run": Run(**run) if run else None, "result": Result(**result) if result else None}
    return State(**found)


def put(w: Write, mailbox: str, now: State) -> None:
    """This is how it stands now."""
    meta.put(w.db, _NAME + mailbox, json.dumps(asdict(now), sort_keys=True).encode())


def forget(w: Write, mailbox: str) -> None:
    """It has none any more."""
    meta.drop(w.db, _NAME + mailbox)


def take_back(w: Write, run: Run, places: list[Place]) -> None:
    """Nothing stands against its address any more, and nothing is known of its message, which lay at these places.

    The record keeps that it was suppressed and lifted, as of everything.
    """
    whom = parse(run.address)
    keys = w.ledger.site_key.address_keys(suppressions.form_of(w, whom))
    rows = [row for row in suppressions.rows_of(w.db, keys) if row[2] == Reason.OPT_OUT]
    if rows:
        because = "the canary has done its work"
        suppressions.end(w, rows, w.evidence(address=run.address, source="mail", because=because), "mail")
    w.db.exec_driver_sql("DELETE FROM person WHERE key = ?", [(key,) for key in keys])
    w.db.exec_driver_sql("DELETE FROM incoming WHERE message_id = ? AND state <> 'settled'", (run.message_id,))
    if places:
        w.db.exec_driver_sql(
            "DELETE FROM incoming WHERE mailbox = ? AND folder = ? AND uidvalidity = ? AND uid = ?",
            [(p.mailbox, p.folder, p.uidvalidity, p.uid) for p in places],
        )
