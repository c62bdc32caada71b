"""audit, migrate: keeping the record."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from daemon.cli import common
from daemon.cli.common import NO, TEMPFAIL, USAGE, AsJson, Stop, note, tell, when

_CHANGED = "somebody changed the record from outside: keep a copy of this database, and compare it with your backups"
group = typer.Typer(no_args_is_help=True, help="The record of every change: is it whole?")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group.command()(verify)
    group.command()(export)
    app.add_typer(group, name="audit")
    app.command()(migrate)


def verify(
    head: Annotated[
        str | None, typer.Option(metavar="SEQ:HASH", help="A head noted earlier; the log must still hold it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Was the record, or the list, changed behind our back?

    Exit code 0: no. 1: yes, and the first bad row is named. Note the head that it prints somewhere else now and then:
    given back with --head it also proves that nobody has replaced the whole log.
    """
    from storage.audit import ChainBroken
    from storage.audit import verify as verify_audit

    noted = _head(head)
    ledger = common.ledger(common.loaded())
    with ledger.reading() as db:
        total = db.exec_driver_sql("SELECT count(*) FROM audit").scalar() or 0
        try:
            with _progress(total) as progress:
                found = verify_audit(db, ledger.site_key, noted, progress)
        except ChainBroken as broken:
            fact = {"ok": False, "rows": total, "head": None, "error": str(broken), "row": broken.seq or None}
            tell(fact, as_json, str(broken))
            note(f"optoutd: {_CHANGED}" + ("; or --head is not of this database" if noted else ""))
            raise typer.Exit(NO) from None
    fact = {"ok": True, "rows": found.seq, "head": str(found), "error": None, "row": None}
    tell(fact, as_json, f"ok, {found.seq} rows, head {found}")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], object]]:
    """A bar on the terminal; told how many rows are done."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("audit rows"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("verify", total=total)
        yield lambda seq: bar.update(task, completed=seq)


def _head(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    seq, _, mac = text.strip().partition(":")
    if not (seq.isascii() and seq.isdigit() and len(seq) < 20 and mac):
        raise Stop("--head is SEQ:HASH, as `optoutd audit verify` prints it", USAGE)
    return int(seq), mac.lower()


def export(as_json: AsJson = False) -> None:
    """The whole record as JSON Lines; no personal data in it.

    With or without --json.
    """
    from storage import suppressions

    ledger = common.ledger(common.loaded())
    numbers = common.list_numbers(ledger)
    with ledger.reading() as db:
        for fact, mac in suppressions.facts(db):
            row: dict[str, Any] = {
                "seq": fact.seq,
                "at": when(fact.at),
                "actor": fact.actor,
                "event": fact.event,
                "key": fact.key.hex() if fact.key else None,
                "scope": None if fact.scope is None else common.scope_word(fact.scope, numbers),
                "reason": common.reason_word(fact.reason),
                "source": fact.source,
                "evidence": fact.evidence,
                "mac": mac.hex(),
            }
            tell(row, True, "")


def migrate() -> None:
    """Bring the database up to date with this version.

    A copy is kept beside it. The daemon must not run meanwhile (`optoutd run` does the same when it starts).
    """
    config = common.loaded()
    if not config.database.exists():
        raise Stop(f"no database at {config.database} yet: `optoutd run` creates it", TEMPFAIL)
    from daemon.opening import Busy, sole_owner
    from storage import engine

    try:
        with sole_owner(config.database):
            before, after = engine.migrate(config.database, config.key_file)
    except Busy as why:
        raise Stop(f"{why}: stop it first", TEMPFAIL) from None
    note(f"schema {after}: nothing to do" if before == after else f"schema {before} -> {after}")
