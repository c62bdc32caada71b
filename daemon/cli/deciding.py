"""review accept and reject --cause: what one brake holds, decided together."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from daemon.cli import common
from daemon.cli.bars import bar
from daemon.cli.braking import known
from daemon.cli.common import NO, USAGE, Stop, note, tell

if TYPE_CHECKING:
    from daemon.config import Loaded
    from daemon.intake import Intake
    from daemon.intake.bulk import Tally
    from storage.engine import Ledger


def desk_of(config: Loaded, ledger: Ledger) -> Intake:
    """The desk that carries out decisions. What it does is not logged here: the command says it."""
    from daemon import events
    from daemon.intake import Intake
    from daemon.opening import number_lists

    events.configure("auto", "warning")
    return Intake(ledger, config.config.house, number_lists(ledger, config.config), config.config.bounce)


def of_cause(what: str, accepted: bool, why: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Count, ask, decide. Raises Stop; exit code 1: nothing waits by this brake."""
    known("--cause", what)
    from daemon.intake import bulk

    config = common.loaded()
    ledger = common.ledger(config)
    desk = desk_of(config, ledger)
    if dry_run:
        tally = bulk.survey(desk, what)
        _tell(what, tally, accepted, as_json, dry_run=True)
        raise typer.Exit(0 if tally.items else NO)
    if not yes:
        _ask(bulk.survey(desk, what), accepted)
    with bar("accept" if accepted else "reject") as progress:
        tally = bulk.decide(desk, what, accepted, why, common.now, common.actor(), progress)
    _tell(what, tally, accepted, as_json, dry_run=False)
    raise typer.Exit(0 if tally.items else NO)


def _ask(tally: Tally, accepted: bool) -> None:
    """Show what would be decided, and ask. Raises Stop where nobody can be asked, or says no."""
    if not sys.stdin or not sys.stdin.isatty():
        raise Stop("nothing done: look with --dry-run what would be decided, and say --yes", USAGE)
    note(_said(tally, accepted, dry_run=True))
    if tally.items and not typer.confirm("Accept all of this?" if accepted else "Reject all of this?", err=True):
        raise Stop("nothing was decided", NO)


def _tell(what: str, tally: Tally, accepted: bool, as_json: bool, *, dry_run: bool) -> None:
    fact: dict[str, Any] = {
        "cause": what,
        "decision": "accepted" if accepted else "rejected",
        "dry_run": dry_run,
        "items": tally.items.total(),
        "people": tally.people,
        "left": tally.left,
        "by": dict(tally.items.most_common()),
        "first": tally.first if dry_run else [],
    }
    tell(fact, as_json, _said(tally, accepted, dry_run=dry_run))


def _said(tally: Tally, accepted: bool, *, dry_run: bool) -> str:
    word = "accepted" if accepted else "rejected"
    total = tally.items.total()
    many = f"{total:,} item{'' if total == 1 else 's'} about {tally.people:,} {'person' if tally.people == 1 else 'people'}"
    lines = [f"would be {word}: {many}" if dry_run else f"{word}: {many}"] if total else ["nothing waits"]
    lines += [f"{number:>11,}  {wish}" for wish, number in tally.items.most_common()]
    if dry_run and tally.first:
        lines.append(
            f"  {', '.join(map(common.one_line, tally.first))}{' ...' if tally.people > len(tally.first) else ''}"
        )
    lines += [f"left: {tally.left:,} that name nobody, or that are older than what the person did since"] * bool(
        tally.left
    )
    return "\n".join(lines)
