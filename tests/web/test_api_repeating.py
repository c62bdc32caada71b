"""Idempotency-Key: a request that is sent again is not carried out twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from daemon.config import Bounce
from daemon.jobs import Jobs
from daemon.web.context import Holder
from storage import answers
from storage.write import write
from tests.ledgers import Books
from tests.web.program import Program, Told, called
from tests.web.support import ANN

KEY = "Idempotency-Key: 8e03978e-40d5-43e8-bc93-6894a57f9324"
BOB = "bob@customer.example"
OTHER = Holder("shop", "shop-token-shop-token", frozenset({"suppress"}))


def _kept(ledger: Books) -> int:
    with ledger.ledger.connect() as db:
        return int(db.exec_driver_sql("SELECT count(*) FROM answered").scalar_one())


def test_the_same_again_is_answered_the_same_and_done_once(ledger: Books) -> None:
    with called(ledger) as program:
        first = program.post("/suppressions", {"address": ANN, "list": "offers"}, KEY)
        rows = program.web.audit_rows()
        program.post("/lift", {"address": ANN, "list": "offers", "because": "x"})
        again = program.post("/suppressions", {"list": "offers", "address": ANN, "note": ""}, KEY)
        assert (first.status, again.status) == (201, 201)
        assert first.fact == again.fact
        assert program.web.audit_rows() == rows + 1
        assert program.show(ANN).fact["suppressed"] is False


def test_a_lift_again_lifts_nothing_that_came_between(ledger: Books) -> None:
    ledger.suppress(ANN)
    with called(ledger) as program:
        wish = {"address": ANN, "because": "x"}
        first = program.post("/lift", wish, KEY)
        assert program.post("/lift", wish, KEY).fact == first.fact
        ledger.suppress(ANN)
        again = program.post("/lift", wish, KEY)
        assert (again.status, again.fact["lifted"], again.fact["still_suppressed"]) == (200, ["opt-out"], ["all"])
        assert program.show(ANN).fact["suppressed"] is True


def test_that_there_was_nothing_to_lift_is_an_answer_too(ledger: Books) -> None:
    with called(ledger) as program:
        wish = {"address": ANN, "because": "x"}
        assert program.post("/lift", wish, KEY).status == 404
        ledger.suppress(ANN)
        assert program.post("/lift", wish, KEY).status == 404
        assert program.show(ANN).fact["suppressed"] is True


def test_another_request_with_the_same_key_is_refused(ledger: Books) -> None:
    with called(ledger) as program:
        program.post("/suppressions", {"address": ANN}, KEY)
        for path, fact in (
            ("/suppressions", {"address": BOB}),
            ("/suppressions", {"address": ANN, "list": "offers"}),
            ("/lift", {"address": ANN, "because": "x"}),
        ):
            told = program.post(path, fact, KEY)
            assert (told.status, told.is_problem) == (422, True)
            assert "Idempotency-Key" in told.fact["detail"]
        assert program.show(BOB).fact["suppressed"] is False


def test_each_program_has_keys_of_its_own(ledger: Books) -> None:
    with called(ledger, OTHER) as program:
        assert program.post("/suppressions", {"address": ANN}, KEY).status == 201
        assert Program(program.web, OTHER.secret).post("/suppressions", {"address": BOB}, KEY).status == 201


def test_what_was_refused_may_be_asked_again_with_the_same_key(ledger: Books) -> None:
    with called(ledger) as program:
        assert program.post("/suppressions", {"address": ANN, "list": "ofers"}, KEY).status == 422
        assert program.post("/suppressions", {"address": ANN, "list": "offers"}, KEY).status == 201


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "\xe9", "a\tb"])
def test_what_is_no_key_is_refused(ledger: Books, key: str) -> None:
    with called(ledger) as program:
        told = program.post("/suppressions", {"address": ANN}, f"Idempotency-Key: {key}")
        assert (told.status, told.wrong) == (422, ["Idempotency-Key"])
        assert program.web.audit_rows() == 0


def test_the_same_at_once_is_told_to_wait(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    given = answers.given

    def slow(*of: Any) -> Any:
        begun.set()
        go_on.wait(5)
        return given(*of)

    monkeypatch.setattr(answers, "given", slow)
    with called(ledger) as program:
        told: list[Told] = []
        ask: Callable[[], Told] = lambda: program.post("/suppressions", {"address": ANN}, KEY)  # noqa: E731
        first = threading.Thread(target=lambda: told.append(ask()))
        first.start()
        assert begun.wait(5)
        second = ask()
        go_on.set()
        first.join()
        assert (second.status, second.is_problem, told[0].status) == (409, True, 201)
        assert ask().fact == told[0].fact


def test_what_is_kept_has_nobody_in_it_and_goes_after_a_day(ledger: Books) -> None:
    with called(ledger) as program:
        program.post("/suppressions", {"address": ANN}, KEY)
    with ledger.ledger.connect() as db:
        (row,) = db.exec_driver_sql("SELECT key, at, request, status, ref FROM answered").all()
    assert ANN.encode() not in b"".join(bytes(v) if isinstance(v, bytes) else str(v).encode() for v in row)
    now = datetime.now(UTC)
    Jobs(ledger.ledger, Bounce(), lambda: now + timedelta(hours=23)).expire()
    assert _kept(ledger) == 1
    Jobs(ledger.ledger, Bounce(), lambda: now + timedelta(hours=25)).expire()
    assert _kept(ledger) == 0


def test_a_transaction_that_fails_leaves_no_answer(ledger: Books) -> None:
    once = answers.once(ledger.ledger.site_key, ("crm", "1"), ("POST", "/lift", "{}"))

    def fails() -> None:
        with write(ledger.ledger, datetime.now(UTC), "test") as w:
            answers.keep(w, once, answers.Answer(200, 1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert _kept(ledger) == 0
