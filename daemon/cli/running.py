"""run, check-config, demo."""

from __future__ import annotations

from typing import Annotated

import typer

from daemon import service
from daemon.cli import common


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(demo)
    app.command()(run)
    app.command("check-config")(check_config)


def run() -> None:
    """The daemon, in the foreground."""
    service.run(common.loaded())


def check_config() -> None:
    """Every problem of the config, one a line on stderr; or `ok`."""
    common.loaded()
    typer.echo("ok")


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the story.")] = False,
) -> None:
    """The whole story in one process: no config, no servers, nothing left behind."""
    from daemon.demo import DemoFailed, play  # its parts are needed nowhere else

    try:
        play(once=once)
    except ModuleNotFoundError as missing:
        raise common.Stop(f"the demo needs {missing.name}: pip install 'optoutd[demo]'", common.CONFIG) from None
    except DemoFailed as why:
        raise common.Stop(f"the demo did not go as it should: {why}", common.SOFTWARE) from None
