"""The newest suppressions: the audit log read backwards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from storage import newest, suppressions
from storage.address import parse
from storage.newest import Line, Wanted
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import Books, bring

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def add(ledger: Books, name: str, day: int, reason: Reason = Reason.OPT_OUT, source: str = "mail", scope: int = ALL) -> None:  # fmt: skip
    with write(ledger.ledger, NOW + timedelta(days=day), "test") as w:
        suppressions.add(w, parse(f"{name}@example.com"), scope, reason, source, {})


def load(ledger: Books, names: list[str], run: int) -> None:
    with write(ledger.ledger, NOW, "import") as w:
        keys = [ledger.ledger.site_key.address_key(f"{n}@example.com") for n in names]
        bring(w, [(k, ALL, int(Reason.OPT_OUT), 1) for k in keys], "import", {"file": "list.csv", "import": run})


def read(ledger: Books, wanted: Wanted = Wanted(), most: int = 100) -> list[list[Line]]:  # noqa: B008 - frozen
    """All pages."""
    pages, before = [], None
    with ledger.ledger.reading() as db:
        while True:
            page = newest.newest(db, wanted, before, most)
            pages.append(list(page.lines))
            if page.before is None:
                return pages
            before = page.before


def names(pages: list[list[Line]]) -> list[list[str]]:
    return [[(line.address or line.file).partition("@")[0] for line in page] for page in pages]


def test_the_newest_comes_first_page_by_page(ledger: Books) -> None:
    for n in range(5):
        add(ledger, f"p{n}", n)
    assert names(read(ledger, most=2)) == [["p4", "p3"], ["p2", "p1"], ["p0"]]
    assert names(read(ledger)) == [["p4", "p3", "p2", "p1", "p0"]]


def test_an_empty_ledger_has_an_empty_page(ledger: Books) -> None:
    assert read(ledger) == [[]]


def test_what_was_lifted_is_not_there_and_who_came_again_is_there_once(ledger: Books) -> None:
    add(ledger, "ann", 1)
    add(ledger, "bob", 2)
    ledger.lift("ann@example.com")
    ledger.lift("bob@example.com")
    with write(ledger.ledger, datetime.now(UTC) + timedelta(days=1), "test") as w:
        suppressions.add(w, parse("ann@example.com"), ALL, Reason.OPT_OUT, "mail", {})
    assert names(read(ledger)) == [["ann"]]


def test_only_what_is_wanted(ledger: Books) -> None:
    offers = ledger.numbers["offers"]
    add(ledger, "ann", 1)
    add(ledger, "bob", 2, Reason.COMPLAINT, "arf")
    add(ledger, "cem", 3, scope=offers)
    load(ledger, ["dee"], 1)
    for wanted, fit in (
        (Wanted(scope=offers), ["cem"]),
        (Wanted(scope=ALL), ["bob", "ann"]),
        (Wanted(reason=Reason.COMPLAINT), ["bob"]),
        (Wanted(source="mail"), ["cem", "ann"]),
        (Wanted(source="import"), ["list.csv"]),
        (Wanted(since=NOW + timedelta(days=2)), ["cem", "bob"]),
        (Wanted(scope=ALL, reason=Reason.OPT_OUT, source="mail"), ["ann"]),
    ):
        assert names(read(ledger, wanted)) == [fit], wanted


def test_an_import_is_one_line_however_many_batches_it_was(ledger: Books) -> None:
    load(ledger, ["a", "b"], 7)
    load(ledger, ["c"], 7)
    load(ledger, ["d"], 8)
    ((second, first),) = read(ledger)
    assert [(line.run, line.rows, line.file, line.key) for line in (first, second)] == [
        (7, 3, "list.csv", None),
        (8, 1, "list.csv", None),
    ]


def test_a_page_looks_at_a_stretch_of_the_log_and_says_where_to_go_on(
    ledger: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newest, "STRETCH", 3)
    add(ledger, "ann", 0)
    for n in range(4):
        add(ledger, f"p{n}", 1)
        ledger.lift(f"p{n}@example.com")
    pages = read(ledger)
    assert names(pages)[-1] == ["ann"]
    assert sum(map(len, pages)) == 1
    assert len(pages) == 3


def test_it_goes_no_further_back_than_is_wanted(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest, "STRETCH", 2)
    for n in range(7):
        add(ledger, f"p{n}", n)
    assert names(read(ledger, Wanted(since=NOW + timedelta(days=4)))) == [["p6", "p5"], ["p4"]]
