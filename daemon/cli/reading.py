"""read, review: what would triage say, and what a person says to what it could not decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli import common, deciding
from daemon.cli.braking import known
from daemon.cli.common import NO, NOINPUT, USAGE, AsJson, Stop, tell
from storage.terms import when

if TYPE_CHECKING:
    from daemon.config import House, Loaded
    from daemon.mail.reading import Reading
    from storage.engine import Ledger
    from storage.incoming import Item

review = typer.Typer(no_args_is_help=True, help="The queue of doubtful mail: look, accept, reject.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(read)
    review.command("list")(list_)
    review.command()(show)
    review.command()(accept)
    review.command()(reject)
    app.add_typer(review, name="review")


# ------------------------------------------------------------------ read


def read(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH", help=".eml files, directories, Maildirs, mboxes; - is stdin.")
    ],
    explain: Annotated[bool, typer.Option("--explain", help="Say which rules decided, and on which words.")] = False,
    as_json: AsJson = False,
) -> None:
    """What would be made of these messages? Acts on nothing.

    Needs no database, and of the config only [house] and [[list]]. A line per message: its reading, whom it is about,
    and what it asks for. Exit code 66: a PATH cannot be opened.
    """
    from daemon.archives import CannotOpen, messages
    from daemon.mail.triage import read as read_message

    house = _house()
    failed = False
    for path in paths:
        try:
            for name, raw in messages(path, common.note):
                reading = read_message(raw, house)
                tell(_fact(name, reading), as_json, _line(name, reading, explain))
        except CannotOpen as why:
            common.note(f"optoutd: {path or repr(path)}: {why}")
            failed = True
    if failed:
        raise typer.Exit(NOINPUT)


def _house() -> House:
    from daemon.config import ConfigError, House, find, load_house

    try:
        path = find(common.chosen_config)
    except ConfigError:
        common.note("optoutd: no config, so your own domains and lists are unknown (-c FILE)")
        return House(name="(no config)")
    return load_house(path)


def _fact(name: str, reading: Reading) -> dict[str, Any]:
    from daemon.mail.reading import OptOut, addresses, label

    return {
        "file": name,
        "label": label(reading),
        "addresses": list(addresses(reading)),
        "scope": _scope(reading),
        "keep": list(reading.keep) if isinstance(reading, OptOut) else [],
        "rules": list(reading.rules),
        "stays": reading.stays if isinstance(reading, OptOut) else False,
    }


def _scope(reading: Reading) -> str:
    from daemon.mail.reading import Bounce, OptOut, Resubscribe

    match reading:
        case OptOut() | Resubscribe():
            return ";".join(reading.scope)
        case Bounce():
            return "hard" if reading.hard else "soft"
        case _:
            return ""


def _line(name: str, reading: Reading, explain: bool) -> str:
    from daemon.mail.reading import addresses, label
    from daemon.mail.rules import RULES

    people, scope = " ".join(addresses(reading)), _scope(reading)
    line = f"{common.one_line(name)}: {label(reading)}" + f"  {people}" * bool(people) + f"  ({scope})" * bool(scope)
    if explain:
        line += "".join(f"\n    {rule}: {RULES.get(rule, '')}" for rule in reading.rules)
        line += f"\n    words: {reading.words!r}" if reading.words else ""
        weighed = getattr(reading, "weighed", ())
        line += f"\n    weighed most: {', '.join(map(repr, weighed))}" if weighed else ""
    return line


# ------------------------------------------------------------------ review


Cause = Annotated[
    str | None, typer.Option("--cause", metavar="WHAT", help="All that this brake holds (see `optoutd brake`).")
]


def list_(
    as_json: AsJson = False,
    every: Annotated[bool, typer.Option("--all", help="Decided ones too.")] = False,
    cause: Cause = None,
) -> None:
    """What waits for a decision, oldest first."""
    from daemon import telling
    from storage import held, incoming

    if cause is not None:
        known("--cause", cause)
        if every:
            raise Stop("either --all or --cause", USAGE)
    ledger = common.ledger(common.loaded())
    with ledger.reading() as db:
        of_it = None if cause is None else {*held.numbers(db, cause)}
        items = [i for i in incoming.reviews(db, None if every else "open") if of_it is None or i.id in of_it]
    for item in items:
        state = "" if item.state == "open" else f"  {item.state}"
        about = f"{item.id}  {when(item.at)}  {item.sender or '(no sender)'}  {item.wish}  {', '.join(item.rules)}"
        tell(telling.waiting(item), as_json, about + state)
    if not items and not as_json:
        common.note("nothing waits")


Number = Annotated[int, typer.Argument(metavar="ID", help="As `optoutd review list` shows it.")]


def _find(number: int) -> tuple[Loaded, Ledger, Item]:
    from storage import incoming

    config = common.loaded()
    ledger = common.ledger(config)
    with ledger.reading() as db:
        item = incoming.review(db, number) if common.is_number(number) else None
    if item is None:
        raise Stop(f"no item {number} in the review queue (see `optoutd review list --all`)", NO)
    return config, ledger, item


def show(number: Number, as_json: AsJson = False) -> None:
    """One item: the writer's words, and what accepting would do."""
    from daemon import telling
    from daemon.mail.rules import RULES

    _, _, item = _find(number)
    fact = telling.in_full(item)
    would = "would" if item.state == "open" else "would have done this:"
    lines = [
        f"{item.id}  {item.state}  received {when(item.at)} from {item.sender or '(no sender)'}",
        f"accepting {would} {telling.accepting(item)} ({item.scope})",
        *(f"rule:  {rule}" + (f": {RULES[rule]}" if rule in RULES else "") for rule in item.rules),
        *([f"words: {item.words!r}"] if item.words else []),
        *(["", item.excerpt] if item.excerpt else []),
    ]
    tell(fact, as_json, "\n".join(lines))
    if item.state == "open" and not as_json:
        common.note(f"\noptoutd review accept {item.id}, or optoutd review reject {item.id}")


Note = Annotated[str, typer.Option(metavar="TEXT", help="Kept with the decision.")]


MaybeNumber = Annotated[int | None, typer.Argument(metavar="[ID]", help="As `optoutd review list` shows it.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="With --cause: count, and change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="With --cause: decide without asking.")]


def accept(
    number: MaybeNumber = None,
    note: Note = "",
    cause: Cause = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Do what the item asks, and have its message filed away; or what all items of one cause ask."""
    _decide(number, cause, True, note, (dry_run, yes), as_json)


def reject(
    number: MaybeNumber = None,
    note: Note = "",
    cause: Cause = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Do nothing; the message stays where it is. Or the same with all items of one cause."""
    _decide(number, cause, False, note, (dry_run, yes), as_json)


def _decide(
    number: int | None, cause: str | None, accepted: bool, note: str, how: tuple[bool, bool], as_json: bool
) -> None:
    if (number is None) == (cause is None):
        raise Stop("say which: either one ID, or --cause", USAGE)
    if cause is not None:
        return deciding.of_cause(cause, accepted, note, *how, as_json)
    if any(how):
        raise Stop("--dry-run and --yes go with --cause", USAGE)
    return _decide_one(number or 0, accepted, note, as_json)


def _decide_one(number: int, accepted: bool, note: str, as_json: bool) -> None:
    config, ledger, item = _find(number)
    if item.state != "open":
        raise Stop(f"item {number} was {item.state} already", NO)
    from daemon import telling
    from daemon.intake import AlreadyDecided, NobodyNamed, Outdated

    intake = deciding.desk_of(config, ledger)
    try:
        added = intake.decide(item, accepted, note, common.now(), common.actor())
    except NobodyNamed:
        raise Stop(f"item {number} names nobody: use `optoutd suppress ADDR`, then reject it", USAGE) from None
    except Outdated:
        raise Stop(f"item {number} is older than an opt-out of the same person: reject it, or use `lift`", NO) from None
    except AlreadyDecided:
        raise Stop(f"item {number} has just been decided by somebody else", NO) from None
    word = "accepted" if accepted else "rejected"
    refs = [a.evidence for a in added]
    tell(
        telling.waiting(item) | {"state": word},
        as_json,
        f"{number}: {word}" + (f" (ref {', '.join(map(str, refs))})" if refs else ""),
    )
