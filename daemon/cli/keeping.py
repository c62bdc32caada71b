"""audit, migrate: keeping the record."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from daemon.cli import common
from daemon.cli.common import NO, USAGE, AsJson, Stop, tell, when
from daemon.service import sole_owner
from storage import audit, engine, suppressions
from storage.engine import Unusable

group = typer.Typer(no_args_is_help=True, help="The record of every state change.")


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
    """Has the record, or the suppression table, been changed behind our back? 0 no, 1 yes (and which row)."""
    noted = _head(head)
    ledger = common.ledger(common.loaded())
    console = Console(stderr=True)
    columns = (TextColumn("audit rows"), BarColumn(), MofNCompleteColumn())
    with (
        ledger.reading() as db,
        Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar,
    ):
        total = db.exec_driver_sql("SELECT count(*) FROM audit").scalar()
        task = bar.add_task("verify", total=total)
        try:
            found = audit.verify(db, ledger.site_key, noted, lambda seq: bar.update(task, completed=seq))
        except audit.ChainBroken as broken:
            tell(
                {"ok": False, "rows": total, "head": None, "error": str(broken), "row": broken.seq or None},
                as_json,
                str(broken),
            )
            raise typer.Exit(NO) from None
    fact = {"ok": True, "rows": found.seq, "head": str(found), "error": None, "row": None}
    tell(fact, as_json, f"ok, {found.seq} rows, head {found}")


def _head(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    seq, _, mac = text.partition(":")
    if not seq.isdigit() or not mac:
        raise Stop("--head is SEQ:HASH, as `audit verify` prints it", USAGE)
    return int(seq), mac.lower()


def export(as_json: AsJson = False) -> None:
    """The whole log as JSON Lines (with or without --json); it holds no personal data."""
    ledger = common.ledger(common.loaded())
    numbers = common.list_numbers(ledger)
    with ledger.reading() as db:
        for fact, mac in suppressions.facts(db):
            row = {
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
    """Bring the database schema up to date (a copy is kept beside it)."""
    config = common.loaded()
    if not config.database.exists():
        raise Unusable(f"no database at {config.database}")
    with sole_owner(config.database):
        before, after = engine.migrate(config.database)
    common.note(f"schema {after}: nothing to do" if before == after else f"schema {before} -> {after}")
