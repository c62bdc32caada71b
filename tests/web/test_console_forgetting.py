"""Forgetting a person and papers about one, in the console; what is begun, and the page that waits for it."""

from __future__ import annotations

import html
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from daemon import hand
from daemon.web import errands
from storage import suppressions
from storage.address import parse
from storage.engine import Unavailable
from storage.people import Erased
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import Books
from tests.web.rooms import asked, ended, rooms, text_of
from tests.web.support import ANN, Door
from tests.web.visitor import LOOKER, Visitor


@pytest.fixture
def web(ledger: Books) -> Iterator[Door]:
    with rooms(ledger) as opened:
        yield opened


@pytest.fixture
def admin(web: Door) -> Visitor:
    return Visitor(web)


def test_forgetting_asks_first_and_then_does_it(web: Door, admin: Visitor) -> None:
    web.books.suppress(ANN)
    page = admin.get(f"/console/erase?address={quote(ANN)}")
    assert ("What goes" in page.body, "What stays" in page.body) == (True, True)
    refused = admin.post("/console/erase", address=ANN)
    assert (refused.status, "Tick the box" in refused.body) == (422, True)
    assert "erased" not in _events(web)
    done = text_of(ended(admin, admin.post("/console/erase", address=ANN, sure="yes")))
    assert f"{ANN} is forgotten." in done
    assert "opt-out (all)" in done
    assert _events(web)[-1] == "erased"
    page_of = text_of(asked(admin, ANN))
    assert "This person was forgotten" in page_of
    assert "no marketing mail goes there" in page_of


def _events(web: Door) -> list[str]:
    with web.books.ledger.connect() as db:
        return [str(r[0]) for r in db.exec_driver_sql("SELECT event FROM audit ORDER BY seq")]


def test_forgetting_somebody_unknown_writes_nothing(web: Door, admin: Visitor) -> None:
    admin.get(f"/console/erase?address={quote(ANN)}")
    assert "Nothing is known of" in text_of(ended(admin, admin.post("/console/erase", address=ANN, sure="yes")))
    assert web.audit_rows() == 0


@pytest.mark.parametrize("address", ["nobody", "@customer.example", ""])
def test_only_a_person_can_be_forgotten(admin: Visitor, address: str) -> None:
    assert admin.get(f"/console/erase?address={quote(address)}").status == 422


@pytest.mark.parametrize(
    ("paper", "says"), [("subject", "GDPR Art. 15"), ("certificate", f"Certificate: may {ANN} be mailed?")]
)
def test_papers_are_shown_and_saved(web: Door, admin: Visitor, paper: str, says: str) -> None:
    with write(web.books.ledger, web.context.now(), "test") as w:
        suppressions.add(w, parse(ANN), ALL, Reason.OPT_OUT, "mail", {"words": "please\x1b[2J stop"})
    asked(admin, ANN)
    begun = admin.post("/console/papers", address=ANN, paper=paper)
    page = ended(admin, begun)
    assert says in html.unescape(page.body)
    saved = admin.get(f"{begun.headers['location']}/file")
    assert (saved.status, saved.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert saved.headers["content-disposition"].startswith('attachment; filename="')
    assert (says in saved.body, "\x1b" in saved.body) == (True, False)


def test_nothing_on_record_is_no_certificate(admin: Visitor) -> None:
    asked(admin, ANN)
    begun = admin.post("/console/papers", address=ANN, paper="certificate")
    assert "there is nothing to certify" in text_of(ended(admin, begun))
    assert admin.get(f"{begun.headers['location']}/file").status == 404


def test_a_paper_that_there_is_not(admin: Visitor) -> None:
    asked(admin, ANN)
    assert admin.post("/console/papers", address=ANN, paper="x").status == 400
    assert admin.post("/console/papers", address="@customer.example", paper="subject").status == 422


def test_what_was_begun_is_for_whoever_began_it_and_for_a_while(
    web: Door, admin: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked(admin, ANN)
    begun = admin.post("/console/papers", address=ANN, paper="subject")
    ended(admin, begun)
    assert Visitor(web, *LOOKER).get(begun.headers["location"]).status == 404
    assert admin.get("/console/begun/xyz").status == 404
    monkeypatch.setattr(errands, "KEPT_SECONDS", 0.0)
    assert admin.get(begun.headers["location"]).status == 404


def test_while_it_is_under_way_the_page_looks_again(web: Door, admin: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(*_: object) -> Erased:
        time.sleep(0.5)
        return Erased()

    monkeypatch.setattr(hand.Hand, "erase", slowly)
    admin.get(f"/console/erase?address={quote(ANN)}")
    begun = admin.post("/console/erase", address=ANN, sure="yes")
    page = admin.get(begun.headers["location"])
    assert page.headers["refresh"] == "2"
    assert "This page looks again by itself" in page.body
    assert "Nothing is known of" in text_of(ended(admin, begun))


def test_what_could_not_be_done_says_so(web: Door, admin: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> Erased:
        raise Unavailable("the disk is gone")

    monkeypatch.setattr(hand.Hand, "erase", away)
    admin.get(f"/console/erase?address={quote(ANN)}")
    page = ended(admin, admin.post("/console/erase", address=ANN, sure="yes"))
    assert "the database could not be asked" in page.body
    assert "the disk is gone" not in page.body
