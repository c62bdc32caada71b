"""The command line: thin, each command calls one function and says what came of it.

Facts go to stdout (text, or JSON Lines with --json), everything else to stderr. Exit codes are those of sysexits; `invoke`
is the one place where what went wrong becomes a sentence and a number.

Scripts call `optoutd check` once per address, and completion calls optoutd at every Tab: importing the whole daemon
takes a second. So nothing heavy is imported at the top of these modules, but inside the functions that need it
(tests/cli/test_start.py watches).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from daemon import __version__
from daemon.cli import (
    auditing,
    backups,
    braking,
    common,
    digesting,
    doctor,
    exchanging,
    hooks,
    importing,
    keeping,
    lifting,
    links,
    passwords,
    people,
    reading,
    replaying,
    running,
    statistics,
    story,
    subjects,
)
from daemon.cli.common import CONFIG, INTERRUPTED, OK, SOFTWARE, TEMPFAIL, USAGE, ReaderGone, Stop

app = typer.Typer(
    name="optoutd",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Reads the support mailbox, keeps the suppression list, and refuses marketing mail to those on it.",
    epilog="New here? `optoutd demo` shows it all without any configuration.",
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
    if config == "":  # an unset variable in a script must not turn into another config
        raise Stop("-c is empty: name a config file, or leave -c out", USAGE)
    common.chosen_config = config


_GROUPS = (
    running,
    doctor,
    people,
    lifting,
    braking,
    story,
    subjects,
    links,
    reading,
    replaying,
    statistics,
    digesting,
    importing,
    exchanging,
    hooks,
    auditing,
    keeping,
    backups,
    passwords,
)
for group in _GROUPS:
    group.register(app)


def invoke(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code."""
    common.prepare_streams()
    try:
        code = app(list(arguments), standalone_mode=False, prog_name="optoutd")
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the outermost frame: any error is a sentence and an exit code
        code = _told(error)
    finally:
        common.at_end.close()
    return _flushed(code if isinstance(code, int) else OK)


def _told(error: BaseException) -> int:
    """What went wrong, as a sentence on stderr and an exit code."""
    match error:
        case KeyboardInterrupt() | Abort():
            return INTERRUPTED
        case ReaderGone():
            return OK
        case Stop():
            return _say(str(error), error.code)
        case TyperException():
            return _misused(error)
    from daemon.config import ConfigError  # something is wrong already: now the imports may take their time
    from daemon.mail.phrases import Broken
    from storage.engine import Unavailable, Unusable

    match error:
        case ConfigError():
            for problem in error.problems:
                common.note(str(problem) if problem.path else f"optoutd: {problem}")
            return CONFIG
        case Unusable() | Broken():
            return _say(str(error), CONFIG)
        case Unavailable():
            return _say(str(error), TEMPFAIL)
        case OSError(filename=str() as name):
            who = " (run it as the daemon's user, or as root)" if isinstance(error, PermissionError) else ""
            return _say(f"{name}: {error.strerror}{who}", CONFIG)
        case OSError():
            return _say(f"{error.strerror or error}", TEMPFAIL)
    where = _where(error)
    return _say(f"internal error, please report it: {type(error).__name__} in {where}", SOFTWARE)


def _misused(problem: TyperException) -> int:
    sentence = problem.format_message()
    if sentence.startswith("Usage: "):  # `optoutd`, `optoutd review`: the help is the answer
        common.note(sentence)
        return USAGE
    context = getattr(problem, "ctx", None)
    command = context.command_path if context else "optoutd"
    return _say(f"{sentence[:1].lower()}{sentence[1:].rstrip('.')} (see `{command} --help`)", USAGE)


def _where(bug: BaseException) -> str:
    trace = bug.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}" if trace else "?"


def _say(sentence: str, code: int) -> int:
    if sentence:
        common.note(f"optoutd: {sentence}")
    return code


def _flushed(code: int) -> int:
    """Bring out what is buffered. A reader who went away (`| head -1`) had enough; a full disk has not got it all."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        common.forget_stdout()
    except OSError as why:
        common.forget_stdout()
        return _say(f"stdout: {why.strerror}", TEMPFAIL)
    return code
