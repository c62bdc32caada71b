"""A click on a page of ours, and the way back from that very click.

Whoever holds somebody's link can press its button, and the page after it offers to undo that. It must neither undo an
older wish nor tell whether there was one. So each click has a name, drawn anew every time: it stands in the evidence of
what the click changed, and in the token of the page's button. A click that changed nothing has left no evidence, and
its token, which looks like any other, matches nothing. What was asked for a second time since, by whatever way, stays.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from daemon import events
from daemon.mail.tokens import CLICK_OCTETS, Token
from storage import suppressions
from storage.suppressions import Added, RawRow
from storage.terms import ALL, Reason, seconds, utc
from storage.write import Write

REGRET_SECONDS: Final = 3600
_WHEN: Final = 4  # octets of a click's name: seconds since 1970; the rest is random
_BECAUSE: Final = "undone on the page that followed the click"


def click_at(now: datetime) -> bytes:
    """The name of a new click."""
    return seconds(now).to_bytes(_WHEN, "big") + secrets.token_bytes(CLICK_OCTETS - _WHEN)


def in_time(click: bytes, now: datetime) -> bool:
    """May this click still be undone?"""
    return seconds(now) - _when(click) <= REGRET_SECONDS


def _when(click: bytes) -> int:
    return int.from_bytes(click[:_WHEN], "big")


def leave(
    w: Write, key: bytes, scopes: Sequence[int], source: str, detail: Mapping[str, Any], click: bytes
) -> list[Added]:
    """Opt a person (an address key) out of each of these scopes by one click; what came of each."""
    told = {**detail, "click": click.hex()}
    evidence = functools.cache(lambda: w.evidence(address="", source=source, **told))
    _end_exemptions(w, key, scopes, source, click)
    return [suppressions.add(w, key, s, Reason.OPT_OUT, source, told, evidence=evidence) for s in scopes]


def regret(w: Write, token: Token) -> None:
    """Undo what this click changed, as far as nobody has asked for it at another time, too."""
    key, click = token.address_key, token.click
    rows = suppressions.standing(w.db, w.ledger.site_key, key)
    of = suppressions.details(w.db, [r[4] for r in rows]) if rows else {}
    mine = [r for r in rows if r[2] == Reason.OPT_OUT and of.get(r[4], {}).get("click") == click.hex()]
    gone = [r for r in mine if not suppressions.was_repeated(w.db, r)]
    if gone:
        # `asked`: an older wish that is read later still counts
        suppressions.end(w, gone, w.evidence(address="", source="page", because=_BECAUSE, asked=0), "page")
    others = [r for r in rows if r[2] == Reason.OPT_OUT and r not in gone]
    for scope, since, clicked in _ended_exemptions(w, key, click):
        if not any(_is_against(w, r, scope, clicked) for r in others):
            was = utc(since)
            suppressions.add(w, key, scope, Reason.WANTED, "page", {"because": _BECAUSE}, since=was)
    if gone:
        who, name = w.ledger.site_key.who_has(key), ";".join(suppressions.scope_word(w.db, r[1]) for r in gone)
        w.after_commit(lambda: events.suppression_lifted(who, name, len(gone)))


# ------------------------------------------------------------------ exemptions


def _end_exemptions(w: Write, key: bytes, scopes: Sequence[int], source: str, click: bytes) -> None:
    """Whoever leaves everything, or this list, no longer wants it. Here and not in `add`, for it is undone with the click."""
    rows = suppressions.standing(w.db, w.ledger.site_key, key)
    ended = [r for r in rows if r[2] == Reason.WANTED and r[3] <= w.at and (ALL in scopes or r[1] in scopes)]
    if ended:
        exempt = {str(r[1]): r[3] for r in ended}
        because = "asked again to be left alone"
        every, name = ALL in scopes, click.hex()
        number = w.evidence(address="", source=source, because=because, exempt=exempt, click=name, everything=every)
        suppressions.end(w, ended, number, source)


def _ended_exemptions(w: Write, key: bytes, click: bytes) -> Iterator[tuple[int, int, int]]:
    """(scope, since when, up to when an opt-out of everything may be the one before it) of the exemptions that this click ended."""
    for fact in suppressions.by_keys(w.db, [key]):
        detail = fact.detail or {}
        if fact.event == "lifted" and fact.reason == Reason.WANTED and detail.get("click") == click.hex():
            # A click on everything has itself asked again for what stood; one on a list has not, within the same second either.
            before = _when(click) - (not detail.get("everything"))
            yield int(fact.scope or 0), int(detail["exempt"][str(fact.scope)]), before


def _is_against(w: Write, row: RawRow, scope: int, clicked: int) -> bool:
    """Does this opt-out speak against exempting a list again? That of everything only if asked for since then."""
    return row[1] == scope or (row[1] == ALL and suppressions.last_asked(w.db, row) > clicked)
