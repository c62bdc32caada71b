"""Links that give back: of the page after a click, for an hour, and of a notice, for thirty days."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.mail import tokens
from daemon.web.forms import MAX_BODY
from storage import people, suppressions
from storage.address import parse
from storage.audit import verify
from storage.terms import ALL, Reason
from tests.ledgers import Books
from tests.web.support import ANN, FORM, ONE_CLICK, Answer, Door, context, door, regret_link, without_tokens

MULTIPART = "multipart/form-data; boundary=x"
PARTS = b'--x\r\nContent-Disposition: form-data; name="undo"\r\n\r\n1\r\n--x--\r\n'
UNDO = b"undo=1"
LINKS = ["regret", "notice"]


def post(web: Door, path: str, body: bytes = UNDO, content_type: str = FORM) -> Answer:
    return web.ask("POST", path, f"Content-Type: {content_type}", body=body)


def link(web: Door, kind: str) -> str:
    """Somebody has opted out, and has a link of this kind."""
    if kind == "regret":
        return regret_link(web.post(web.token()).body)
    web.books.suppress(ANN)
    return web.notice()


def later(web: Door, **much: float) -> None:
    """So much time passes."""
    now = web.context.now
    web.loop.call_soon_threadsafe(web.server.take_over, replace(web.context, now=lambda: now() + timedelta(**much)))


# ------------------------------------------------------------------ it gives back


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize(
    ("body", "content_type"), [(UNDO, FORM), (PARTS, MULTIPART), (UNDO, ""), (UNDO + b"&x=1", FORM)]
)
def test_the_button_undoes_it(web: Door, kind: str, body: bytes, content_type: str) -> None:
    path = link(web, kind)
    answer = post(web, path, body, content_type)
    assert (answer.status, web.standing()) == (200, [])
    assert "support@quillpdf.example" in answer.body
    assert not {"set-cookie", "location"} & answer.headers.keys()


@pytest.mark.parametrize("kind", LINKS)
def test_twice_is_once_and_answered_the_same(web: Door, kind: str) -> None:
    path = link(web, kind)
    once, rows = post(web, path), web.audit_rows()
    twice = post(web, path)
    assert (once.status, once.body) == (twice.status, twice.body)
    assert web.audit_rows() == rows


@pytest.mark.parametrize("kind", LINKS)
def test_many_at_once_are_one(web: Door, kind: str) -> None:
    path, rows = link(web, kind), web.audit_rows()
    with ThreadPoolExecutor(8) as pool:
        assert [a.status for a in pool.map(lambda _: post(web, path), range(8))] == [200] * 8
    assert web.audit_rows() == rows + 1
    assert web.standing() == []


@pytest.mark.parametrize("spelling", ["{}/", "/{}", "{}?x=1", "https://mail.quillpdf.example{}"])
def test_a_link_works_whatever_its_way_did_to_it(web: Door, spelling: str) -> None:
    path = link(web, "notice")
    assert post(web, spelling.format(path.upper())).status == 200
    assert web.standing() == []


@pytest.mark.parametrize(("after", "everything"), [("", False), ("&all=1", True)])
def test_a_click_on_a_list_or_on_everything_can_be_undone(web: Door, after: str, everything: bool) -> None:
    page = web.post(web.token("offers"), ONE_CLICK + after.encode()).body
    assert web.standing() == [(ALL if everything else web.books.numbers["offers"], Reason.OPT_OUT)]
    assert web.undo(page).status == 200
    assert web.standing() == []


def test_the_path_of_the_public_url_is_in_the_form(ledger: Books) -> None:
    with door(ledger, context(ledger, public_url="https://quillpdf.example/mail")) as web:
        page = web.post(web.token()).body
        assert regret_link(page).startswith("/mail/undo/")
        assert web.undo(page).status == 200
        assert web.standing() == []


def test_a_notice_of_one_list_exempts_it_from_everything(web: Door) -> None:
    web.books.suppress(ANN)
    assert post(web, web.notice("offers")).status == 200
    assert web.standing() == [(ALL, Reason.OPT_OUT), (web.books.numbers["offers"], Reason.WANTED)]


def test_a_list_that_is_gone_from_the_config_can_be_had_back_all_the_same(ledger: Books) -> None:
    with door(ledger, context(ledger, "newsletter")) as web:
        ledger.suppress(ANN, "offers")
        assert post(web, web.notice("offers")).status == 200
        assert web.standing() == []


def test_it_can_be_explained(web: Door) -> None:
    post(web, link(web, "notice"))
    with web.books.ledger.connect() as db:
        facts = suppressions.history(db, web.books.ledger.site_key, parse(ANN))
        verify(db, web.books.ledger.site_key)
    assert (facts[-1].actor, facts[-1].event, facts[-1].source, facts[-1].scope) == ("web", "lifted", "page", ALL)


# ------------------------------------------------------------------ and no more than that


@pytest.mark.parametrize("reason", [Reason.COMPLAINT, Reason.HARD_BOUNCE, Reason.OPERATOR])
@pytest.mark.parametrize("kind", LINKS)
def test_only_an_opt_out_is_undone(web: Door, kind: str, reason: Reason) -> None:
    path = link(web, kind)
    web.books.suppress(ANN, reason=reason)
    assert post(web, path).status == 200
    assert web.standing() == [(ALL, reason)]


def test_a_link_is_not_good_for_a_later_opt_out(web: Door) -> None:
    path = web.notice(day=-3)
    web.books.suppress(ANN)
    assert post(web, path).status == 200
    assert web.standing() == [(ALL, Reason.OPT_OUT)]


def test_a_link_is_not_good_for_an_opt_out_that_was_asked_for_once_more(web: Door) -> None:
    web.books.suppress(ANN, since=web.context.now() - timedelta(days=5))
    web.post(web.token())
    assert post(web, web.notice(day=-3)).status == 200
    assert web.standing() == [(ALL, Reason.OPT_OUT)]


@pytest.mark.parametrize("list_id", [None, "offers"])
def test_a_link_does_its_work_once(ledger: Books, list_id: str | None) -> None:
    """On the very day it was made, too: a browser that sends a form again does not bring back who has left again."""
    began = datetime.now(UTC).replace(hour=1, minute=0)
    clock = [began]
    with door(ledger, replace(context(ledger), now=lambda: clock[0])) as web:
        ledger.suppress(ANN, since=began - timedelta(minutes=30))
        path = web.notice(list_id)
        post(web, path)
        assert (web.books.numbers["offers"], Reason.WANTED) in web.standing() if list_id else web.standing() == []
        clock[0] += timedelta(minutes=5)
        web.post(web.token())
        clock[0] += timedelta(minutes=5)
        assert post(web, path).status == 200
        assert web.standing() == [(ALL, Reason.OPT_OUT)]


def test_whoever_holds_the_link_cannot_take_back_an_older_wish_nor_learn_of_it(web: Door) -> None:
    web.books.suppress(ANN)
    known, unknown = web.post(web.token()), web.post(web.token(None, "nobody@customer.example"))
    assert without_tokens(known.body) == without_tokens(unknown.body)
    undone, fresh = web.undo(known.body), web.undo(unknown.body)
    assert (undone.status, undone.body) == (fresh.status, fresh.body)
    assert web.standing() == [(ALL, Reason.OPT_OUT)]
    assert web.standing("nobody@customer.example") == []


def test_the_tokens_of_clicks_tell_nothing(web: Door) -> None:
    """Of one who had opted out before and of one who had not, each clicked twice: what differs is drawn by lot."""
    web.books.suppress(ANN)
    links = [regret_link(web.post(web.token(None, a)).body) for a in (ANN, ANN, "bob@x.example", "bob@x.example")]
    read = [tokens.read(web.books.ledger.site_key, "regret", link.rpartition("/")[2]) for link in links]
    named = [t.click[4:] for t in read if t is not None]
    assert len(set(named)) == 4
    assert {(t.list_number, t.day, len(t.click)) for t in read if t is not None} == {(0, 0, tokens.CLICK_OCTETS)}


def test_what_was_undone_can_be_left_again_and_the_old_button_does_not_bring_it_back(web: Door) -> None:
    page = web.post(web.token()).body
    web.undo(page)
    assert web.post(web.token()).status == 200
    assert web.undo(page).status == 200
    assert web.standing() == [(ALL, Reason.OPT_OUT)]


@pytest.mark.parametrize("kind", LINKS)
def test_who_was_erased_may_come_back_too(web: Door, kind: str) -> None:
    web.books.suppress(ANN, reason=Reason.COMPLAINT)
    people.erase_everywhere(web.books.ledger, parse(ANN), web.context.now(), "test")
    assert post(web, link(web, kind)).status == 200
    assert web.standing() == [(ALL, Reason.COMPLAINT)]


def test_an_erasure_after_the_click_makes_it_final(web: Door) -> None:
    page = web.post(web.token()).body
    people.erase_everywhere(web.books.ledger, parse(ANN), web.context.now(), "test")
    assert web.undo(page).status == 200
    assert web.standing() == [(ALL, Reason.OPT_OUT)]


# ------------------------------------------------------------------ in time


def test_a_click_can_be_undone_for_an_hour(web: Door) -> None:
    path = link(web, "regret")
    later(web, minutes=58)
    assert web.ask("GET", path).status == 200
    later(web, minutes=61)
    for answer in (web.ask("GET", path), post(web, path)):
        assert answer.status == 400
        assert "no longer works" in answer.body
        assert "support@quillpdf.example" in answer.body
    assert web.standing() == [(ALL, Reason.OPT_OUT)]


@pytest.mark.parametrize(("day", "status"), [(0, 200), (-30, 200), (-32, 400), (-400, 400), (3, 400)])
def test_a_notice_is_good_for_thirty_days(web: Door, day: int, status: int) -> None:
    web.books.suppress(ANN, since=web.context.now() - timedelta(days=500))
    path, rows = web.notice(day=day), web.audit_rows()
    assert web.ask("GET", path).status == status
    answer = post(web, path)
    assert (answer.status, web.standing() == []) == (status, status == 200)
    assert (web.audit_rows() > rows) == (status == 200)
    assert "support@quillpdf.example" in answer.body


# ------------------------------------------------------------------ what changes nothing


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize(
    ("method", "status"), [("GET", 200), ("HEAD", 200), ("OPTIONS", 204), ("PUT", 405), ("DELETE", 405)]
)
def test_a_scanner_changes_nothing(web: Door, kind: str, method: str, status: int) -> None:
    path = link(web, kind)
    rows = web.audit_rows()
    assert web.ask(method, path + "?undo=1", body=UNDO if method != "HEAD" else b"").status == status
    assert web.audit_rows() == rows
    assert web.standing() == [(ALL, Reason.OPT_OUT)]


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", FORM, 400),
        (b"undo", FORM, 400),
        (b"undo=0", FORM, 400),
        (ONE_CLICK, FORM, 400),
        (b"undo=0&undo=1", FORM, 400),
        (UNDO, "text/plain", 400),
        (UNDO + b"&x=" + b"a" * MAX_BODY, FORM, 413),
    ],
)
def test_another_body_is_refused(web: Door, kind: str, body: bytes, content_type: str, status: int) -> None:
    assert post(web, link(web, kind), body, content_type).status == status
    assert web.standing() == [(ALL, Reason.OPT_OUT)]


def test_a_token_of_another_purpose_is_none(web: Door) -> None:
    web.books.suppress(ANN)
    for token in (web.token(), tokens.make(web.books.ledger.site_key, "received", web.key(), 0)):
        assert web.ask("GET", f"/undo/{token}").status == 400
        assert post(web, f"/undo/{token}").status == 400
    assert web.standing() == [(ALL, Reason.OPT_OUT)]


def test_what_was_not_recorded_is_not_confirmed(web: Door) -> None:
    path = link(web, "regret")
    file, hidden = web.books.ledger.path, web.books.ledger.path.with_name("hidden")
    file.rename(hidden)
    answer = post(web, path)
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert web.ask("GET", path).status == 200  # the page needs no ledger
    hidden.rename(file)
    assert web.standing() == [(ALL, Reason.OPT_OUT)]
    assert post(web, path).status == 200
    assert web.standing() == []


# ------------------------------------------------------------------ whatever comes


paths = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60).map(quote),
    st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=46, max_size=66),
)
values = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=80)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paths, st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "BREW"]), st.binary(max_size=200), values)
def test_no_token_breaks_anything(standing_door: Door, path: str, method: str, body: bytes, value: str) -> None:
    headers = [f"Content-Type: {value}", f"Accept-Language: {value}", f"X-Forwarded-For: {value}"]
    answer = standing_door.ask(method, f"/undo/{path}", *headers, body=body)
    assert 200 <= answer.status < 500
    assert standing_door.audit_rows() == 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 63), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"), st.booleans())
def test_no_changed_token_is_taken(standing_door: Door, at: int, letter: str, notice: bool) -> None:
    site_key = standing_door.books.ledger.site_key
    click = int(standing_door.context.now().timestamp()).to_bytes(4, "big") + bytes(6)
    regret = "/undo/" + tokens.make(site_key, "regret", standing_door.key(), 0, click=click)
    path = standing_door.notice() if notice else regret
    place = 6 + at % (len(path) - 6)
    changed = path[:place] + letter + path[place + 1 :]
    assert standing_door.ask("GET", changed).status == (200 if changed == path else 400)


def test_who_wants_to_come_back_is_not_told_how_to_leave(web: Door) -> None:
    for answer in (web.ask("GET", "/undo/broken"), web.ask("POST", "/undo/broken", body=b"undo=1")):
        assert answer.status == 400
        assert "If you want to get e-mail again, write to" in answer.body
        assert "that you want no more e-mail" not in answer.body
    assert "that you want no more e-mail" in web.ask("GET", "/u/broken").body
