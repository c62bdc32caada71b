"""brake: what nobody asked for waits for a person for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from daemon.cli import common
from daemon.cli.common import USAGE, AsJson, Stop, tell
from daemon.cli.people import one_of

if TYPE_CHECKING:
    from storage.brake import What

_WHAT: Final = ("bounces", "complaints", "unproven")  # of storage.brake (tests/cli holds the two together)
_WORDS: Final = {"bounces": "bounces", "complaints": "complaints", "unproven": "requests that nobody proved"}
_ONE_OF: Final = f"One of: {', '.join(_WHAT)}."


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(brake)


def brake(
    pull: Annotated[list[str] | None, typer.Option(metavar="WHAT", help=f"Let these wait. {_ONE_OF}")] = None,
    release: Annotated[list[str] | None, typer.Option(metavar="WHAT", help="Let these act again.")] = None,
    because: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; kept in the record.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let bounces, complaints or unproven requests wait.

    They suppress nobody then, and wait in the review queue for a person. At once for a running daemon. A request with
    a link of ours, or that is proven to come from the address it is about, is never held up, and neither is a click.
    Without --pull and --release: say what is pulled now.
    """
    pulls, releases = tuple(pull or ()), tuple(release or ())
    for option, words in (("--pull", pulls), ("--release", releases)):
        for word in words:
            one_of(option, word, _WHAT)
    if both := sorted({*pulls} & {*releases}):
        raise Stop(f"{both[0]}: either --pull or --release", USAGE)
    changes = bool(pulls or releases)
    if changes and not (because or "").strip():
        raise Stop("--because must say why", USAGE)
    if because is not None and not changes:
        raise Stop("--because goes with --pull or --release", USAGE)
    _brake(cast("tuple[What, ...]", pulls), cast("tuple[What, ...]", releases), because or "", as_json)


def _brake(pulls: tuple[What, ...], releases: tuple[What, ...], because: str, as_json: bool) -> None:
    from daemon import hand, telling

    config = common.loaded()
    ledger = common.ledger(config)
    if pulls or releases:
        hand.Hand(ledger, config.config.house, common.now(), common.actor()).brake(pulls, releases, because)
    with ledger.reading() as db:
        facts = telling.brakes(db)
    for fact in facts:
        tell(fact, as_json, _said(fact))


def _said(fact: dict[str, Any]) -> str:
    name = f"{_WORDS[fact['what']]:<28}"
    if not fact["pulled"]:
        return f"{name}act"
    why = common.one_line(fact["because"] or "(the reason is no longer kept)")
    return f"{name}wait since {fact['since']}, by {fact['actor']} (ref {fact['ref']}): {why}"
