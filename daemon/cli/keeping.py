"""migrate: keeping the database."""

from __future__ import annotations

import typer

from daemon.cli import common
from daemon.cli.common import TEMPFAIL, Stop, note


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(migrate)


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
            before, after = engine.migrate(config.database, engine.read_site_key(config.key_file))
    except Busy as why:
        raise Stop(f"{why}: stop it first", TEMPFAIL) from None
    note(f"schema {after}: nothing to do" if before == after else f"schema {before} -> {after}")
