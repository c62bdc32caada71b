"""Lists that come in by HTTP: where they are kept, how much memory they take, and what programs are told."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from daemon.exchange.rejects import Rejects
from daemon.exchange.rows import Bad
from daemon.web import multipart, uploads
from daemon.web.api import imports
from daemon.web.app import Outermost
from daemon.web.spool import Refused, Spool
from daemon.web.uploads import base_name
from storage.terms import Reason
from tests.ledgers import Books
from tests.web.support import Answer, Door, door, whole

LIST = b"email,reason\nann@customer.example,complaint\nnonsense,\n"
ROOT = Path(__file__).parents[2]


def people(number: int) -> bytes:
    return b"email\n" + b"".join(b"p%d@customer.example\n" % n for n in range(number))


# ------------------------------------------------------------------ the API, with nothing around it


def _answered(of: Callable[[Request, str], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return await of(request, request.headers.get("x-actor", "api shop"))
        except Refused as why:
            return JSONResponse({"detail": str(why)}, why.status)

    return endpoint


async def _post(request: Request, actor: str) -> Response:
    q = {name: request.query_params.get(name, "") for name in ("format", "column", "reason", "as_of")}
    what = imports.asked(request, list_id=request.query_params.get("list", ""), **q)
    dry_run = request.query_params.get("dry_run") == "true"
    return JSONResponse(await imports.post(request, actor, "list.csv", what, dry_run=dry_run), 202)


async def _get(request: Request, actor: str) -> Response:
    return JSONResponse(await imports.get(request, actor, request.path_params["id"]))


async def _rejects(request: Request, actor: str) -> Response:
    return await imports.rejects(request, actor, request.path_params["id"])


_API = Starlette(
    routes=[
        Route("/imports", _answered(_post), methods=["POST"]),
        Route("/imports/{id}", _answered(_get)),
        Route("/imports/{id}/rejects", _answered(_rejects)),
    ]
)


class _Beside:
    """The door's application, with the API beside it."""

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (_API if scope["path"].startswith("/imports") else self._app)(scope, receive, send)


@contextmanager
def serving(books: Books, monkeypatch: pytest.MonkeyPatch, **other: Any) -> Iterator[Door]:
    """A door with that API."""
    with monkeypatch.context() as patched:
        real = Outermost.__init__

        def beside(self: Outermost, app: Any) -> None:
            real(self, app)
            self._app = _Beside(app)  # type: ignore[assignment]  # an application like the one it was
            self._app.state = app.state

        patched.setattr(Outermost, "__init__", beside)
        with door(books, whole(books, **other)) as opened:
            yield opened


def post(web: Door, octets: bytes, **query: str) -> Answer:
    return web.ask("POST", f"/imports?{urlencode(query)}", "Content-Type: text/csv", body=octets)


def ended(web: Door, number: str) -> dict[str, Any]:
    for _ in range(1500):
        fact: dict[str, Any] = json.loads(web.ask("GET", f"/imports/{number}").body)
        if fact["state"] not in ("counting", "importing"):
            return fact
        time.sleep(0.02)
    raise AssertionError(fact)


@pytest.fixture
def web(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    with serving(ledger, monkeypatch) as opened:
        yield opened


def test_a_program_brings_a_list_and_asks_how_far_it_is(ledger: Books, web: Door) -> None:
    answer = post(web, LIST, list="offers")
    assert answer.status == 202
    fact = ended(web, json.loads(answer.body)["id"])
    assert fact["state"] == "done"
    assert fact["counts"] == {"rows": 2, "added": 1, "already": 0, "skipped": 0, "bad": 1}
    assert (fact["import"], fact["error"], fact["read"], fact["size"]) == (1, None, len(LIST), len(LIST))
    assert web.standing() == [(ledger.numbers["offers"], Reason.COMPLAINT)]
    rejects = web.ask("GET", f"/imports/{fact['id']}/rejects")
    assert rejects.headers["content-type"] == "text/csv; charset=utf-8"
    assert rejects.body == "line,reason,row\n3,an address looks like name@example.com,nonsense\n"
    with ledger.ledger.connect() as db:
        assert db.exec_driver_sql("SELECT DISTINCT actor FROM audit").scalars().all() == ["api shop"]


def test_a_dry_run_only_counts(web: Door) -> None:
    fact = ended(web, json.loads(post(web, LIST, dry_run="true").body)["id"])
    assert (fact["state"], fact["counts"]["added"], fact["import"]) == ("counted", 1, None)
    assert web.standing() == []


def test_what_others_brought_is_nobody_elses_business(web: Door) -> None:
    number = json.loads(post(web, LIST).body)["id"]
    ended(web, number)
    for path in (f"/imports/{number}", f"/imports/{number}/rejects"):
        assert web.ask("GET", path, "X-Actor: api other").status == 404


def test_what_cannot_be_taken_is_refused_with_a_sentence(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(ledger, monkeypatch, max_upload=2000) as web:
        assert post(web, LIST, reason="because").status == 422
        assert post(web, b"a,b\n1,2\n").status == 422
        assert post(web, b"").status == 422
        assert post(web, b"x" * 2001).status == 413
        form = web.ask("POST", "/imports", "Content-Type: multipart/form-data; boundary=x", body=LIST)
        assert form.status == 415
        assert web.ask("GET", "/imports/nothing").status == 404
        clean = json.loads(post(web, b"ann@customer.example\n").body)["id"]
        ended(web, clean)
        assert web.ask("GET", f"/imports/{clean}/rejects").status == 404


def test_options_are_named_as_the_fields_are(web: Door) -> None:
    said = json.loads(post(web, b"name,mail,e-mail\nx,a@b.example,c@d.example\n").body)["detail"]
    assert "--" not in said
    assert "`column`" in said


def test_a_body_of_unknown_length_is_counted_as_it_comes(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(ledger, monkeypatch, max_upload=2000) as web:
        head = b"POST /imports HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        short = b"%x\r\n%s\r\n0\r\n\r\n" % (len(LIST), LIST)
        assert b" 202 " in web.raw(head + short).partition(b"\r\n")[0]
        long = b"".join(b"%x\r\n%s\r\n" % (1000, b"x" * 1000) for _ in range(3)) + b"0\r\n\r\n"
        assert b" 413 " in web.raw(head + long).partition(b"\r\n")[0]


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


def test_no_list_stays_open_when_it_has_ended_or_was_refused(ledger: Books, web: Door) -> None:
    ended(web, json.loads(post(web, b"ann@customer.example\n").body)["id"])
    before = descriptors()
    for _ in range(6):
        ended(web, json.loads(post(web, b"ann@customer.example\n").body)["id"])
        assert post(web, b"a,b\n1,2\n").status == 422
    assert descriptors() <= before + 1


def test_a_list_that_nobody_says_yes_to_is_let_go(web: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    number = ended(web, json.loads(post(web, LIST, dry_run="true").body)["id"])["id"]
    monkeypatch.setattr(uploads, "KEPT_SECONDS", -1.0)
    assert web.ask("GET", f"/imports/{number}").status == 404


def test_a_client_that_does_not_go_on_is_not_waited_for(web: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "PATIENCE_SECONDS", 0.1)
    head = b"POST /imports HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100\r\n\r\nann@"
    assert b" 408 " in web.raw(head).partition(b"\r\n")[0]


# ------------------------------------------------------------------ long lists


def test_an_import_under_way_can_be_stopped_and_goes_on_later(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_CHUNK", 500)
    octets = people(20_000)
    with serving(ledger, monkeypatch) as web:
        post(web, octets)
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
    with serving(ledger, monkeypatch) as web:
        fact = ended(web, json.loads(post(web, octets).body)["id"])
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
