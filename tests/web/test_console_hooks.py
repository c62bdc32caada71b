"""The console's room for webhooks: what it shows, what may be done there, and by whom."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from daemon.options import Webhook
from storage import hooks, suppressions
from storage.write import write
from tests.ledgers import Books
from tests.web.support import Door, door, whole
from tests.web.visitor import LOOKER, Visitor

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
CRM = Webhook(name="crm", url="https://crm.quillpdf.example/hook", secret_file="secret", events=("opt-out", "lift"))
SHOP = Webhook(name="shop", url="https://shop.example/", secret_file="secret")
PATH = "/console/hooks"


def given_up(ledger: Books, number: int, hook: str = "crm", trouble: str = "HTTP 500") -> None:
    """So many changes that this hook was never told."""
    with ledger.ledger.connect() as db:
        head = suppressions_head(ledger)
    for n in range(number):
        ledger.suppress(f"{hook}{head}-{n}@customer.example")
    with ledger.ledger.connect() as db:
        changes, _ = hooks.window(db, head, head + number)
    with write(ledger.ledger, NOW, "test") as w:
        hooks.begin(w, hook)
        hooks.give_up(w, hook, changes, trouble)


def suppressions_head(ledger: Books) -> int:
    with ledger.ledger.connect() as db:
        return int(db.exec_driver_sql("SELECT coalesce(max(seq), 0) FROM audit").scalar_one())


def left(ledger: Books) -> list[tuple[int, str]]:
    with ledger.ledger.connect() as db:
        return [(x.id, x.trouble) for x in hooks.lost(db)]


def facts(ledger: Books) -> list[tuple[str, str]]:
    with ledger.ledger.reading() as db:
        found = [f for f, _ in suppressions.facts(db)]
    return [(f.event, f.actor) for f in found if f.event.startswith("hook")]


@pytest.fixture
def web(ledger: Books) -> Iterator[Door]:
    """A door of a house with two hooks."""
    with door(ledger, whole(ledger, hooks=(CRM, SHOP))) as opened:
        yield opened


def text(body: str) -> str:
    """As somebody reads it."""
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_a_house_without_hooks_says_so(ledger: Books) -> None:
    with door(ledger, whole(ledger)) as web:
        page = Visitor(web).get(PATH)
    assert page.status == 200
    assert "names no program" in page.body


def test_it_shows_how_it_is_with_each(ledger: Books, web: Door) -> None:
    given_up(ledger, 2, "old", "HTTP 410: gone")
    with write(ledger.ledger, NOW, "test") as w:
        hooks.begin(w, "shop")
        hooks.failed(w, "shop", 0, 7, NOW + timedelta(minutes=5), "not reached: <i>Connection refused</i>")
    ledger.suppress("ann@customer.example")
    before = web.audit_rows()
    page = Visitor(web).get(PATH)
    said = text(page.body)
    assert "crm crm.quillpdf.example Not begun yet 0 0 opt-out lift" in said
    assert "shop shop.example Cannot be told not reached: &lt;i&gt;Connection refused&lt;/i&gt;" in said
    assert "7 tries in a row; next at 2026-05-04 12:05 UTC 1 0 opt-out complaint" in said
    assert "old Not in the config any more 0 2" in said
    assert "opt-out 1 old" in said
    assert "HTTP 410: gone" in said
    assert "customer.example" not in page.body
    assert web.audit_rows() == before


def test_the_chosen_are_sent_again(ledger: Books, web: Door) -> None:
    given_up(ledger, 2)
    kim = Visitor(web)
    kim.get(PATH)
    page = kim.follow(kim.post(f"{PATH}/again", id="2"))
    assert "1 change to be sent again" in page.body
    assert left(ledger) == [(1, "HTTP 500"), (2, "")]
    assert facts(ledger) == [("hook-again", "console admin")]
    assert "and 1 to be sent again" in text(page.body)


def test_all_of_one_program_are_sent_again(ledger: Books, web: Door) -> None:
    given_up(ledger, 2)
    given_up(ledger, 1, "shop")
    kim = Visitor(web)
    page = kim.get(f"{PATH}?hook=crm")
    assert "Send all of crm again" in page.body
    assert "Choose change 3" not in page.body
    kim.follow(kim.post(f"{PATH}/again", hook="crm"))
    assert left(ledger) == [(1, ""), (2, ""), (3, "HTTP 500")]


def test_what_is_dropped_is_asked_for_twice_and_wants_a_reason(ledger: Books, web: Door) -> None:
    given_up(ledger, 3)
    kim = Visitor(web)
    kim.get(PATH)
    asked = kim.post(f"{PATH}/drop", id="2")
    assert (asked.status, len(left(ledger))) == (200, 3)
    assert "Drop 1 change?" in asked.body
    again = kim.post(f"{PATH}/drop", id="2", because=" ")
    assert (again.status, len(left(ledger))) == (422, 3)
    assert "Say why" in again.body
    page = kim.follow(kim.post(f"{PATH}/drop", id="2", because="told by hand"))
    assert "1 change dropped" in page.body
    assert [number for number, _ in left(ledger)] == [1, 3]
    assert facts(ledger) == [("hook-dropped", "console admin")]


def test_all_of_a_program_means_all_that_the_operator_has_seen(ledger: Books, web: Door) -> None:
    given_up(ledger, 2)
    kim = Visitor(web)
    kim.get(PATH)
    asked = kim.post(f"{PATH}/drop", hook="crm")
    assert "Drop 2 changes?" in asked.body
    assert 'name="upto" value="2"' in asked.body
    given_up(ledger, 1)
    kim.follow(kim.post(f"{PATH}/drop", hook="crm", upto="2", because="test"))
    assert [number for number, _ in left(ledger)] == [3]


def test_many_go_over_several_pages(ledger: Books, web: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.web.console.hooks._PAGE", 2)
    given_up(ledger, 3)
    kim = Visitor(web)
    (more,) = re.findall(r'href="(/console/hooks\?[^"#]*after=[^"#]*)', kim.get(f"{PATH}?hook=crm").body)
    page = kim.get(more.replace("&amp;", "&"))
    assert re.findall(r'name="id" value="(\d+)"', page.body) == ["3"]


@pytest.mark.parametrize("what", ["again", "drop"])
def test_who_may_only_look_changes_nothing(ledger: Books, web: Door, what: str) -> None:
    given_up(ledger, 1)
    kim = Visitor(web, *LOOKER)
    page = kim.get(PATH)
    assert page.status == 200
    assert "Send the chosen" not in page.body
    assert kim.post(f"{PATH}/{what}", id="1", because="x").status == 403
    assert left(ledger) == [(1, "HTTP 500")]


@pytest.mark.parametrize("what", ["again", "drop"])
def test_a_forged_form_changes_nothing(ledger: Books, web: Door, what: str) -> None:
    given_up(ledger, 1)
    kim = Visitor(web)
    kim.csrf_token = "forged"
    assert kim.post(f"{PATH}/{what}", id="1", because="x").status == 403
    assert kim.get(f"{PATH}/{what}?id=1&because=x").status == 405
    assert left(ledger) == [(1, "HTTP 500")]


@pytest.mark.parametrize("given", ["", "x", "-1", "0", "9" * 30, "²", "7"])
def test_what_is_no_change_is_told(ledger: Books, web: Door, given: str) -> None:
    given_up(ledger, 1)
    kim = Visitor(web)
    kim.get(PATH)
    for what in ("again", "drop"):
        page = kim.follow(kim.post(f"{PATH}/{what}", id=given, because="x"))
        assert "Nothing was chosen, or it is gone by now." in page.body
    assert left(ledger) == [(1, "HTTP 500")]
    assert kim.get(f"{PATH}?after={given.strip('²')}&hook=<i>").status == 200


def test_who_has_no_session_is_sent_to_the_entrance(web: Door) -> None:
    for method, path in (("GET", PATH), ("POST", f"{PATH}/again"), ("POST", f"{PATH}/drop")):
        assert web.ask(method, path).headers["location"] == "/console/login"
