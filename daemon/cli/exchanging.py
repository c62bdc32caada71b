"""export, scrub: the list goes elsewhere, and other lists are cleaned by it."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final

import typer

from daemon.cli import common
from daemon.cli.bars import bar
from daemon.cli.common import DATAERR, NOINPUT, TEMPFAIL, USAGE, AsJson, ListOption, ReaderGone, Stop, note, tell

if TYPE_CHECKING:
    from daemon.exchange.digests import Digests
    from daemon.exchange.exporting import Counts as Exported
    from daemon.exchange.rows import Bad
    from daemon.exchange.scrubbing import Counts as Scrubbed
    from daemon.exchange.scrubbing import Verdicts
    from daemon.gate import Gate
    from storage.engine import Ledger

# What daemon.exchange.writing has, which takes too long to import for a help text (tests/cli holds the two together).
EXPORT_FORMATS: Final = (
    "csv optoutd ndjson text ses sendgrid mailgun postmark mailchimp sparkpost listmonk mautic postfix hashes"
).split()
EXPORT_HASHES: Final = ("md5", "sha256", "sha512")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(export)
    app.command()(scrub)


# ------------------------------------------------------------------ export


def export(
    format: Annotated[
        str | None, typer.Option("--format", metavar="F", help=f"One of: {', '.join(EXPORT_FORMATS)}.")
    ] = None,
    list_id: Annotated[
        str | None, typer.Option("--list", metavar="ID", help="Whoever may not get mail of this list.")
    ] = None,
    hashed: Annotated[
        str | None,
        typer.Option("--hashed", metavar="H", help=f"No addresses, their hashes: {', '.join(EXPORT_HASHES)}."),
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Exit with 75 if somebody is on the list who cannot be in the file.")
    ] = False,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help="Appears when it is complete; readable for you only.")
    ] = "-",
    as_json: AsJson = False,
) -> None:
    """Give the list to somebody else.

    csv (the default) has every row with list, reason and date, and `optoutd import` reads it back. The other formats have
    a line for each person who may not be mailed at all, or with --list who may not get mail of that list. With --hashed
    the other side can strike people off without being told who they are.
    """
    chosen = _chosen(format, hashed, as_json and output == "-")
    config = common.loaded()
    ledger = common.ledger(config)
    number = None if list_id is None else common.scope_of(list_id, config, common.list_numbers(ledger))
    counts = _exported(ledger, number, output, complete, {**chosen, "list": list_id})
    if as_json and output != "-":
        fact = {"written": counts.written, "without_address": counts.unknown, "not_in_format": counts.unsaid}
        tell(fact, True, "")
    if counts.unsaid:
        note(f"{counts.unsaid} left out: whole domains, or what this format cannot say")
    note(f"{counts.written} written, {counts.unknown} without a known address")
    if complete and not counts.complete:
        raise typer.Exit(TEMPFAIL)


def _chosen(format: str | None, hashed: str | None, as_json: bool) -> dict[str, str]:
    """Format and kind of hash ("" for none). Raises Stop(64)."""
    if format is not None and format not in EXPORT_FORMATS:
        raise Stop(f"--format {format!r}: must be one of {', '.join(EXPORT_FORMATS)}", USAGE)
    if hashed is not None and hashed not in EXPORT_HASHES:
        raise Stop(f"--hashed {hashed!r}: must be one of {', '.join(EXPORT_HASHES)}", USAGE)
    if hashed is not None and format not in (None, "hashes"):
        raise Stop(f"--hashed gives a list of hashes, not --format {format}: leave one of them out", USAGE)
    if as_json and (hashed or format not in (None, "ndjson")):
        raise Stop("--json is --format ndjson, unless the list goes to a file with -o", USAGE)
    if hashed or format == "hashes":
        return {"format": "hashes", "hashed": hashed or "sha256"}
    return {"format": format or ("ndjson" if as_json else "csv"), "hashed": ""}


def _exported(ledger: Ledger, number: int | None, output: str, complete: bool, detail: dict[str, Any]) -> Exported:
    """Write it; noted in the audit log before the file appears, or as soon as the last of it has left us."""
    from daemon.exchange import exporting

    counts = exporting.Counts()
    finished = False
    with _output(output) as put:
        try:
            with ledger.reading() as db, bar("rows", _rows(db)) as progress:
                exporting.export(
                    db,
                    ledger,
                    put,
                    counts,
                    format=detail["format"],
                    digest=detail["hashed"] or None,
                    list_number=number,
                    progress=progress,
                )
            finished = True
        finally:
            left = output == "-" or (finished and (counts.complete or not complete))
            if left and (finished or counts.written):  # even when broken off: somebody has a part of the list
                numbers = {"written": counts.written, "without_address": counts.unknown, "complete": finished}
                exporting.record(ledger, common.now(), common.actor(), number, **detail, **numbers)
        if not left:
            raise Stop(
                f"{counts.unknown} without a known address, {counts.unsaid} that this format cannot say: nothing written"
                " (leave --complete out if that is all right)",
                TEMPFAIL,
            )
    return counts


def _rows(db: Any) -> int | None:
    """How many there are, for the bar: counting them takes a while at ten million, and nobody looks."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    return int(db.exec_driver_sql("SELECT count(*) FROM suppression").scalar() or 0)


# ------------------------------------------------------------------ scrub


def scrub(
    source: Annotated[str, typer.Argument(metavar="IN", help="The list: CSV, TSV, JSON Lines or text; - is stdin.")],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="OUT", help="Who may be mailed. Appears when it is complete.")
    ],
    removed: Annotated[
        str | None, typer.Option("--removed", metavar="FILE", help="The rows that are not in OUT for being suppressed.")
    ] = None,
    column: Annotated[
        str | None, typer.Option("--column", metavar="C", help="Where the addresses are: a name, or a number from 1.")
    ] = None,
    list_id: ListOption = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="HASHFILE", help="Also remove whose MD5 or SHA-256 is in it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take everybody who may not be mailed out of a list.

    What stays is byte for byte as it was and in its order, the header too. A row without a readable address cannot be
    mailed: it is told, and is not in OUT. With --list who left that list goes, too; without it, only who left everything.

    Exit code 65: some rows could not be read. 75: cannot tell; there is no OUT then.
    """
    _usable(output, removed, as_json)
    verdicts = _verdicts(list_id)
    hashes, bad_hashes = _hashes(against)
    with ExitStack() as files:
        file = files.enter_context(_input(source))
        counts = _scrubbed(file, source, column, verdicts, (output, removed), hashes)
    fact = {
        "kept": counts.kept,
        "removed": counts.removed,
        "unreadable": counts.unreadable,
        "reasons": dict(sorted(counts.reasons.items())),
    }
    if as_json:
        tell(fact, True, "")
    for reason, number in sorted(counts.reasons.items(), key=lambda x: (-x[1], x[0])):
        note(f"removed for {reason}: {number}")
    note(f"{counts.kept} kept, {counts.removed} removed, {counts.unreadable} unreadable")
    if counts.unreadable or bad_hashes:
        raise typer.Exit(DATAERR)


def _usable(output: str, removed: str | None, as_json: bool) -> None:
    if (output == "-") + (removed == "-") + as_json > 1:
        raise Stop("only one thing can go to stdout: OUT, the removed rows, or --json", USAGE)
    if removed is not None and removed != "-" and os.path.realpath(removed) == os.path.realpath(output):
        raise Stop("-o and --removed are the same file", USAGE)


def _verdicts(list_id: str | None) -> Verdicts:
    """The decision, as scrubbing asks for it. Raises Stop(64) for an unknown list."""
    from daemon.gate import Gate
    from daemon.opening import lookup_of

    gc.set_threshold(*common.LISTS_GC)
    config = common.loaded()
    ledger = common.ledger(config)
    numbers = common.list_numbers(ledger)
    common.scope_of(list_id, config, numbers)
    lookup = lookup_of(ledger, for_lists=True)
    common.at_end.callback(lookup.close)
    return _asking(Gate(lookup, numbers), list_id)


def _asking(gate: Gate, list_id: str | None) -> Verdicts:
    from daemon.gate import Refused, Unknown
    from storage.address import NotAnAddress
    from storage.engine import Unavailable

    def verdicts(texts: Sequence[str]) -> list[str | NotAnAddress]:
        words: list[str | NotAnAddress] = []
        for answer in gate.may_each(texts, list_id):
            match answer:
                case Refused():
                    words.append(answer.verdict.reason.word)
                case Unknown():
                    raise Unavailable(answer.why)
                case NotAnAddress():
                    words.append(answer)
                case _:
                    words.append("")
        return words

    return verdicts


def _hashes(path: str | None) -> tuple[Digests | None, int]:
    """The hashes of --against, and how many rows of it were none. Raises Stop."""
    if path is None:
        return None, 0
    from daemon.exchange import digests
    from daemon.exchange.rows import NotUnderstood

    found = digests.Digests()
    bad = 0
    with _input(path) as file:
        try:
            for row in digests.read(file, found):
                bad += 1
                _complain(path)(row)
        except NotUnderstood as why:
            raise Stop(f"{path}: {why}", DATAERR) from None
    return found, bad


def _scrubbed(
    file: BinaryIO,
    source: str,
    column: str | None,
    verdicts: Verdicts,
    targets: tuple[str, str | None],
    hashes: Digests | None,
) -> Scrubbed:
    from daemon.exchange.rows import NotUnderstood
    from daemon.exchange.scrubbing import Scrub

    with ExitStack() as files:
        try:
            found = Scrub(file, column)
            note(f"{source}: {found.description}")
            kept, removed = [None if t is None else files.enter_context(_output(t)) for t in targets]
            assert kept is not None
            with bar("rows", None) as progress:
                return found.run(verdicts, kept, removed, hashes, _complain(source), progress)
        except NotUnderstood as why:
            raise Stop(f"{source}: {why}", DATAERR) from None


def _complain(path: str) -> Callable[[Bad], None]:
    return lambda row: note(f"{path}:{row.line}: {row.why}")


# ------------------------------------------------------------------ files


@contextmanager
def _input(path: str) -> Iterator[BinaryIO]:
    """A file, or stdin. Raises Stop(66)."""
    if path == "-":
        if sys.stdin is None:
            raise Stop("- is stdin, but stdin is closed", NOINPUT)
        yield sys.stdin.buffer
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(Path(path).open("rb"))
            file.peek(1)  # a directory opens, and cannot be read
        except OSError as why:
            raise Stop(f"{path or repr(path)}: {why.strerror}", NOINPUT) from None
        yield file


@contextmanager
def _output(path: str) -> Iterator[Callable[[bytes], object]]:
    """What takes the octets: a file that appears when the block ends well, or stdout. Raises Stop, ReaderGone."""
    if path == "-":
        yield _to_stdout
        return
    from daemon.exchange.files import appearing

    with ExitStack() as stack:
        try:
            file = stack.enter_context(appearing(Path(path)))
        except OSError as why:
            raise Stop(f"{path or repr(path)} cannot be written: {why.strerror}", USAGE) from None
        yield file.write


def _to_stdout(octets: bytes) -> None:
    if sys.stdout is None:
        raise Stop("stdout is closed", TEMPFAIL)
    try:
        sys.stdout.buffer.write(octets)
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError as why:
        common.forget_stdout()
        raise Stop(f"stdout: {why.strerror}", TEMPFAIL) from None
