"""export and scrub, as somebody at a keyboard meets them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

from daemon.cli import exchanging
from daemon.exchange import writing
from daemon.exchange.formats import open_list
from storage.lookup import Lookup, Row
from storage.terms import Reason
from tests.cli.desk import CONFIG, ROOT, Desk

LIST = 'Name;E-Mail\r\n"Ann; A";ann@example.com\r\nC;carl@example.org\r\nE;nobody\r\nG;gil@example.org\r\n'


@pytest.fixture
def known(desk: Desk) -> Desk:
    """Somebody on the list for each way of being on it."""
    books = desk.books()
    books.suppress("ann@example.com")
    books.suppress("gil@example.org", "offers", Reason.COMPLAINT)
    (desk.directory / "in.csv").write_bytes(LIST.encode("utf-16"))
    return desk


def files(desk: Desk) -> set[str]:
    """What lies there, but for what SQLite keeps beside its file."""
    return {p.name for p in desk.directory.iterdir() if not p.name.startswith("optoutd.db-")}


def exports(desk: Desk) -> list[dict[str, object]]:
    return [fact for fact in desk("audit", "export").facts if fact["event"] == "exported"]


# ------------------------------------------------------------------ export


def test_the_words_of_the_help_are_those_of_the_code() -> None:
    assert set(exchanging.EXPORT_FORMATS) == {*writing.WRITERS, "hashes"}
    assert exchanging.EXPORT_HASHES == writing.HASHES


def test_export_to_stdout(known: Desk) -> None:
    said = known("export")
    assert (said.code, said.err) == (0, "2 written, 0 without a known address\n")
    head, *rows = said.out.splitlines()
    assert head == "email,scope,reason,since,source"
    assert sorted(row.split(",")[:3] for row in rows) == [
        ["ann@example.com", "all", "opt-out"],
        ["gil@example.org", "list:offers", "complaint"],
    ]
    assert [(e["event"], e["scope"], e["key"]) for e in exports(known)] == [("exported", None, None)]


@pytest.mark.parametrize("format", exchanging.EXPORT_FORMATS)
def test_export_in_every_format(known: Desk, format: str) -> None:
    said = known("export", "--format", format, "--list", "offers")
    assert said.code == 0
    known.directory.joinpath("out").write_text(said.out)
    with known.directory.joinpath("out").open("rb") as file:
        rows = list(open_list(file, format=format).found())
    assert len(rows) == 2
    assert f"{len(rows)} written, 0 without" in said.err


def test_export_to_a_file(known: Desk) -> None:
    path = known.directory / "out.csv"
    path.write_text("what was there before")
    path.chmod(0o644)
    said = known("export", "-o", "out.csv", "--format", "text", "--json")
    assert said.fact == {"written": 1, "without_address": 0, "not_in_format": 0}
    assert path.read_text() == "ann@example.com\n"
    assert path.stat().st_mode & 0o777 == 0o600
    detail = known("show", "--ref", str(exports(known)[0]["evidence"]), "--json").out
    assert json.loads(detail)["history"][0]["event"] == "exported"


def test_export_as_json_is_json_lines(known: Desk) -> None:
    assert {fact["email"] for fact in known("export", "--json").facts} == {"ann@example.com", "gil@example.org"}


def test_export_of_hashes_names_nobody(known: Desk) -> None:
    said = known("export", "--hashed", "sha256")
    assert said.out == hashlib.sha256(b"ann@example.com").hexdigest() + "\n"
    assert known("export", "--format", "hashes").out == said.out


def test_whoever_is_not_known_by_address_is_counted(known: Desk) -> None:
    known.configure(CONFIG + "\n[storage]\nkeep_addresses = false\n")
    assert known("suppress", "dora@example.org").code == 0
    said = known("export")
    assert (said.code, said.err) == (0, "2 written, 1 without a known address\n")
    assert known("export", "--complete").code == 75
    assert len(exports(known)) == 2
    said = known("export", "--complete", "-o", "out.csv")
    assert said.code == 75
    assert "1 without a known address" in said.sentence
    assert not (known.directory / "out.csv").exists()
    assert len(exports(known)) == 2


def test_a_whole_domain_is_nothing_for_a_list_of_addresses(known: Desk) -> None:
    known("suppress", "@corp.example")
    said = known("export", "--format", "text")
    assert said.err.splitlines() == [
        "1 left out: whole domains, or what this format cannot say",
        "1 written, 0 without a known address",
    ]
    assert known("export", "--complete").code == 0
    assert known("export", "--complete", "--format", "text").code == 75


@pytest.mark.parametrize(
    "arguments",
    [
        ["--format", "zip"],
        ["--hashed", "crc32"],
        ["--hashed", "md5", "--format", "csv"],
        ["--json", "--format", "csv"],
        ["--json", "--hashed", "md5"],
        ["--list", "nope"],
        ["-o", "nowhere/out.csv"],
        ["-o", "."],
        ["somebody@example.com"],
    ],
)
def test_export_misused_is_64_and_nothing_is_written(known: Desk, arguments: list[str]) -> None:
    said = known("export", *arguments)
    assert said.code == 64
    assert said.sentence
    assert exports(known) == []


def test_a_database_that_is_away_exports_nothing(known: Desk) -> None:
    (known.directory / "optoutd.db").write_bytes(b"garbage")
    assert known("export", "-o", "out.csv").code == 75
    assert not (known.directory / "out.csv").exists()


def test_a_reader_who_leaves_is_no_error_and_still_in_the_log(known: Desk) -> None:
    known("suppress", *(f"a{n}@example.com" for n in range(3000)))
    command = f"PYTHONPATH={ROOT} {sys.executable} -m daemon export | head -1"
    done = subprocess.run(
        ["bash", "-c", f"{command}; echo ${{PIPESTATUS[0]}}"], cwd=known.directory, capture_output=True
    )
    assert done.stdout == b"email,scope,reason,since,source\n0\n"
    assert b"Traceback" not in done.stderr
    assert len(exports(known)) == 1


# ------------------------------------------------------------------ scrub


def test_scrub(known: Desk) -> None:
    said = known("scrub", "in.csv", "-o", "out.csv", "--removed", "gone.csv")
    assert said.code == 65
    assert said.err.splitlines() == [
        "in.csv: UTF-16 LE with BOM, semicolon-separated, with header, addresses in 'E-Mail'",
        "in.csv:4: an address looks like name@example.com",
        "removed for opt-out: 1",
        "2 kept, 1 removed, 1 unreadable",
    ]
    lines = LIST.splitlines(keepends=True)
    assert (known.directory / "out.csv").read_bytes() == "".join([lines[0], lines[2], lines[4]]).encode("utf-16")
    assert (known.directory / "gone.csv").read_bytes() == "".join(lines[:2]).encode("utf-16")
    assert (known.directory / "out.csv").stat().st_mode & 0o777 == 0o600


def test_scrub_for_a_list_as_json(known: Desk) -> None:
    said = known("scrub", "in.csv", "-o", "out.csv", "--list", "offers", "--column", "e-mail", "--json")
    assert said.fact == {"kept": 1, "removed": 2, "unreadable": 1, "reasons": {"complaint": 1, "opt-out": 1}}


def test_scrub_from_stdin_to_stdout(known: Desk) -> None:
    said = known("scrub", "-", "-o", "-", stdin=b"ann@example.com\ncarl@example.org\n")
    assert (said.code, said.out) == (0, "carl@example.org\n")
    assert said.err.splitlines()[-1] == "1 kept, 1 removed, 0 unreadable"


def test_scrub_in_place(known: Desk) -> None:
    path = known.directory / "in.txt"
    path.write_text("ann@example.com\ncarl@example.org")
    assert known("scrub", "in.txt", "-o", "in.txt").code == 0
    assert path.read_text() == "carl@example.org"


def test_scrub_against_hashes(known: Desk) -> None:
    digest = hashlib.md5(b"carl@example.org").hexdigest()
    (known.directory / "hashes").write_text(f"{digest}\n")
    said = known("scrub", "in.csv", "-o", "out.csv", "--against", "hashes", "--json")
    assert said.fact["reasons"] == {"hash": 1, "opt-out": 1}
    (known.directory / "hashes").write_text(f"{digest}\nbroken\n")
    said = known("scrub", "-", "-o", "-", "--against", "hashes", stdin=b"carl@example.org\ndora@example.org\n")
    assert (said.code, said.out) == (65, "dora@example.org\n")
    assert "hashes:2: neither MD5 nor SHA-256 in hex digits" in said.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nope.csv", "-o", "out.csv"], 66),
        ([".", "-o", "out.csv"], 66),
        (["", "-o", "out.csv"], 66),
        (["in.csv", "-o", "out.csv", "--against", "nope"], 66),
        (["in.csv"], 64),
        (["-o", "out.csv"], 64),
        (["in.csv", "-o", "out.csv", "--removed", "./out.csv"], 64),
        (["in.csv", "-o", "-", "--removed", "-"], 64),
        (["in.csv", "-o", "-", "--json"], 64),
        (["in.csv", "-o", "out.csv", "--list", "nope"], 64),
        (["in.csv", "-o", "nowhere/out.csv"], 64),
        (["in.csv", "-o", "out.csv", "--column", "9"], 65),
        (["empty", "-o", "out.csv"], 65),
        (["optoutd.db", "-o", "out.csv"], 65),
        (["in.csv", "-o", "out.csv", "--against", "in.csv"], 65),
    ],
)
def test_scrub_misused_writes_nothing(known: Desk, arguments: list[str], code: int) -> None:
    (known.directory / "empty").touch()
    before = files(known)
    said = known("scrub", *arguments)
    assert said.code == code
    assert said.out == ""
    assert said.err.splitlines()[-1].startswith("optoutd: ")
    assert files(known) == before


def test_a_database_that_is_away_scrubs_nothing(known: Desk) -> None:
    (known.directory / "optoutd.db").write_bytes(b"garbage")
    assert known("scrub", "in.csv", "-o", "out.csv").code == 75
    assert "out.csv" not in files(known)


def test_a_database_that_goes_away_in_between_leaves_no_half_list(known: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    sweep = Lookup.sweep

    def garbled(lookup: Lookup, texts: Sequence[str]) -> list[Sequence[Row] | None]:
        asked.append(len(texts))
        (known.directory / "optoutd.db").write_bytes(b"garbage")
        return sweep(lookup, texts)

    monkeypatch.setattr(Lookup, "sweep", garbled)
    said = known("scrub", "in.csv", "-o", "out.csv", "--removed", "gone.csv")
    assert (said.code, bool(asked)) == (75, True)
    assert not {"out.csv", "gone.csv"} & files(known)
