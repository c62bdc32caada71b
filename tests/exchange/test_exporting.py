"""The list goes out, and what went out is read back to the same verdicts."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest

from daemon.exchange import exporting, writing
from daemon.exchange.exporting import Counts
from daemon.exchange.files import appearing
from daemon.exchange.formats import open_list
from daemon.exchange.rows import Entry
from daemon.gate import Refused
from storage import suppressions
from storage.address import NotAnAddress, parse
from storage.audit import Event
from storage.terms import ALL, REASONS, Reason
from storage.write import write
from tests.ledgers import Books, books

SINCE = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
PEOPLE = (
    ("ann@example.com", None, Reason.OPT_OUT),
    ("bob@example.org", None, Reason.COMPLAINT),
    ("carl@example.org", None, Reason.HARD_BOUNCE),
    ("dora@example.org", None, Reason.OPERATOR),
    ("eve+x@gmail.com", "newsletter", Reason.OPT_OUT),
    ("eve+x@gmail.com", None, Reason.SOFT_BOUNCE),
    ("fred@example.org", None, Reason.OPT_OUT),
    ("fred@example.org", "newsletter", Reason.WANTED),
    ("gil@example.org", "offers", Reason.OPT_OUT),
    ("=cmd|x@example.org", None, Reason.OPT_OUT),
    ("-dash@example.org", None, Reason.OPT_OUT),
    ("'+quote@example.org", None, Reason.OPT_OUT),
    ('"a,b; c"@example.org', None, Reason.OPT_OUT),
    ("ü@bücher.example", None, Reason.OPT_OUT),
    ("@corp.example", None, Reason.OPERATOR),
)
UNKNOWN = b"\x01" * 16  # somebody of whom a token told us, or a list of hashes
SERVICES = [f for f, w in writing.WRITERS.items() if not w.whole]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Books:
    """A ledger with all kinds of rows."""
    made = filled(tmp_path_factory.mktemp("full"), PEOPLE)
    with write(made.ledger, SINCE, "test") as w:
        suppressions.add(w, UNKNOWN, ALL, Reason.OPT_OUT, "one-click", {})
    return made


def filled(directory: Path, people: Iterable[tuple[str, str | None, Reason]]) -> Books:
    """A new ledger with these people."""
    made = books(directory)
    with write(made.ledger, SINCE, "test") as w:
        for address, list_id, reason in people:
            scope = made.numbers[list_id] if list_id else ALL
            suppressions.add(w, parse(address), scope, reason, "operator", {}, since=SINCE)
    return made


def exported(
    of: Books, format: str = "csv", list_id: str | None = None, digest: str | None = None
) -> tuple[bytes, Counts]:
    out, counts = io.BytesIO(), Counts()
    number = of.numbers[list_id] if list_id else None
    with of.ledger.reading() as db:
        exporting.export(db, of.ledger, out.write, counts, format=format, digest=digest, list_number=number)
    return out.getvalue(), counts


def read(octets: bytes, format: str = "auto") -> list[Entry]:
    """What our own reader makes of it: nothing but people."""
    rows = list(open_list(io.BytesIO(octets), format=format).found())
    assert all(isinstance(row, Entry) for row in rows), rows
    return [row for row in rows if isinstance(row, Entry)]


def imported(rows: list[Entry], directory: Path) -> Books:
    """A new ledger with what was read."""
    return filled(
        directory,
        [
            (row.address, None if scope == "all" else scope, REASONS[row.reason or "opt-out"])
            for row in rows
            for scope in row.scopes or ("all",)
        ],
    )


ASKED = [
    *dict.fromkeys(address for address, _, _ in PEOPLE if not address.startswith("@")),
    "e.v.e@gmail.com",
    "anybody@mail.corp.example",
    "nobody@example.com",
    "quote@example.org",
]


def verdicts(of: Books, list_id: str | None) -> dict[str, tuple[str, str | None] | None]:
    gate = of.gate()
    answers = {address: gate.may(parse(address), list_id) for address in ASKED}
    return {a: (x.verdict.reason.word, x.of) if isinstance(x, Refused) else None for a, x in answers.items()}


# ------------------------------------------------------------------ round trips


@pytest.mark.parametrize("format", ["csv", "optoutd", "ndjson"])
def test_our_own_formats_are_read_back_to_the_same_verdicts(full: Books, tmp_path: Path, format: str) -> None:
    octets, counts = exported(full, format)
    assert (counts.written, counts.unknown, counts.unsaid) == (len(PEOPLE), 1, 0)
    rows = read(octets)
    assert len(rows) == len(PEOPLE)
    assert {row.since for row in rows} == {SINCE}
    assert {row.source for row in rows} == {"operator"}
    again = imported(rows, tmp_path / "again")
    for list_id in (None, "newsletter", "offers"):
        assert verdicts(again, list_id) == verdicts(full, list_id)


def test_csv_named_generic_reads_the_same(full: Books) -> None:
    octets, _ = exported(full)
    assert [(r.address, r.reason, r.scopes) for r in read(octets, "csv")] == [
        (r.address, r.reason, r.scopes) for r in read(octets)
    ]


@pytest.mark.parametrize("format", SERVICES)
@pytest.mark.parametrize("list_id", [None, "newsletter"])
def test_services_get_everybody_who_may_not_be_mailed(
    full: Books, tmp_path: Path, format: str, list_id: str | None
) -> None:
    octets, counts = exported(full, format, list_id)
    rows = read(octets, format)
    spaces = 1 if format == "postfix" else 0  # an access map has no way to write "a b"@example.org
    assert counts.written == len(rows)
    assert counts.unknown == 1
    assert counts.unsaid == (spaces if writing.WRITERS[format].domains else 1)
    again = imported(rows, tmp_path / "again")
    ours, theirs = verdicts(full, list_id), verdicts(again, list_id)
    left_out = {'"a,b; c"@example.org'} if spaces else {"anybody@mail.corp.example"}
    differ = {address for address in ASKED if (ours[address] is None) != (theirs[address] is None)}
    assert differ == left_out


@pytest.mark.parametrize("format", ["postmark", "sparkpost", "postfix"])
def test_where_a_service_has_our_reasons_they_come_back(full: Books, format: str) -> None:
    octets, _ = exported(full, format)
    reasons = {row.address: row.reason for row in read(octets, format)}
    assert [reasons[f"{name}@example.{end}"] for name, end in (("ann", "com"), ("bob", "org"), ("carl", "org"))] == [
        "opt-out",
        "complaint",
        "hard-bounce",
    ]


@pytest.mark.parametrize("digest", writing.HASHES)
def test_hashes(full: Books, digest: str) -> None:
    octets, counts = exported(full, digest=digest)
    lines = octets.decode().splitlines()
    for address in ("ann@example.com", "eve+x@gmail.com", "eve@gmail.com", "=cmd|x@example.org"):
        assert hashlib.new(digest, address.encode()).hexdigest() in lines
    assert hashlib.new(digest, b"gil@example.org").hexdigest() not in lines
    assert (counts.unknown, counts.unsaid) == (1, 1)
    if digest != "sha512":
        assert len([row for row in read(octets) if row.hashed]) == len(lines)


# ------------------------------------------------------------------ what a spreadsheet makes of it


@pytest.mark.parametrize(
    "format", [f for f in writing.WRITERS if f not in ("ndjson", "text", "ses", "postmark", "postfix")]
)
def test_no_cell_begins_a_formula(full: Books, format: str) -> None:
    octets, _ = exported(full, format)
    rows = list(csv.reader(io.StringIO(octets.decode())))
    assert not [cell for row in rows for cell in row if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]
    assert "'=cmd|x@example.org" in octets.decode()


def test_json_is_json(full: Books, tmp_path: Path) -> None:
    for service, name in (("ses", "SuppressedDestinationSummaries"), ("postmark", "Suppressions")):
        octets, counts = exported(full, service)
        assert len(json.loads(octets)[name]) == counts.written
    empty, _ = exported(books(tmp_path / "empty"), "ses")
    assert json.loads(empty) == {"SuppressedDestinationSummaries": []}


# ------------------------------------------------------------------ audit, files


def test_it_is_noted_in_the_audit_log(full: Books) -> None:
    assert "exported" in get_args(Event)
    exporting.record(full.ledger, SINCE, "test", full.numbers["offers"], format="csv", written=3)
    with full.ledger.connect() as db:
        fact = [f for f, _ in suppressions.facts(db)][-1]
        (detail,) = suppressions.details(db, [fact.evidence or 0]).values()
    assert (fact.event, fact.scope, fact.key) == ("exported", full.numbers["offers"], None)
    assert detail == {"format": "csv", "written": 3, "source": "operator"}


def test_a_file_appears_when_it_is_complete_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with appearing(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    assert path.stat().st_mode & 0o777 == 0o600
    link = tmp_path / "link"
    link.symlink_to(path)
    with suppress(ZeroDivisionError), appearing(link) as file:
        file.write(b"two")
        raise ZeroDivisionError
    assert path.read_bytes() == b"one"
    with appearing(link) as file:
        file.write(b"three")
    assert link.is_symlink()
    assert path.read_bytes() == b"three"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "out.csv"]
    with appearing(Path("/dev/null")) as file:
        file.write(b"four")
    with pytest.raises(OSError, match="nowhere"), appearing(tmp_path / "nowhere" / "x"):
        pass


def test_every_address_we_export_is_one(full: Books) -> None:
    octets, _ = exported(full, "text")
    for line in octets.decode().splitlines():
        try:
            parse(line)
        except NotAnAddress as why:
            pytest.fail(f"{line}: {why}")
