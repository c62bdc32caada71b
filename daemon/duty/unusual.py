"""Unusual numbers, and brakes that nobody released: what people asked for is never paused, but somebody should look.

What was suppressed in the last hour, or day, is held against the same ledger's last thirty days. A day or an hour is
usual when one in a hundred was like it: a newsletter's evening is usual, an accident of one evening is not. What a
mailing explains (one in a hundred of whom the relay passed in three days) is not told of either. The numbers come from
the end of the record, which is in the order of time: no index, nor a look at the whole of it, is needed. A long look is
taken only when the short one is over the floor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Final

from daemon.duty.alarm import Alarm, Look
from storage import brake, held, refusals, sights
from storage.terms import when

MOST_ROWS: Final = 100_000  # of the record that are looked at, from its end: some tenths of a second
_BACK: Final = 30  # days
_TIMES: Final = 5  # as many as usual
_EXPLAINED: Final = 100  # one of so many who were mailed
_MAILED: Final = 72  # hours
_HELD_LONG: Final = timedelta(hours=24)  # for a brake that a person has pulled
_MOST_WAITING: Final = 10_000  # that are counted


@dataclass(frozen=True, slots=True)
class Window:
    """A time that is looked at. `floor`: fewer than that bother nobody, however few are usual."""

    name: str
    length: int  # seconds
    floor: int


WINDOWS: Final = (Window("hour", 3600, 50), Window("day", 86_400, 200))
# Source -> (how the people are called, why it can be).
_SOURCES: Final = {
    "one-click": ("one-click opt-outs", "A mailing went out, or a program that tests links posts to them"),
    "page": ("opt-outs on the page", "A mailing went out, or a program fills in the page"),
    "mail": ("opt-outs by mail", "A mailing went out, or a forger has found the mailbox"),
    "api": ("opt-outs by the API", "A tool brings a list row by row, or goes wrong"),
    "dsn": ("suppressions by bounces", "A mailing went to an old list, or a server refuses for reasons of its own"),
    "arf": ("suppressions by complaints", "A mailing displeased, or a reporter sends what was not asked for"),
}


def find(look: Look) -> Iterator[Alarm]:
    """Unusually many suppressions of a source; brakes that wait for a person. Some milliseconds on a usual day."""
    yield from _unusual(look)
    yield from _brakes(look)


# ------------------------------------------------------------------ numbers


def _unusual(look: Look) -> Iterator[Alarm]:
    told = set[str]()
    for window in WINDOWS:
        many = {
            source: of for source, of in _last(look, window).items() if of[0] >= window.floor and source not in told
        }
        if not many:
            continue
        explained = refusals.passed(look.db, look.now, _MAILED) // _EXPLAINED
        usual = _usual(look, window) if any(number > explained for number, _ in many.values()) else {}
        for source, (number, begin) in many.items():
            if number > explained and number > _TIMES * usual.get(source, 0):
                told.add(source)
                yield _alarm(source, number, usual.get(source, 0), window, begin, look.now)


def _last(look: Look, window: Window) -> Mapping[str, tuple[int, datetime]]:
    """source -> how many were suppressed in the window that ends now, and when the first of them was."""
    found = sights.suppressed(look.db, look.now - timedelta(seconds=window.length), look.now, MOST_ROWS)
    return {source: of for source, of in found.items() if source in _SOURCES}


def _usual(look: Look, window: Window) -> Mapping[str, int]:
    """source -> how many at most in the windows before this one; one in a hundred may be fuller, and that was no rule."""
    windows = _BACK * 86_400 // window.length
    until, above = look.now - timedelta(seconds=window.length), ceil(windows / 100)
    found = sights.suppressed_before(look.db, until, window.length, windows, MOST_ROWS)
    return {source: (sorted(numbers, reverse=True) + [0] * (above + 1))[above] for source, numbers in found.items()}


def _alarm(source: str, number: int, usual: int, window: Window, begin: datetime, now: datetime) -> Alarm:
    called, why = _SOURCES[source]
    own = source not in ("dsn", "arf")
    undo = f"optoutd lift --source {source}{' --even-opt-outs' * own} --from {when(begin)} --to {when(now)} --dry-run"
    honoured = " They are honoured: what people ask for is never held up." * own
    return Alarm(
        "unusual",
        source,
        begin,
        f"{number} {called} in {'an' if window.name == 'hour' else 'a'} {window.name}; usual is {usual} at most.{honoured}",
        f"{why}: find out which. If nobody meant it, `{undo}` says what undoing it would do.",
    )


# ------------------------------------------------------------------ brakes


def _brakes(look: Look) -> Iterator[Alarm]:
    """Those pulled by themselves at once, those that a person pulled when they were perhaps forgotten."""
    for what, it in brake.pulled(look.db).items():
        by_itself = it.actor == brake.ITSELF
        if not by_itself and look.now - it.since < _HELD_LONG:
            continue
        waiting = len(held.numbers(look.db, what, most=_MOST_WAITING))
        more = "at least " * (waiting == _MOST_WAITING)
        who = "pulled by itself" if by_itself else f"pulled by {it.actor} more than a day ago"
        because = it.because or "the reason is no longer kept"
        yield Alarm(
            "brake-pulled",
            what,
            it.since,
            f"The brake on {brake.said(what)} was {who}: {because}. So many mails wait for a person: {more}{waiting}.",
            f"Look: `optoutd review list --cause {what}`, and decide: `optoutd review accept --cause {what} --dry-run` (or"
            f" reject). Undo what acted before: `{_undo(what, it.since, look.now)}`. When it is over: `optoutd brake"
            f' --release {what} --because "..."`.',
        )


def _undo(what: brake.What, since: datetime, now: datetime) -> str:
    """The command that says what came of this cause from an hour before the brake was pulled."""
    kind, _, whose = what.partition(":")
    domain, _, status = whose.partition("/")
    source = {"bounces": "dsn", "complaints": "arf"}.get(kind, "mail")
    own = " --even-opt-outs" * (kind == "unproven")
    terms = f"--source {source}{own}" + f" --domain {domain}" * bool(domain) + f" --diagnostic {status}" * bool(status)
    return f"optoutd lift {terms} --from {when(since - timedelta(hours=1))} --to {when(now)} --dry-run"
