"""audit: the record of every change, verified and given out."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from daemon.cli import common
from daemon.cli.bars import bar
from daemon.cli.common import DATAERR, NO, NOINPUT, USAGE, AsJson, Stop, note, tell

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from storage.audit import Head, Noted
    from storage.engine import Ledger

_CHANGED: Final = (
    "somebody changed the record from outside: keep a copy of this database, and compare it with your backups"
)
_HEAD: Final = re.compile(r"(?<![0-9A-Za-z:])([0-9]{1,19}):([0-9A-Fa-f]{32})(?![0-9A-Za-z:])")
_LINE: Final = 65_536  # characters of a line that are looked at
group = typer.Typer(no_args_is_help=True, help="The record of every change: is it whole?")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group.command()(verify)
    group.command()(export)
    app.add_typer(group, name="audit")


# ------------------------------------------------------------------ verify


def verify(
    head: Annotated[
        str | None, typer.Option(metavar="SEQ:HASH", help="A head noted earlier; the log must still hold it.")
    ] = None,
    heads: Annotated[
        str | None, typer.Option(metavar="FILE", help="Every SEQ:HASH in a text, such as the system log; - is stdin.")
    ] = None,
    since_last: Annotated[
        bool, typer.Option("--since-last", help="Only what was written since the last check that found all well.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Was the record, or the list, changed behind our back?

    Exit code 0: no. 1: yes, and the table and the first bad row are named. Everything is compared: the record, the
    evidence behind it, all rows of the list, and the numbers of the mailing lists. The daemon does this every night.

    --since-last is quick whatever the size, and sees less: new rows of the record, their evidence and its end. What
    somebody did to older rows, or to the list itself, only the full check finds. The daemon does this every hour, and
    writes the head to its log: given back with --head or --heads it proves that nobody, not even an administrator with
    the site key, has replaced the record.
    """
    noted = [*_given(head), *_found(heads)]
    ledger = common.ledger(common.loaded())
    from storage.audit import ChainBroken

    with ledger.reading() as db:
        total = _count(db, since_last)
        try:
            with bar("rows", total) as progress:
                found, since = _verified(db, ledger, noted, progress, since_last)
        except ChainBroken as broken:
            _tell_broken(broken, _audit_rows(db), as_json, noted=bool(noted))
            raise typer.Exit(NO) from None
    _remember(ledger, found)
    fact = {"ok": True, "rows": found.seq, "head": str(found), "error": None, "row": None, "table": None}
    new = f" ({found.seq - since} of them since the last check)" if since_last else ""
    tell(fact, as_json, f"ok, {found.seq} rows, head {found}{new}")
    if noted:
        note(f"{len(noted)} noted head{'s are' if len(noted) > 1 else ' is'} part of it")


def _verified(
    db: Connection, ledger: Ledger, noted: list[Noted], progress: Callable[[int], object], since_last: bool
) -> tuple[Head, int]:
    from storage import audit

    if since_last:
        return audit.verify_new(db, ledger.site_key, progress, heads=noted)
    return audit.verify(db, ledger.site_key, None, progress, heads=noted), 0


def _tell_broken(broken: Any, rows: int, as_json: bool, *, noted: bool) -> None:
    fact = {"ok": False, "rows": rows, "head": None, "error": str(broken), "row": broken.row, "table": broken.table}
    tell(fact, as_json, str(broken))
    note(f"optoutd: {_CHANGED}" + ("; or a given head is not of this database" if noted else ""))


def _remember(ledger: Ledger, head: Head) -> None:
    """Where the next --since-last begins. It has been verified all the same if that cannot be written down."""
    from storage.audit import remember_verified
    from storage.engine import Unavailable
    from storage.write import write

    with suppress(Unavailable), write(ledger, common.now(), common.actor()) as w:
        remember_verified(w.db, ledger.site_key, head)


def _audit_rows(db: Connection) -> int:
    return int(db.exec_driver_sql("SELECT count(*) FROM audit").scalar() or 0)


def _count(db: Connection, since_last: bool) -> int | None:
    """How many rows there are to go through; not counted where nobody looks on."""
    from storage.audit import rows_to_verify

    return None if since_last or not sys.stderr.isatty() else rows_to_verify(db)


# ------------------------------------------------------------------ heads noted earlier


def _given(text: str | None) -> list[Noted]:
    if text is None:
        return []
    seq, _, mac = text.strip().partition(":")
    if not (seq.isascii() and seq.isdigit() and len(seq) < 20 and mac):
        raise Stop("--head is SEQ:HASH, as `optoutd audit verify` prints it", USAGE)
    return [(int(seq), mac.lower())]


def _found(file: str | None) -> list[Noted]:
    """The heads in a text, each once. Raises Stop: 66 if it cannot be opened, 65 if there is none in it."""
    if file is None:
        return []
    if file == "-":
        if sys.stdin is None:
            raise Stop("- is stdin, but stdin is closed", NOINPUT)
        noted = _heads_in(sys.stdin)
    else:
        try:
            with Path(file).open(encoding="utf-8", errors="replace") as lines:
                noted = _heads_in(lines)
        except OSError as why:
            raise Stop(f"--heads {file}: {why.strerror}", NOINPUT) from None
    if not noted:
        raise Stop(f"--heads {file}: no SEQ:HASH in it; the daemon logs one an hour (event audit_head)", DATAERR)
    return noted


def _heads_in(lines: Iterable[str]) -> list[Noted]:
    return sorted({(int(seq), mac.lower()) for line in lines for seq, mac in _HEAD.findall(line[:_LINE])})


# ------------------------------------------------------------------ export


def export(
    since: Annotated[int, typer.Option(metavar="SEQ", min=0, help="Only the rows after this one.")] = 0,
    as_json: AsJson = False,
) -> None:
    """The whole record as JSON Lines; no personal data in it.

    With or without --json. --since takes up where an earlier export ended.
    """
    from daemon import telling
    from storage import suppressions

    ledger = common.ledger(common.loaded())
    numbers = common.list_numbers(ledger)
    with ledger.reading() as db:
        for fact, mac in suppressions.facts(db, since):
            tell(telling.recorded(fact, mac, numbers), True, "")
