"""Forgetting a person, who is never mailed all the same.

    erase_everywhere: trace (reads) -> erase (writes) -> again, until nothing is found -> the file itself is cleaned

What goes is all that names the person or leads to their messages. What stays is the address key with its scopes, the
audit rows (which tell nobody who it is) and how often the relay refused it. The key is marked, and whoever stores an
address later looks at that mark (storage.forgotten).
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from storage import forgotten
from storage.address import Address
from storage.engine import Ledger
from storage.mentions import Mentions
from storage.suppressions import RawRow
from storage.traces import Traces, rows_under, trace
from storage.write import Write, write

_TURNS: Final = 3  # what came in while we looked is found by the next look
_MANY: Final = ("evidence", "reviews", "incoming", "refused_ids")  # of which somebody may have many thousands
_MOST: Final = 1_000  # of each in one transaction
_GAP: Final = 0.05  # s between two of them


@dataclass
class Erased:
    """What came of it. `removed`: kind of trace -> how many; `undecided`: review items that were closed without a decision."""

    known: bool = False
    spelled: tuple[str, ...] = ()  # as the address stood anywhere
    removed: Counter[str] = field(default_factory=Counter)
    shared: tuple[int, ...] = ()  # evidence whose particulars are gone for somebody else as well
    undecided: tuple[int, ...] = ()
    suppressions: tuple[RawRow, ...] = ()  # that stand, before and after
    audit_rows: int = 0
    refusals: int = 0
    clean: bool = True  # was the log behind the file written back, too?


def erase_everywhere(
    ledger: Ledger, address: Address, now: datetime, actor: str, progress: Callable[[], object] = lambda: None
) -> Erased:
    """Forget a person. Raises storage.engine.Unavailable: what was committed by then is gone, and doing it again does the rest.

    Of somebody who was never met nothing is written, not even that they asked. `progress` is called after each step.
    """
    done = Erased()
    for turn in range(_TURNS):
        with ledger.reading() as db:
            found = trace(db, ledger.site_key, address)
        progress()
        done.known |= found.known
        done.spelled = tuple(dict.fromkeys([*done.spelled, *found.spelled]))
        if not found.plain and (turn or found.marked or not found.known):
            break
        for piece in _pieces(found):
            with write(ledger, now, actor) as w:
                _add(done, erase(w, address, piece))
            progress()
            time.sleep(_GAP)
    done.suppressions, done.audit_rows, done.refusals = found.suppressions, found.audit_rows, found.refusals
    if done.known:
        done.clean = ledger.store.write_back()
    return done


def _pieces(found: Traces) -> Iterator[Traces]:
    """So many rows at a time that a live opt-out need not wait for long; nearly everybody is one piece."""
    yield replace(found, **{name: getattr(found, name)[:_MOST] for name in _MANY})
    rest = replace(found, suppressions=(), hashed=(), people=(), outbox=(), soft_bounces=0)
    longest = max(len(getattr(found, name)) for name in _MANY)
    for start in range(_MOST, longest, _MOST):
        yield replace(rest, **{name: getattr(found, name)[start : start + _MOST] for name in _MANY})


def _add(total: Erased, some: Erased) -> None:
    total.removed += some.removed
    total.shared = tuple(dict.fromkeys(total.shared + some.shared))
    total.undecided += some.undecided


def erase(w: Write, address: Address, found: Traces) -> Erased:
    """Take a person's traces out of every table, and mark their keys. `found`: as `traces.trace` has it.

    Evidence that names several people goes as a whole, for its digest is in the audit chain: who else asked in the same
    message stays suppressed, and the record says when and by whom, but no longer in which words.
    """
    who = Mentions(address)
    forgotten.mark(w.db, found.keys)
    w.forget_evidence(found.evidence)
    w.erased(found.keys)
    removed = Counter(
        address=_each(w, "DELETE FROM person WHERE key = ?", found.people),
        evidence=len(found.evidence),
        message_id=_forget_ids(w, found),
        notice=_each(w, "DELETE FROM outbox WHERE id = ?", found.outbox),
        soft_bounce=found.soft_bounces,
        digest=_re_key(w, found),
    )
    _each(w, "DELETE FROM soft_bounce WHERE key = ?", found.keys)
    undecided = [number for number in found.reviews if _clean_review(w, who, number)]
    removed["review"] = len(found.reviews)
    kinds = {kind: n for kind, n in sorted(removed.items()) if n}
    w.audit("erased", key=found.keys[0], evidence=w.evidence(source="operator", removed=kinds))
    return Erased(True, found.spelled, removed, found.shared, tuple(undecided))


def _each(w: Write, statement: str, values: Sequence[int] | Sequence[bytes]) -> int:
    if values:
        w.db.exec_driver_sql(statement, [(value,) for value in values])
    return len(values)


def _forget_ids(w: Write, found: Traces) -> int:
    """A message stays known by the digest of its octets, so that it is not read again."""
    ids = [(number, _digest(w, number)) for number in found.incoming]
    if ids:
        values = [(forgotten.instead_of_id(digest), number) for number, digest in ids]
        w.db.exec_driver_sql("UPDATE incoming SET message_id = ? WHERE id = ?", values)
    return len(ids) + _each(w, "UPDATE refusal SET message_id = '' WHERE id = ?", found.refused_ids)


def _digest(w: Write, incoming: int) -> bytes | None:
    found = w.db.exec_driver_sql("SELECT digest FROM incoming WHERE id = ?", (incoming,)).scalar()
    return bytes(found) if found else None


def _re_key(w: Write, found: Traces) -> int:
    """A row under a plain digest of the address tells everybody who has it in mind: it goes on under the person's key."""
    hashed = rows_under(w.db, [row[0] for row in found.hashed])  # as they are now: the chain counts every row
    there = {row[:3] for row in rows_under(w.db, found.keys)} if hashed else set()
    for row in hashed:
        moved = (found.keys[0], *row[1:])
        w.db.exec_driver_sql("DELETE FROM suppression WHERE key = ? AND scope = ? AND reason = ?", row[:3])
        w.rows_removed([row])
        if moved[:3] not in there:
            there.add(moved[:3])
            w.db.exec_driver_sql(
                "INSERT INTO suppression (key, scope, reason, since, evidence) VALUES (?, ?, ?, ?, ?)", moved
            )
            w.rows_added([moved])
    return len(hashed)


def _clean_review(w: Write, who: Mentions, number: int) -> bool:
    """Take the person out of an item. True: nobody is left in it that could be decided on, so it was closed.

    What others wrote about others goes with it, if it names this person: only the message itself can tell it apart.
    """
    query = "SELECT sender, addresses, state FROM review WHERE id = ?"
    sender, addresses, state = w.db.exec_driver_sql(query, (number,)).one()
    others = [a for a in json.loads(addresses) if not (who.same(a) or who.names(a))]
    sender = "" if who.same(sender) or who.names(sender) else sender
    w.db.exec_driver_sql(
        "UPDATE review SET sender = ?, addresses = ?, words = '', excerpt = '', note = '' WHERE id = ?",
        (sender, json.dumps(others), number),
    )
    is_left = bool(others) or (addresses == "[]" and bool(sender))  # of one that names nobody, its sender is meant
    if state != "open" or is_left:
        return False
    w.db.exec_driver_sql("UPDATE review SET state = 'rejected', decided = ? WHERE id = ?", (w.at, number))
    evidence = w.evidence(review=number, because="whom it is about was erased")
    w.audit("review-rejected", source="operator", evidence=evidence)
    return True
