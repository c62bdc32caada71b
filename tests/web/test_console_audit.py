"""The record in the console: what it shows, and whether it is whole."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote

import pytest

from daemon.web.console.audit import PAGE
from daemon.web.context import Holder
from storage import audit, suppressions, trail
from storage.address import parse
from storage.terms import Reason
from storage.write import write
from tests.ledgers import Books
from tests.web.hostile import PAYLOADS
from tests.web.parsed import holds, parsed
from tests.web.support import ANN, Answer, Door, door, whole
from tests.web.visitor import LOOKER, Visitor


@pytest.fixture
def web(ledger: Books) -> Iterator[Door]:
    with door(ledger, whole(ledger)) as opened:
        yield opened


@pytest.fixture
def kim(web: Door) -> Visitor:
    """Who may look may verify: nothing but the note of the last check changes."""
    return Visitor(web, *LOOKER)


def checked(visitor: Visitor, **fields: str) -> Answer:
    """The page when a check is over."""
    visitor.get("/console/audit")
    page = visitor.follow(visitor.post("/console/audit/verify", **fields))
    for _ in range(400):
        if "refresh" not in page.headers:
            return page
        time.sleep(0.02)
        page = visitor.get("/console/audit")
    raise AssertionError(page.body)


def shown_rows(page: Answer) -> list[int]:
    return [int(n) for n in re.findall(r'<th scope="row">(\d+)</th>', page.body)]


def test_without_the_right_nobody_sees_the_record(ledger: Books) -> None:
    nobody = Holder("sam", "may do nothing here", frozenset({"import"}))
    with door(ledger, whole(ledger, operators={"sam": nobody})) as web:
        sam = Visitor(web, "sam", nobody.secret)
        assert sam.get("/console/audit").status == 403
        assert sam.post("/console/audit/verify", what="all").status == 403


def test_a_check_without_the_token_of_the_page_is_refused(ledger: Books, kim: Visitor) -> None:
    ledger.suppress(ANN)
    assert kim.post("/console/audit/verify", what="new", csrf_token="forged").status == 403
    with ledger.ledger.connect() as db:
        assert audit.last_verified(db, ledger.ledger.site_key) is None


def test_looking_changes_nothing(ledger: Books, web: Door, kim: Visitor) -> None:
    ledger.suppress(ANN)
    before = web.audit_rows()
    assert kim.get("/console/audit").status == 200
    assert kim.get("/console/audit/verify?what=all").status == 405
    with ledger.ledger.connect() as db:
        assert audit.last_verified(db, ledger.ledger.site_key) is None
    assert web.audit_rows() == before


def test_the_trail_is_newest_first_with_its_evidence_and_its_person(ledger: Books, kim: Visitor) -> None:
    ledger.suppress(ANN, "offers")
    ledger.lift(ANN, ledger.numbers["offers"])
    page = kim.get("/console/audit")
    assert shown_rows(page) == [2, 1]
    text = parsed(page.body).text
    assert re.search(r"suppressed\s*list:offers\s*opt-out\s*by operator", text)
    assert re.search(r"because\s*test", text)
    assert 'href="/console/suppressions?q=ann%40customer.example"' in page.body


def test_of_a_forgotten_evidence_that_is_said(ledger: Books, kim: Visitor) -> None:
    ledger.suppress(ANN)
    with write(ledger.ledger, datetime.now(UTC), "test") as w:
        w.forget_evidence([1])
        w.db.exec_driver_sql("DELETE FROM person")
    page = kim.get("/console/audit").body
    assert "ref 1, forgotten" in page
    assert ANN not in page


def test_filters_show_what_fits_and_nothing_else(ledger: Books, kim: Visitor) -> None:
    ledger.suppress(ANN)
    ledger.lift(ANN)
    with write(ledger.ledger, datetime.now(UTC), "console kim") as w:
        suppressions.add(w, parse(ANN), 0, Reason.OPT_OUT, "operator", {})
    assert shown_rows(kim.get("/console/audit?event=lifted")) == [2]
    assert shown_rows(kim.get("/console/audit?actor=console+")) == [3]
    assert shown_rows(kim.get("/console/audit?actor=test&event=suppressed")) == [1]
    nothing = kim.get("/console/audit?actor=%25")
    assert shown_rows(nothing) == []
    assert "Nothing of the kind." in nothing.body
    assert kim.get("/console/audit?event=invented").status == 404


def test_the_trail_goes_on_behind_a_page(ledger: Books, kim: Visitor) -> None:
    for n in range(PAGE + 5):
        ledger.suppress(f"p{n}@customer.example")
    first = kim.get("/console/audit")
    (link,) = re.findall(r'rel="next" href="([^"]+)"', first.body)
    second = kim.get(link.replace("&amp;", "&"))
    assert shown_rows(first) + shown_rows(second) == list(range(PAGE + 5, 0, -1))
    assert 'rel="next"' not in second.body


def test_a_long_record_is_looked_through_piece_by_piece(ledger: Books) -> None:
    for n in range(30):
        ledger.suppress(f"p{n}@customer.example")
    ledger.lift("p0@customer.example")
    with ledger.ledger.reading() as db:
        found = trail.backwards(db, None, event="suppressed", actor="test", most=5, wide=3)
        assert ([f.seq for f in found.facts], found.reached) == ([30, 29], 29)
        assert trail.backwards(db, 29, event="lifted", wide=3).reached == 26
        assert trail.backwards(db, 3, event="lifted", wide=3).reached is None
        assert [f.seq for f in trail.backwards(db, 3, wide=3).facts] == [2, 1]
        assert trail.backwards(db, 10**18).facts[0].seq == 31
        assert found.addresses


@pytest.mark.parametrize("before", ["x", "-1", "9" * 40, "1e3", "%00"])
def test_a_place_in_the_record_that_is_none_is_its_end(ledger: Books, kim: Visitor, before: str) -> None:
    ledger.suppress(ANN)
    assert shown_rows(kim.get(f"/console/audit?before={before}")) == [1]


# ------------------------------------------------------------------ is it whole?


def test_a_check_of_what_is_new_says_where_the_record_ends(ledger: Books, kim: Visitor) -> None:
    ledger.suppress(ANN)
    page = checked(kim, what="new")
    with ledger.ledger.connect() as db:
        head = audit.Chain(ledger.ledger.site_key).head(db)
        assert str(audit.last_verified(db, ledger.ledger.site_key)) == str(head)
        assert db.exec_driver_sql("SELECT name FROM job_run").scalars().all() == ["note_head"]
    assert page.body.count(str(head)) == 2
    assert "Whole: 1 rows, of which 1 were new" in page.body
    ledger.suppress("bob@customer.example")
    assert "Whole: 2 rows, of which 1 were new" in checked(kim, what="new").body


def test_a_check_of_everything_finds_a_row_that_was_put_in_from_outside(ledger: Books, kim: Visitor) -> None:
    ledger.suppress(ANN)
    assert '<p class="good">Whole: 1 rows.' in checked(kim, what="all").body
    with ledger.ledger.store.engine.begin() as db:
        db.exec_driver_sql("DELETE FROM suppression")
    assert '<p class="good">Whole' in checked(kim, what="new").body  # it does not look there
    page = checked(kim, what="all")
    assert '<p class="bad" role="alert">' in page.body
    assert "The record was changed from outside:" in page.body
    assert "compare it with your backups" in page.body


def test_a_head_that_was_noted_must_still_be_there(ledger: Books, kim: Visitor) -> None:
    ledger.suppress(ANN)
    with ledger.ledger.connect() as db:
        head = str(audit.Chain(ledger.ledger.site_key).head(db))
    assert "The head that was given is part of it." in checked(kim, what="all", head=head.upper()).body
    wrong = checked(kim, what="new", head="1:" + "0" * 32)
    assert "Or the head that was given is not of this database." in wrong.body
    assert "A head is SEQ:HASH" in checked(kim, what="all", head="nonsense").body


def test_one_check_at_a_time(ledger: Books, kim: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from daemon.web.console import audit as room

    going_on, real = threading.Event(), audit.verify

    def slow(*given: object, **named: object) -> audit.Head:
        assert going_on.wait(10)
        return real(*given, **named)  # type: ignore[arg-type]  # handed on as it came

    monkeypatch.setattr(audit, "verify", slow)
    monkeypatch.setattr(room, "_QUICK_SECONDS", 0.05)
    kim.get("/console/audit")
    page = kim.follow(kim.post("/console/audit/verify", what="all"))
    assert page.headers["refresh"] == "2"
    assert "Everything is being checked" in page.body
    again = kim.follow(kim.post("/console/audit/verify", what="new"))
    assert "A check is under way already." in again.body
    going_on.set()
    for _ in range(400):
        page = kim.get("/console/audit")
        if "refresh" not in page.headers:
            break
        time.sleep(0.02)
    assert '<p class="good">Whole' in page.body


def test_a_stop_does_not_wait_for_a_long_check(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    from daemon.web.console import audit as room

    def endless(db: object, key: object, head: object, progress: object, **_: object) -> None:
        while True:
            progress(1)  # type: ignore[operator]  # as audit.Progress

    monkeypatch.setattr(audit, "verify", endless)
    monkeypatch.setattr(room, "_QUICK_SECONDS", 0.05)
    with door(ledger, whole(ledger)) as web:
        kim = Visitor(web, *LOOKER)
        kim.get("/console/audit")
        kim.post("/console/audit/verify", what="all")
        began = time.monotonic()
    assert time.monotonic() - began < 5


# ------------------------------------------------------------------ hostile


@pytest.fixture(scope="module")
def one_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Books, Visitor]]:
    from tests.ledgers import books

    made = books(tmp_path_factory.mktemp("hostile") / "ledger")
    with door(made, whole(made)) as web:
        yield made, Visitor(web, *LOOKER)


@pytest.mark.parametrize("name", PAYLOADS)
def test_whatever_stands_in_the_record_is_shown_as_text(one_door: tuple[Books, Visitor], name: str) -> None:
    books, kim = one_door
    payload = PAYLOADS[name]
    with write(books.ledger, datetime.now(UTC), f"console {payload}") as w:
        detail = {"address": payload, "words": payload, payload[:100]: [payload], "note": {payload: payload}}
        w.audit("lifted", source=payload, evidence=w.evidence(**detail))
    holds(kim.get("/console/audit").body)
    holds(kim.get(f"/console/audit?actor={quote('console ' + payload)[:3000]}").body)
