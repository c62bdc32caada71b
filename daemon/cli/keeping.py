"""audit, migrate: keeping the record."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli import common
from daemon.cli.common import NO, TEMPFAIL, USAGE, AsJson, Stop, note, tell, when

if TYPE_CHECKING:
    from daemon.config import Loaded
    from storage.postgres import Server

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
            with _progress("audit rows", total) as progress:
                found = verify_audit(db, ledger.site_key, noted, progress)
        except ChainBroken as broken:
            fact = {"ok": False, "rows": total, "head": None, "error": str(broken), "row": broken.seq or None}
            tell(fact, as_json, str(broken))
            note(f"optoutd: {_CHANGED}" + ("; or --head is not of this database" if noted else ""))
            raise typer.Exit(NO) from None
    fact = {"ok": True, "rows": found.seq, "head": str(found), "error": None, "row": None}
    tell(fact, as_json, f"ok, {found.seq} rows, head {found}")


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """A bar on the terminal; told how many rows are done."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
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


def migrate(
    to: Annotated[
        str | None, typer.Option(metavar="URL", help="Move the whole list into this empty PostgreSQL database.")
    ] = None,
) -> None:
    """Bring the database up to date with this version, or move the list to another database.

    SQLite: a copy is kept beside it, and the daemon must not run meanwhile (`optoutd run` does the same when it starts).
    PostgreSQL: other nodes go on; an empty database gets its schema, and this node the site key that goes with it.
    With --to everything is copied and proved equal; what is in the config stays as it is until you change it.
    """
    config = common.loaded()
    if to is not None:
        _move(config, to)
        return
    before, after = _migrate_server(config) if config.in_postgres else _migrate_file(config)
    note(f"schema {after}: nothing to do" if before == after else f"schema {before or '(none)'} -> {after}")


def _migrate_file(config: Loaded) -> tuple[str, str]:
    from daemon.opening import Busy, sole_owner
    from storage import engine

    if not config.database.exists():
        raise Stop(f"no database at {config.database} yet: `optoutd run` creates it", TEMPFAIL)
    try:
        with sole_owner(config.database):
            return engine.migrate(config.database)
    except Busy as why:
        raise Stop(f"{why}: stop it first", TEMPFAIL) from None


def _migrate_server(config: Loaded) -> tuple[str | None, str]:
    from daemon.opening import server_of

    server = server_of(config)
    from storage import postgres

    before, after = postgres.migrate(server, config.key_file)
    if before is None:
        note(
            f"a new site key is in {config.key_file}: every node needs this file, and you a copy apart from the database"
        )
    return before, after


def _move(config: Loaded, url: str) -> None:
    from daemon.config import ConfigError
    from daemon.opening import Busy, server_of, sole_daemon

    if config.in_postgres:
        raise Stop("--to moves a list out of an SQLite file; storage.url is in PostgreSQL already", USAGE)
    try:
        server = server_of(config.with_url(url))
    except ConfigError as wrong:
        raise Stop(f"--to {url}: {wrong.problems[0].sentence}", USAGE) from None
    try:
        with sole_daemon(config):
            copied = _moved(config, server)
    except Busy as why:
        raise Stop(f"{why}: stop it first", TEMPFAIL) from None
    note(f"{sum(copied.values())} rows are there and equal, {copied['suppression']} suppressions among them")
    note(f'now set storage.url = "{url}" on every node, and give each the site key {config.key_file}')


def _moved(config: Loaded, server: Server) -> dict[str, int]:
    from storage import engine, transfer
    from storage.audit import ChainBroken
    from storage.postgres import move_in

    if config.database.exists():
        engine.migrate(config.database)
    ledger = common.ledger(config)
    with ledger.reading() as db:
        total = transfer.size(db)
    try:
        with _progress("rows", total) as progress:
            return move_in(server, ledger, progress)
    except (transfer.NotEqual, ChainBroken) as wrong:
        raise Stop(f"nothing was moved: {wrong}", NO) from None
