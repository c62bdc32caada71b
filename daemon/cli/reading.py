"""read, review: what would triage say, and what a person says to what it could not decide."""

from __future__ import annotations

import mailbox
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.cli import common
from daemon.cli.common import NO, NOINPUT, USAGE, AsJson, Stop, tell, when
from daemon.config import ConfigError, House, find, load_house
from daemon.intake import Intake, NobodyNamed
from daemon.mail.reading import Bounce, OptOut, Reading, Resubscribe, addresses, label
from daemon.mail.rules import RULES
from daemon.mail.triage import read as read_message
from daemon.service import number_lists
from storage import incoming
from storage.incoming import Item

review = typer.Typer(no_args_is_help=True, help="The queue of doubtful mail.")


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
        list[str], typer.Argument(metavar="PATH...", help=".eml files, directories, Maildirs, mboxes; - is stdin.")
    ],
    explain: Annotated[bool, typer.Option("--explain", help="Say which rules decided, and on which words.")] = False,
    as_json: AsJson = False,
) -> None:
    """What would triage say of these messages? Acts on nothing; needs only [house] and [[list]]."""
    house = _house()
    failed = False
    for path in paths:
        try:
            for name, raw in _messages(path):
                reading = read_message(raw, house)
                tell(_fact(name, reading), as_json, _line(name, reading, explain))
        except OSError as why:
            common.note(f"optoutd: {path}: {why.strerror or why}")
            failed = True
    if failed:
        raise typer.Exit(NOINPUT)


def _house() -> House:
    try:
        path = find(common.chosen_config)
    except ConfigError:
        return House(name="(no config)")
    return load_house(path)


def _messages(path: str) -> Iterator[tuple[str, bytes]]:
    """(name, octets) of every message. Raises OSError only where PATH itself cannot be opened."""
    if path == "-":
        import sys

        yield "-", sys.stdin.buffer.read()
        return
    here = Path(path)
    if here.is_dir():
        maildir = [here / sub for sub in ("cur", "new") if (here / sub).is_dir()]
        files = [f for d in maildir or [here] for f in d.iterdir() if f.is_file()]
        for file in sorted(files):
            yield str(file), _octets(file)
        return
    with here.open("rb") as opened:
        is_mbox = opened.read(5) == b"From "
    if not is_mbox:
        yield path, here.read_bytes()
        return
    box = mailbox.mbox(path, create=False)
    try:
        for n, key in enumerate(box.iterkeys(), 1):
            yield f"{path}#{n}", box.get_bytes(key)
    finally:
        box.close()


def _octets(file: Path) -> bytes:
    """A file in a directory that cannot be read is a message without content: it has its line all the same."""
    try:
        return file.read_bytes()
    except OSError as why:
        common.note(f"optoutd: {file}: {why.strerror}")
        return b""


def _fact(name: str, reading: Reading) -> dict[str, Any]:
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
    match reading:
        case OptOut() | Resubscribe():
            return ";".join(reading.scope)
        case Bounce():
            return "hard" if reading.hard else "soft"
        case _:
            return ""


def _line(name: str, reading: Reading, explain: bool) -> str:
    people = " ".join(addresses(reading))
    line = (
        f"{name}: {label(reading)}"
        + (f"  {people}" if people else "")
        + (f"  ({_scope(reading)})" if _scope(reading) else "")
    )
    if explain:
        line += "".join(f"\n    {rule}: {RULES.get(rule, '')}" for rule in reading.rules)
        line += f"\n    words: {reading.words!r}" if reading.words else ""
    return line


# ------------------------------------------------------------------ review


def list_(
    as_json: AsJson = False, every: Annotated[bool, typer.Option("--all", help="Decided ones too.")] = False
) -> None:
    """What waits for a decision, oldest first."""
    ledger = common.ledger(common.loaded())
    with ledger.reading() as db:
        items = incoming.reviews(db, None if every else "open")
    for item in items:
        tell(
            _item(item),
            as_json,
            f"{item.id}  {when(item.at)}  {item.sender or '(no sender)'}  {item.wish}  {', '.join(item.rules)}",
        )
    if not items and not as_json:
        common.note("nothing waits")


def _item(item: Item) -> dict[str, Any]:
    return {
        "id": item.id,
        "mailbox": item.place.mailbox if item.place else None,
        "uid": item.place.uid if item.place else None,
        "received": when(item.at),
        "from": item.sender or None,
        "addresses": list(item.addresses),
        "scope": item.scope,
        "rules": list(item.rules),
        "state": item.state,
    }


Number = Annotated[int, typer.Argument(metavar="ID")]


def _find(number: int) -> tuple[Any, Any, Item]:
    config = common.loaded()
    ledger = common.ledger(config)
    with ledger.reading() as db:
        item = incoming.review(db, number)
    if item is None:
        raise Stop(f"no item {number} in the review queue", NO)
    return config, ledger, item


def show(number: Number, as_json: AsJson = False) -> None:
    """One item: the writer's words, and what accepting would do."""
    _, _, item = _find(number)
    people = ", ".join(item.addresses) or item.sender or "nobody"
    verb = {
        "resubscribe": "lift the opt-out of",
        "bounce": "suppress as bounced:",
        "complaint": "suppress as complained:",
    }
    text = (
        f"{item.id}  {item.state}  received {when(item.at)} from {item.sender or '(no sender)'}\n"
        f"accepting would {verb.get(item.wish, 'suppress')} {people} ({item.scope})\n"
        f"rules: {', '.join(item.rules)}\n"
        + (f"words: {item.words!r}\n" if item.words else "")
        + f"\n{_harmless(item.excerpt)}"
    )
    tell(_item(item) | {"words": item.words or None, "excerpt": item.excerpt or None}, as_json, text)


def _harmless(text: str) -> str:
    """Hostile mail on a terminal: no control characters, so no escape sequences."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


Note = Annotated[str, typer.Option(help="Kept with the decision.")]


def accept(number: Number, note: Note = "", as_json: AsJson = False) -> None:
    """Do what the item asks, and have its message filed away."""
    _decide(number, True, note, as_json)


def reject(number: Number, note: Note = "", as_json: AsJson = False) -> None:
    """Do nothing; the message stays where it is."""
    _decide(number, False, note, as_json)


def _decide(number: int, accepted: bool, note: str, as_json: bool) -> None:
    config, ledger, item = _find(number)
    if item.state != "open":
        raise Stop(f"item {number} was {item.state} already", NO)
    intake = Intake(ledger, config.config.house, number_lists(ledger, config.config), config.config.bounce)
    try:
        added = intake.decide(item, accepted, note, common.now(), common.actor())
    except NobodyNamed:
        raise Stop(f"item {number} names nobody: use `optoutd suppress ADDR`, then reject it", USAGE) from None
    word = "accepted" if accepted else "rejected"
    refs = [a.evidence for a in added]
    tell(
        _item(item) | {"state": word},
        as_json,
        f"{number}: {word}" + (f" (ref {', '.join(map(str, refs))})" if refs else ""),
    )
