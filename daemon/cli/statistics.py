"""stats: the ledger in numbers, and what the relay did, campaign by campaign."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from daemon.cli import common
from daemon.cli.common import USAGE, AsJson, Stop, note, one_line, tell
from daemon.cli.people import moment
from storage.terms import when

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from storage.refusals import By, Line

_GROUPS: Final[dict[str, By]] = {"list": "list", "credential": "credential", "message-id": "message-id"}
_COLUMNS: Final = "passed refused stripped withdrawn would_refuse service deferred rejected".split()
_MESSAGES: Final = 40  # for a person, the latest; --json gives all
_NAME: Final = 48  # characters of a Message-ID in a table
_NOBODY: Final[dict[By, str]] = {"list": "(no list)", "credential": "(no log-in)", "message-id": "(no Message-ID)"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(stats)


def stats(
    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="What the relay did since then: YYYY-MM-DD, or RFC 3339.")
    ] = None,
    by: Annotated[str | None, typer.Option(metavar="GROUP", help="One of: list, credential, message-id.")] = None,
    as_json: AsJson = False,
) -> None:
    """How many are on the list, and what did the relay do?

    With --by only what the relay did, a line for each list, AUTH user or message.

    --by message-id has the messages of which somebody was refused or left out, the latest first; `passed` counts the
    other recipients of just those transactions, and what was deferred is not known. The rest is counted by the hour:
    --since begins with the hour it lies in. How long it is kept, [retention] refusals says.
    """
    from daemon import telling
    from storage import refusals

    if by is not None and by not in _GROUPS:
        raise Stop(f"--by {by!r}: must be one of {', '.join(_GROUPS)}", USAGE)
    start = None if since is None else moment(since)
    ledger = common.ledger(common.loaded())
    numbers = common.list_numbers(ledger)
    ids = {number: list_id for list_id, number in numbers.items()}
    with ledger.reading() as db:
        if by is not None:
            _grouped(db, start, _GROUPS[by], ids, as_json)
            return
        (line,) = refusals.report(db, start, None)
        found = refusals.overview(db)
    fact = telling.overview(found, line.counts, numbers)
    tell(fact, as_json, _text(fact, start))


# ------------------------------------------------------------------ the whole


def _text(fact: dict[str, Any], start: datetime | None) -> str:
    since = f" (since {when(start)})" if start else ""
    lines = [
        ("suppressions", f"{fact['suppressions']:,}"),
        ("  by reason", _list(fact["by_reason"]) or "-"),
        ("  by scope", _list(fact["by_scope"]) or "-"),
        ("relay", (_list(fact["relay"]) or "nothing") + since),
        ("mail read", _list(fact["intake"]) or "none"),
        ("review", f"{fact['review_open']:,} open"),
        ("audit", f"{fact['audit_rows']:,} rows"),
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def _list(numbers: dict[str, int]) -> str:
    """`refused 12, passed 3`: what there is, the most first."""
    there = sorted(((n, word) for word, n in numbers.items() if n), key=lambda x: (-x[0], x[1]))
    return ", ".join(f"{word.replace('_', ' ')} {n:,}" for n, word in there)


# ------------------------------------------------------------------ in groups


def _grouped(db: Connection, start: datetime | None, by: By, ids: dict[int, str], as_json: bool) -> None:
    from storage import refusals

    lines = refusals.report(db, start, by)
    if as_json:
        for line in lines:
            tell(_fact(line, by, ids), True, "")
        return
    table = [_fact(line, by, ids) for line in (islice(lines, _MESSAGES + 1) if by == "message-id" else lines)]
    if not table:
        note("the relay has refused nobody" if by == "message-id" else "the relay has done nothing")
        return
    shown = table[:_MESSAGES] if by == "message-id" else table
    for text in _table(shown, by):
        tell({}, False, text)
    if len(shown) < len(table):
        note(f"these are the latest {_MESSAGES} messages; --since DATE for others, --json for all")


def _fact(line: Line, by: By, ids: dict[int, str]) -> dict[str, Any]:
    group = ids.get(int(line.group or 0)) if by == "list" else line.group or None
    numbers = {outcome.replace("-", "_"): number for outcome, number in line.counts.items()}
    reasons = {reason.word: number for reason, number in line.reasons.items()}
    return {by.replace("-", "_"): group, **{c: numbers.get(c) for c in _COLUMNS}, "reasons": reasons}


def _table(facts: list[dict[str, Any]], by: By) -> Iterable[str]:
    """Aligned; a column only if there is something in it."""
    columns = [c for c in _COLUMNS if c in ("passed", "refused") or any(f[c] for f in facts)]
    head = [by, *(c.replace("_", " ") for c in columns), "reasons"]
    rows = [[_name(f, by), *(f"{f[c]:,}" for c in columns), _list(f["reasons"])] for f in facts]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head) - 1)]
    for row in [head, *rows]:
        first, *numbers = row[:-1]
        cells = [f"{first:<{widths[0]}}", *(f"{n:>{w}}" for n, w in zip(numbers, widths[1:], strict=True)), row[-1]]
        yield "  ".join(cells).rstrip()


def _name(fact: dict[str, Any], by: By) -> str:
    """A group's name; of a long Message-ID both ends, for it is told by the one and known by the other."""
    name = one_line(fact[by.replace("-", "_")] or _NOBODY[by])
    return name if len(name) <= _NAME else f"{name[: _NAME // 2 - 1]}…{name[-_NAME // 2 :]}"
