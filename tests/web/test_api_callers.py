"""Who may call the API, for what, and how much they may send."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any, Final, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon import events
from daemon.gate import Gate
from daemon.values import Right
from daemon.web.api import callers, guarding
from daemon.web.api.app import api
from daemon.web.context import Holder
from tests.ledgers import Books
from tests.loopback import HOST
from tests.web.program import API, Program, called
from tests.web.support import ANN, Door, door, whole

# Every operation: how it is called so that it is understood, and the right that it takes.
OPERATIONS: Final[dict[str, tuple[str, str, Any, Right]]] = {
    "check": ("POST", "/check", {"addresses": [ANN]}, "check"),
    "suppress": ("POST", "/suppressions", {"address": ANN}, "suppress"),
    "lift": ("POST", "/lift", {"address": ANN, "because": "x"}, "lift"),
    "show": ("GET", f"/suppressions/{ANN}", None, "check"),
    "list": ("GET", "/suppressions", None, "export"),
    "changes": ("GET", "/changes", None, "export"),
    "refusals": ("GET", "/refusals", None, "export"),
    "listReviews": ("GET", "/reviews", None, "review"),
    "showReview": ("GET", "/reviews/1", None, "review"),
    "acceptReview": ("POST", "/reviews/1/accept", {}, "review"),
    "rejectReview": ("POST", "/reviews/1/reject", {}, "review"),
    "importList": ("POST", "/imports", [ANN], "import"),
    "showImport": ("GET", "/imports/1", None, "import"),
    "showRejects": ("GET", "/imports/1/rejects", None, "import"),
    "stats": ("GET", "/stats", None, "check"),
}
RIGHTS: Final[dict[str, set[Right]]] = {"shop": {"suppress"}, "desk": {"suppress", "lift"}}
PUBLIC: Final = {"health"}
JSON: Final = "Content-Type: application/json"


def _call(program: Program, operation: str) -> Any:
    method, path, fact, _ = OPERATIONS[operation]
    return program.post(path, fact) if method == "POST" else program.get(path)


def test_the_table_of_this_test_has_every_operation() -> None:
    described = api().openapi()["paths"]
    known = {o["operationId"]: o.get("security") for path in described.values() for o in path.values()}
    assert set(known) == {*OPERATIONS, *PUBLIC}
    assert {name: security for name, security in known.items() if security} == {
        name: [{"token": [right]}] for name, (*_, right) in OPERATIONS.items()
    }


def test_each_operation_takes_its_right_and_no_other(ledger: Books) -> None:
    holders = [Holder(right, f"token-of-{right}-{right}", frozenset({right})) for right in get_args(Right)]
    with called(ledger, *holders) as program:
        for name, (*_, right) in OPERATIONS.items():
            for holder in holders:
                before = program.web.audit_rows()
                told = _call(Program(program.web, holder.secret), name)
                if right in holder.rights:
                    assert told.status in (200, 201, 202, 404), (name, holder.name, told)
                    continue
                assert (told.status, told.is_problem) == (403, True), (name, holder.name)
                assert f"'{right}'" in told.fact["detail"]
                assert told.headers["www-authenticate"].endswith(f'error="insufficient_scope", scope="{right}"')
                assert program.web.audit_rows() == before


def test_who_may_only_suppress_gives_nothing_back(ledger: Books) -> None:
    ledger.suppress(ANN)
    only, both = (Holder(n, f"token-of-{n}-{n}-{n}", frozenset(r)) for n, r in RIGHTS.items())
    wish = {"address": ANN, "list": "offers", "reason": "wanted"}
    with called(ledger, only, both) as program:
        before = program.web.audit_rows()
        told = Program(program.web, only.secret).post("/suppressions", wish)
        assert (told.status, told.is_problem, "'lift'" in told.fact["detail"]) == (403, True, True)
        assert program.web.audit_rows() == before
        assert program.check(ANN, list_id="offers")[0]["suppressed"] is True
        assert Program(program.web, both.secret).post("/suppressions", wish).status == 201
        assert program.check(ANN, list_id="offers")[0]["suppressed"] is False


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("token", ["", "wrong-token-wrong-token"])
def test_without_a_token_nothing_is_answered(ledger: Books, operation: str, token: str) -> None:
    with called(ledger) as program:
        told = _call(Program(program.web, token), operation)
        assert (told.status, told.is_problem) == (401, True)
        assert told.headers["www-authenticate"].startswith('Bearer realm="optoutd"')
        assert token not in json.dumps(told.fact) or not token
        assert program.web.audit_rows() == 0


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Basic YWxsOmFsbA==",
        "Bearer\xff",
        "Bearer \xe9\xff",
        "all-rights-all-rights",
        "Bearer " + "x" * 9_000,
    ],
)
def test_what_is_no_token_lets_nobody_in(ledger: Books, header: str) -> None:
    silent = Holder("nobody", "", frozenset(get_args(Right)))
    with called(ledger, silent) as program:
        told = Program(program.web, "").ask("GET", "/stats", f"Authorization: {header}")
    assert told.status == 401


def test_a_token_in_the_query_or_a_cookie_lets_nobody_in(ledger: Books) -> None:
    with called(ledger) as program:
        stranger = Program(program.web, "")
        assert stranger.get(f"/stats?access_token={program.token}").status == 401
        assert stranger.ask("GET", "/stats", f"Cookie: optoutd_session={program.token}").status == 401


def test_who_is_not_known_is_not_told_what_would_be_wrong(ledger: Books) -> None:
    with called(ledger) as program:
        told = Program(program.web, "wrong").ask("POST", "/check", JSON, body=b"{" * 1_000)
        assert told.status == 401


def test_where_there_are_no_rooms_there_is_no_api(web: Door) -> None:
    for path in ("/health", "/openapi.json", "/stats", "/"):
        assert web.ask("GET", API + path).status == 404


def test_no_page_fetches_scripts_from_elsewhere(ledger: Books) -> None:
    with called(ledger) as program:
        for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
            assert program.get(path).status == 404


def test_no_other_site_is_let_read_it(ledger: Books) -> None:
    with called(ledger) as program:
        told = program.ask("GET", "/stats", "Origin: https://elsewhere.example")
        assert not [name for name in told.headers if name.startswith("access-control")]
        preflight = program.ask("OPTIONS", "/lift", "Origin: https://x.example", "Access-Control-Request-Method: POST")
        assert preflight.status == 405


# ------------------------------------------------------------------ paths and methods


@pytest.mark.parametrize("path", ["/nothing", "/reviews/1/forget", "/openapi.yaml", "/%00"])
def test_a_path_that_there_is_not_is_not_found(ledger: Books, path: str) -> None:
    with called(ledger) as program:
        told = program.get(path)
    assert (told.status, told.is_problem) == (404, True)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/suppressions", "GET, POST"),
        ("PUT", "/check", "POST"),
        ("GET", "/lift", "POST"),
        ("POST", f"/suppressions/{ANN}", "GET"),
        ("POST", "/openapi.json", "GET"),
    ],
)
def test_another_method_is_told_which_there_are(ledger: Books, method: str, path: str, allowed: str) -> None:
    with called(ledger) as program:
        told = program.ask(method, path)
    assert (told.status, told.is_problem, told.headers["allow"]) == (405, True, allowed)


def test_a_path_with_needless_slashes_is_the_same(ledger: Books) -> None:
    with called(ledger) as program:
        assert program.ask("GET", "//stats/").status == 200
        answer = program.web.ask("GET", "/API/v1/health/")
    assert answer.status == 200


# ------------------------------------------------------------------ bodies


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"addresses":' * 1_000,
        b'{"addresses":[NaN]}',
        b'{"addresses":[-Infinity]}',
        b'{"addresses":["\\ud800"]}',
        b'{"addresses":["\xff"]}',
        b'{"addresses":["\xed\xa0\x80"]}',
        b'{"addresses":[1' + b"0" * 5_000 + b"]}",
        b'{"addresses":[1e999]}',
        b'{"addresses":["a@b.c"],"lists":"offers"}',
        b'{"addresses":["a@b.c"],"\\u0000":1}',
        b'{"addresses":["a@b.c"],"list":"\\u0000"}',
        b'{"addresses":{"0":"a@b.c"}}',
        b"\xef\xbb\xbf{}",
        '{"addresses":[]}'.encode("utf-16"),
    ],
)
def test_what_is_no_such_json_is_unprocessable(ledger: Books, body: bytes) -> None:
    with called(ledger) as program:
        told = program.ask("POST", "/check", JSON, body=body)
    assert (told.status, told.is_problem) == (422, True)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"])
def test_another_media_type_is_refused(ledger: Books, kind: str) -> None:
    headers = [f"Content-Type: {kind}"] if kind else []
    with called(ledger) as program:
        told = program.ask("POST", "/check", *headers, body=b'{"addresses":[]}')
    assert (told.status, told.is_problem) == (415, True)


def test_json_may_say_its_charset(ledger: Books) -> None:
    with called(ledger) as program:
        told = program.ask(
            "POST", "/check", 'Content-Type: Application/JSON; charset="utf-8"', body=b'{"addresses":[]}'
        )
    assert told.status == 200


def test_more_than_is_read_is_refused_at_once(ledger: Books) -> None:
    with called(ledger) as program:
        lines = ("Host: localhost", f"Authorization: Bearer {program.token}", JSON, "Connection: close")
        for length in (str(guarding.MAX_BODY + 1), "9" * 20):
            head = "\r\n".join([f"POST {API}/check HTTP/1.1", *lines, f"Content-Length: {length}", "", ""])
            assert b" 413 " in program.web.raw(head.encode())[:20], length


def test_more_than_is_read_is_refused_in_pieces_too(ledger: Books) -> None:
    with called(ledger) as program:
        lines = (
            "Host: localhost",
            f"Authorization: Bearer {program.token}",
            JSON,
            "Transfer-Encoding: chunked",
            "Connection: close",
        )
        head = "\r\n".join([f"POST {API}/check HTTP/1.1", *lines, "", ""]).encode()
        chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
        assert b" 413 " in program.web.raw(head + chunk * 17)[:20]


def test_a_body_that_does_not_come_is_not_waited_for(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding, "BODY_SECONDS", 0.3)
    with called(ledger) as program:
        lines = (
            "Host: localhost",
            f"Authorization: Bearer {program.token}",
            JSON,
            "Content-Length: 100",
            "Connection: close",
        )
        head = "\r\n".join([f"POST {API}/check HTTP/1.1", *lines, "", ""]).encode()
        assert b" 408 " in program.web.raw(head + b"{")[:20]


def test_who_hangs_up_in_the_middle_does_no_harm(ledger: Books) -> None:
    with called(ledger) as program:
        for _ in range(5):
            with socket.create_connection((HOST, program.web.port)) as client:
                lines = ("Host: localhost", f"Authorization: Bearer {program.token}", JSON, "Content-Length: 100")
                client.sendall("\r\n".join([f"POST {API}/check HTTP/1.1", *lines, "", '{"']).encode())
        assert program.get("/health").status == 200


def test_a_mistake_is_told_without_what_was_sent(ledger: Books) -> None:
    with called(ledger) as program:
        told = program.post("/suppressions", {"address": ANN, "password": "hunter2", "a/b~c": 1, "list": "hunter2!"})
    assert sorted(told.wrong) == ["/a~1b~0c", "/list", "/password"]
    assert "hunter2" not in json.dumps(told.fact)


def test_of_many_mistakes_some_are_told(ledger: Books) -> None:
    with called(ledger) as program:
        told = program.post("/check", {"addresses": [1] * 10_000})
    assert (told.status, len(told.fact["errors"])) == (422, 20)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
_names = st.sampled_from(["address", "addresses", "list", "reason", "source", "note", "because", "x"])
_bodies = st.dictionaries(_names, _json, max_size=5) | _json
_paths = st.sampled_from(["/check", "/suppressions", "/lift", "/reviews/1/accept"])


def test_whatever_is_sent_the_answer_is_an_answer(ledger: Books) -> None:
    with called(ledger) as program:

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(path=_paths, body=st.binary(max_size=40) | st.builds(lambda b: json.dumps(b).encode(), _bodies))
        def sent(path: str, body: bytes) -> None:
            told = program.ask("POST", path, JSON, body=body)
            assert told.status in (200, 201, 404, 422), (path, body, told)
            assert told.status < 400 or told.is_problem

        sent()


# ------------------------------------------------------------------ many at once


def test_one_program_cannot_take_all_the_threads(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "MOST_AT_ONCE", 2)
    waits, go_on = threading.Semaphore(0), threading.Event()

    def slow() -> Gate:
        waits.release()
        go_on.wait(20)
        return ledger.gate()

    with called(ledger, Holder("other", "other-token-other", frozenset({"check"})), open_gate=slow) as program:
        waiting = [threading.Thread(target=program.check, args=(ANN,)) for _ in range(2)]
        for thread in waiting:
            thread.start()
            assert waits.acquire(timeout=10)
        told = program.get("/stats")
        assert (told.status, told.is_problem, told.headers["retry-after"]) == (429, True, "1")
        assert Program(program.web, "other-token-other").get("/stats").status == 200
        go_on.set()
        for thread in waiting:
            thread.join()
        assert program.get("/stats").status == 200


def test_a_bug_of_ours_is_told_as_one(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[BaseException] = []
    monkeypatch.setattr(events, "failed", lambda _, error: failed.append(error))

    def broken(*_: object) -> None:
        raise ZeroDivisionError("with hunter2 in it")

    monkeypatch.setattr("daemon.telling.story", broken)
    with door(ledger, whole(ledger, programs=(Holder("crm", "t" * 20, frozenset({"check"})),))) as web:
        told = Program(web, "t" * 20).show(ANN)
    assert (told.status, told.is_problem) == (500, True)
    assert "hunter2" not in json.dumps(told.fact)
    assert [type(error) for error in failed] == [ZeroDivisionError]
