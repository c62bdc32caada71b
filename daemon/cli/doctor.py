"""doctor: everything tried for real."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from daemon.cli import common
from daemon.cli.common import CONFIG, NO, AsJson, harmless, note, tell

if TYPE_CHECKING:
    from daemon.doctor import Finding

_COLOURS: Final = {"ok": "green", "warn": "yellow", "FAIL": "red"}
_STATE, _PART = 4, 14  # characters
_ERASE: Final = "\r\x1b[K"  # the line on which the cursor stands


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    probe: Annotated[
        bool, typer.Option("--probe", help="Also what leaves traces: a test message, missing folders, a row.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Is all well? Everything is tried for real.

    A line each: `ok`, `warn` (it works; look at it some day) or `FAIL`, the part, what was found, and what to do about it.
    While the daemon runs or while it does not, in some 20 seconds at most. Exit code 1 if anything failed, 78 for a config
    that cannot be used.

    Nothing is changed. With --probe a message goes through the upstream to house.operators_mail (else to the first of
    house.addresses), folders that mail is to be filed into are made where they are missing, and a row is written into the database.
    """
    from daemon.config import ConfigError, find, load

    path = find(common.chosen_config)
    try:
        from daemon import relaying

        loaded = load(path)
        relaying.check(loaded)
    except ConfigError as error:
        from daemon.doctor import files

        _tell_all(files.problems(error, path), as_json)
        raise typer.Exit(CONFIG) from None
    from daemon.doctor import examine

    with _Waiting() as waiting:
        found = _tell_all(waiting.cleared(examine(loaded, traces=probe, trying=waiting.show)), as_json)
    failed = [finding.part for finding in found if finding.state == "FAIL"]
    note(_sum(failed, sum(finding.state == "warn" for finding in found)))
    if failed:
        raise typer.Exit(NO)


def _sum(failed: Sequence[str], warned: int) -> str:
    """`failed`: the part of each failure."""
    if not failed and not warned:
        return "all is well"
    parts = f": {', '.join(dict.fromkeys(failed))}" if failed else ""
    return f"{len(failed)} failed{parts}; {warned} to look at some day (docs/doctor.md explains each line)"


def _tell_all(findings: Iterable[Finding], as_json: bool) -> list[Finding]:
    told = []
    for finding in findings:
        told.append(finding)
        tell(asdict(finding), as_json, "\n".join(_lines(finding)), paint=_painted)
    return told


def _lines(finding: Finding) -> Iterator[str]:
    """One line; on a terminal as many as it takes, the advice on its own."""
    head = f"{finding.state:{_STATE}}  {finding.part:{_PART}}  "
    advice = f"-> {finding.advice}" if finding.advice else ""
    if not _is_terminal(sys.stdout):
        yield f"{head}{finding.text} {advice}".rstrip()
        return
    width, indent = max(shutil.get_terminal_size().columns - 1, 60), " " * (_STATE + _PART + 4)
    for words, first in ((finding.text, head), (advice, indent)):
        if words:
            yield textwrap.fill(
                words,
                width,
                initial_indent=first,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )


def _painted(line: str) -> str:
    """The state in colour, on a terminal that has some."""
    state = line[:_STATE].strip()
    if not _is_terminal(sys.stdout) or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return line
    return typer.style(state, fg=_COLOURS[state], bold=state == "FAIL") + line[len(state) :]


def _is_terminal(stream: object) -> bool:
    return stream is not None and getattr(stream, "isatty", bool)()


class _Waiting:
    """One line on stderr, if that is a terminal, with what is tried just now; gone when something else is told."""

    def __init__(self) -> None:
        self._shows = _is_terminal(sys.stderr)

    def __enter__(self) -> _Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def show(self, doing: Sequence[str]) -> None:
        """What is under way."""
        if self._shows and doing:
            words = harmless(f"... {doing[0]}" + (f" (and {len(doing) - 1} more)" if len(doing) > 1 else ""))
            print(_ERASE + words[: shutil.get_terminal_size().columns - 1], end="", file=sys.stderr, flush=True)

    def cleared(self, findings: Iterable[Finding]) -> Iterator[Finding]:
        """The same findings, each told on a line of its own."""
        for finding in findings:
            self._clear()
            yield finding

    def _clear(self) -> None:
        if self._shows:
            print(_ERASE, end="", file=sys.stderr, flush=True)
