"""migrate: a newer schema, another database, another site key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli import common, rekeying
from daemon.cli.bars import bar
from daemon.cli.common import NO, TEMPFAIL, USAGE, AsJson, Stop, note, tell

if TYPE_CHECKING:
    from daemon.config import Loaded
    from storage.postgres import Server


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(migrate)


def migrate(
    to: Annotated[
        str | None, typer.Option(metavar="URL", help="Move the whole list into this empty PostgreSQL database.")
    ] = None,
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Put a new site key in front of those in the key file.")
    ] = False,
    re_key: Annotated[
        bool, typer.Option("--re-key", help="Move the rows of people whose address is known to the newest site key.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the database up to date, or move the list to another.

    Without an option: the schema. SQLite: a copy is kept beside it, and the daemon must not run meanwhile (`optoutd run`
    does the same when it starts). PostgreSQL: other nodes go on; an empty database gets its schema, and this node the site
    key that goes with it. With --to everything is copied and proved equal; what is in the config stays as it is until you
    change it. With --new-key no daemon may run; --re-key goes on beside one that was started with the new key.
    """
    if sum((to is not None, new_key, re_key)) > 1:
        raise Stop("one of --to, --new-key and --re-key at a time", USAGE)
    config = common.loaded()
    if to is not None:
        _move(config, to)
    elif new_key:
        rekeying.add(config, as_json)
    elif re_key:
        rekeying.move(config, as_json)
    else:
        before, after = _migrate_server(config) if config.in_postgres else _migrate_file(config)
        if as_json:
            tell({"before": before, "after": after}, True, "")
        note(f"schema {after}: nothing to do" if before == after else f"schema {before or '(none)'} -> {after}")


def _migrate_file(config: Loaded) -> tuple[str, str]:
    from daemon.opening import Busy, sole_owner
    from storage import engine, sqlite

    if not config.database.exists():
        raise Stop(f"no database at {config.database} yet: `optoutd run` creates it", TEMPFAIL)
    try:
        with sole_owner(config.database):
            return sqlite.migrate(config.database, engine.read_site_key(config.key_file))
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
    from storage import engine, sqlite, transfer
    from storage.audit import ChainBroken
    from storage.postgres import move_in

    if config.database.exists():
        sqlite.migrate(config.database, engine.read_site_key(config.key_file))
    ledger = common.ledger(config)
    with ledger.reading() as db:
        total = transfer.size(db)
    try:
        with bar("rows", total) as progress:
            return move_in(server, ledger, progress)
    except (transfer.NotEqual, ChainBroken) as wrong:
        raise Stop(f"nothing was moved: {wrong}", NO) from None
