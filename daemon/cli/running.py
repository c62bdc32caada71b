"""run, check-config, demo."""

from __future__ import annotations

import gc
import signal
from typing import Annotated

import typer

from daemon.cli import common


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(demo)
    app.command()(run)
    app.command("check-config")(check_config)


def run() -> None:
    """The daemon, in the foreground.

    It logs to stderr, says `ready` when all its doors are open, and ends on SIGTERM or Ctrl-C.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the daemon heeds it: a reload must not end a start
    loaded = common.loaded()
    from daemon.opening import Busy
    from daemon.service import run  # the whole daemon: a second of imports

    gc.set_threshold(*common.USUAL_GC)
    try:
        run(loaded)
    except Busy as why:
        raise common.Stop(str(why), common.TEMPFAIL) from None


def check_config() -> None:
    """Is the config right? All its problems, or `ok`.

    Each problem is a line on stderr: the option's path, and what is wrong with it. Exit code 78 if there are any.
    """
    from daemon import relaying
    from daemon.config import find, load

    relaying.check(load(find(common.chosen_config)))
    typer.echo("ok")


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the story.")] = False,
) -> None:
    """The whole story in one process, without any config.

    A mailbox, a mail server and the real daemon between them, on free ports of this machine: a campaign goes out, a
    customer writes in, the next campaign is refused for her. Then it stays up, for you to try the other commands on.
    Nothing is left behind.
    """
    from daemon.demo import DemoFailed, play

    gc.set_threshold(*common.USUAL_GC)
    try:
        play(once=once)
    except ModuleNotFoundError as missing:  # pymap comes with the extra only
        raise common.Stop(f"the demo needs {missing.name}: pip install 'optoutd[demo]'", common.CONFIG) from None
    except DemoFailed as why:
        raise common.Stop(f"the demo did not go as it should: {why}", common.SOFTWARE) from None
