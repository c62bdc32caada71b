"""import: a list that comes from elsewhere."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, BinaryIO, Final

import typer

from daemon.cli import common
from daemon.cli.bars import bar
from daemon.cli.common import DATAERR, NO, NOINPUT, REASONS, USAGE, AsJson, ListOption, Stop, note, tell
from storage.terms import when

if TYPE_CHECKING:
    from daemon.config import Loaded
    from daemon.exchange.asking import Asked
    from daemon.exchange.formats import ForeignList
    from daemon.exchange.importing import Import
    from daemon.exchange.portions import Tally, Terms
    from daemon.exchange.rows import Bad, Found
    from storage.engine import Ledger

_LONG: Final = 1 << 20  # octets from which on a list is read in a process of its own
_SHOWN: Final = 20  # bad rows that are told on stderr
_FORMATS: Final = "auto csv tsv text json ndjson ses sendgrid mailgun postmark mailchimp sparkpost listmonk mautic postfix hashes optoutd"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import")(import_)


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The list; - is stdin.")],
    format_: Annotated[str, typer.Option("--format", metavar="F", help=f"One of: {_FORMATS}.")] = "auto",
    list_id: ListOption = None,
    reason: Annotated[
        str,
        typer.Option(metavar="R", help=f"Of rows that do not say theirs. One of: {', '.join(REASONS)}."),
    ] = "opt-out",
    column: Annotated[
        str | None, typer.Option(metavar="C", help="The column of addresses: its name, or its number from 1.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option(metavar="DATE", help="When those asked whose row has no date: the day of the export.")
    ] = None,
    rejects: Annotated[
        str | None, typer.Option(metavar="PATH", help="Where bad rows are written. Default: FILE.rejects.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before it starts.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a list from elsewhere onto ours. Nobody is ever taken off by it.

    Rows that are here already stay as they are, and who was taken off after the date of a row is left alone: a row without
    a date brings nobody back. Killed in between, the same command goes on where it stopped. Exit code 65: some rows were
    bad (FILE.rejects has them); the others are done.
    """
    from daemon.exchange.formats import FORMATS

    _check(format_, FORMATS, reason, list_id)
    asked = _asked(format_, column, list_id, reason, as_of)
    gc.set_threshold(*common.LISTS_GC)
    config = common.loaded()
    ledger = common.ledger(config, writes=not dry_run)
    numbers = _numbers(config, ledger, list_id, writes=not dry_run)
    with _opened(file, config.key_file.parent) as octets:
        opened = _understood(file, octets, format_, column)
        found = _begin(file, opened, asks=not (yes or dry_run))
        size = os.fstat(octets.fileno()).st_size
        with (
            _Rejects(file, None if dry_run else _beside(file, rejects)) as bad,
            bar("import", size, octets=True) as shown,
        ):
            terms = asked.terms(opened.format, numbers, config.config.bounce.soft_days)
            detail = {"file": _base(file), "format": opened.format}
            it = _import(config, ledger, numbers, terms, detail, size, bad, lambda: shown(octets.tell()))
            tally = it.rehearse(found) if dry_run else _run(it, octets, found, asked)
    _sum_up(tally, as_json, dry_run=dry_run)
    raise typer.Exit(DATAERR if tally.bad else 0)


def _check(format_: str, formats: tuple[str, ...], reason: str, list_id: str | None) -> None:
    if format_ not in formats:
        raise Stop(f"--format {format_!r}: must be one of {', '.join(formats)}", USAGE)
    if reason not in REASONS:
        raise Stop(f"--reason {reason!r}: must be one of {', '.join(REASONS)}", USAGE)
    if reason == "wanted" and list_id is None:
        raise Stop("`wanted` exempts one list: name it with --list", USAGE)


def _asked(format_: str, column: str | None, list_id: str | None, reason: str, as_of: str | None) -> Asked:
    from daemon.cli.people import moment
    from daemon.exchange.asking import Asked

    if as_of is not None:
        moment(as_of, "--as-of")
    return Asked(format_, column, list_id, reason, as_of)


def _numbers(config: Loaded, ledger: Ledger, list_id: str | None, *, writes: bool) -> dict[str, int]:
    """List id -> number. A dry run gives none away: lists that have none yet get numbers that no row has."""
    from daemon.opening import number_lists

    known = common.list_numbers(ledger)
    common.scope_of(list_id, config, known)
    if writes:
        return number_lists(ledger, config.config)
    return {x.id: -n for n, x in enumerate(config.config.list, 1)} | known


# ------------------------------------------------------------------ the file


@contextmanager
def _opened(name: str, scratch: Path) -> Iterator[BinaryIO]:
    """The file, such that it can be read twice. Raises Stop(66)."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_copied(scratch) if name == "-" else _file(name))
        except OSError as why:
            raise Stop(f"{name}: {why.strerror}", NOINPUT) from None
        yield file


def _file(name: str) -> BinaryIO:
    return Path(name).open("rb")


@contextmanager
def _copied(scratch: Path) -> Iterator[BinaryIO]:
    """stdin in a file without a name, beside the ledger: /tmp may be memory."""
    import shutil
    import tempfile

    if sys.stdin is None:
        raise Stop("- is stdin, but stdin is closed", NOINPUT)
    with tempfile.TemporaryFile(dir=scratch) as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.seek(0)
        yield copy


def _understood(name: str, octets: BinaryIO, format_: str, column: str | None) -> ForeignList:
    from daemon.exchange.formats import open_list
    from daemon.exchange.rows import NotUnderstood

    try:
        return open_list(octets, format=format_, column=column)
    except NotUnderstood as why:
        raise Stop(f"{_shown(name)}: {why}", DATAERR) from None
    except OSError as why:  # a directory opens, and cannot be read
        raise Stop(f"{_shown(name)}: {why.strerror}", NOINPUT) from None


def _begin(name: str, opened: ForeignList, *, asks: bool) -> Iterator[Found]:
    """Say what was understood, and ask whether it is right. Returns all rows. Raises Stop(1)."""
    from daemon.exchange.rows import Entry

    found = opened.found()
    first = list(islice(found, 3))
    note(f"{_shown(name)}: {opened.description}")
    masked = [_masked(row.address) for row in first if isinstance(row, Entry) and row.address]
    if masked:
        note(f"it begins with {', '.join(masked)}")
    terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
    if asks and terminal and not typer.confirm("Is that right?", err=True):
        raise Stop("nothing was imported", NO)
    return chain(first, found)


def _shown(name: str) -> str:
    return "stdin" if name == "-" else common.one_line(name)


def _base(name: str) -> str:
    """What is kept of the file's name."""
    return "-" if name == "-" else Path(name).name.encode("utf-8", "backslashreplace").decode()


def _masked(address: str) -> str:
    """Enough to see that it is the right column: terminals are looked over, and logged."""
    local, at, domain = address.partition("@")
    return common.one_line(f"{local[:1]}***{at}{domain}"[:80])


class _Rejects:
    """Where bad rows go: the first on stderr, all of them into a file that appears when it is whole."""

    def __init__(self, name: str, path: Path | None):
        self._name, self._path = _shown(name), path
        self._count = 0
        self._out: IO[str] | None = None
        self._new = path.with_name(path.name + ".new") if path else None

    def __call__(self, bad: Bad) -> None:
        """Tell of one."""
        from daemon.exchange.asking import cell

        self._count += 1
        if self._count <= _SHOWN:
            note(f"{self._name}:{bad.line}: {bad.why}")
        if self._out is None:
            self._open()
        if self._out is not None:
            self._out.write(f"{bad.line}\t{cell(bad.why)}\t{cell(bad.text)}\n")

    def _open(self) -> None:
        if self._new is None:
            return
        try:
            self._out = _created(self._new)
        except OSError as why:  # no reason to leave the good rows undone
            note(
                f"optoutd: {self._new}: {why.strerror}: bad rows are only counted; --rejects names another place for them"
            )
            self._new = None
            return
        self._out.write("line\treason\trow\n")

    def __enter__(self) -> _Rejects:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._count > _SHOWN:
            note(f"... and {self._count - _SHOWN} more bad rows")
        if self._out is None or self._new is None or self._path is None:
            return
        with self._out as out:
            if kind is None:
                out.flush()
                os.fsync(out.fileno())
        if kind is not None:
            self._new.unlink()
            return
        self._new.rename(self._path)
        note(f"bad rows: {common.one_line(str(self._path))}")


def _created(path: Path) -> IO[str]:
    """A new file that only its owner can read, in place of what a killed run left there."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    return os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape")


def _beside(name: str, rejects: str | None) -> Path | None:
    if rejects is not None:
        return Path(rejects)
    return None if name == "-" else Path(name + ".rejects")


# ------------------------------------------------------------------ importing


def _import(
    config: Loaded,
    ledger: Ledger,
    numbers: dict[str, int],
    terms: Terms,
    detail: dict[str, str],
    octets: int,
    bad: Callable[[Bad], object],
    done: Callable[[], object],
) -> Import:
    from daemon.exchange.importing import Import
    from daemon.opening import is_running

    return Import(
        ledger,
        config.config.house,
        numbers,
        terms,
        detail,
        common.actor(),
        common.now,
        alone=lambda: not is_running(config),
        bad=bad,
        done=done,
        ahead=os.cpu_count() != 1 and octets > _LONG,
    )


def _run(it: Import, octets: BinaryIO, found: Iterator[Found], asked: Asked) -> Tally:
    """Do it, or the rest of it."""
    run = it.begin(asked.digest(octets), it.detail["file"])
    if run.position:
        note(f"going on behind row {run.position} of an import that was begun at {when(run.at)}")
    if run.again:
        note(
            f"this list was imported before (begun at {when(run.at)}, as {common.one_line(run.file)}): reading it once more"
        )
    try:
        return it.run(run, found)
    except BaseException:
        note("what is in stays in; the same command goes on from there")
        raise


def _sum_up(tally: Tally, as_json: bool, *, dry_run: bool) -> None:
    if tally.skipped:
        note(
            f"{tally.skipped} skipped: people who were taken off the list since (a row without a date counts as older; --as-of"
            " dates them), and rows that suppress nobody"
        )
    if dry_run:
        note("a dry run: nothing was changed")
    elif not tally.added:
        note("nothing in it was new")
    tell(asdict(tally), as_json, f"{tally.added} added, {tally.already} already there, {tally.bad} bad")
