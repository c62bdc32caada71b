"""The command line: thin, each command calls one function and says what came of it.

Facts go to stdout (text, or JSON Lines with --json), everything else to stderr. Exit codes are CONTRACT 1's; `invoke`
is the one place where what went wrong becomes a sentence and a number.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from daemon import __version__, events
from daemon.cli import common, keeping, people, reading, running
from daemon.cli.common import CONFIG, DATAERR, INTERRUPTED, SOFTWARE, TEMPFAIL, USAGE
from daemon.config import ConfigError
from daemon.service import Busy
from storage.engine import Unavailable, Unusable

app = typer.Typer(
    name="optoutd",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Reads the support mailbox, keeps the suppression list, and refuses marketing mail to those on it.",
    epilog="`optoutd demo` shows it all without any configuration.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"optoutd {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    config: Annotated[
        str | None,
        typer.Option(
            "--config", "-c", metavar="FILE", help="Default: $OPTOUTD_CONFIG, ./optoutd.toml, /etc/optoutd/config.toml."
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which version.")
    ] = False,
) -> None:
    common.chosen_config = config


for group in (running, people, reading, keeping):
    group.register(app)


def invoke(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code."""
    events.configure("auto", "warning")
    try:
        code = app(list(arguments), standalone_mode=False, prog_name="optoutd")
        sys.stdout.flush()
    except TyperException as problem:
        return _say(f"{problem.format_message()} (see `optoutd --help`)", USAGE)
    except common.Stop as stop:
        return _say(str(stop), stop.code)
    except ConfigError as error:
        for wrong in error.problems:
            print(wrong, file=sys.stderr)
        return CONFIG
    except Unusable as why:
        return _say(str(why), CONFIG)
    except (Unavailable, Busy) as why:
        return _say(str(why), TEMPFAIL)
    except BrokenPipeError:  # `optoutd list | head`
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except UnicodeEncodeError:
        return _say("an argument is not valid UTF-8", DATAERR)
    except Exception as bug:  # noqa: BLE001 - the outermost loop of a door
        return _say(f"internal error, please report it: {type(bug).__name__} in {_where(bug)}", SOFTWARE)
    return code if isinstance(code, int) else 0


def _where(bug: BaseException) -> str:
    trace = bug.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}" if trace else "?"


def _say(sentence: str, code: int) -> int:
    if sentence:
        print(f"optoutd: {sentence}", file=sys.stderr)
    return code
