"""The question asked before every recipient: what it comes to, and that it always sees the last commit."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.address import parse
from storage.lookup import Lookup, Row, Verdict, verdict
from storage.terms import ALL, Reason
from tests.ledgers import IN_A_FILE, Books
from tests.storage.another import another, hear, tell

LIST = 3
rows_ = st.builds(
    Row,
    kind=st.sampled_from(["exact", "tag", "alias", "domain"]),
    scope=st.sampled_from([ALL, LIST, LIST + 1]),
    reason=st.sampled_from([int(r) for r in Reason]),
    since=st.integers(0, 5),
    evidence=st.integers(1, 9),
)
many = st.lists(rows_, max_size=6)
ANN = parse("ann@example.com")


def row(reason: Reason, scope: int = ALL, kind: str = "exact", evidence: int = 1) -> Row:
    return Row(kind, scope, int(reason), 0, evidence)  # type: ignore[arg-type]


# ------------------------------------------------------------------ verdict


@given(many, st.sampled_from([None, LIST]))
def test_the_order_of_rows_decides_only_between_equals(rows: list[Row], number: int | None) -> None:
    one, other = verdict(rows, number), verdict(rows[::-1], number)
    assert (one and (one.reason, one.matched)) == (other and (other.reason, other.matched))


@given(many, rows_.filter(lambda r: r.reason != Reason.WANTED), st.sampled_from([None, LIST]))
def test_a_row_more_never_sets_anybody_free(rows: list[Row], more: Row, number: int | None) -> None:
    if verdict(rows, number):
        after = verdict([*rows, more], number)
        assert after
        before = verdict(rows, number)
        assert before
        assert after.reason <= before.reason


@given(many)
def test_whoever_is_suppressed_for_all_mail_is_so_for_a_list_unless_he_wanted_it(rows: list[Row]) -> None:
    if verdict(rows, None) and not any(r.reason == Reason.WANTED and r.scope == LIST for r in rows):
        assert verdict(rows, LIST)


@given(many)
def test_rows_of_another_list_are_nothing_to_this_one(rows: list[Row]) -> None:
    assert verdict(rows, LIST) == verdict([r for r in rows if r.scope in (ALL, LIST)], LIST)


@given(many, st.sampled_from([None, LIST]))
def test_a_verdict_is_explained_by_a_row_that_stands(rows: list[Row], number: int | None) -> None:
    found = verdict(rows, number)
    if found:
        assert any(
            (r.reason, r.scope, r.since, r.evidence) == (found.reason, found.scope, found.since, found.evidence)
            for r in rows
        )
        assert found.reason != Reason.WANTED
        assert found.scope in (ALL, number)


def test_the_strongest_reason_and_the_narrowest_form_are_shown() -> None:
    rows = [row(Reason.OPERATOR, kind="domain", evidence=1), row(Reason.HARD_BOUNCE, kind="tag", evidence=2)]
    assert verdict(rows, None) == Verdict(Reason.OPERATOR, ALL, "tag", 0, 1)


def test_of_equal_reasons_the_one_for_everything_explains() -> None:
    found = verdict([row(Reason.OPT_OUT, LIST, evidence=1), row(Reason.OPT_OUT, ALL, evidence=2)], LIST)
    assert found
    assert (found.scope, found.evidence) == (ALL, 2)


# ------------------------------------------------------------------ asking


def test_several_are_asked_in_one_and_answered_in_order(ledger: Books) -> None:
    for n in range(0, 700, 7):
        ledger.suppress(f"p{n}+x@example.com")
    lookup = ledger.lookup()
    asked = [parse(f"p{n}@example.com") for n in range(700)]
    together = lookup.rows_of_all(asked)
    assert [bool(r) for r in together] == [n % 7 == 0 for n in range(700)]
    assert together == [lookup.rows(a) for a in asked]
    lookup.close()


def test_the_same_person_may_be_asked_for_twice_at_once(ledger: Books) -> None:
    ledger.suppress("ann@gmail.com")
    lookup = ledger.lookup()
    one, other, free = lookup.rows_of_all([parse("ann@gmail.com"), parse("a.nn+x@gmail.com"), ANN])
    assert [r.kind for r in one] == ["exact"]
    assert [r.kind for r in other] == ["alias"]
    assert free == []
    lookup.close()


def test_nobody_is_asked_for(ledger: Books) -> None:
    assert ledger.lookup().rows_of_all([]) == []


@IN_A_FILE
def test_a_lookup_cannot_write(ledger: Books) -> None:
    lookup = Lookup(ledger.ledger.path, ledger.ledger.site_key)
    with pytest.raises(Exception, match="readonly"):
        lookup._cursor().execute("DELETE FROM suppression")
    lookup.close()


def test_a_commit_of_another_process_is_seen_by_the_next_question_every_time(ledger: Books) -> None:
    script = """
it = open_again()
for n in range(500):
    input()
    it.suppress(f"person{n}@example.com")
    say(n)
"""
    lookup = ledger.lookup()
    missed = []
    with another(ledger, script) as other:
        for n in range(500):
            who = parse(f"person{n}@example.com")
            assert lookup.rows(who) == []
            tell(other)
            hear(other, str(n))
            if not lookup.rows(who):
                missed.append(n)
    assert missed == []
    lookup.close()


def test_asking_costs_microseconds(ledger: Books) -> None:
    """Not a benchmark (bench/ has those): an ORM or a connection per question would show here."""
    lookup = ledger.lookup()
    lookup.rows(ANN)
    began = time.process_time()
    for _ in range(2000):
        lookup.rows(ANN)
    assert (time.process_time() - began) / 2000 < 0.0005
    lookup.close()


def test_who_left_everything_after_a_wish_left_that_list_too() -> None:
    wanted = Row("exact", 2, int(Reason.WANTED), 100, 1)
    for since, stands in ((99, False), (100, False), (101, True)):
        opted_out = Row("exact", ALL, int(Reason.OPT_OUT), since, 2)
        assert (verdict([wanted, opted_out], 2) is not None) == stands


@IN_A_FILE
def test_one_that_nobody_holds_any_more_leaves_no_open_file(ledger: Books) -> None:
    """A gate of a thread gives way to another with each reload, in a daemon whose collector hardly looks at what is old."""
    path = ledger.ledger.path

    def files() -> int:
        links = [os.path.realpath(descriptor) for descriptor in Path("/proc/self/fd").iterdir()]
        return sum(link.startswith(str(path)) for link in links)

    held = Lookup(path, ledger.ledger.site_key)
    held.rows(ANN)
    before = files()
    gc.disable()
    try:
        for _ in range(5):
            Lookup(path, ledger.ledger.site_key).rows(ANN)
        assert files() <= before + 2  # SQLite keeps one descriptor for the next to open it
    finally:
        gc.enable()
        held.close()
