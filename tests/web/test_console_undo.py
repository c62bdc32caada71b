"""Brake and undo in the console: what waits, what is counted, what is ended."""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from daemon.web.errands import MOST_EACH
from storage import brake, held, suppressions
from storage.address import parse
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import Books, bring, queued
from tests.web.rooms import ended, rooms, text_of
from tests.web.support import ANN, Door
from tests.web.visitor import LOOKER, Visitor

NOW = datetime(2026, 5, 4, 12, 30, 15, tzinfo=UTC)
BOB = "bob@customer.example"


@pytest.fixture
def web(ledger: Books) -> Iterator[Door]:
    with rooms(ledger) as opened:
        yield opened


@pytest.fixture
def admin(web: Door) -> Visitor:
    """Who looks at the room."""
    visitor = Visitor(web)
    visitor.get("/console/undo")
    return visitor


@pytest.fixture
def imported(web: Door) -> Books:
    """Ann and Bob came by a list, and Bob has asked himself since; a bounce."""
    it = web.books
    with write(it.ledger, NOW, "import") as w:
        people = sorted((web.key(a), a) for a in (ANN, BOB))
        rows = [(key, ALL, int(Reason.OPT_OUT), 1) for key, _ in people]
        bring(w, rows, "import", {"file": "list <b>.csv", "import": 3}, people)
    bounce = {"mailbox": "bounces", "cause": "bounces:outlook.com/5.1.1"}
    with write(it.ledger, NOW, "mailbox bounces") as w:
        suppressions.add(w, parse(BOB), ALL, Reason.OPT_OUT, "mail", {})
        suppressions.add(w, parse("cem@customer.example"), ALL, Reason.HARD_BOUNCE, "dsn", bounce)
    return it


def pulled(web: Door) -> list[str]:
    with web.books.ledger.connect() as db:
        return [str(what) for what in brake.pulled(db)]


# ------------------------------------------------------------------ undo


def test_counted_first_then_confirmed_then_done(web: Door, admin: Visitor, imported: Books) -> None:
    rows = web.audit_rows()
    counted = ended(admin, admin.post("/console/undo/count", **{"import": "list <b>.csv", "source": "import"}))
    said = text_of(counted)
    assert said.startswith("1 suppression would end")
    assert f"Among them: {ANN}." in said
    assert "1 stay, because they were asked for, or reported, again apart from this." in said
    assert 'name="import" value="list &lt;b&gt;.csv"' in counted.body
    assert web.audit_rows() == rows
    fields = dict(re.findall(r'type="hidden" name="(import|source)" value="([^"]*)"', counted.body))
    answer = admin.post("/console/undo", because="the wrong <file>", **{k: html.unescape(v) for k, v in fields.items()})
    done = ended(admin, answer)
    assert text_of(done).startswith("1 suppression ended")
    assert "the wrong &lt;file&gt;" in done.body
    assert (web.standing(ANN), web.standing(BOB)) == ([], [(ALL, Reason.OPT_OUT)])
    with web.books.ledger.connect() as db:
        fact = suppressions.history(db, web.books.ledger.site_key, parse(ANN))[-1]
    assert (fact.event, fact.actor, (fact.detail or {})["because"]) == ("lifted", "console admin", "the wrong <file>")


@pytest.mark.parametrize(
    ("fields", "many"),
    [
        ({"cause": "hard-bounce"}, 1),
        ({"mailbox": "bounces"}, 1),
        ({"source": "dsn", "list": "all"}, 1),
        ({"source": "dsn", "list": "offers"}, 0),
        ({"domain": " Outlook.com "}, 1),
        ({"domain": "outlook.com", "diagnostic": "5.1.1"}, 1),
        ({"diagnostic": "5.1.2"}, 0),
        ({"import": "3", "even_opt_outs": "yes"}, 2),
        ({"import": "3", "from": "2026-05-04T12:30", "to": "2026-05-04T12:30"}, 1),  # the minute is meant
        ({"import": "3", "from": "2026-05-04", "to": "2026-05-04"}, 1),
        ({"import": "3", "from": "2026-05-04T12:31"}, 0),
        ({"import": "3", "to": "2026-05-04T12:29"}, 0),
    ],
)
def test_all_that_is_given_must_hold(admin: Visitor, imported: Books, fields: dict[str, str], many: int) -> None:
    said = text_of(ended(admin, admin.post("/console/undo/count", **fields)))
    assert said.startswith(f"{many} suppression")
    assert ("There is nothing to undo." in said) == (many == 0)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "Say what is to be undone"),
        ({"from": "2026-05-04"}, "Say what is to be undone"),
        ({"cause": "wanted"}, "There is no such reason or source."),
        ({"source": "fax"}, "There is no such reason or source."),
        ({"cause": "complaint", "list": "nope"}, "There is no such list."),
        ({"cause": "complaint", "from": "yesterday"}, "yesterday is no date"),
        ({"cause": "complaint", "to": "9999-12-31"}, "9999-12-31 is no date"),
        ({"cause": "complaint", "from": "2026-05-05", "to": "2026-05-04"}, "The window ends before it begins."),
    ],
)
@pytest.mark.parametrize("path", ["/console/undo/count", "/console/undo"])
def test_what_cannot_be_is_told_and_kept(
    web: Door, admin: Visitor, imported: Books, path: str, fields: dict[str, str], sentence: str
) -> None:
    rows = web.audit_rows()
    page = admin.post(path, because="x", mailbox="", **fields)
    assert (page.status, sentence in text_of(page)) == (422, True)
    if from_ := fields.get("from"):
        assert f'name="from" type="datetime-local" value="{from_}"' in page.body
    assert web.audit_rows() == rows


def test_nothing_is_undone_without_a_reason(web: Door, admin: Visitor, imported: Books) -> None:
    page = admin.post("/console/undo", cause="hard-bounce", because=" ")
    assert (page.status, "Say why" in page.body) == (422, True)
    assert web.standing("cem@customer.example") == [(ALL, Reason.HARD_BOUNCE)]


# ------------------------------------------------------------------ the brake


@pytest.mark.parametrize("what", brake.WHAT)
def test_pulled_and_released(web: Door, admin: Visitor, what: str) -> None:
    page = text_of(admin.follow(admin.post("/console/brake", what=what, to="pull", because="a <storm>")))
    assert "wait for a person from now on." in page
    assert "by console admin: a <storm> (ref 1)" in page
    assert pulled(web) == [what]
    page = text_of(admin.follow(admin.post("/console/brake", what=what, to="pull", because="again")))
    assert "It was so already; nothing was changed." in page
    page = text_of(admin.follow(admin.post("/console/brake", what=what, to="release", because="over")))
    assert "act again." in page
    assert (pulled(web), web.audit_rows()) == ([], 2)


def test_one_cause_is_pulled_shown_and_released(web: Door, admin: Visitor) -> None:
    name = "bounces:outlook.com/5.1.1"
    page = text_of(admin.follow(admin.post("/console/brake", what=name, to="pull", because="a block")))
    assert "Bounces of outlook.com with 5.1.1 wait for a person from now on." in page
    body = admin.get("/console/undo").body
    assert f'name="what" value="{name}"' in body
    assert pulled(web) == [name]
    page = text_of(admin.follow(admin.post("/console/brake", what=name, to="release", because="over")))
    assert "Bounces of outlook.com with 5.1.1 act again." in page
    assert (pulled(web), name in admin.get("/console/undo").body.replace(f'placeholder="{name}"', "")) == ([], False)


@pytest.mark.parametrize("what", ["bounces:<b>", "complaints:a.example/5.1.1", "bounces:" + "x" * 150])
def test_a_cause_that_there_is_not_is_told(web: Door, admin: Visitor, what: str) -> None:
    page = admin.post("/console/brake", what=what, to="pull", because="x")
    assert (page.status, "There is no such brake." in text_of(page), pulled(web)) == (422, True, [])


def test_the_reference_of_a_pull_leads_to_why(admin: Visitor) -> None:
    admin.post("/console/brake", what="bounces", to="pull", because="a storm")
    page = text_of(admin.get("/console/suppressions?q=ref+1"))
    assert ("The brake was pulled or released" in page, "a storm" in page) == (True, True)


@pytest.mark.parametrize("fields", [{"what": "bounces"}, {"what": "all", "because": "x"}, {"because": "x"}])
def test_a_brake_without_a_reason_or_a_name_is_not_pulled(web: Door, admin: Visitor, fields: dict[str, str]) -> None:
    page = admin.post("/console/brake", to="pull", **fields)
    assert (page.status, 'role="alert"' in page.body) == (422, True)
    assert (pulled(web), web.audit_rows()) == ([], 0)


# ------------------------------------------------------------------ what waits by it

CAUSE = "bounces:outlook.com/5.1.1"


@pytest.fixture
def waiting(web: Door) -> None:
    """Ann and Bob were reported by a cause whose brake is pulled."""
    with write(web.books.ledger, NOW, "mailbox bounces") as w:
        brake.pull_by_itself(w, CAUSE, "201 people", "dsn")
        for address in (ANN, BOB):
            words = held.words_of(CAUSE, "550 5.1.1 <b>")
            queued(w, NOW, addresses=[address], wish="hard-bounce", rules=[held.RULE], words=words)


@pytest.mark.parametrize(("decision", "standing"), [("accept", [(ALL, Reason.HARD_BOUNCE)]), ("reject", [])])
def test_what_waits_is_counted_then_decided_together(
    web: Door, admin: Visitor, waiting: None, decision: str, standing: list[tuple[int, Reason]]
) -> None:
    assert "2 mails wait by this brake." in text_of(admin.get("/console/undo"))
    rows = web.audit_rows()
    counted = ended(admin, admin.post("/console/brake/count", what=CAUSE, decision=decision))
    said = text_of(counted)
    assert said.startswith(
        f"2 mails would be {decision}ed All that waits because of the brake on bounces of outlook.com"
    )
    assert f"Among them: {ANN}, {BOB}." in said
    assert (web.audit_rows(), f'name="what" value="{CAUSE}"' in counted.body) == (rows, True)
    done = ended(admin, admin.post("/console/brake/decide", what=CAUSE, decision=decision, note="looked"))
    assert text_of(done).startswith(f"2 mails {decision}ed 2 hard-bounce")
    assert [web.standing(address) for address in (ANN, BOB)] == [standing] * 2
    with web.books.ledger.connect() as db:
        actors = {row[0] for row in db.exec_driver_sql("SELECT actor FROM audit WHERE event LIKE 'review-%'")}
    assert (actors, pulled(web)) == ({"console admin"}, [CAUSE])
    assert "Nothing waits." in text_of(ended(admin, admin.post("/console/brake/count", what=CAUSE, decision="accept")))


@pytest.mark.parametrize("fields", [{"what": CAUSE}, {"decision": "accept"}, {"what": "<b>", "decision": "accept"}])
@pytest.mark.parametrize("path", ["/console/brake/count", "/console/brake/decide"])
def test_what_no_page_of_ours_asks_is_400(admin: Visitor, waiting: None, path: str, fields: dict[str, str]) -> None:
    assert admin.post(path, **fields).status == 400


# ------------------------------------------------------------------ who may what


@pytest.mark.parametrize(
    "path", ["/console/undo/count", "/console/undo", "/console/brake", "/console/brake/count", "/console/brake/decide"]
)
def test_only_who_has_the_right_and_a_form_of_ours(web: Door, admin: Visitor, imported: Books, path: str) -> None:
    rows, fields = web.audit_rows(), {"cause": "hard-bounce", "because": "x", "what": "bounces", "to": "pull"}
    kim = Visitor(web, *LOOKER)
    kim.get("/console/suppressions")
    assert (kim.post(path, **fields).status, kim.get("/console/undo").status) == (403, 403)
    admin.csrf_token = "forged"
    assert admin.post(path, **fields).status == 403
    assert web.audit_rows() == rows


def test_looking_changes_nothing(web: Door, admin: Visitor, imported: Books) -> None:
    rows = web.audit_rows()
    assert admin.get("/console/undo?cause=hard-bounce&because=x&to=pull&what=bounces").status == 200
    assert admin.get("/console/undo/count?cause=hard-bounce").status == 405
    assert admin.get("/console/brake/decide?what=bounces&decision=accept").status == 405
    assert admin.get("/console/brake?what=bounces&to=pull&because=x").status == 405
    assert web.audit_rows() == rows


def test_nobody_begins_more_than_the_one_thread_can_soon_do(web: Door, admin: Visitor) -> None:
    go_on = threading.Event()
    web.loop.call_soon_threadsafe(web.server._workers.begin, go_on.wait, lambda *_: None)
    try:
        begun = [admin.post("/console/undo/count", cause="opt-out").status for _ in range(MOST_EACH + 1)]
        assert begun == [303] * MOST_EACH + [429]
        other = Visitor(web)  # the same operator in another browser
        assert other.post("/console/undo/count", cause="opt-out").status == 429
    finally:
        go_on.set()


def test_what_is_said_to_somebody_who_never_looks_is_not_kept_for_ever(admin: Visitor) -> None:
    for _ in range(25):
        assert admin.post("/console/brake", what="bounces", to="release", because="x").status == 303
    assert admin.get("/console/undo").body.count("It was so already") == 20
