"""Lists that come in by HTTP: where they are kept, how much memory they take, and what programs are told."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from daemon.exchange.rejects import Rejects
from daemon.exchange.rows import Bad
from daemon.web import multipart, uploads
from daemon.web.context import Holder
from daemon.web.spool import Spool
from daemon.web.uploads import base_name
from storage.terms import Reason
from tests.ledgers import Books
from tests.web.program import API, Program, Told, called

LIST = b"email,reason\nann@customer.example,complaint\nnonsense,\n"
ROOT = Path(__file__).parents[2]


def people(number: int) -> bytes:
    return b"email\n" + b"".join(b"p%d@customer.example\n" % n for n in range(number))


# ------------------------------------------------------------------ what programs are told


def brought(program: Program, octets: bytes, *headers: str, **query: str) -> Told:
    return program.ask("POST", f"/imports?{urlencode(query)}", "Content-Type: text/csv", *headers, body=octets)


def ended(program: Program, brought: Told) -> dict[str, Any]:
    """What came of a list that was taken."""
    assert brought.status == 202, brought
    fact: dict[str, Any] = brought.fact
    for _ in range(1500):
        if fact["state"] not in ("counting", "importing"):
            return fact
        time.sleep(0.02)
        fact = program.get(f"/imports/{fact['id']}").fact
    raise AssertionError(fact)


@pytest.fixture
def program(ledger: Books) -> Iterator[Program]:
    with called(ledger) as it:
        yield it


def test_a_program_brings_a_list_and_asks_how_far_it_is(ledger: Books, program: Program) -> None:
    fact = ended(program, brought(program, LIST, list="offers"))
    assert fact["state"] == "done"
    assert fact["counts"] == {"rows": 2, "added": 1, "already": 0, "skipped": 0, "bad": 1}
    assert (fact["import"], fact["error"], fact["read"], fact["size"]) == (1, None, len(LIST), len(LIST))
    assert program.web.standing() == [(ledger.numbers["offers"], Reason.COMPLAINT)]
    rejects = program.web.ask("GET", f"{API}/imports/{fact['id']}/rejects", f"Authorization: Bearer {program.token}")
    assert rejects.headers["content-type"] == "text/csv; charset=utf-8"
    assert rejects.body == "line,reason,row\n3,an address looks like name@example.com,nonsense\n"
    with ledger.ledger.connect() as db:
        assert db.exec_driver_sql("SELECT DISTINCT actor FROM audit").scalars().all() == ["api crm"]


def test_a_dry_run_only_counts(program: Program) -> None:
    fact = ended(program, brought(program, LIST, dry_run="true"))
    assert (fact["state"], fact["counts"]["added"], fact["import"]) == ("counted", 1, None)
    assert program.web.standing() == []


def test_what_others_brought_is_nobody_elses_business(ledger: Books) -> None:
    with called(ledger, Holder("other", "other-other-other-other", frozenset({"import"}))) as program:
        number = ended(program, brought(program, LIST))["id"]
        other = Program(program.web, "other-other-other-other")
        for path in (f"/imports/{number}", f"/imports/{number}/rejects"):
            assert other.get(path).status == 404


def test_what_cannot_be_taken_is_refused_with_a_sentence(ledger: Books) -> None:
    with called(ledger, max_upload=2000) as program:
        assert brought(program, LIST, reason="because").status == 422
        assert brought(program, b"a,b\n1,2\n").status == 422
        assert brought(program, b"").status == 422
        assert brought(program, b"x" * 2001).status == 413
        form = program.ask("POST", "/imports", "Content-Type: multipart/form-data; boundary=x", body=LIST)
        assert form.status == 415
        assert program.get("/imports/nothing").status == 404
        clean = ended(program, brought(program, b"ann@customer.example\n"))["id"]
        assert program.get(f"/imports/{clean}/rejects").status == 404


def test_options_are_named_as_the_fields_are(program: Program) -> None:
    said = brought(program, b"name,mail,e-mail\nx,a@b.example,c@d.example\n").fact["detail"]
    assert "--" not in said
    assert "`column`" in said


def begun(program: Program, *headers: str) -> bytes:
    """The head of a request that brings a list."""
    known = ("Host: localhost", "Connection: close", f"Authorization: Bearer {program.token}")
    return "\r\n".join([f"POST {API}/imports HTTP/1.1", *known, *headers, "", ""]).encode()


def test_a_body_of_unknown_length_is_counted_as_it_comes(ledger: Books) -> None:
    with called(ledger, max_upload=2000) as program:
        head = begun(program, "Transfer-Encoding: chunked")
        short = b"%x\r\n%s\r\n0\r\n\r\n" % (len(LIST), LIST)
        assert b" 202 " in program.web.raw(head + short).partition(b"\r\n")[0]
        long = b"".join(b"%x\r\n%s\r\n" % (1000, b"x" * 1000) for _ in range(3)) + b"0\r\n\r\n"
        assert b" 413 " in program.web.raw(head + long).partition(b"\r\n")[0]


# ------------------------------------------------------------------ where a list is


def test_a_list_has_no_name_and_nobody_elses_eyes(tmp_path: Path) -> None:
    async def kept() -> None:
        spool = Spool(tmp_path, 1 << 20)
        await spool.put(b"ann@customer.example\n" * 20_000)
        found = os.fstat(spool.file.fileno())
        assert (found.st_mode & 0o777, found.st_nlink) == (0o600, 0)
        assert list(tmp_path.iterdir()) == []
        file = await spool.end()
        assert os.fstat(file.fileno()).st_size == spool.size == 21 * 20_000
        file.close()

    asyncio.run(kept())


def test_nothing_is_left_of_a_daemon_that_was_killed(tmp_path: Path) -> None:
    code = (
        "import asyncio, os, sys, pathlib\nfrom daemon.web.spool import Spool\nfrom daemon.exchange.rejects import Rejects\n"
        "from daemon.exchange.rows import Bad\n"
        "async def main():\n    d = pathlib.Path(sys.argv[1])\n    spool = Spool(d, 1 << 30)\n"
        "    await spool.put(bytes(1 << 20))\n    r = Rejects(d)\n    r(Bad(1, 'x', 'y'))\n    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True)
    assert run.returncode == -9, run.stderr
    assert list(tmp_path.iterdir()) == []


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_list_stays_open_when_it_has_ended_or_was_refused(program: Program) -> None:
    ended(program, brought(program, b"ann@customer.example\n"))
    before = descriptors()
    for _ in range(6):
        ended(program, brought(program, b"ann@customer.example\n"))
        assert brought(program, b"a,b\n1,2\n").status == 422
    assert descriptors() <= before + 1


def test_a_list_that_nobody_says_yes_to_is_let_go(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    number = ended(program, brought(program, LIST, dry_run="true"))["id"]
    monkeypatch.setattr(uploads, "KEPT_SECONDS", -1.0)
    assert program.get(f"/imports/{number}").status == 404


def test_a_client_that_does_not_go_on_is_not_waited_for(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "PATIENCE_SECONDS", 0.1)
    head = begun(program, "Content-Length: 100")
    assert b" 408 " in program.web.raw(head + b"ann@").partition(b"\r\n")[0]


# ------------------------------------------------------------------ long lists


def test_an_import_under_way_can_be_stopped_and_goes_on_later(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_CHUNK", 500)
    octets = people(20_000)
    with called(ledger) as program:
        brought(program, octets)
        for _ in range(500):
            with ledger.ledger.connect() as db:
                if db.exec_driver_sql("SELECT position FROM import_run").scalar():
                    break
            time.sleep(0.01)
        began = time.monotonic()
    assert time.monotonic() - began < 8
    with ledger.ledger.connect() as db:
        position, finished = db.exec_driver_sql("SELECT position, finished FROM import_run").one()
    assert 0 < position < 20_000
    assert not finished
    with called(ledger) as program:
        fact = ended(program, brought(program, octets))
    assert (fact["state"], fact["counts"]["added"], fact["counts"]["rows"]) == ("done", 20_000, 20_000)


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_a_list_of_fifty_megabytes_takes_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.web.memory", str(tmp_path / "ledger"), "50"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    measured = json.loads(run.stdout.splitlines()[-1])
    assert measured["done"], measured
    assert measured["arrived"] - measured["first"] < 20, measured
    assert measured["most"] - measured["first"] < 60, measured


# ------------------------------------------------------------------ small things


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("people.csv", "people.csv"),
        ("/etc/passwd", "passwd"),
        ("C:\\old\\people.csv", "people.csv"),
        ("../..", ".."),
        ("", "list"),
        ("a\0b\r\n\u202ec.csv", "abc.csv"),
        ("x" * 500, "x" * 200),
        ("\ud800.csv", ".csv"),
    ],
)
def test_of_a_files_name_only_the_end_is_kept(given: str, kept: str) -> None:
    assert base_name(given) == kept


def test_a_reject_file_ends_somewhere(tmp_path: Path) -> None:
    rejects = Rejects(tmp_path, most=2)
    for n in range(5):
        rejects(Bad(n, "why", "=1+1"))
    assert (rejects.rows, rejects.cut) == (5, True)
    with rejects.reading() as read:
        rejects.close()  # forgotten while somebody reads it
        text = read(1 << 16).decode()
    assert re.findall("'=1", text) == ["'=1", "'=1"]
    with rejects.reading() as read:
        assert read(10) == b""


def test_octets_that_are_no_text_come_back_as_they_were(tmp_path: Path) -> None:
    rejects = Rejects(tmp_path)
    rejects(Bad(1, "why", "caf\udce9 \ud800\x07"))
    with rejects.reading() as read:
        assert read(1 << 16) == b"line,reason,row\n1,why,caf\xe9 \\ud800\\x07\n"
    rejects.close()
