"""hooks: are the programs told of changes, and what were they never told?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli import common
from daemon.cli.common import NO, OK, USAGE, AsJson, Stop, note, tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.engine import Ledger
    from storage.write import Write

hooks = typer.Typer(invoke_without_command=True)
_Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Of this hook.", show_default=False)]
_Ids = Annotated[list[int] | None, typer.Option("--id", metavar="N", help="This change only; may be given again.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    hooks.callback()(overview)
    hooks.command("list")(list_)
    hooks.command()(again)
    hooks.command()(drop)
    app.add_typer(hooks, name="hooks")


def overview(context: typer.Context, as_json: AsJson = False) -> None:
    """Programs that are told of changes: how it is with them.

    They are the [[webhook]]s of the config. `waiting`: changes that are still to be told; `undelivered`: that could not be.
    Exit code 1: one of them cannot be told just now, or was never told of something.
    """
    if context.invoked_subcommand is not None:
        return
    from daemon import webhooks

    config = common.loaded()
    ledger = common.ledger(config)
    with ledger.reading() as db:
        facts = webhooks.standing(db, config.config.webhook)
    for fact in facts:
        tell(fact, as_json, _text(fact))
    if not facts:
        note("no [[webhook]] in the config")
    raise typer.Exit(NO if any(f["state"] == "failing" or f["undelivered"] for f in facts) else OK)


_STATES = {
    "well": "is told",
    "new": "not begun: `optoutd run` begins with what comes from then on",
    "failing": "cannot be told",
    "removed": "not in the config any more",
}


def _text(fact: dict[str, Any]) -> str:
    parts = [_STATES[fact["state"]]]
    parts += [f"{fact['waiting']:,} waiting"] if fact["waiting"] else []
    parts += [f"{fact['undelivered']:,} undelivered"] if fact["undelivered"] else []
    parts += [f"{fact['again']:,} to be sent again"] if fact["again"] else []
    lines = [f"{fact['name']}  {', '.join(parts)}"]
    if fact["trouble"]:
        lines.append(f"    {fact['trouble']} ({fact['failures']:,} times; next try {fact['next_try'] or 'at once'})")
    return "\n".join(lines)


def list_(name: _Name = None, as_json: AsJson = False) -> None:
    """The changes that a program could not be told of in three days."""
    from daemon import webhooks
    from storage import hooks as verbs

    ledger = common.ledger(common.loaded())
    numbers, after = common.list_numbers(ledger), 0
    while True:
        with ledger.reading() as db:
            some = verbs.lost(db, name, after)
        if not some:
            return
        for lost in some:
            fact = webhooks.untold(lost, numbers)
            tell(fact, as_json, _line(fact))
        after = some[-1].id


def _line(fact: dict[str, Any]) -> str:
    state = "to be sent again" if fact["again"] else fact["trouble"]
    return f"{fact['id']}  {fact['hook']}  {fact['at']}  {fact['type']}  {fact['scope']}  (ref {fact['ref']})  {state}"


def again(name: _Name = None, ids: _Ids = None, as_json: AsJson = False) -> None:
    """Have what could not be told sent again.

    All of a hook, or single changes. The running daemon does so within seconds, and what is refused once more comes back
    here. Exit code 1: there is nothing to send.
    """
    from storage import hooks as verbs

    _do(name, ids, as_json, verbs.again, "to be sent again")


def drop(
    because: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is kept in the record.")],
    name: _Name = None,
    ids: _Ids = None,
    as_json: AsJson = False,
) -> None:
    """Let go what could not be told.

    The program will never hear of it. Exit code 1: there is nothing.
    """
    from storage import hooks as verbs

    _do(name, ids, as_json, lambda w, found: verbs.drop(w, found, because), "dropped")


def _do(
    name: str | None, ids: list[int] | None, as_json: bool, verb: Callable[[Write, list[int]], int], did: str
) -> None:
    from storage.write import write

    if (name is None) == (not ids):
        raise Stop("name a hook, or single changes by --id (`optoutd hooks list` has their numbers)", USAGE)
    config = common.loaded()
    ledger = common.ledger(config)
    found = [n for n in ids or _all(ledger, name or "") if common.is_number(n)]
    if name and not found and name not in {hook.name for hook in config.config.webhook}:
        raise Stop(f"no hook {name!r} (`optoutd hooks` names them)", NO)
    with write(ledger, common.now(), common.actor()) as w:
        done = verb(w, found)
    tell({"changes": done}, as_json, f"{done:,} {'change' if done == 1 else 'changes'} {did}")
    raise typer.Exit(OK if done else NO)


def _all(ledger: Ledger, name: str) -> list[int]:
    from storage import hooks as verbs

    with ledger.connect() as db:
        return verbs.ids_of(db, name)
