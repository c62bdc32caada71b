"""The list goes out: in our own format with every row, or as a service's list of people who may not be mailed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Connection

from daemon.exchange.writing import WRITERS, Leaving, Writer, hashed
from storage import suppressions
from storage.address import NotAnAddress, parse, person
from storage.engine import Ledger
from storage.lookup import Row, verdict
from storage.terms import ALL, Reason, joined
from storage.write import write

_AT_ONCE: Final = 1000  # lines


@dataclass
class Counts:
    """`written`: rows (of a service's list: people); `unknown`: those of whom we keep no address; `unsaid`: those whom the
    format cannot say (a whole domain, in a list of addresses)."""

    written: int = 0
    unknown: int = 0
    unsaid: int = 0

    @property
    def complete(self) -> bool:
        """Does everybody stand in it?"""
        return not self.unknown and not self.unsaid


def export(
    db: Connection,
    ledger: Ledger,
    put: Callable[[bytes], object],
    counts: Counts,
    *,
    format: str = "csv",
    digest: str | None = None,
    list_number: int | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Write the list, in order of key. `db`: a consistent snapshot (`ledger.reading()`); `put` takes the octets, and
    `counts` counts along.

    `format`: one of WRITERS; or `digest`: `md5`, `sha256`, `sha512`. `list_number`: whoever may not get mail of that list,
    which those who left everything may not either; without it a service's list has those who left everything, and our own
    has every row. `progress` is told how many rows were looked at. Memory stays the same whatever the length.
    """
    writer = hashed(digest) if digest else WRITERS[format]
    ids = {number: list_id for list_id, number in suppressions.list_numbers(db).items()}
    scopes = None if writer.whole and list_number is None else {ALL, list_number}
    rows = _counted((r for r in suppressions.listing(db) if scopes is None or r[2] in scopes), progress)
    leaving = _rows(rows, ids, counts) if writer.whole else _people(rows, list_number, counts)
    same = ledger.same_person if digest else None
    put(writer.head.encode())
    _write(writer, leaving, same, counts, put)
    put(writer.tail.encode())


def _counted(rows: Iterable[Any], progress: Callable[[int], object]) -> Iterator[Any]:
    for number, row in enumerate(rows, 1):
        if number % 4096 == 0:
            progress(number)
        yield row


def _write(
    writer: Writer,
    leaving: Iterable[Leaving],
    same: tuple[str, ...] | None,
    counts: Counts,
    put: Callable[[bytes], object],
) -> None:
    pending: list[str] = []
    for row in leaving:
        line = "" if row.address.startswith("@") and not writer.domains else writer.line(_with_forms(row, same))
        if not line:
            counts.unsaid += 1
            continue
        pending.append(writer.between + line if counts.written else line)
        counts.written += 1
        if len(pending) == _AT_ONCE:
            put("".join(pending).encode("utf-8", "surrogateescape"))
            pending.clear()
    put("".join(pending).encode("utf-8", "surrogateescape"))


def _rows(rows: Iterable[Any], ids: dict[int, str], counts: Counts) -> Iterator[Leaving]:
    """Every row with its own scope and reason."""
    for _, address, scope, reason, since, _, source in rows:
        if address is None:
            counts.unknown += 1
        else:
            yield Leaving(address, joined([scope], ids), Reason(reason).word, since, source or "")


def _people(rows: Iterable[Any], list_number: int | None, counts: Counts) -> Iterator[Leaving]:
    """One for each person against whom something stands, with the strongest reason (rows come in order of key)."""
    for _, group in groupby(rows, key=itemgetter(0)):
        of_one = list(group)
        found = verdict([Row("exact", *r[2:6]) for r in of_one], list_number)
        if found is None:
            continue
        if of_one[0][1] is None:
            counts.unknown += 1
        else:
            yield Leaving(of_one[0][1], "", found.reason.word, found.since, "")


def _with_forms(row: Leaving, same: tuple[str, ...] | None) -> Leaving:
    """For hashes: the address as it was written, and as the person is known whatever the tag or the dots."""
    if same is None:
        return row
    forms = [row.address.lower()]
    with suppress(NotAnAddress):  # kept by an older version: its own spelling will do
        forms.append(person(parse(row.address), same))
    return row._replace(forms=tuple(dict.fromkeys(forms)))


def record(ledger: Ledger, now: datetime, actor: str, list_number: int | None, **detail: Any) -> None:
    """Note in the audit log that the list, or part of it, left us. `detail`: format, counts, whether it was all of it."""
    with write(ledger, now, actor) as w:
        w.audit("exported", scope=list_number, source="operator", evidence=w.evidence(source="operator", **detail))
