"""The API: what programs may ask and do."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from unittest.mock import Mock

import pytest

from daemon import hand
from daemon.web.api import models
from storage import audit, deferral, pages, refusals
from storage.engine import Unavailable
from storage.refusals import Refusal
from storage.terms import REASONS, SOURCES, Reason
from storage.write import write
from tests.ledgers import Books, queued
from tests.web.program import Program, called
from tests.web.support import ANN

BOB, CAT, DAN = (f"{name}@customer.example" for name in ("bob", "cat", "dan"))


@pytest.fixture
def program(ledger: Books) -> Iterator[Program]:
    """A program that may do all. The record must be whole at the end."""
    with called(ledger) as it:
        yield it
    with ledger.ledger.reading() as db:
        audit.verify(db, ledger.ledger.site_key)


def test_its_words_are_those_of_the_contract() -> None:
    assert set(get_args(models.Reason)) == set(REASONS)
    assert set(get_args(models.Source)) == set(SOURCES)


def test_everybody_may_ask_whether_it_is_there(program: Program) -> None:
    told = Program(program.web, token="").get("/health")
    assert (told.status, told.fact["status"]) == (200, "ok")


# ------------------------------------------------------------------ check


def test_check_answers_in_the_order_of_the_question(ledger: Books, program: Program) -> None:
    ledger.suppress(ANN)
    ledger.suppress(BOB, "offers", Reason.COMPLAINT)
    ann, nobody, bob, cat = program.check("Ann+x@customer.example", "no address", BOB, CAT)
    assert (ann["suppressed"], ann["scope"], ann["reason"], ann["matched"]) == (True, "all", "opt-out", "tag")
    assert (nobody["suppressed"], nobody["address"]) == (None, "no address")
    assert "name@example.com" in nobody["error"]
    assert (bob["suppressed"], bob["lists"]) == (False, ["offers"])
    assert (cat["suppressed"], cat["lists"], cat["error"]) == (False, [], None)
    (bob,) = program.check(BOB, list_id="offers")
    assert (bob["suppressed"], bob["scope"]) == (True, "list:offers")


def test_check_of_a_list_that_there_is_not_tells_which_there_are(program: Program) -> None:
    told = program.post("/check", {"addresses": [ANN], "list": "ofers"})
    assert (told.status, told.wrong) == (422, ["/list"])
    assert "newsletter, offers" in told.fact["detail"]


@pytest.mark.alone
def test_check_of_ten_thousand_is_done_in_a_second_and_keeps_nobody_waiting(ledger: Books, program: Program) -> None:
    people = [f"person{n}@d{n % 97}.example" for n in range(10_000)]
    for n in (0, 4_999, 9_999):
        ledger.suppress(people[n])
    program.check(*people)
    began = time.monotonic()
    results = program.check(*people)
    assert time.monotonic() - began < 1.0
    assert [r["address"] for r in results] == people
    assert [n for n, r in enumerate(results) if r["suppressed"]] == [0, 4_999, 9_999]


def test_check_of_more_is_refused(program: Program) -> None:
    told = program.post("/check", {"addresses": ["a@b.c"] * 10_001})
    assert (told.status, told.wrong) == (422, ["/addresses"])
    assert program.check() == []


def test_check_looks_at_no_address_that_is_too_long(program: Program) -> None:
    (long,) = program.check("ü" * 50_000 + "@" + "ü" * 50_000)
    assert (long["suppressed"], long["error"]) == (None, "this is too long for an address")


# ------------------------------------------------------------------ suppress, lift, show


def test_a_suppression_stands_when_it_is_answered(ledger: Books, program: Program) -> None:
    told = program.post("/suppressions", {"address": ANN, "note": "called us", "source": "phone", "reason": "opt-out"})
    assert told.status == 201
    ref = told.fact["ref"]
    assert told.fact == {"address": ANN, "outcome": "new", "scope": "all", "reason": "opt-out", "ref": ref}
    assert program.check(ANN)[0]["suppressed"] is True
    again = program.post("/suppressions", {"address": "ANN+y@customer.example", "reason": "opt-out"})
    assert (again.status, again.fact["outcome"], again.fact["ref"]) == (200, "repeated", ref)
    (standing,) = program.show(ANN).fact["suppressions"]
    assert (standing["source"], standing["note"], standing["ref"]) == ("phone", "called us", ref)
    (past,) = program.show(ANN).fact["history"]
    assert (past["event"], past["actor"]) == ("suppressed", "api crm")


def test_what_is_not_said_of_a_suppression_is_operator_and_api(program: Program) -> None:
    assert program.post("/suppressions", {"address": ANN, "list": "offers"}).fact["reason"] == "operator"
    (standing,) = program.show(ANN).fact["suppressions"]
    assert (standing["scope"], standing["reason"], standing["source"]) == ("list:offers", "operator", "api")


@pytest.mark.parametrize(
    ("fact", "wrong"),
    [
        ({"address": "nobody"}, "/address"),
        ({"address": "@com"}, "/address"),
        ({"address": "support@quillpdf.example"}, "/address"),
        ({"address": "@gmail.com"}, "/address"),
        ({"address": ANN, "list": "ofers"}, "/list"),
        ({"address": ANN, "list": "Offers!"}, "/list"),
        ({"address": ANN, "reason": "because"}, "/reason"),
        ({"address": ANN, "reason": "wanted"}, "/reason"),
        ({"address": ANN, "source": "elsewhere"}, "/source"),
        ({"address": ANN, "note": "a\0b"}, "/note"),
        ({"address": "a\0@b.example"}, "/address"),
        ({"address": ANN, "note": "x" * 2_001}, "/note"),
        ({"address": ANN, "list_id": "offers"}, "/list_id"),
        ({"address": 7}, "/address"),
        ({"address": None}, "/address"),
        ({}, "/address"),
        ([], ""),
        (None, ""),
    ],
)
def test_what_cannot_be_suppressed_is_told_where_it_is_wrong(ledger: Books, fact: Any, wrong: str) -> None:
    with called(ledger) as program:
        told = program.post("/suppressions", fact)
        assert (told.status, told.is_problem, told.wrong) == (422, True, [wrong])
        assert program.web.audit_rows() == 0


def test_a_lift_says_what_went_and_what_still_stands(ledger: Books, program: Program) -> None:
    ledger.suppress(ANN)
    ledger.suppress(ANN, reason=Reason.COMPLAINT)
    ledger.suppress(ANN, "offers")
    ledger.suppress("@customer.example")
    told = program.post("/lift", {"address": ANN, "because": "she asked us to"})
    assert told.status == 200
    left = ["all as part of a whole domain", "list:offers"]
    assert sorted(told.fact.pop("still_suppressed")) == left
    assert told.fact == {"address": ANN, "scope": "all", "lifted": ["complaint", "opt-out"]}
    lifted = [h for h in program.show(ANN).fact["history"] if h["event"] == "lifted"]
    assert {(h["actor"], h["source"], h["because"]) for h in lifted} == {("api crm", "api", "she asked us to")}
    again = program.post("/lift", {"address": ANN, "because": "she asked us to"})
    assert (again.status, again.is_problem, sorted(again.fact["still_suppressed"])) == (404, True, left)
    assert program.post("/lift", {"address": ANN, "list": "offers", "because": "x"}).fact["lifted"] == ["opt-out"]


@pytest.mark.parametrize(
    ("fact", "wrong"),
    [
        ({"address": ANN}, "/because"),
        ({"address": ANN, "because": "  "}, "/because"),
        ({"address": ANN, "because": "x", "list": "ofers"}, "/list"),
        ({"address": "nobody", "because": "x"}, "/address"),
    ],
)
def test_a_lift_needs_a_person_and_a_reason(ledger: Books, fact: Any, wrong: str) -> None:
    ledger.suppress(ANN)
    with called(ledger) as program:
        told = program.post("/lift", fact)
    assert (told.status, told.wrong) == (422, [wrong])


def test_of_somebody_unknown_there_is_no_story(program: Program) -> None:
    told = program.show(ANN)
    assert told.status == 200
    assert (told.fact["suppressed"], told.fact["suppressions"], told.fact["history"]) == (False, [], [])
    nobody = program.show("nobody")
    assert (nobody.status, nobody.wrong) == (422, ["address"])


@pytest.mark.parametrize(
    "address", ["/C=DE//X=1/..@gw.example", '"a b"@customer.example', "ж@bücher.example", "a%2Fb@x.example"]
)
def test_an_address_in_a_path_is_taken_octet_for_octet(ledger: Books, program: Program, address: str) -> None:
    assert program.post("/suppressions", {"address": address}).status == 201
    assert program.show(address).fact["suppressed"] is True


# ------------------------------------------------------------------ the list, the log, the refusals


def _all(program: Program, query: str) -> list[Any]:
    rows, cursor = [], ""
    while True:
        told = program.get(f"/suppressions?limit=2{query}{cursor}")
        assert told.status == 200, told
        assert len(told.fact["suppressions"]) <= 2
        rows += told.fact["suppressions"]
        if told.fact["next"] is None:
            return rows
        cursor = f"&cursor={told.fact['next']}"


def test_the_list_comes_in_pages_none_left_out_and_none_twice(
    ledger: Books, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages.listing, "__defaults__", (pages.START, 3))  # a page ends after three rows looked at
    old = datetime.now(UTC) - timedelta(days=400)
    for n in range(11):
        ledger.suppress(f"p{n}@customer.example", "offers" if n % 3 else None, since=old if n < 5 else None)
    ledger.suppress("p3@customer.example", reason=Reason.COMPLAINT)
    rows = _all(program, "")
    assert len(rows) == 12
    assert [r["key"] for r in rows] == sorted(r["key"] for r in rows)
    assert {r["address"] for r in rows} == {f"p{n}@customer.example" for n in range(11)}
    assert {r["address"] for r in _all(program, "&reason=complaint")} == {"p3@customer.example"}
    assert len(_all(program, "&list=offers")) == 7
    assert len(_all(program, "&source=operator")) == 12
    assert _all(program, "&source=mail") == []
    assert len(_all(program, f"&since={(old + timedelta(days=1)).date()}")) == 7


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "cursor=x",
        "cursor=%00",
        "since=soon",
        "since=",
        "list=ofers",
        "reson=opt-out",
    ],
)
def test_a_question_that_is_not_understood_is_not_answered_by_everything(program: Program, query: str) -> None:
    told = program.get(f"/suppressions?{query}")
    assert (told.status, told.wrong) == (422, [query.partition("=")[0]])


def test_a_program_can_follow_what_happens(ledger: Books, program: Program) -> None:
    for address in (ANN, BOB, CAT):
        ledger.suppress(address)
    told = program.get("/changes?limit=2").fact
    assert [(c["event"], c["address"], c["scope"]) for c in told["changes"]] == [
        ("suppressed", ANN, "all"),
        ("suppressed", BOB, "all"),
    ]
    assert (told["more"], told["epoch"]) == (True, 1)
    told = program.get(f"/changes?after={told['next']}").fact
    assert ([c["address"] for c in told["changes"]], told["more"]) == ([CAT], False)
    nothing = program.get(f"/changes?after={told['next']}").fact
    assert (nothing["changes"], nothing["next"]) == ([], told["next"])
    program.post("/lift", {"address": BOB, "because": "x"})
    (lifted,) = program.get(f"/changes?after={told['next']}").fact["changes"]
    assert (lifted["event"], lifted["address"], lifted["actor"]) == ("lifted", BOB, "api crm")


def _refuse(ledger: Books, *people: str, at: datetime) -> None:
    site_key = ledger.ledger.site_key
    with write(ledger.ledger, at, "test") as w:
        refusals.record(
            w,
            [
                Refusal(at, "refused", site_key.address_key(p), ledger.numbers["offers"], 2, "shop", "<1@x>", 7)
                for p in people
            ],
            {},
        )


def test_a_program_can_follow_what_the_relay_refuses(ledger: Books, program: Program) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    ledger.suppress(ANN)
    _refuse(ledger, BOB, at=now - timedelta(days=2))
    _refuse(ledger, ANN, BOB, CAT, at=now - timedelta(hours=1))
    since = f"since={(now - timedelta(days=1)).strftime('%Y-%m-%dT%H:%M:%SZ')}"
    told = program.get(f"/refusals?{since}&limit=2").fact
    first, second = told["refusals"]
    assert (first["address"], first["list"], first["reason"], first["ref"]) == (ANN, "offers", "opt-out", 7)
    assert (second["address"], second["credential"], second["message_id"]) == (None, "shop", "<1@x>")
    assert told["more"] is True
    told = program.get(f"/refusals?{since}&cursor={told['next']}").fact
    assert (len(told["refusals"]), told["more"]) == (1, False)
    assert program.get(f"/refusals?{since}&cursor={told['next']}").fact["refusals"] == []
    assert len(program.get("/refusals").fact["refusals"]) == 4
    _refuse(ledger, DAN, at=now)
    assert len(program.get(f"/refusals?cursor={told['next']}").fact["refusals"]) == 1


def test_refusals_from_now_on_begin_with_the_next(ledger: Books, program: Program) -> None:
    now = datetime.now(UTC)
    _refuse(ledger, BOB, at=now - timedelta(days=2))
    nothing = program.get("/refusals?since=2200-01-01").fact
    assert nothing["refusals"] == []
    _refuse(ledger, CAT, at=now)
    assert len(program.get(f"/refusals?cursor={nothing['next']}").fact["refusals"]) == 1


# ------------------------------------------------------------------ reviews, stats


def _doubtful(ledger: Books, sender: str) -> int:
    with write(ledger.ledger, datetime.now(UTC), "test") as w:
        return queued(w, sender=sender, rules=["too-vague"], words="stop it", excerpt="please stop it")


def test_doubtful_mail_is_decided(ledger: Books, program: Program) -> None:
    first, second, third = (_doubtful(ledger, sender) for sender in (ANN, BOB, ""))
    page = program.get("/reviews?limit=2").fact
    assert [item["from"] for item in page["reviews"]] == [ANN, BOB]
    assert [item["id"] for item in program.get(f"/reviews?after={page['next']}").fact["reviews"]] == [third]
    one = program.get(f"/reviews/{first}").fact
    assert (one["words"], one["excerpt"], one["accepting"]) == ("stop it", "please stop it", f"suppress {ANN} (all)")
    done = program.post(f"/reviews/{first}/accept", {"note": "clear enough"})
    assert (done.status, done.fact["state"], len(done.fact["refs"])) == (200, "accepted", 1)
    assert program.check(ANN)[0]["suppressed"] is True
    assert program.post(f"/reviews/{first}/reject", {}).status == 409
    assert program.post(f"/reviews/{second}/reject", {"note": "spam"}).fact["state"] == "rejected"
    assert program.check(BOB)[0]["suppressed"] is False
    nobody = program.post(f"/reviews/{third}/accept", {})
    assert (nobody.status, nobody.is_problem) == (409, True)
    assert [item["id"] for item in program.get("/reviews?state=accepted").fact["reviews"]] == [first]
    assert len(program.get("/reviews?state=all").fact["reviews"]) == 3
    assert program.get(f"/reviews/{first}").fact["note"] == "clear enough"


@pytest.mark.parametrize("number", ["99", "9223372036854775807"])
def test_an_item_that_there_is_not_is_not_found(program: Program, number: str) -> None:
    assert program.get(f"/reviews/{number}").status == 404
    assert program.post(f"/reviews/{number}/accept", {}).status == 404


@pytest.mark.parametrize("number", ["0", "-1", "x", "9223372036854775808", "1" * 5000])
def test_a_number_that_is_none_is_refused(program: Program, number: str) -> None:
    assert program.get(f"/reviews/{number}").status == 422


def test_numbers_are_counted_now_and_then_only(ledger: Books, program: Program) -> None:
    ledger.suppress(ANN)
    first = program.get("/stats").fact
    assert (first["suppressions"], first["by_reason"], first["by_scope"]) == (1, {"opt-out": 1}, {"all": 1})
    ledger.suppress(BOB)
    assert program.get("/stats").fact == first


# ------------------------------------------------------------------ when the database is away


def test_without_a_database_nothing_is_said_of_anybody(ledger: Books, program: Program) -> None:
    there = ledger.ledger.path
    away = there.with_name("away.db")
    there.rename(away)
    for told in (
        program.post("/check", {"addresses": [ANN]}),
        program.post("/suppressions", {"address": ANN}),
        program.post("/lift", {"address": ANN, "because": "x"}),
        program.show(ANN),
        *(program.get(path) for path in ("/suppressions", "/changes", "/refusals", "/reviews", "/stats")),
    ):
        assert (told.status, told.is_problem, told.headers["retry-after"]) == (503, True, "5")
        assert "away" not in told.fact["detail"]
    away.rename(there)
    assert program.post("/suppressions", {"address": ANN}).status == 201


def test_of_a_change_that_was_carried_out_it_is_not_said_that_nothing_has_happened(
    ledger: Books, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database went away between the commit and what the answer has to say of it."""
    ledger.suppress(ANN)
    with monkeypatch.context() as away:
        away.setattr(hand, "left_standing", Mock(side_effect=Unavailable("away")))
        told = program.post("/lift", {"address": ANN, "because": "x"}, "Idempotency-Key: one")
    assert (told.status, "nor whether a change was carried out" in told.fact["detail"]) == (503, True)
    again = program.post("/lift", {"address": ANN, "because": "x"}, "Idempotency-Key: one")
    assert (again.status, again.fact["lifted"]) == (200, ["opt-out"])


def test_while_a_restore_has_left_a_gap_nobody_is_said_to_be_clear(ledger: Books, program: Program) -> None:
    with write(ledger.ledger, datetime.now(UTC), "test") as w:
        deferral.begin(w, 1)
    for told in (program.post("/check", {"addresses": [ANN]}), program.show(ANN), program.get("/suppressions")):
        assert (told.status, told.is_problem) == (503, True)
    assert program.get("/changes").status == 200
    assert program.post("/suppressions", {"address": ANN}).status == 201


def test_what_cannot_be_written_in_time_is_told(
    ledger: Books, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.web.workers.COMMIT_SECONDS", 0.2)
    holding = sqlite3.connect(ledger.ledger.path, isolation_level=None)
    holding.execute("BEGIN IMMEDIATE")
    assert program.post("/suppressions", {"address": ANN}).status == 503
    assert program.check(BOB)[0]["suppressed"] is False
    holding.execute("ROLLBACK")
    holding.close()
