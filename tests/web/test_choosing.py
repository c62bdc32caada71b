"""The page with all lists: it takes away only, and tells nobody what was left before."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.web.forms import MAX_BODY
from storage import suppressions
from storage.address import parse
from storage.audit import verify
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import Books
from tests.web.support import ANN, FORM, ONE_CLICK, Answer, Door, context, door, without_tokens
from tests.web.test_pages import Outline, forms

MULTIPART = "multipart/form-data; boundary=x"
PARTS = b"".join(
    b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % pair
    for pair in [(b"action", b"save"), (b"keep", b"newsletter")]
) + b"--x--\r\n"  # fmt: skip


def post(web: Door, body: bytes, content_type: str = FORM, *, address: str = ANN) -> Answer:
    return web.ask("POST", f"/p/{web.token('offers', address)}", f"Content-Type: {content_type}", body=body)


def test_what_is_not_kept_is_left(web: Door) -> None:
    answer = post(web, b"action=save&keep=newsletter")
    assert answer.status == 200
    assert "The offers" in answer.body
    assert "The newsletter" not in answer.body
    assert web.standing() == [(web.books.numbers["offers"], Reason.OPT_OUT)]


def test_multipart_is_understood(web: Door) -> None:
    assert post(web, PARTS, MULTIPART).status == 200
    assert web.standing() == [(web.books.numbers["offers"], Reason.OPT_OUT)]


def test_nothing_kept_is_every_list_and_leave_all_is_everything(web: Door) -> None:
    assert post(web, b"action=save").status == 200
    assert web.standing() == [(n, Reason.OPT_OUT) for n in sorted(web.books.numbers.values())]
    assert post(web, b"action=leave-all&keep=offers", address="bob@x.example").status == 200
    assert web.standing("bob@x.example") == [(ALL, Reason.OPT_OUT)]


def test_everything_kept_changes_nothing_and_says_so(web: Door) -> None:
    web.books.suppress(ANN, "offers")
    rows = web.audit_rows()
    answer = post(web, b"action=save&keep=offers&keep=newsletter")
    assert answer.status == 200
    assert "Nothing has been changed" in answer.body
    assert web.audit_rows() == rows
    assert web.standing() == [(web.books.numbers["offers"], Reason.OPT_OUT)]  # a tick brings nothing back


def test_lists_we_do_not_have_are_ignored(web: Door) -> None:
    assert post(web, b"action=save&keep=offers&keep=newsletter&keep=%00&keep=x").status == 200
    assert web.standing() == []


def test_a_list_that_is_gone_from_the_config_is_neither_shown_nor_left(ledger: Books) -> None:
    with door(ledger, context(ledger, "newsletter")) as web:
        page = web.ask("GET", f"/p/{web.token()}").body
        assert [i["value"] for i in Outline(page).all("input") if i["name"] == "keep"] == ["newsletter"]
        assert post(web, b"action=save").status == 200
        assert web.standing() == [(ledger.numbers["newsletter"], Reason.OPT_OUT)]


def test_the_page_shows_every_list_as_kept_whatever_was_left(web: Door) -> None:
    web.books.suppress(ANN, "offers")
    known, unknown = web.ask("GET", f"/p/{web.token()}"), web.ask("GET", f"/p/{web.token(None, 'bob@x.example')}")
    assert known.body == unknown.body
    outline = Outline(known.body)
    boxes = [i for i in outline.all("input") if i["type"] == "checkbox"]
    assert [i["value"] for i in boxes] == list(web.books.numbers)
    assert all("checked" in i and i["name"] == "keep" for i in boxes)
    assert len(outline.all("fieldset")) == len(outline.all("legend")) == 1
    assert len(outline.all("label")) == len(boxes)
    assert [f["action"] for f in forms(known.body)] == ["save", "leave-all"]


def test_known_and_unknown_people_get_the_same_answer(web: Door) -> None:
    web.books.suppress(ANN, "offers")
    bodies = (b"action=save", b"action=save&keep=offers", b"action=leave-all")
    for body in bodies:
        known, unknown = post(web, body), post(web, body, address="bob@x.example")
        assert without_tokens(known.body) == without_tokens(unknown.body)


def test_it_can_be_undone_as_a_whole_and_no_more_than_that(web: Door) -> None:
    web.books.suppress(ANN, "offers")
    page = post(web, b"action=save").body
    assert len(web.standing()) == 2
    assert web.undo(page).status == 200
    assert web.standing() == [(web.books.numbers["offers"], Reason.OPT_OUT)]


def test_twice_is_once(web: Door) -> None:
    once, rows = post(web, b"action=save"), web.audit_rows()
    twice = post(web, b"action=save")
    assert without_tokens(once.body) == without_tokens(twice.body)
    assert web.audit_rows() == rows


def test_it_can_be_explained(web: Door) -> None:
    post(web, b"action=save")
    with web.books.ledger.connect() as db:
        facts = suppressions.history(db, web.books.ledger.site_key, parse(ANN))
        verify(db, web.books.ledger.site_key)
    assert [(f.actor, f.event, f.source) for f in facts] == [("web", "suppressed", "page")] * 2
    assert facts[0].evidence == facts[1].evidence


def test_the_page_of_a_link_leads_there_where_there_is_a_choice(ledger: Books) -> None:
    with door(ledger, context(ledger, public_url="https://quillpdf.example/mail")) as web:
        (href,) = [a["href"] for a in Outline(web.ask("GET", f"/u/{web.token().upper()}").body).all("a")]
        assert href == f"/mail/p/{web.token()}"
        assert web.ask("GET", str(href)).status == 200
    with door(ledger, context(ledger, "offers")) as web:
        assert Outline(web.ask("GET", f"/u/{web.token()}").body).all("a") == []


def test_a_house_without_lists_has_one_button(ledger: Books) -> None:
    made = context(ledger)
    bare = made.__class__(ledger.ledger, made.house.model_copy(update={"lists": ()}), ledger.numbers, "", made.now)
    with door(ledger, bare) as web:
        page = web.ask("GET", f"/p/{web.token()}").body
        assert [f["action"] for f in forms(page)] == ["leave-all"]
        assert Outline(page).all("fieldset") == []
        assert post(web, b"action=leave-all").status == 200
        assert web.standing() == [(ALL, Reason.OPT_OUT)]


def test_a_house_of_many_lists_can_keep_them_all(ledger: Books) -> None:
    """The form must not be too long for itself: what is cut off would be left."""
    names = [f"list-{n:03}-of-a-house-with-many" for n in range(200)]
    with write(ledger.ledger, context(ledger).now(), "test") as w:
        ledger.numbers.update(suppressions.number_lists(w, names))
    with door(ledger, context(ledger, *names)) as web:
        kept = "&".join(["action=save", *(f"keep={n}" for n in names)])
        assert post(web, kept.encode()).status == 200
        assert web.standing() == []
        assert post(web, kept.replace("keep=list-007-of-a-house-with-many", "x=y").encode()).status == 200
        assert web.standing() == [(ledger.numbers[names[7]], Reason.OPT_OUT)]


@pytest.mark.parametrize(
    ("method", "status"), [("GET", 200), ("HEAD", 200), ("OPTIONS", 204), ("PUT", 405), ("PATCH", 405)]
)
def test_a_scanner_changes_nothing(web: Door, method: str, status: int) -> None:
    rows = web.audit_rows()
    assert web.ask(method, f"/p/{web.token()}?action=leave-all").status == status
    assert web.audit_rows() == rows


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", FORM, 400),
        (b"keep=offers", FORM, 400),
        (b"action=", FORM, 400),
        (b"action=leave", FORM, 400),
        (ONE_CLICK, FORM, 400),
        (b"action=save", "text/plain", 400),
        (b"action=save&" + b"&".join([b"keep=offers"] * 40), FORM, 400),  # not a form of ours: not cut, refused
        (PARTS * 20, MULTIPART, 400),
        (b"action=save&x=" + b"a" * (MAX_BODY + 100), FORM, 413),
    ],
)
def test_another_body_is_refused(web: Door, body: bytes, content_type: str, status: int) -> None:
    assert post(web, body, content_type).status == status
    assert web.standing() == []


def test_what_was_not_recorded_is_not_confirmed(web: Door) -> None:
    file, hidden = web.books.ledger.path, web.books.ledger.path.with_name("hidden")
    file.rename(hidden)
    for body in (b"action=save", b"action=leave-all"):
        answer = post(web, body)
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
    hidden.rename(file)
    assert web.standing() == []
    assert post(web, b"action=save").status == 200


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=200), st.lists(st.sampled_from([b"action=save", b"keep=offers", b"&", b"="])).map(b"".join)
    ),
    st.sampled_from([FORM, MULTIPART, "", "text/plain", "\xff"]),
)
def test_no_form_breaks_anything(standing_door: Door, body: bytes, content_type: str) -> None:
    answer = post(standing_door, body, content_type)
    assert 200 <= answer.status < 500
    assert {reason for _, reason in standing_door.standing()} <= {Reason.OPT_OUT}
