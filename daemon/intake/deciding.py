"""What a person decides on a doubtful message, carried out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daemon.intake.desk import Desk, scope_numbers
from daemon.intake.undoing import asked_again, undo
from storage import held, incoming, suppressions
from storage.address import Address
from storage.incoming import Item
from storage.terms import ALL, REASONS, Reason
from storage.write import Write


class NobodyNamed(Exception):
    """Accepting this item would suppress nobody."""


class AlreadyDecided(Exception):
    """Somebody else was quicker."""


class Outdated(Exception):
    """The person has opted out again after this wish to come back: the later word counts."""


def close(w: Write, item: Item, desk: Desk, *, accepted: bool, note: str) -> list[suppressions.Added]:
    """Carry out a decision, write it down, and close the item."""
    added = _carry_out(w, item, desk, note) if accepted else []
    about = (item.sender, *item.addresses)
    number = w.evidence(
        about=about, review=item.id, note=note, wish=item.wish, words=item.words, rules=list(item.rules)
    )
    w.audit("review-accepted" if accepted else "review-rejected", source="mail", evidence=number)
    incoming.decide(w, item, accepted, note)
    return added


def concerned(item: Item, desk: Desk) -> list[Address]:
    """Whom accepting an item concerns: whom it names, else its sender."""
    return desk.people(item.addresses or [item.sender])


def _carry_out(w: Write, item: Item, desk: Desk, note: str) -> list[suppressions.Added]:
    """Do what an accepted item asks."""
    people = concerned(item, desk)
    if not people:
        raise NobodyNamed
    scopes = scope_numbers(item.scope.split(";"), desk.numbers)
    if item.wish == "resubscribe":
        _take_back(w, item, people, scopes, note)
        return []
    reason = REASONS.get(item.wish, Reason.OPT_OUT)
    source = {"hard-bounce": "dsn", "soft-bounce": "dsn", "complaint": "arf"}.get(item.wish, "mail")
    detail: dict[str, Any] = {"review": item.id, "words": item.words, "rules": list(item.rules), "note": note}
    if cause := held.cause_in(item.rules, item.words):
        detail["cause"] = cause
    if item.place:
        detail |= {"mailbox": item.place.mailbox, "uid": item.place.uid}
    return [suppressions.add(w, p, s, reason, source, detail, since=item.at) for p in people for s in scopes]


def _take_back(w: Write, item: Item, people: Sequence[Address], scopes: Sequence[int], note: str) -> None:
    """Lift the opt-outs that this wish takes back. Raises Outdated where the person has asked again since."""
    because = note or f"asked for it by mail (review {item.id})"
    for person in people:
        for row in suppressions.standing(w.db, w.ledger.site_key, person):
            if row[2] == Reason.OPT_OUT and row[1] in (*scopes, ALL) and asked_again(w, row, item.at):
                raise Outdated
        for scope in scopes:
            undo(w, person, scope, item.at, because)
