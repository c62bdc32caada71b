"""The console's entrance: who is let in, and who is not."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unicodedata import normalize

import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st

from daemon import events
from daemon.web.console import sessions
from daemon.web.console.access import fits_password
from daemon.web.context import Context, Holder
from tests.ledgers import Books
from tests.web.support import ADMIN, FORM, Answer, Door, door, read_answer, whole
from tests.web.visitor import LOOKER, Visitor


@pytest.fixture
def web(ledger: Books) -> Iterator[Door]:
    """A door with a console."""
    with door(ledger, whole(ledger)) as opened:
        yield opened


def outside(web: Door) -> Visitor:
    """Somebody at the form."""
    visitor = Visitor(web, name="")
    visitor.get("/console/login")
    return visitor


def tries(visitor: Visitor, name: str = ADMIN.name, password: str = ADMIN.secret, *headers: str) -> Answer:
    """What the entrance says to this name and password."""
    return visitor.post("/console/login", *headers, username=name, password=password)


def reloaded(web: Door, **changed: Any) -> None:
    """The config has changed, as after a SIGHUP: `operators`, `user_header`..."""
    fresh: Context = web.server._app.state.context
    assert fresh.inside is not None
    web.loop.call_soon_threadsafe(web.server.take_over, replace(fresh, inside=replace(fresh.inside, **changed)))
    time.sleep(0.05)  # the loop's turn


# ------------------------------------------------------------------ the password


def test_who_has_no_session_is_sent_to_the_entrance(web: Door) -> None:
    answer = web.ask("GET", "/console/")
    assert (answer.status, answer.headers["location"]) == (303, "/console/login")


def test_who_knows_the_password_comes_in(web: Door) -> None:
    answer = tries(outside(web))
    assert (answer.status, answer.headers["location"]) == (303, "/console/")
    cookie = answer.headers["set-cookie"]
    assert re.fullmatch(r"__Host-optoutd_session=[A-Za-z0-9_-]{43}; HttpOnly; Path=/; SameSite=lax; Secure", cookie), (
        cookie
    )
    home = web.ask("GET", "/console/", f"Cookie: {cookie.partition(';')[0]}")
    assert home.status == 200
    assert "Is the promise kept?" in home.body


def test_on_this_machine_without_tls_the_cookie_is_not_secure_and_works(web: Door) -> None:
    page = web.ask("GET", "/console/login", host=f"127.0.0.1:{web.port}")
    assert page.headers["set-cookie"].startswith("optoutd_browser=")
    assert "Secure" not in page.headers["set-cookie"]


@pytest.mark.parametrize(
    ("name", "password"), [(ADMIN.name, "wrong"), ("nobody", ADMIN.secret), ("", ""), ("kim", ADMIN.secret)]
)
def test_who_does_not_know_it_does_not(web: Door, name: str, password: str) -> None:
    answer = tries(outside(web), name, password)
    assert answer.status == 403
    assert "do not fit together" in answer.body
    assert "session" not in answer.headers.get("set-cookie", "")


def test_a_hash_in_the_password_file_lets_in_by_the_password_and_not_by_itself(web: Door) -> None:
    kept = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(ADMIN.secret)
    reloaded(web, operators={"admin": replace(ADMIN, secret=kept)})
    assert tries(outside(web), password=kept).status == 403
    assert tries(outside(web)).status == 303


def test_a_try_takes_the_same_work_whoever_is_named(web: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the time that it takes does not tell which names there are."""
    one, other = (PasswordHasher(time_cost=1, memory_cost=8 * n, parallelism=1).hash("x") for n in (1, 2))
    kept = {"plain": "a", "hashed": one, "dearer": other, "proxied": ""}
    reloaded(web, operators={name: replace(ADMIN, name=name, secret=secret) for name, secret in kept.items()})
    verified: list[str] = []
    verify = PasswordHasher.verify

    def counted(self: PasswordHasher, kept: bytes, given: bytes) -> bool:
        verified.append(kept.decode().split("$")[3])
        return bool(verify(self, kept, given))

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    for name in (*kept, "nobody", ""):
        verified.clear()
        assert tries(outside(web), name=name, password="wrong").status == 403
        assert sorted(verified) == ["m=16,t=1,p=1", "m=8,t=1,p=1"], name


def test_an_operator_without_a_password_file_cannot_log_in(web: Door) -> None:
    reloaded(web, operators={"lee": Holder("lee", "", ADMIN.rights)})
    assert tries(outside(web), "lee", "").status == 403


@given(kept=st.text(max_size=30), tried=st.text(max_size=30))
def test_a_plain_password_fits_itself_only(kept: str, tried: str) -> None:
    assert fits_password(kept, kept) or kept.startswith("$argon2")
    assert fits_password(kept, tried) == (normalize("NFC", kept) == normalize("NFC", tried))


@pytest.mark.parametrize(
    "kept",
    ["$argon2", "$argon2id$v=19$m=8,t=1,p=1$AAAA", "$argon2id$\u00e9", "$argon2id$v=19$m=8,t=1,p=1$YWFhYWFhYWE$AA"],
)
def test_a_broken_hash_lets_nobody_in(kept: str) -> None:
    assert not fits_password(kept, kept)
    assert not fits_password(kept, "")


# ------------------------------------------------------------------ guessing


def test_after_ten_failures_a_minute_even_the_right_password_waits(web: Door) -> None:
    visitor = outside(web)
    assert [tries(visitor, password=f"guess {n}").status for n in range(10)] == [403] * 10
    answer = tries(visitor)
    assert answer.status == 429
    assert int(answer.headers["retry-after"]) > 0
    assert "Too many tries" in answer.body


def test_who_knows_the_password_has_not_guessed(web: Door) -> None:
    visitor = outside(web)
    assert [tries(visitor, password="wrong").status for _ in range(9)] == [403] * 9
    for _ in range(3):
        assert tries(outside(web)).status == 303
    assert tries(visitor, password="wrong").status == 403
    assert tries(outside(web)).status == 429


def test_a_form_that_is_not_of_this_browser_is_no_try(web: Door) -> None:
    one, other = outside(web), outside(web)
    one.csrf_token = other.csrf_token
    assert tries(one).status == 403
    one.cookies.clear()
    assert tries(one).status == 403
    one.cookies, one.csrf_token = dict(other.cookies), "x"
    assert tries(one).status == 403


def test_tries_are_logged_without_what_was_typed(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, ...]] = []
    monkeypatch.setattr(events, "console_login_refused", lambda *facts: said.append(("refused", *facts)))
    monkeypatch.setattr(events, "console_entered", lambda *facts: said.append(("entered", *facts)))
    with door(ledger, whole(ledger)) as web:
        tries(outside(web), "hunter2", "hunter2")
        tries(outside(web))
    assert said == [("refused", "127.0.0.1"), ("entered", "admin", "127.0.0.1")]
    assert web.audit_rows() == 0


# ------------------------------------------------------------------ the session


def test_a_log_out_is_one(web: Door) -> None:
    visitor = Visitor(web)
    before = dict(visitor.cookies)
    answer = visitor.post("/console/logout")
    assert (answer.status, answer.headers["location"]) == (303, "/console/login")
    assert "Max-Age=0" in answer.headers["set-cookie"]
    visitor.cookies = before
    assert visitor.get("/console/").status == 303


def test_an_operator_with_few_rights_may_log_out_too(web: Door) -> None:
    reloaded(web, operators={"lee": Holder("lee", "review only", frozenset({"review"}))})
    visitor = Visitor(web, name="", password="")
    visitor.get("/console/login")
    assert tries(visitor, "lee", "review only").status == 303
    home = visitor.get("/console/")
    assert home.status == 403
    assert "does not have" in home.body
    assert visitor.post("/console/logout").status == 303


def test_nobody_can_choose_the_session_of_another(web: Door) -> None:
    """Session fixation: what the browser showed before is nothing afterwards."""
    visitor, planted = outside(web), Visitor(web, *LOOKER)
    visitor.cookies["__Host-optoutd_session"] = planted.cookies["__Host-optoutd_session"]
    before = visitor.cookies["__Host-optoutd_session"]
    assert tries(visitor).status == 303
    assert visitor.cookies["__Host-optoutd_session"] != before
    assert planted.get("/console/").status == 303


@pytest.mark.parametrize(
    "operators",
    [{}, {"admin": replace(ADMIN, secret="another password")}, {"kim": ADMIN}],
    ids=["gone", "another password", "renamed"],
)
def test_whom_a_reload_takes_out_is_out(web: Door, operators: dict[str, Holder]) -> None:
    visitor = Visitor(web)
    assert visitor.get("/console/").status == 200
    reloaded(web, operators=operators)
    assert visitor.get("/console/").status == 303


def test_rights_that_a_reload_takes_away_are_gone_at_once(web: Door) -> None:
    visitor = Visitor(web)
    reloaded(web, operators={"admin": replace(ADMIN, rights=frozenset({"review"}))})
    assert visitor.get("/console/").status == 403


def test_a_session_ends_when_it_is_not_used_and_after_half_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    kept = sessions.Sessions()
    shown, session = kept.begin("admin", "secret")
    for _ in range(11):
        clock[0] += 3600
        assert kept.find(shown) is session
    clock[0] += 3601
    assert kept.find(shown) is None
    shown, _ = kept.begin("admin", "secret")
    clock[0] += sessions.IDLE_SECONDS + 1
    assert kept.find(shown) is None


def test_one_operator_cannot_push_the_others_out() -> None:
    kept = sessions.Sessions()
    mine, _ = kept.begin("kim", "")
    theirs = [kept.begin("admin", "")[0] for _ in range(2000)]
    assert kept.find(mine)
    assert [bool(kept.find(shown)) for shown in theirs] == [False] * 1950 + [True] * 50


def test_a_form_without_the_token_of_its_session_changes_nothing(web: Door) -> None:
    visitor, other = Visitor(web), Visitor(web)
    for token in ("", "x", other.csrf_token, "\u00e9"):
        visitor.csrf_token = token
        answer = visitor.post("/console/logout")
        assert answer.status == 403
        assert "Nothing was changed" in answer.body
    assert visitor.get("/console/").status == 200


# ------------------------------------------------------------------ for which host?

OURS = (
    "localhost LOCALHOST:8025 127.0.0.1 127.9.9.9:1 [::1]:8025 x.localhost mail.quillpdf.example. mail.quillpdf.example:443"
).split()
NOT_OURS = (
    "evil.example 127.0.0.1.evil.example localhost.evil.example [ [::1 1.2.3.4 \u00e9 user@127.0.0.1 127.0.0.1:x"
    " evilmail.quillpdf.example"
).split()
INSIDE = "/console/ /console/login /CONSOLE //console//x /api/v1/check /metrics /readyz http://127.0.0.1/console/login".split()


def test_operators_come_by_our_own_names(web: Door) -> None:
    assert {host: web.ask("GET", "/console/login", host=host).status for host in OURS} == dict.fromkeys(OURS, 200)


def test_a_page_that_lets_its_own_name_lead_to_us_gets_nothing(web: Door) -> None:
    for host in [*NOT_OURS, "", "a b"]:
        for path in INSIDE:
            answer = web.ask("GET", path, host=host)
            assert answer.status in (400, 421), (host, path)
            assert answer.status == 400 or "web.public_url" in answer.body


def test_a_program_that_asks_another_host_is_told_as_programs_are(web: Door) -> None:
    answer = web.ask("GET", "/api/v1/check", host="evil.example")
    assert (answer.status, answer.headers["content-type"]) == (421, "application/problem+json")
    told = json.loads(answer.body)
    assert (told["status"], told["title"]) == (421, "Misdirected Request")
    assert "web.public_url" in told["detail"]


def test_no_browser_may_take_an_answer_for_something_else(web: Door) -> None:
    insider = Visitor(web)
    asked = [web.ask("GET", path) for path in (*INSIDE, "/", "/static/console.css", "/healthz", "/nowhere", "/u/x")]
    asked += [web.ask("GET", f"/api/v1{path}") for path in ("/openapi.json", "/health", "/nowhere", "/stats")]
    asked += [
        web.ask("PUT", "/api/v1/stats"),
        web.ask("GET", "/console/", host="evil.example"),
        insider.get("/console/"),
    ]
    assert {answer.headers.get("x-content-type-options") for answer in asked} == {"nosniff"}


def test_the_public_pages_do_not_care_by_which_name_they_are_reached(web: Door) -> None:
    assert web.ask("GET", "/healthz", host="evil.example").status == 200
    assert web.ask("GET", f"/u/{web.token()}", host="evil.example").status == 200


def test_a_door_that_the_world_can_reach_has_no_console(ledger: Books) -> None:
    with door(ledger) as web:
        assert {web.ask("GET", p).status for p in ("/console/login", "/console/", "/static/console.css")} == {404}


# ------------------------------------------------------------------ what goes wrong is said in the console


def test_a_page_that_is_not_there_is_told_within_the_console(web: Door) -> None:
    visitor = Visitor(web)
    answer = visitor.get("/console/nowhere")
    assert answer.status == 404
    assert "There is no such page" in answer.body
    assert "Log out" in answer.body
    stranger = web.ask("GET", "/console/nowhere")
    assert stranger.status == 404
    assert "Log out" not in stranger.body
    for page in (answer, stranger):
        assert page.headers["content-security-policy"].startswith("default-src 'self'")
        assert page.headers["cache-control"] == "no-store"


def test_a_form_that_is_too_long_or_none_is_told(web: Door) -> None:
    visitor = outside(web)
    assert visitor.post("/console/login", username="x" * 70_000).status == 413
    kind = "Content-Type: application/json"
    assert web.ask("POST", "/console/login", kind, body=b"{}").status == 415
    assert web.ask("POST", "/console/login", f"Content-Type: {FORM}").status == 411
    assert web.ask("PUT", "/console/login").status == 405


def test_a_database_that_is_away_is_told_as_that(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "database_unavailable", lambda why: None)
    with door(ledger, whole(ledger)) as web:
        visitor = Visitor(web)
        reloaded(web)  # what is remembered of it is not asked for
        ledger.ledger.path.rename(ledger.ledger.path.with_suffix(".away"))
        answer = visitor.get("/console/")
    assert answer.status == 503
    assert "database could not be asked" in answer.body


def test_a_form_in_chunks_is_not_read_whatever_length_it_states(web: Door) -> None:
    head = "POST /console/login HTTP/1.1", "Host: localhost", "Connection: close", f"Content-Type: {FORM}"
    body = b"a=" + b"x" * 500_000 + b"&"
    chunks = (b"%x\r\n%s\r\n" % (len(body), body)) * 4 + b"0\r\n\r\n"
    said = "\r\n".join([*head, "Content-Length: 10", "Transfer-Encoding: chunked", "", ""]).encode()
    assert read_answer(web.raw(said + chunks)).status == 411


def test_no_password_is_so_long_that_composing_it_keeps_others_waiting(web: Door) -> None:
    """NFC takes the square of a row of accents."""
    visitor = outside(web)
    parts = {"csrf_token": visitor.csrf_token, "username": "x", "password": "a" + "\u0345" * 14_000 + "\u0334" * 14_000}
    body = "".join(f'--x\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in parts.items())
    answer = web.ask(
        "POST",
        "/console/login",
        "Content-Type: multipart/form-data; boundary=x",
        *visitor._cookie(),
        body=f"{body}--x--\r\n".encode(),
    )
    assert answer.status == 413


@pytest.mark.parametrize("path", ["/console/login", "/console/", "/api/v1/health", "/nothing"])
def test_a_cookie_full_of_backslashes_keeps_nobody_waiting(web: Door, path: str) -> None:
    for value in ("\\" * 60_000, '\\"' * 30_000, "\\111" * 15_000):
        began = time.monotonic()
        assert web.ask("GET", path, f'Cookie: a="{value}"', host="localhost").status < 500
        assert time.monotonic() - began < 1


# ------------------------------------------------------------------ where somebody wanted to go


def test_who_logs_in_gets_where_they_wanted_to_go(ledger: Books) -> None:
    with door(ledger, whole(ledger)) as web:
        visitor = Visitor(web, name="")
        answer = visitor.get("/console/suppressions?q=ann@customer.example")
        assert (answer.status, answer.headers["location"]) == (303, "/console/login")
        visitor.get("/console/login")
        answer = visitor.post("/console/login", username=ADMIN.name, password=ADMIN.secret)
        assert answer.headers["location"] == "/console/suppressions?q=ann@customer.example"
        visitor.get("/console/")
        again = Visitor(web)
        assert again.get("/console/").status == 200


@pytest.mark.parametrize(
    "way",
    ["//evil.example/console/", "https://evil.example/", "/u/x", "/console/\r\nSet-Cookie: a=b", "/console\\@evil"],
)
def test_nobody_is_led_out_of_the_console(ledger: Books, way: str) -> None:
    shown = base64.urlsafe_b64encode(way.encode()).decode()
    with door(ledger, whole(ledger)) as web:
        visitor = Visitor(web, name="")
        visitor.get("/console/login")
        name = next(n for n in visitor.cookies).replace("browser", "wanted")
        visitor.cookies[name] = shown
        answer = visitor.post("/console/login", username=ADMIN.name, password=ADMIN.secret)
        assert answer.headers["location"] == "/console/"
