"""One-click opt-out: what a mail program, a scanner and a person's browser may ask of /u/TOKEN."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon import events
from daemon.mail import tokens
from daemon.opening import Unnumbered
from daemon.web import forms, workers
from daemon.web.forms import MAX_BODY, first, pairs
from storage import suppressions
from storage.address import parse
from storage.audit import verify
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import Books
from tests.web.support import ANN, FORM, ONE_CLICK, Door, context, door, read_answer, without_tokens

MULTIPART = "multipart/form-data; boundary=---FormBoundaryjWmhtjORrn"
PARTS = (
    b"-----FormBoundaryjWmhtjORrn\r\n"
    b'Content-Disposition: form-data; name="List-Unsubscribe"\r\n\r\n'
    b"One-Click\r\n"
    b"-----FormBoundaryjWmhtjORrn--\r\n"
)  # the example of RFC 8058 section 8.2


def fields(content_type: str, body: bytes) -> dict[str, str]:
    """As the door reads them."""
    return first(pairs(content_type, body))


# ------------------------------------------------------------------ opting out


def test_a_mail_program_opts_its_reader_out_of_the_list(web: Door) -> None:
    answer = web.post(web.token("offers"))
    assert answer.status == 200
    assert web.standing() == [(web.books.numbers["offers"], Reason.OPT_OUT)]


def test_the_form_of_rfc_8058_is_understood(web: Door) -> None:
    assert web.post(web.token("offers"), PARTS, MULTIPART).status == 200
    assert web.standing() == [(web.books.numbers["offers"], Reason.OPT_OUT)]


def test_a_link_without_a_list_opts_out_of_everything(web: Door) -> None:
    assert web.post(web.token()).status == 200
    assert web.standing() == [(ALL, Reason.OPT_OUT)]


def test_everything_may_be_left_by_the_link_of_a_list(web: Door) -> None:
    assert web.post(web.token("offers"), ONE_CLICK + b"&all=1").status == 200
    assert web.standing() == [(ALL, Reason.OPT_OUT)]


def test_a_list_that_is_gone_from_the_config_opts_out_of_everything(ledger: Books) -> None:
    with door(ledger, context(ledger, "newsletter")) as web:
        assert "The offers" not in web.ask("GET", f"/u/{web.token('offers')}").body
        assert web.post(web.token("offers")).status == 200
        assert web.standing() == [(ALL, Reason.OPT_OUT)]


def test_a_click_before_the_lists_are_known_is_not_taken_for_everything(ledger: Books) -> None:
    """The database was away when we started, and is back: the click could be written down, but not what it is about."""
    known = context(ledger, "newsletter", "offers")
    with door(ledger, replace(known, numbers=Unnumbered())) as web:
        for method, path, body in (
            ("POST", f"/u/{web.token('offers')}", ONE_CLICK),
            ("GET", f"/u/{web.token('offers')}", b""),
            ("POST", f"/p/{web.token('offers')}", b"action=save&keep=newsletter"),
        ):
            answer = web.ask(method, path, f"Content-Type: {FORM}", body=body)
            assert (answer.status, "retry-after" in answer.headers) == (503, True), (method, path)
        assert web.standing() == []
        assert web.post(web.token()).status == 200
        assert web.standing() == [(ALL, Reason.OPT_OUT)]


def test_a_list_number_that_nobody_ever_gave_opts_out_of_everything(web: Door) -> None:
    token = tokens.make(web.books.ledger.site_key, "link", web.key(), 40_000)
    assert web.ask("GET", f"/u/{token}").status == 200
    assert web.post(token).status == 200
    assert web.standing() == [(ALL, Reason.OPT_OUT)]


def test_twice_is_once_and_answered_the_same(web: Door) -> None:
    token = web.token("offers")
    once, rows = web.post(token), web.audit_rows()
    second = web.post(token)
    assert (once.status, without_tokens(once.body)) == (second.status, without_tokens(second.body))
    assert web.audit_rows() == rows
    assert len(web.standing()) == 1


def test_many_at_once_are_all_written(web: Door) -> None:
    people = [f"p{n}@customer.example" for n in range(40)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda p: web.post(web.token(None, p)).status, people))
    assert answers == [200] * 40
    assert all(web.standing(p) for p in people)


def test_it_can_be_explained(web: Door) -> None:
    web.post(web.token("offers"), ONE_CLICK + b"&all=1")
    with web.books.ledger.connect() as db:
        (fact,) = suppressions.history(db, web.books.ledger.site_key, parse(ANN))
    assert (fact.actor, fact.event, fact.source, fact.scope) == ("web", "suppressed", "one-click", ALL)
    assert fact.detail is not None
    assert (fact.detail["source"], fact.detail["words"]) == ("one-click", "List-Unsubscribe=One-Click&all=1")
    assert fact.detail["list"] == web.books.numbers["offers"]


def test_who_left_and_came_back_may_leave_again(web: Door) -> None:
    web.post(web.token())
    web.books.lift(ANN)
    assert web.standing() == []
    assert web.post(web.token()).status == 200
    assert web.standing() == [(ALL, Reason.OPT_OUT)]


# ------------------------------------------------------------------ however the link comes back


@pytest.mark.parametrize(
    "path",
    ["/u/{}/", "/u/{}//", "//u//{}", "/U/{}", "/u/{}?utm_source=x", "http://mail.quillpdf.example/u/{}", "/u/{}#x"],
)
def test_a_link_works_whatever_its_way_did_to_it(web: Door, path: str) -> None:
    target = path.format(web.token("offers").upper()).partition("#")[0]  # a fragment stays with the browser
    answer = web.ask("POST", target, f"Content-Type: {FORM}", body=ONE_CLICK)
    assert answer.status == 200
    assert "location" not in answer.headers
    assert web.standing() == [(web.books.numbers["offers"], Reason.OPT_OUT)]


def test_the_path_of_the_public_url_may_come_along_or_not(ledger: Books) -> None:
    with door(ledger, context(ledger, public_url="https://quillpdf.example/mail")) as web:
        assert web.ask("POST", f"/mail/u/{web.token()}", f"Content-Type: {FORM}", body=ONE_CLICK).status == 200
        assert web.ask("POST", f"/u/{web.token()}", f"Content-Type: {FORM}", body=ONE_CLICK).status == 200
        assert 'href="/mail/static/style.css"' in web.ask("GET", f"/u/{web.token()}").body
        assert web.ask("GET", "/mail/static/style.css").status == 200


def test_neither_cookie_nor_redirect(web: Door) -> None:
    for answer in (web.post(web.token()), web.ask("GET", f"/u/{web.token()}/")):
        assert answer.status == 200
        assert not {"set-cookie", "location"} & answer.headers.keys()


# ------------------------------------------------------------------ what changes nothing


@pytest.mark.parametrize("accept", ["*/*", "text/html", "image/avif,image/webp", "application/json", "", "\xff;;q=9"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_a_scanner_changes_nothing(web: Door, method: str, accept: str) -> None:
    before = web.audit_rows()
    path = f"/u/{web.token('offers')}?List-Unsubscribe=One-Click&all=1"
    answer = web.ask(method, path, f"Accept: {accept}", body=ONE_CLICK if method == "GET" else b"")
    assert answer.status == (204 if method == "OPTIONS" else 200)
    assert web.audit_rows() == before
    assert web.standing() == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "PROPFIND", "post"])
def test_other_methods_are_told_which_there_are(web: Door, method: str) -> None:
    answer = web.ask(method, f"/u/{web.token()}", f"Content-Type: {FORM}", body=ONE_CLICK)
    assert answer.status == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST", "OPTIONS"}
    assert web.standing() == []


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", FORM),
        (b"List-Unsubscribe", FORM),
        (b"List-Unsubscribe=", FORM),
        (b"List-Unsubscribe=Two-Click", FORM),
        (b"all=1", FORM),
        (b"x=List-Unsubscribe=One-Click", FORM),
        (b"&".join([b"a=1"] * 60 + [ONE_CLICK]), FORM),
        (b'{"List-Unsubscribe": "One-Click"}', "application/json"),
        (ONE_CLICK, "text/plain"),
        (ONE_CLICK, "multipart/form-data"),
        (PARTS, "multipart/form-data; boundary=other"),
        (PARTS.replace(b"List-Unsubscribe", b"List-Subscribe"), MULTIPART),
        (PARTS.replace(b'; name="', b'; filename="'), MULTIPART),
        (b"\xff\xfe\x00", FORM),
    ],
)
def test_another_body_is_refused(web: Door, body: bytes, content_type: str) -> None:
    assert web.post(web.token(), body, content_type).status == 400
    assert web.standing() == []


@pytest.mark.parametrize("content_type", [FORM.upper(), FORM + "; charset=UTF-8", ""])
def test_a_form_is_a_form_however_it_is_labelled(web: Door, content_type: str) -> None:
    assert web.post(web.token(), ONE_CLICK + b"\r\n", content_type).status == 200
    assert web.standing()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_not_read(web: Door, chunked: bool) -> None:
    fits = ONE_CLICK + b"&x=" + b"a" * (MAX_BODY - len(ONE_CLICK) - 3)
    for body, status in ((fits, 200), (fits + b"a", 413), (fits * 50, 413)):
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
        head = f"POST /u/{web.token()} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {FORM}\r\n{length}\r\n\r\n"
        sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body
        before = web.audit_rows()
        assert read_answer(web.raw(head.encode() + sent)).status == status
        assert (web.audit_rows() > before) == (status == 200)


def test_a_body_that_does_not_come_is_not_waited_for(web: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "BODY_SECONDS", 0.2)
    head = f"POST /u/{web.token()} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 26\r\n\r\nList-"
    assert read_answer(web.raw(head.encode())).status == 408
    assert web.standing() == []


@pytest.mark.parametrize("purpose", ["received", "undo", "regret"])
def test_a_token_of_another_purpose_is_none(web: Door, purpose: tokens.Purpose) -> None:
    day = 20_000 if purpose == "undo" else 0
    click = bytes(tokens.CLICK_OCTETS) if purpose == "regret" else b""
    token = tokens.make(web.books.ledger.site_key, purpose, web.key(), 0, day=day, click=click)
    assert web.ask("GET", f"/u/{token}").status == 400
    assert web.post(token).status == 400
    assert web.standing() == []


@pytest.mark.parametrize("path", ["/u", "/u/", "/u/x", "/u/" + "a" * 48, "/u/" + "é" * 48, "/u/a/b"])
def test_a_bad_link_is_told_where_else_to_turn_and_does_not_come_back(web: Door, path: str) -> None:
    answer = web.ask("GET", quote(path))
    assert answer.status == 400
    assert "support@quillpdf.example" in answer.body
    assert "a" * 48 not in answer.body
    assert web.ask("POST", quote(path), f"Content-Type: {FORM}", body=ONE_CLICK).status == 400


# ------------------------------------------------------------------ the ledger is away


def test_what_was_not_recorded_is_not_confirmed(web: Door) -> None:
    """The file is gone: 503 and try again; it is back: 200, without a restart."""
    file, hidden = web.books.ledger.path, web.books.ledger.path.with_name("hidden")
    file.rename(hidden)
    answer = web.post(web.token())
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert web.ask("GET", f"/u/{web.token()}").status == 200  # the page needs no ledger
    hidden.rename(file)
    assert web.standing() == []
    assert web.post(web.token()).status == 200
    assert web.standing() == [(ALL, Reason.OPT_OUT)]


def test_a_writer_that_does_not_let_go_is_not_waited_for(web: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "COMMIT_SECONDS", 0.3)
    other = sqlite3.connect(web.books.ledger.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: web.post(web.token(None, f"p{n}@customer.example")), range(8)))
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert [a.status for a in answers] == [503] * 8
    monkeypatch.setattr(workers, "COMMIT_SECONDS", 10.0)
    assert web.post(web.token()).status == 200
    written = [n for n in range(8) if web.standing(f"p{n}@customer.example")]
    assert len(written) <= 1  # the one that had its turn may have been written; those that waited were not begun


def test_a_clock_set_back_behind_a_lift_is_doubt(web: Door) -> None:
    web.post(web.token())
    with write(web.books.ledger, datetime.now(UTC) + timedelta(hours=1), "test") as w:
        suppressions.lift(w, parse(ANN), ALL, "test")
    assert web.post(web.token()).status == 503
    assert web.standing() == []


# ------------------------------------------------------------------ the log


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    """As the daemon writes it."""
    events.configure("json", "debug")
    yield capsys
    structlog.reset_defaults()


def test_the_log_says_what_was_done_without_token_or_address(log: pytest.CaptureFixture[str], ledger: Books) -> None:
    with door(ledger) as web:
        token = web.token("offers")
        for path in (f"/u/{token}", f"/u/{token}/x"):
            web.ask("GET", path)
        web.post(token)
        web.post(token)
        web.post(token, b"no")
        web.raw(f"GET /u/{token} NOT/HTTP\r\n\r\n".encode())
        web.ask("GET", f"/u/{token}", "Upgrade: websocket", "Connection: Upgrade")
    said = log.readouterr().err
    lines = [json.loads(line) for line in said.splitlines()]
    who = ledger.ledger.site_key.who(parse(ANN)).digest
    assert [(x["event"], x["who"], x["scope"], x["repeated"]) for x in lines] == [
        ("one_click_recorded", who, "list:offers", False),
        ("one_click_recorded", who, "list:offers", True),
    ]
    assert token not in said.lower()
    assert "ann" not in said


# ------------------------------------------------------------------ whatever comes


paths = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60).map(quote),
    st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=46, max_size=54),
    st.text("%0123456789abcdefABCDEF/.?;=+~", max_size=60),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paths, st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "BREW"]), st.binary(max_size=200))
def test_no_token_breaks_anything(standing_door: Door, path: str, method: str, body: bytes) -> None:
    answer = standing_door.ask(method, f"/u/{path}", f"Content-Type: {FORM}", body=body)
    assert 200 <= answer.status < 500
    assert standing_door.audit_rows() == 0


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 47), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_no_changed_token_is_taken(standing_door: Door, at: int, letter: str) -> None:
    token = standing_door.token("offers")
    changed = token[:at] + letter + token[at + 1 :]
    assert standing_door.ask("GET", f"/u/{changed}").status == (200 if changed == token else 400)


@given(st.text(max_size=80), st.binary(max_size=400))
def test_any_body_can_be_read(content_type: str, body: bytes) -> None:
    assert all(isinstance(x, str) for pair in fields(content_type, body).items() for x in pair)


@given(st.binary(max_size=400), st.sampled_from([FORM, MULTIPART, 'multipart/form-data; boundary="----"']))
def test_any_form_can_be_read(body: bytes, content_type: str) -> None:
    fields(content_type, body)
    fields(content_type, PARTS[:50] + body + PARTS[50:])


@pytest.mark.parametrize(
    "hostile",
    [b"&" * MAX_BODY, b"a=" * 2048, b"%" * MAX_BODY, b"-----FormBoundaryjWmhtjORrn" * 150, b"Content-Disposition:" * 200,
     b"\nContent-Disposition: " + b" name" * 800, b"\n" * MAX_BODY],
)  # fmt: skip
def test_a_hostile_form_costs_no_time(hostile: bytes) -> None:
    began = datetime.now(UTC)
    for content_type in (FORM, MULTIPART):
        assert fields(content_type, b"-----FormBoundaryjWmhtjORrn" + hostile[:MAX_BODY]).get("List-Unsubscribe") is None
    assert datetime.now(UTC) - began < timedelta(seconds=0.3)


def test_the_first_of_two_fields_counts() -> None:
    assert fields(FORM, b"all=0&all=1")["all"] == "0"


def test_quoted_and_bare_boundaries_and_any_line_ends() -> None:
    for content_type in ('multipart/form-data; charset=x; boundary="---FormBoundaryjWmhtjORrn"', MULTIPART.upper()):
        body = (
            PARTS if "charset" in content_type else PARTS.replace(b"FormBoundaryjWmhtjORrn", b"FORMBOUNDARYJWMHTJORRN")
        )
        assert fields(content_type, body.replace(b"\r\n", b"\n")) == {"List-Unsubscribe": "One-Click"}
        assert fields(content_type, body) == {"List-Unsubscribe": "One-Click"}


def test_the_record_of_clicks_can_be_verified(web: Door) -> None:
    web.post(web.token())
    web.post(web.token("offers"))
    with web.books.ledger.reading() as db:
        assert verify(db, web.books.ledger.site_key).seq == 2
