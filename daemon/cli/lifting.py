"""lift: a suppression ended, or all that came of one cause."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from daemon.cli import common
from daemon.cli.bars import bar
from daemon.cli.common import NO, REASONS, SOURCES, USAGE, AsJson, ListOption, Stop, note, tell
from daemon.cli.people import moment, one_of
from storage.terms import reason_word

if TYPE_CHECKING:
    from daemon.config import Loaded
    from storage.engine import Ledger
    from storage.undo import Cause, Tally

_CAUSES: Final = tuple(reason for reason in REASONS if reason != "wanted")
_BY: Final = ("--cause", "--source", "--import", "--mailbox", "--domain", "--diagnostic")
_KEPT: Final = {
    "own": "asked for by the people themselves (--even-opt-outs lifts them, too)",
    "asked-again": "asked for, or reported, again apart from this",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(lift)


def lift(
    address: Annotated[str | None, typer.Argument(metavar="ADDR", help="Whose suppression to end.")] = None,
    because: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; kept in the record.")] = None,
    list_id: ListOption = None,
    cause: Annotated[
        str | None, typer.Option(metavar="R", help=f"Undo what stands for this reason: {', '.join(_CAUSES)}.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="S", help=f"Undo what came to us so: {', '.join(SOURCES)}.")
    ] = None,
    imported: Annotated[
        str | None, typer.Option("--import", metavar="FILE|N", help="Undo an import: its file's name, or its number.")
    ] = None,
    mailbox: Annotated[str | None, typer.Option(metavar="NAME", help="Undo what mail to this mailbox did.")] = None,
    domain: Annotated[
        str | None,
        typer.Option(metavar="D", help="Undo what this domain's servers refused, or what it complained of."),
    ] = None,
    diagnostic: Annotated[
        str | None, typer.Option(metavar="X.Y.Z", help="Undo bounces with this status, as 5.1.1.")
    ] = None,
    begin: Annotated[
        str | None, typer.Option("--from", metavar="T", help="Only what was recorded at this time or later.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="T", help="Only what was recorded until then; a day is included.")
    ] = None,
    even_opt_outs: Annotated[
        bool, typer.Option("--even-opt-outs", help="Undo what people asked for themselves, too.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be undone; change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Undo without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take somebody off the list again, or undo a cause.

    With ADDR: ends what stands for everything, complaints and bounces too; with --list what stands for that list.

    Without: ends all that fits --cause, --source, --import, --mailbox, --domain and --diagnostic (at least one; all that
    are given must hold), each with its row in the record. Opt-outs that people made themselves stay, and so does an imported row that its
    person has asked for since. Broken off, it goes on where it was when it is called again.

    Exit code 1: there was nothing to lift.
    """
    undoing = Given(cause, source, imported, mailbox, domain, diagnostic, begin, end)
    if not dry_run and because is None:
        raise Stop("missing option '--because' (see `optoutd lift --help`)", USAGE)
    if because is not None and not because.strip():
        raise Stop("--because must say why", USAGE)
    if address is not None:
        if any(undoing) or even_opt_outs or dry_run or yes:
            raise Stop(f"either one ADDR, or {', '.join(_BY)} and their options", USAGE)
        return _lift(address, because or "", list_id, as_json)
    if not any(undoing[: len(_BY)]):
        raise Stop(f"say whose suppression to end, or what to undo: {', '.join(_BY)}", USAGE)
    config = common.loaded()
    ledger = common.ledger(config)
    what = _cause(config, ledger, list_id, undoing, even_opt_outs)
    if dry_run:
        return _dry_run(ledger, what, as_json)
    return _undo(ledger, what, because or "", yes, as_json)


# ------------------------------------------------------------------ one person


def _lift(address: str, because: str, list_id: str | None, as_json: bool) -> None:
    from daemon import hand
    from storage.terms import Reason

    config = common.loaded()
    person = common.address(address)
    ledger = common.ledger(config)
    try:
        gone = hand.Hand(ledger, config.config.house, common.now(), common.actor()).lift(person, list_id, because)
    except hand.Refused as why:
        raise Stop(str(why), USAGE) from None
    left = hand.left_standing(ledger, person)
    hint = f"still suppressed: {', '.join(left)} (see `optoutd show {person}`)" if left else ""
    word = "all" if list_id is None else f"list:{list_id}"
    if not gone:
        raise Stop(f"no such suppression: {person} ({word})" + (f"; {hint}" if hint else ""), NO)
    reasons = sorted({Reason(r[2]).word for r in gone})
    tell(
        {"address": str(person), "scope": word, "lifted": reasons},
        as_json,
        f"{person}: lifted ({word}: {', '.join(reasons)})",
    )
    if hint:
        note(f"optoutd: {hint}")


# ------------------------------------------------------------------ all that came of a cause


class Given(NamedTuple):
    """What is to be undone, as it was typed; in the order of _BY, then the window."""

    cause: str | None
    source: str | None
    imported: str | None
    mailbox: str | None
    domain: str | None
    diagnostic: str | None
    begin: str | None
    end: str | None


def _cause(config: Loaded, ledger: Ledger, list_id: str | None, given: Given, even_opt_outs: bool) -> Cause:
    from storage.terms import REASONS as BY_WORD
    from storage.undo import Cause

    one_of("--cause", given.cause, _CAUSES)
    one_of("--source", given.source, SOURCES)
    window = (
        moment(given.begin, "--from") if given.begin is not None else None,
        _until(given.end) if given.end is not None else None,
    )
    if window[0] and window[1] and window[0] > window[1]:
        raise Stop("--from is later than --to", USAGE)
    scope = None if list_id is None else common.scope_of(list_id, config, common.list_numbers(ledger))
    file = None if given.imported is None else given.imported.rpartition("/")[2]
    domain = None if given.domain is None else given.domain.strip().lower()
    for options, values in (
        ("--import and --mailbox", (file, given.mailbox)),
        ("--domain and --diagnostic", (domain, given.diagnostic)),
    ):
        if "" in values:  # an unset variable in a script must not turn into something wider
            raise Stop(f"{options} must name something", USAGE)
    reason = BY_WORD[given.cause] if given.cause else None
    return Cause(reason, given.source, file, given.mailbox, scope, *window, even_opt_outs, domain, given.diagnostic)


def _until(text: str) -> datetime:
    """A --to: a day without a time is meant to its end."""
    found = moment(text, "--to")
    return found + timedelta(days=1, seconds=-1) if len(text.strip()) <= len("2026-01-31") else found


def _dry_run(ledger: Ledger, cause: Cause, as_json: bool) -> None:
    from storage.undo import survey

    tally = survey(ledger, cause)
    _tell(ledger, tally, as_json, dry_run=True)
    raise typer.Exit(0 if tally.lifted else NO)


def _undo(ledger: Ledger, cause: Cause, because: str, yes: bool, as_json: bool) -> None:
    from storage import undo

    if not yes:
        _ask(ledger, undo.survey(ledger, cause))
    with bar("undo") as progress:
        tally = undo.undo(ledger, cause, because, common.now, common.actor(), progress)
    _tell(ledger, tally, as_json, dry_run=False)
    raise typer.Exit(0 if tally.lifted else NO)


def _ask(ledger: Ledger, tally: Tally) -> None:
    """Show what would be done, and ask. Raises Stop where nobody can be asked, or says no."""
    if not sys.stdin or not sys.stdin.isatty():
        raise Stop("nothing done: look with --dry-run what would be undone, and say --yes", USAGE)
    note(_said(ledger, tally, dry_run=True))
    if tally.lifted and not typer.confirm("Undo this?", err=True):
        raise Stop("nothing was changed", NO)


def _tell(ledger: Ledger, tally: Tally, as_json: bool, *, dry_run: bool) -> None:
    by: dict[str, dict[str, int]] = {}
    for reason, scope, number in _by(ledger, tally):
        by.setdefault(reason, {})[scope] = number
    fact: dict[str, Any] = {
        "dry_run": dry_run,
        "lifted": tally.lifted.total(),
        "kept": tally.kept.total(),
        "by": by,
        "kept_because": {why: tally.kept[why] for why in ("own", "asked-again")},
        "first": _first(ledger, tally) if dry_run else [],
    }
    tell(fact, as_json, _said(ledger, tally, dry_run=dry_run))


def _by(ledger: Ledger, tally: Tally) -> list[tuple[str, str, int]]:
    """(reason, scope, rows), the most first."""
    numbers = common.list_numbers(ledger)
    return [
        (str(reason_word(reason)), common.scope_word(scope, numbers), number)
        for (reason, scope), number in tally.lifted.most_common()
    ]


def _first(ledger: Ledger, tally: Tally) -> list[str]:
    from storage.undo import addresses

    with ledger.connect() as db:
        return addresses(db, tally.first)


def _said(ledger: Ledger, tally: Tally, *, dry_run: bool) -> str:
    total = tally.lifted.total()
    many = f"{total:,} suppression{'' if total == 1 else 's'}"
    lines = [f"would be lifted: {many}" if dry_run else f"lifted: {many}"] if total else ["nothing to lift"]
    lines += [f"{number:>11,}  {reason}  {scope}" for reason, scope, number in _by(ledger, tally)]
    if dry_run and (known := _first(ledger, tally)):
        lines.append(f"  {', '.join(known)}{' ...' if total > len(known) else ''}")
    lines += [f"kept: {number:,} {_KEPT[why]}" for why, number in tally.kept.items() if number]
    return "\n".join(lines)
