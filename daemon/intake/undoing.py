"""The way back: the opt-outs of a person undone by that person's own wish."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from daemon import events
from daemon.mail.tokens import UNDO_DAYS, Token
from storage import incoming, suppressions
from storage.suppressions import Whom
from storage.terms import ALL, Reason, seconds
from storage.write import Write

_BY_LINK: Final = "the person confirmed by the link of our notice"
_DAY: Final = 86_400  # seconds


def in_time(token: Token, asked: datetime) -> bool:
    """Is an undo link good at this moment? It says only on which day it was made: the doubt is the person's."""
    made = token.day * _DAY
    return made - _DAY <= seconds(asked) <= made + (UNDO_DAYS + 1) * _DAY


def by_link(w: Write, token: Token, asked: datetime, source: str) -> bool:
    """The undo link of a notice came back, by mail or on its page (`source`): what it names is undone.

    Nothing happens if it was asked for again since, or is undone already. False: it came too late.
    """
    if not in_time(token, asked):
        return False
    scope = token.list_number or ALL
    good_for = min([(token.day + 1) * _DAY, *_used(w, token, scope)])
    if undo(w, token.address_key, scope, asked, _BY_LINK, source=source, made=good_for):
        who, name = w.ledger.site_key.who_has(token.address_key), suppressions.scope_word(w.db, scope)
        w.after_commit(lambda: events.suppression_lifted(who, name, 1))
    return True


def _used(w: Write, token: Token, scope: int) -> Iterator[int]:
    """The seconds before this link, or another of its day, did its work: it is not good for what was asked after that."""
    for fact in suppressions.by_keys(w.db, [token.address_key]):
        detail, at = fact.detail or {}, seconds(fact.at)
        if fact.scope == scope and detail.get("because") == _BY_LINK and at >= token.day * _DAY:
            yield int(detail.get("asked", at)) - 1


def undo(
    w: Write, whom: Whom, scope: int, asked: datetime, because: str, *, source: str = "mail", made: int | None = None
) -> bool:
    """Undo an opt-out by the person's own wish: its row goes; of one list alone, `wanted` exempts it.

    Complaint, bounce and operator rows stay. `made`: when the link was made that confirms it (seconds since
    1970): it is not good for an opt-out that was asked later, or later once more. False: nothing stood, or the person has
    opted out since.
    """
    rows = suppressions.standing(w.db, w.ledger.site_key, whom)
    mine = [r for r in rows if r[2] == Reason.OPT_OUT and r[1] in (scope, ALL)]
    if not mine or any(
        asked_again(w, r, asked) or (made is not None and suppressions.last_asked(w.db, r) > made) for r in mine
    ):
        return False
    gone = suppressions.lift(w, whom, scope, because, source, only=Reason.OPT_OUT, asked=asked)
    if scope != ALL and any(r[1] == ALL for r in mine):
        suppressions.add(w, whom, scope, Reason.WANTED, source, {"because": because}, since=asked)
        return True
    return bool(gone)


def asked_again(w: Write, row: suppressions.RawRow, wish: datetime) -> bool:
    """Was this opt-out asked for (again) after the wish to come back?"""
    asked = incoming.last_asked(w.db, row[4])
    return max(suppressions.last_asked(w.db, row), seconds(asked) if asked else 0) > seconds(wish)
