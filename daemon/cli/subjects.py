"""erase, and the two papers of `show`: what we hold on a person, and what we can prove of one."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from daemon.cli import common
from daemon.cli.bars import steps
from daemon.cli.common import NO, USAGE, AsJson, Stop, note, tell
from daemon.papers import certificate, dossier, erasing

if TYPE_CHECKING:
    from daemon.config import Config, Loaded
    from storage.address import Address
    from storage.engine import Ledger
    from storage.people import Erased

_BACKUPS: Final = 48  # hourly ones are kept


def register(app: typer.Typer) -> None:
    """Add the command; `show` is in story.py."""
    app.command()(erase)


# ------------------------------------------------------------------ erase


def erase(
    address: Annotated[str, typer.Argument(metavar="ADDR", help="Who is to be forgotten.")], as_json: AsJson = False
) -> None:
    """Forget somebody, who is never mailed all the same.

    Every address, message and word of theirs goes; a keyed digest stays, so that no mail goes to them. Nothing is learned
    about them again. Of somebody we never met nothing is written down, and the exit code is 0, too.
    """
    from storage import people

    config = common.loaded()
    person = _person(address)
    ledger = common.ledger(config)
    with steps("looking for them") as step:
        done = people.erase_everywhere(ledger, person, common.now(), common.actor(), step)
        copies = _copies(config, ledger, done.spelled, step)
    fact = erasing.facts(done, person, common.list_numbers(ledger), copies)
    tell(fact, as_json, erasing.text(fact))
    _warn(done, copies, ledger)


def _person(text: str) -> Address:
    person = common.address(text)
    if person.is_domain:
        raise Stop(
            f"{text} is a whole domain, not a person (`optoutd lift {text} --because ...` ends its suppression)", USAGE
        )
    return person


def _copies(config: Loaded, ledger: Ledger, spelled: Iterable[str], step: Callable[[], object]) -> list[str]:
    """The files that still hold the address: copies and backups of the database, and itself where it is not clean."""
    beside = ledger.store.files()
    backup_dir = config.config.storage.backup_dir
    backups = sorted(config.file(backup_dir).rglob("*")) if backup_dir else []
    needles = _needles(spelled)
    found = []
    for path in dict.fromkeys([*beside, *backups]):
        with suppress(OSError):  # gone meanwhile, or not ours to read
            if path.is_file() and _holds(path, needles):
                found.append(str(path))
        step()
    return found


def _needles(spelled: Iterable[str]) -> re.Pattern[bytes]:
    from storage.address import forms, parse

    texts = {form for text in spelled for kind, form in forms(parse(text)) if kind != "domain"} | set(spelled)
    octets = sorted(text.encode("utf-8", "surrogateescape") for text in texts)
    return re.compile(b"|".join(map(re.escape, octets)), re.IGNORECASE)


def _holds(path: Path, needles: re.Pattern[bytes], piece: int = 1 << 20, longest: int = 400) -> bool:
    """Is one of these in a file?"""
    end = b""
    with path.open("rb") as file:
        while octets := file.read(piece):
            if needles.search(end + octets):
                return True
            end = octets[-longest:]
    return False


def _warn(done: Erased, copies: list[str], ledger: Ledger) -> None:
    """What is to be known besides, and what we cannot reach."""
    from storage.terms import ALL, Reason

    if done.undecided:
        many = ", ".join(map(str, done.undecided))
        safe = any(r[1] == ALL and r[2] != Reason.WANTED for r in done.suppressions)
        stands = "they get no mail anyway" if safe else "they may still be mailed: look at it in the mailbox"
        note(f"optoutd: doubtful mail of theirs was closed without a decision (review {many}); {stands}")
    if done.shared:
        refs = ", ".join(map(str, done.shared))
        note(
            f"optoutd: others asked in the same message (ref {refs}): they stay suppressed, but its words are gone for them, too"
        )
    if not done.clean:
        note("optoutd: the log beside the database could not be emptied yet; the daemon does it within the hour")
    live = set(map(str, ledger.store.files(live=True)))
    for path in copies:
        if path in live and done.clean:
            advice = "an earlier version left it in a free page: stop the daemon and run VACUUM on the database"
            note(f"optoutd: {path} still holds the address: {advice}")
        elif path not in live:
            note(f"optoutd: {path} still holds the address: delete it, or let it run out")
    if done.known:
        note(
            f"optoutd: not in our reach: backups (hourly ones are gone after {_BACKUPS} h, others are yours), the messages in"
            " the mailbox itself, the logs of your mail servers, your mailing tools"
        )


# ------------------------------------------------------------------ the papers of `show`


def for_subject(address: str, output: str | None, as_json: bool) -> None:
    """All we hold on a person, to be handed over."""
    config, ledger, person = _opened(address)
    fact = dossier.made(ledger, person, config.house.name, config.retention.model_dump(), common.now())
    written = dossier.text(fact)
    _deliver(fact, written, output, as_json)
    if not as_json:
        blanks = dossier.blanks(written)
        note(f"optoutd: before you hand it over, complete the {blanks} places that only you can: [to be completed]")


def certify(address: str, output: str | None, as_json: bool) -> None:
    """What can be proven of a person."""
    config, ledger, person = _opened(address)
    fact = certificate.made(ledger, person, config.house.name, common.now())
    if fact is None:
        raise Stop(f"nothing is on record about {person}: there is nothing to certify", NO)
    _deliver(fact, certificate.text(fact), output, as_json)
    if not fact["chain"]["ok"]:
        note(f"optoutd: {fact['chain']['error']}: keep a copy of this database, and compare it with your backups")
        raise typer.Exit(NO)


def _opened(address: str) -> tuple[Config, Ledger, Address]:
    loaded = common.loaded()
    person = _person(address)
    return loaded.config, common.ledger(loaded), person


def _deliver(fact: dict[str, Any], written: str, output: str | None, as_json: bool) -> None:
    if output in (None, "-"):
        tell(fact, as_json, written.rstrip("\n"))
        return
    assert output is not None
    octets = json.dumps(fact, ensure_ascii=False) + "\n" if as_json else common.harmless(written)
    write_file(Path(output), octets.encode("utf-8", "backslashreplace"))


def write_file(path: Path, octets: bytes) -> None:
    """A file for its owner only, which appears when it is whole. Raises OSError."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    except FileNotFoundError as why:
        raise FileNotFoundError(why.errno, why.strerror, str(path)) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
