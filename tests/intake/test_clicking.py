"""A click undone: this very click, and nothing that was asked for at another time, by whatever way."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from daemon.intake import Intake, clicking
from daemon.mail.tokens import CLICK_OCTETS, Token
from storage import bulk, people, suppressions
from storage.address import parse
from storage.audit import verify
from storage.suppressions import Added
from storage.terms import ALL, Reason
from storage.write import write
from tests.intake.support import ANN, HOUSE, NOW, comeback, count, envelope, opt_out, queue, rows
from tests.ledgers import Books, books, bring

MINUTE = timedelta(minutes=1)


@pytest.fixture
def desk(ledger: Books) -> Intake:
    return Intake(ledger.ledger, HOUSE, ledger.numbers)


def key(it: Books) -> bytes:
    return it.ledger.site_key.address_key(ANN)


def click(it: Books, *scopes: int, at: datetime = NOW) -> tuple[Token, list[Added]]:
    """Press the button; the token of the page after it, and what came of it."""
    name = clicking.click_at(at)
    with write(it.ledger, at, "web") as w:
        added = clicking.leave(w, key(it), scopes or (ALL,), "one-click", {"list": 0, "words": "x"}, name)
    return Token(key(it), 0, click=name), added


def regret(it: Books, token: Token, at: datetime = NOW + MINUTE) -> None:
    with write(it.ledger, at, "web") as w:
        clicking.regret(w, token)


def standing(it: Books) -> list[tuple[int, Reason]]:
    with it.ledger.connect() as db:
        found = suppressions.standing(db, it.ledger.site_key, parse(ANN))
    return sorted((r[1], Reason(r[2])) for r in found)


# ------------------------------------------------------------------ this very click


def test_what_a_click_made_goes_again(ledger: Books) -> None:
    token, _ = click(ledger, 1, 2)
    assert standing(ledger) == [(1, Reason.OPT_OUT), (2, Reason.OPT_OUT)]
    regret(ledger, token)
    assert standing(ledger) == []


def test_twice_is_once(ledger: Books) -> None:
    token, _ = click(ledger)
    regret(ledger, token)
    with ledger.ledger.connect() as db:
        before = db.exec_driver_sql("SELECT count(*) FROM audit").scalar_one()
    regret(ledger, token)
    with ledger.ledger.connect() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM audit").scalar_one() == before
        verify(db, ledger.ledger.site_key)


def test_it_is_not_good_for_a_later_click(ledger: Books) -> None:
    token, _ = click(ledger)
    regret(ledger, token)
    click(ledger, at=NOW + 2 * MINUTE)
    regret(ledger, token, NOW + 3 * MINUTE)
    assert standing(ledger) == [(ALL, Reason.OPT_OUT)]


def test_a_click_that_changed_nothing_undoes_nothing(ledger: Books) -> None:
    """Whoever holds a forwarded link cannot take the person's own wish back."""
    first, _ = click(ledger)
    second, (added,) = click(ledger, at=NOW + MINUTE)
    assert added.outcome == "repeated"
    regret(ledger, second, NOW + 2 * MINUTE)
    assert standing(ledger) == [(ALL, Reason.OPT_OUT)]
    regret(ledger, first, NOW + 2 * MINUTE)  # asked again since
    assert standing(ledger) == [(ALL, Reason.OPT_OUT)]


def test_of_two_lists_only_the_one_that_was_news_comes_back(ledger: Books) -> None:
    click(ledger, 1)
    token, added = click(ledger, 1, 2, at=NOW + MINUTE)
    assert [a.outcome for a in added] == ["repeated", "new"]
    regret(ledger, token, NOW + 2 * MINUTE)
    assert standing(ledger) == [(1, Reason.OPT_OUT)]


def test_complaints_bounces_and_what_an_operator_wrote_stay(ledger: Books) -> None:
    token, _ = click(ledger)
    for reason in (Reason.COMPLAINT, Reason.HARD_BOUNCE, Reason.OPERATOR):
        ledger.suppress(ANN, reason=reason)
    regret(ledger, token)
    assert standing(ledger) == [(ALL, r) for r in (Reason.COMPLAINT, Reason.OPERATOR, Reason.HARD_BOUNCE)]


def test_somebody_elses_click_is_not_theirs_to_undo(ledger: Books) -> None:
    token, _ = click(ledger)
    regret(ledger, Token(ledger.ledger.site_key.address_key("bob@example.com"), 0, click=token.click))
    assert standing(ledger) == [(ALL, Reason.OPT_OUT)]


def test_no_two_clicks_have_one_name() -> None:
    names = {clicking.click_at(NOW) for _ in range(1000)}
    assert len(names) == 1000
    assert {len(n) for n in names} == {CLICK_OCTETS}


@pytest.mark.parametrize(("later", "good"), [(0, True), (3600, True), (3601, False), (-60, True)])
def test_an_hour_is_the_limit(later: int, good: bool) -> None:
    assert clicking.in_time(clicking.click_at(NOW), NOW + timedelta(seconds=later)) is good


# ------------------------------------------------------------------ what came by mail


def test_a_request_by_mail_before_the_click_stays(desk: Intake, ledger: Books) -> None:
    desk.act(opt_out(), envelope(date=NOW - MINUTE), NOW - MINUTE)
    token, _ = click(ledger)
    regret(ledger, token)
    assert rows(desk) == [(ALL, Reason.OPT_OUT)]


@pytest.mark.parametrize("since", [bulk.UNDATED, 1_700_000_000])
def test_a_list_that_is_imported_between_click_and_regret_counts_however_old_its_wish(
    ledger: Books, since: int
) -> None:
    token, _ = click(ledger)
    with write(ledger.ledger, NOW + MINUTE, "cli root") as w:
        assert bring(w, [(key(ledger), ALL, int(Reason.OPT_OUT), since)], "import", {}).fates == ["already"]
    regret(ledger, token, NOW + 2 * MINUTE)
    assert standing(ledger) == [(ALL, Reason.OPT_OUT)]


@pytest.mark.parametrize("minutes", [-30, 0, 1])
def test_a_request_by_mail_that_is_read_between_click_and_regret_stays(
    desk: Intake, ledger: Books, minutes: int
) -> None:
    """Whenever it was written: it has left no row of its own, but a note."""
    token, _ = click(ledger)
    desk.act(opt_out(), envelope(date=NOW + minutes * MINUTE), NOW + MINUTE)
    regret(ledger, token, NOW + 2 * MINUTE)
    assert rows(desk) == [(ALL, Reason.OPT_OUT)]


@pytest.mark.parametrize("minutes", [-30, 5])
def test_a_request_by_mail_that_is_read_after_the_regret_counts(desk: Intake, ledger: Books, minutes: int) -> None:
    """An older one too: to take a click back says nothing about a wish that was written before it."""
    token, _ = click(ledger)
    regret(ledger, token)
    desk.act(opt_out(), envelope(date=NOW + minutes * MINUTE), NOW + 10 * MINUTE)
    assert rows(desk) == [(ALL, Reason.OPT_OUT)]


# ------------------------------------------------------------------ exemptions


def exempted(desk: Intake) -> None:
    """Out of everything, but one list is wanted."""
    desk.act(opt_out(), envelope(1, date=NOW - 50 * MINUTE), NOW - 50 * MINUTE)
    desk.act(comeback("none", ("list:offers",)), envelope(2, date=NOW - 40 * MINUTE), NOW - 40 * MINUTE)
    desk.decide(queue(desk)[0], True, "", NOW - 30 * MINUTE, "test")


@pytest.mark.parametrize("of_list", [True, False])
def test_an_exemption_that_the_click_ended_is_back(desk: Intake, ledger: Books, of_list: bool) -> None:
    exempted(desk)
    before, offers = standing(ledger), ledger.numbers["offers"]
    assert (offers, Reason.WANTED) in before
    token, _ = click(ledger, offers if of_list else ALL)
    assert (offers, Reason.WANTED) not in standing(ledger)
    for _ in range(2):
        regret(ledger, token)
        assert standing(ledger) == before
    with ledger.ledger.connect() as db:
        verify(db, ledger.ledger.site_key)


@pytest.mark.parametrize("later", [timedelta(), MINUTE])
@pytest.mark.parametrize("scope", ["all", "list:offers"])
def test_but_not_if_it_was_asked_for_again_since(desk: Intake, ledger: Books, scope: str, later: timedelta) -> None:
    exempted(desk)
    token, _ = click(ledger, ledger.numbers["offers"])
    desk.act(opt_out(scope=(scope,)), envelope(3, date=NOW + later), NOW + later)
    regret(ledger, token, NOW + 2 * MINUTE)
    assert (ledger.numbers["offers"], Reason.WANTED) not in standing(ledger)


# ------------------------------------------------------------------ people who were erased


def test_who_was_erased_before_the_click_can_undo_it(ledger: Books) -> None:
    ledger.suppress(ANN, reason=Reason.OPERATOR)
    people.erase_everywhere(ledger.ledger, parse(ANN), NOW - MINUTE, "test")
    token, _ = click(ledger, 1, 2)
    assert len(standing(ledger)) == 3
    regret(ledger, token)
    assert standing(ledger) == [(ALL, Reason.OPERATOR)]


def test_what_such_a_click_leaves_names_nobody(ledger: Books) -> None:
    ledger.suppress(ANN)
    people.erase_everywhere(ledger.ledger, parse(ANN), NOW - MINUTE, "test")
    click(ledger, 1)
    again = people.erase_everywhere(ledger.ledger, parse(ANN), NOW + 2 * MINUTE, "test")
    assert not again.removed["evidence"]


def test_who_is_erased_after_the_click_stays_off_the_list(ledger: Books) -> None:
    token, _ = click(ledger)
    people.erase_everywhere(ledger.ledger, parse(ANN), NOW + MINUTE, "test")
    regret(ledger, token, NOW + 2 * MINUTE)
    assert standing(ledger) == [(ALL, Reason.OPT_OUT)]


# ------------------------------------------------------------------ numbers given a second time


def test_the_number_of_an_evidence_does_not_make_a_click(tmp_path: Path) -> None:
    """A database that was put back gives its numbers anew: another click on evidence of the same number is not that one."""
    first = books(tmp_path / "first")
    token, (added,) = click(first)
    first.ledger.close()
    second = books(tmp_path / "second")
    _, (other,) = click(second)
    assert other.evidence == added.evidence
    regret(second, Token(key(second), 0, click=token.click))
    assert standing(second) == [(ALL, Reason.OPT_OUT)]
    second.ledger.close()


def test_a_click_can_be_explained(desk: Intake, ledger: Books) -> None:
    token, _ = click(ledger)
    regret(ledger, token)
    with ledger.ledger.connect() as db:
        facts = suppressions.by_keys(db, [key(ledger)])
    assert [(f.event, f.actor, f.source) for f in facts] == [
        ("suppressed", "web", "one-click"),
        ("lifted", "web", "page"),
    ]
    assert facts[1].detail is not None
    assert "undone" in facts[1].detail["because"]
    assert count(desk, "suppression") == 0
