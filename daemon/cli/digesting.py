"""digest: what was kept in the last days, as the weekly mail tells it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from daemon.cli import common
from daemon.cli.common import USAGE, AsJson, Stop, tell
from daemon.cli.people import moment


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(digest)


def digest(
    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="From then on: YYYY-MM-DD, or RFC 3339. Default: 7 days ago.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Was the promise kept, and by which numbers?

    This is what house.operators_mail gets once a week ([duty] digest). It is read from the ledger: the daemon need not run.
    """
    from daemon.duty import digest as digests
    from storage.week import WEEK, week

    now = datetime.now(UTC)
    start = now - WEEK if since is None else moment(since)
    if start >= now:
        raise Stop(f"--since {since}: is not in the past", USAGE)
    config = common.loaded()
    found = week(common.ledger(config), start, now)
    due = timedelta(hours=config.config.duty.due_hours)
    tell(digests.fact(found), as_json, digests.text(found, due).rstrip("\n"))
