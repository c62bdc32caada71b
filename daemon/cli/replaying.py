"""replay: requests in old mail that were never honoured."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli import common
from daemon.cli.bars import steps
from daemon.cli.common import NOINPUT, TEMPFAIL, USAGE, AsJson, Stop, note, tell
from storage.terms import when

if TYPE_CHECKING:
    from daemon.config import Loaded
    from daemon.intake import Intake
    from daemon.replay import Found, Source
    from storage.engine import Ledger


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MAILBOX|PATH",
            help="A [[mailbox]] of the config by name, or a Maildir, an mbox, a tree of .eml files.",
        ),
    ],
    since: Annotated[str | None, typer.Option(metavar="DATE", help="Only what came on or after this day.")] = None,
    folder: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Of a mailbox: this folder, not the watched and the filed ones."),
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Record what is missing, with its original date.")] = False,
    reviews: Annotated[
        bool, typer.Option("--reviews", help="With --apply: queue what only a person can judge.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read old mail: who asked to be left alone, and was it done?

    A dry run unless --apply. The mailbox or archive is not changed, and nobody is written to. A line per request, oldest
    first: when it came, from whom, and what became of it (missing, suppressed since, lifted, taken-back, doubtful).
    """
    from daemon import events
    from daemon import replay as old_mail
    from daemon.intake import Intake
    from daemon.opening import number_lists

    day = _day(since)
    if reviews and not apply:
        raise Stop("--reviews says what to do with --apply: give both", USAGE)
    loaded = common.loaded()
    ledger = common.ledger(loaded, writes=apply)
    events.configure("auto", "warning")
    numbers = number_lists(ledger, loaded.config) if apply else common.list_numbers(ledger)
    intake = Intake(ledger, loaded.config.house, numbers, loaded.config.bounce)
    found = _search(loaded, source, folder, day, ledger, intake)
    if apply:
        found = old_mail.apply(found, intake, common.now, common.actor(), reviews=reviews)
    for request in found:
        tell(_fact(request), as_json, _line(request))
    _sum_up(found, applied=apply)
    if apply and not folder:
        _close_gap(loaded, source, day, ledger)


def _close_gap(loaded: Loaded, name: str, since: datetime | None, ledger: Ledger) -> None:
    """After `restore --defer`: has what was read now closed what was missing?"""
    from storage import deferral
    from storage.write import write

    mailboxes = [box.name for box in loaded.config.mailbox]
    with ledger.connect() as db:
        gap = deferral.deferred(db)
    if gap is None or name not in mailboxes:
        return
    with write(ledger, common.now(), common.actor()) as w:
        left = deferral.replayed(w, name, since, mailboxes)
    if left is None:
        note(f"everybody is still answered 451: changes since {when(gap.since)} may be missing, give that as --since")
    elif left:
        note(f"everybody is still answered 451, until this was done for {', '.join(sorted(left))}, too")
    else:
        note("the gap of the restore is closed: from now on everybody is answered again")


def _day(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        day = datetime.fromisoformat(text)
    except ValueError:
        raise Stop(f"--since {text!r} is not a date such as 2024-05-31", USAGE) from None
    return day if day.tzinfo else day.replace(tzinfo=UTC)


def _search(
    loaded: Loaded, name: str, folders: list[str] | None, since: datetime | None, ledger: Ledger, intake: Intake
) -> list[Found]:
    from daemon import replay as old_mail
    from daemon.archives import CannotOpen

    try:
        source = _source(loaded, name, folders, since)
        with steps("messages", source.total or None) as progress:
            return old_mail.search(source, ledger, intake, since=since, mailbox=name, progress=progress)
    except CannotOpen as why:
        known = ", ".join(box.name for box in loaded.config.mailbox) or "none"
        raise Stop(f"{name}: {why}; nor is it a mailbox of the config ({known})", NOINPUT) from None
    except old_mail.MailboxFailed as failure:
        raise Stop(f"mailbox {name}: {failure}", TEMPFAIL) from None


def _source(loaded: Loaded, name: str, folders: list[str] | None, since: datetime | None) -> Source:
    from daemon import replay as old_mail

    settings = next((box for box in loaded.config.mailbox if box.name == name), None)
    if settings is None:
        if folders:
            raise Stop(f"--folder is for a mailbox of the config, and {name!r} is none", USAGE)
        return old_mail.archive(name, note)
    if folders:
        return old_mail.folder(loaded, settings, folders, since)
    return old_mail.folder(loaded, settings, settings.folders, since, filed=settings.processed_folder)


def _fact(found: Found) -> dict[str, Any]:
    reading = found.reading
    return {
        "file": found.file,
        "received": when(found.received),
        "from": found.sender or None,
        "addresses": list(reading.addresses),
        "scope": ";".join(reading.scope),
        "rules": list(reading.rules),
        "words": reading.words,
        "state": found.state,
        "since": when(found.since),
    }


def _line(found: Found) -> str:
    reading = found.reading
    people = ", ".join(reading.addresses) or found.sender or "(nobody named)"
    came = when(found.received) or "(no date)"
    since = f" since {when(found.since)}" if found.since else ""
    words = " ".join(reading.words.split())[:80]
    return (
        f"{came}  {found.state}{since}  {people}  ({';'.join(reading.scope)})  {words!r}  {common.one_line(found.file)}"
    )


def _sum_up(found: list[Found], *, applied: bool) -> None:
    states = Counter(f.state for f in found)
    people = {a.lower() for f in found if f.state in ("missing", "applied") for a in f.reading.addresses}
    parts = [
        f"{states[state]} {state}" for state in ("missing", "applied", "suppressed", "lifted", "taken-back", "doubtful")
    ]
    many = "1 message that asks or may ask" if len(found) == 1 else f"{len(found)} messages that ask or may ask"
    told = ", ".join(p for p in parts if not p.startswith("0 "))
    note(f"{many}: {told}" if found else "nobody asked")
    if people:
        who = "1 person" if len(people) == 1 else f"{len(people)} people"
        if applied:
            note(f"{who} {'is' if len(people) == 1 else 'are'} suppressed now")
        else:
            note(f"{who} never left the list; nothing was changed, --apply records it")
