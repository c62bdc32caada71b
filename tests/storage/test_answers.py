"""Answers that a program may ask for again, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from storage import answers
from storage.answers import AnotherRequest, Answer
from storage.write import write
from tests.ledgers import Books

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
LIFT = ("POST", "/lift", '{"address":"ann@customer.example"}')


def test_an_answer_is_found_again_for_a_day(ledger: Books) -> None:
    site_key = ledger.ledger.site_key
    once = answers.once(site_key, ("shop", "1"), LIFT)
    with write(ledger.ledger, NOW, "test") as w:
        assert answers.given(w.db, once) is None
        answers.keep(w, once, Answer(201, 7))
    with write(ledger.ledger, NOW + timedelta(hours=24), "test") as w:
        answers.forget(w)
        assert answers.given(w.db, once) == Answer(201, 7)
        assert answers.given(w.db, answers.once(site_key, ("crm", "1"), LIFT)) is None
        with pytest.raises(AnotherRequest):
            answers.given(w.db, answers.once(site_key, ("shop", "1"), ("POST", "/lift", "{}")))
    with write(ledger.ledger, NOW + timedelta(hours=24, seconds=1), "test") as w:
        answers.forget(w)
        assert answers.given(w.db, once) is None


def test_what_is_joined_is_not_mistaken_for_another(ledger: Books) -> None:
    site_key = ledger.ledger.site_key
    assert answers.once(site_key, ("a", "bc"), LIFT).key != answers.once(site_key, ("ab", "c"), LIFT).key
