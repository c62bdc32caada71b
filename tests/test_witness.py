"""The witness: whoever was mailed although they had been on the list is told of, and nobody else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from daemon import metrics, replay
from daemon.config import House
from daemon.intake import Envelope, Intake
from daemon.mail.reading import OptOut
from daemon.opening import lookup_of
from daemon.witness import Witness
from storage import suppressions
from storage.address import parse
from storage.engine import Unavailable
from storage.incoming import Place
from storage.lookup import Lookup
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import Books, books, bring

NOW = datetime(2026, 11, 27, 12, 30, tzinfo=UTC)
ANN = parse("ann@customer.example")
LONG_AGO, JUST_NOW = NOW - timedelta(hours=1), NOW - timedelta(seconds=30)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Books]:
    it = books(tmp_path / "ledger")
    yield it
    it.ledger.close()


def suppress(ledger: Books, at: datetime, scope: int = ALL, reason: Reason = Reason.OPT_OUT) -> int:
    with write(ledger.ledger, at, "test") as w:
        return suppressions.add(w, ANN, scope, reason, "mail", {}).evidence


def look(
    ledger: Books, list_number: int = 0, *, people: int = 1, meanwhile: Callable[[], object] | None = None
) -> Witness:
    """One round after a message. `meanwhile`: what happens between the round before and the last question."""
    it = Witness(ledger.ledger, lambda: lookup_of(ledger.ledger))
    it.note()
    if meanwhile is not None:
        meanwhile()
    it.saw([ANN] * people, list_number, time.monotonic())
    it.look(ledger.lookup())
    return it


def test_who_had_been_on_the_list_is_told_of_and_counted(ledger: Books, logged: Any) -> None:
    ref, before = suppress(ledger, LONG_AGO), metrics.promise_broken.of().value
    look(ledger)
    (line,) = logged()
    who = ledger.ledger.site_key.who(ANN)
    assert (line["event"], line["level"], line["rcpt"]) == ("promise_broken", "error", who.digest)
    assert (line["reason"], line["ref"]) == ("opt-out", ref)
    assert metrics.promise_broken.of().value == before + 1


def test_who_is_not_on_it_is_not(ledger: Books, logged: Any) -> None:
    before = metrics.looked_at_again.of().value
    look(ledger)
    assert logged() == []
    assert metrics.looked_at_again.of().value == before + 1


def test_who_came_on_it_about_that_time_is_not(ledger: Books, logged: Any) -> None:
    look(ledger, meanwhile=lambda: suppress(ledger, LONG_AGO))  # whatever time the row bears
    assert logged() == []
    look(ledger)
    assert len(logged()) == 1


def test_before_the_first_round_nothing_is_known(ledger: Books, logged: Any) -> None:
    suppress(ledger, LONG_AGO)
    it = Witness(ledger.ledger, lambda: lookup_of(ledger.ledger))
    it.saw([ANN], 0, time.monotonic())
    it.look(ledger.lookup())
    assert logged() == []


def test_only_the_list_that_was_sent_to_counts(ledger: Books, logged: Any) -> None:
    suppress(ledger, LONG_AGO, ledger.numbers["newsletter"])
    look(ledger)
    look(ledger, ledger.numbers["offers"])
    assert logged() == []
    look(ledger, ledger.numbers["newsletter"])
    assert len(logged()) == 1


def test_a_wish_for_the_list_that_has_just_ended_is_a_race(ledger: Books, logged: Any) -> None:
    """The row for everything is old, but what took this list out of it has only now gone."""
    number = ledger.numbers["newsletter"]
    suppress(ledger, LONG_AGO)
    suppress(ledger, LONG_AGO, number, Reason.WANTED)
    look(ledger, number)
    assert logged() == []

    def again() -> None:
        with write(ledger.ledger, JUST_NOW, "test") as w:
            suppressions.add(w, ANN, ALL, Reason.OPT_OUT, "mail", {}, since=JUST_NOW)

    look(ledger, number, meanwhile=again)
    assert logged() == []


def test_a_batch_names_nobody_and_so_may_be_about_anybody(ledger: Books, logged: Any) -> None:
    def batch() -> None:
        with write(ledger.ledger, JUST_NOW, "import") as w:
            bring(w, [(bytes(16), ALL, int(Reason.OPT_OUT), 0)], "import", {})

    suppress(ledger, LONG_AGO)
    look(ledger, meanwhile=batch)
    assert logged() == []
    look(ledger)
    assert len(logged()) == 1


def test_no_more_than_some_are_looked_at_in_a_round(ledger: Books) -> None:
    before = metrics.looked_at_again.of().value
    it = look(ledger, people=1000)
    assert metrics.looked_at_again.of().value == before + 50
    for _ in range(1000):
        it.saw([ANN], 0, time.monotonic())
    assert len(it._seen) == 50


def test_it_runs_beside_and_lives_through_an_outage_and_a_bug(ledger: Books, logged: Any) -> None:
    suppress(ledger, LONG_AGO)
    troubles, asking = [Unavailable("away"), ZeroDivisionError()], Lookup.rows_of_all

    def ask(lookup: Lookup, people: Any) -> Any:
        if troubles:
            raise troubles.pop(0)
        return asking(lookup, people)

    it = Witness(ledger.ledger, lambda: lookup_of(ledger.ledger), every=0.01)
    before, deadline = metrics.promise_broken.of().value, time.monotonic() + 20
    with mock.patch.object(Lookup, "rows_of_all", ask):
        it.start()
        while metrics.promise_broken.of().value == before and time.monotonic() < deadline:
            if not it._seen:
                it.saw([ANN], 0, time.monotonic())
            time.sleep(0.02)
        it.stop()
        it._thread.join(5)
    assert not it._thread.is_alive()
    assert [line["event"] for line in logged()][:2] == ["failed", "promise_broken"]


def test_an_old_request_that_is_found_meanwhile_is_a_race(ledger: Books, logged: Any) -> None:
    house = House(name="Quill", addresses=("support@quillpdf.example",))
    intake = Intake(ledger.ledger, house, ledger.numbers)
    old = [_old_request(str(ANN), LONG_AGO - timedelta(days=90))]
    look(ledger, meanwhile=lambda: replay.apply(old, intake, lambda: LONG_AGO, "test"))
    assert [line["event"] for line in logged()] == ["opt_out_recorded"]


def _old_request(who: str, asked: datetime) -> replay.Found:
    reading = OptOut((who,), ("all",), (), who, "none", False, "en", ("4-opt-out",), "please unsubscribe me")
    envelope = Envelope(Place("archive", who, 0, 0), b"", 1, "", asked, who, "")
    return replay.Found("archive", asked, who, reading, envelope, "missing")
