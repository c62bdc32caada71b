"""brake: what nobody asked for waits for a person for a while."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from daemon.cli import common
from daemon.cli.common import USAGE, AsJson, Stop, tell

_WHAT: Final = ("bounces", "complaints", "unproven")  # of storage.brake (tests/cli holds the two together)
_ONE_OF: Final = f"One of: {', '.join(_WHAT)}, bounces:DOMAIN, bounces:DOMAIN/STATUS, complaints:DOMAIN."


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
    bounces:outlook.com/5.1.1 are those that one mail service answers with one status, complaints:reporter.example those of
    one reporter. Without --pull and --release: say what is pulled now.
    """
    pulls, releases = tuple(pull or ()), tuple(release or ())
    for option, words in (("--pull", pulls), ("--release", releases)):
        for word in words:
            known(option, word)
    if both := sorted({*pulls} & {*releases}):
        raise Stop(f"{both[0]}: either --pull or --release", USAGE)
    changes = bool(pulls or releases)
    if changes and not (because or "").strip():
        raise Stop("--because must say why", USAGE)
    if because is not None and not changes:
        raise Stop("--because goes with --pull or --release", USAGE)
    _brake(pulls, releases, because or "", as_json)


def known(option: str, word: str) -> None:
    """Raises Stop(64) for something that no brake can be pulled on."""
    from storage.brake import is_name

    if not is_name(word):
        more = "bounces:DOMAIN, bounces:DOMAIN/STATUS or complaints:DOMAIN (in small letters)"
        raise Stop(f"{option} {word!r}: must be one of {', '.join(_WHAT)}, {more}", USAGE)


def _brake(pulls: tuple[str, ...], releases: tuple[str, ...], because: str, as_json: bool) -> None:
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
    name = f"{fact['what']:<28}"  # as --pull and --release want it
    name += " " * (not name.endswith(" "))
    if not fact["pulled"]:
        return f"{name}act"
    why = common.one_line(fact["because"] or "(the reason is no longer kept)")
    return f"{name}wait since {fact['since']}, by {fact['actor']} (ref {fact['ref']}): {why}"
