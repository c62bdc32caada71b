"""Rows by the thousand: what stands is left, nothing is lifted, and nobody comes back who was taken off since."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from operator import itemgetter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import audit, bulk, imports, suppressions
from storage.address import SiteKey, parse, person
from storage.bulk import UNDATED, Batch, Row
from storage.engine import Ledger
from storage.terms import ALL, Reason, seconds
from storage.write import write
from tests.ledgers import Books

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
OPT_OUT, WANTED = Reason.OPT_OUT, Reason.WANTED


def key(it: Ledger, address: str) -> bytes:
    return it.site_key.address_key(person(parse(address), it.same_person))


def add(
    it: Books, *rows: Row, addresses: dict[bytes, str] | None = None, run: int = 0, now: datetime = NOW
) -> bulk.Added:
    batch = Batch(sorted(rows, key=itemgetter(0)), addresses or {})
    with write(it.ledger, now, "import") as w:
        return bulk.add_many(w, batch, seconds(now), {"file": "a.csv"}, run=run)


def row(
    it: Books, address: str, scope: int = ALL, reason: Reason = OPT_OUT, since: datetime | None = None
) -> Row:  # fmt: skip
    return key(it.ledger, address), scope, int(reason), UNDATED if since is None else seconds(since)


def stands(it: Books, address: str) -> list[tuple[int, int, int]]:
    """(scope, reason, since) of all that stands."""
    with it.ledger.connect() as db:
        return sorted(r[1:4] for r in suppressions.standing(db, it.ledger.site_key, parse(address)))


def people(it: Books) -> list[str]:
    with it.ledger.connect() as db:
        return list(db.exec_driver_sql("SELECT address FROM person ORDER BY 1").scalars())


def opt_out(it: Books, scope: int = ALL, reason: Reason = OPT_OUT, since: datetime = NOW) -> None:
    with write(it.ledger, since, "test") as w:
        suppressions.add(w, parse("ann@example.com"), scope, reason, "mail", {})


def lift(it: Books, scope: int = ALL, now: datetime = NOW) -> None:
    with write(it.ledger, now, "test") as w:
        assert suppressions.lift(w, parse("ann@example.com"), scope, "asked on the phone")


@pytest.fixture
def newsletter(ledger: Books) -> int:
    return ledger.numbers["newsletter"]


@pytest.fixture(autouse=True)
def _whole(ledger: Books) -> object:
    """Whatever a test does, the record agrees with the table at its end."""
    yield
    with ledger.ledger.reading() as db:
        audit.verify(db, ledger.ledger.site_key)


# ------------------------------------------------------------------ adding


def test_a_batch_adds_what_is_new_once_and_leaves_what_is_there(ledger: Books) -> None:
    opt_out(ledger, since=NOW - HOUR)
    offers = ledger.numbers["offers"]
    ann, bob = row(ledger, "ann@example.com", since=NOW), row(ledger, "bob@example.com", since=NOW)
    addresses = {bob[0]: "bob@example.com", ann[0]: "ANN@example.com"}
    added = add(ledger, ann, bob, bob, (bob[0], offers, 2, UNDATED), addresses=addresses)
    assert sorted(added.fates) == ["added", "added", "already", "already"]
    assert stands(ledger, "ann@example.com") == [(ALL, 2, seconds(NOW - HOUR))]
    assert stands(ledger, "bob@example.com") == [(ALL, 2, seconds(NOW)), (offers, 2, seconds(NOW))]
    assert people(ledger) == ["ann@example.com", "bob@example.com"]
    with ledger.ledger.connect() as db:
        events = db.exec_driver_sql("SELECT event, source, key IS NULL FROM audit ORDER BY seq").all()
        detail = suppressions.details(db, [added.evidence])[added.evidence]
    assert [tuple(e) for e in events] == [("suppressed", "mail", 0), ("imported", "import", 1)]
    assert detail == {"file": "a.csv", "rows": 2, "source": "import"}


def test_the_same_again_changes_nothing_and_leaves_no_trace(ledger: Books) -> None:
    batch = Batch([(n.to_bytes(16), ALL, int(OPT_OUT), n) for n in range(1200)])
    for expected, audited in ((1200, 1), (0, 1)):
        with write(ledger.ledger, NOW, "import") as w:
            added = bulk.add_many(w, batch, 1, {})
        assert (added.new, bool(added.evidence)) == (expected, bool(expected))
        with ledger.ledger.connect() as db:
            assert db.exec_driver_sql("SELECT count(*) FROM audit").scalar() == audited
            assert db.exec_driver_sql("SELECT count(*) FROM evidence").scalar() == audited


def test_a_plan_changes_nothing(ledger: Books) -> None:
    with ledger.ledger.reading() as db:
        made = bulk.plan(db, Batch([row(ledger, "ann@example.com")]), 7)
    assert (made.fates, made.fresh) == (["added"], [(key(ledger.ledger, "ann@example.com"), ALL, 2, 7)])
    assert stands(ledger, "ann@example.com") == []


def test_who_is_there_already_may_be_taught_his_address(ledger: Books) -> None:
    ann = row(ledger, "ann@example.com")
    add(ledger, ann)
    assert people(ledger) == []
    add(ledger, ann, addresses={ann[0]: "ann@example.com"})
    assert people(ledger) == ["ann@example.com"]


def test_addresses_are_kept_only_if_the_operator_wants_it(ledger: Books) -> None:
    ledger.ledger.keep_addresses = False
    ann = row(ledger, "ann@example.com")
    assert add(ledger, ann, addresses={ann[0]: "ann@example.com"}).new == 1
    assert people(ledger) == []


def test_nobody_who_was_forgotten_is_remembered_again(ledger: Books) -> None:
    ann, bob = row(ledger, "ann@example.com"), row(ledger, "bob@example.com")
    with write(ledger.ledger, NOW, "test") as w:
        w.db.exec_driver_sql("INSERT INTO forgotten (key) VALUES (?)", (ann[0],))
    assert add(ledger, ann, bob, addresses={ann[0]: "ann@example.com", bob[0]: "bob@example.com"}).new == 2
    assert people(ledger) == ["bob@example.com"]


def test_a_later_date_for_what_stands_is_noted(ledger: Books) -> None:
    """A link that takes the older wish back must not take this one back."""
    opt_out(ledger, since=NOW - HOUR)
    for asked, noted in ((NOW - 2 * HOUR, NOW - HOUR), (NOW, NOW), (NOW - HOUR / 2, NOW)):
        add(ledger, row(ledger, "ann@example.com", since=asked))
        with ledger.ledger.connect() as db:
            (standing,) = suppressions.standing(db, ledger.ledger.site_key, parse("ann@example.com"))
            assert suppressions.last_asked(db, standing) == seconds(noted)


# ------------------------------------------------------------------ who was taken off


@pytest.mark.parametrize(
    ("asked", "fate"), [(NOW - HOUR, "skipped"), (NOW + HOUR, "added"), (None, "skipped")]
)  # fmt: skip
def test_what_is_older_than_a_lift_brings_nobody_back(ledger: Books, asked: datetime | None, fate: str) -> None:
    opt_out(ledger, since=NOW - 2 * HOUR)
    lift(ledger)
    ann = row(ledger, "ann@example.com", since=asked)
    assert add(ledger, ann, addresses={ann[0]: "ann@example.com"}, now=NOW + 2 * HOUR).fates == [fate]
    assert bool(stands(ledger, "ann@example.com")) == (fate == "added")


def test_a_lift_of_a_list_says_nothing_of_everything(ledger: Books, newsletter: int) -> None:
    opt_out(ledger, newsletter)
    lift(ledger, newsletter)
    offers = ledger.numbers["offers"]
    rows = [row(ledger, "ann@example.com", scope) for scope in (ALL, newsletter, offers)]
    assert add(ledger, *rows).fates == ["added", "skipped", "added"]


def test_a_lift_of_everything_counts_for_a_list(ledger: Books, newsletter: int) -> None:
    opt_out(ledger)
    lift(ledger)
    assert add(ledger, row(ledger, "ann@example.com", newsletter)).fates == ["skipped"]


@pytest.mark.parametrize(
    ("lifted", "imported", "fate"),
    [
        (Reason.HARD_BOUNCE, Reason.HARD_BOUNCE, "skipped"),
        (Reason.OPT_OUT, Reason.HARD_BOUNCE, "skipped"),
        (Reason.HARD_BOUNCE, Reason.OPT_OUT, "added"),  # that his mailbox works says nothing of what he wants
        (Reason.SOFT_BOUNCE, Reason.SOFT_BOUNCE, "added"),  # as it would be of one that ran out
        (Reason.OPERATOR, Reason.COMPLAINT, "skipped"),
    ],
)
def test_which_lifts_count(ledger: Books, lifted: Reason, imported: Reason, fate: str) -> None:
    opt_out(ledger, reason=lifted)
    lift(ledger)
    assert add(ledger, row(ledger, "ann@example.com", reason=imported)).fates == [fate]


def test_what_was_undone_by_its_cause_can_be_imported_again(ledger: Books) -> None:
    """Nobody wished to be mailed: the list was the wrong one."""
    ann = key(ledger.ledger, "ann@example.com")
    with write(ledger.ledger, NOW, "test") as w:
        number = w.evidence(because="the wrong list", cause="import a.csv")
        w.audit("lifted", key=ann, scope=ALL, reason=int(OPT_OUT), source="operator", evidence=number)
    assert add(ledger, row(ledger, "ann@example.com")).fates == ["added"]


# ------------------------------------------------------------------ what is wanted all the same


@pytest.mark.parametrize(
    ("asked", "wanted"), [(NOW + HOUR, False), (NOW - HOUR, True), (None, True)]
)  # fmt: skip
def test_an_opt_out_of_everything_ends_what_was_wanted_before_it(
    ledger: Books, newsletter: int, asked: datetime | None, wanted: bool
) -> None:
    opt_out(ledger, newsletter, WANTED)
    assert add(ledger, row(ledger, "ann@example.com", since=asked)).fates == ["added"]
    assert (newsletter in [r[0] for r in stands(ledger, "ann@example.com")]) is wanted
    with ledger.ledger.connect() as db:
        story = suppressions.history(db, ledger.ledger.site_key, parse("ann@example.com"))
    assert [f.event for f in story] == ["suppressed"] + ["lifted"] * (not wanted)


def test_what_stands_and_is_asked_for_again_ends_what_was_wanted_in_between(ledger: Books, newsletter: int) -> None:
    opt_out(ledger, since=NOW - HOUR)
    opt_out(ledger, newsletter, WANTED)
    assert add(ledger, row(ledger, "ann@example.com", since=NOW + HOUR)).fates == ["already"]
    assert [r[1] for r in stands(ledger, "ann@example.com")] == [OPT_OUT]


@pytest.mark.parametrize(("asked", "fate"), [(NOW + HOUR, "added"), (NOW - HOUR, "skipped"), (None, "skipped")])
def test_an_opt_out_of_a_list_that_is_wanted_since(
    ledger: Books, newsletter: int, asked: datetime | None, fate: str
) -> None:
    opt_out(ledger, newsletter, WANTED)
    assert add(ledger, row(ledger, "ann@example.com", newsletter, since=asked)).fates == [fate]
    assert [r[1] for r in stands(ledger, "ann@example.com")] == [OPT_OUT if fate == "added" else WANTED]


def test_an_import_lifts_nothing_by_what_it_says_is_wanted(ledger: Books, newsletter: int) -> None:
    opt_out(ledger)
    assert add(ledger, row(ledger, "ann@example.com", newsletter, WANTED, NOW + HOUR)).fates == ["skipped"]


def test_what_is_wanted_comes_with_the_opt_out_it_is_an_exception_of(ledger: Books, newsletter: int) -> None:
    opt_out = row(ledger, "ann@example.com", since=NOW)
    wanted = row(ledger, "ann@example.com", newsletter, WANTED, NOW + HOUR)
    assert add(ledger, opt_out, run=7).fates == ["added"]
    assert add(ledger, wanted, run=8).fates == ["skipped"]
    assert add(ledger, wanted, run=7).fates == ["added"]
    other = [(b"x" * 16, *r[1:]) for r in (opt_out, wanted)]
    assert add(ledger, *other).fates == ["added", "added"]


def test_what_is_wanted_may_be_ended_by_the_same_list(ledger: Books, newsletter: int) -> None:
    wanted = row(ledger, "ann@example.com", newsletter, WANTED, NOW)
    add(ledger, wanted, row(ledger, "ann@example.com", since=NOW + HOUR))
    assert [r[1] for r in stands(ledger, "ann@example.com")] == [OPT_OUT]


# ------------------------------------------------------------------ several site keys


def test_what_stands_under_an_older_key_stands(ledger: Books) -> None:
    it = ledger.ledger
    opt_out(ledger)
    old = key(it, "ann@example.com")
    it.site_key = SiteKey((b"n" * 32, *it.site_key.keys))
    new, bob = key(it, "ann@example.com"), key(it, "bob@example.com")
    with write(it, NOW, "test") as w:
        w.db.exec_driver_sql("INSERT INTO forgotten (key) VALUES (?)", (old,))
    rows = sorted([(new, ALL, 2, UNDATED), (new, 1, 2, UNDATED), (bob, ALL, 2, UNDATED)], key=itemgetter(0))
    batch = Batch(rows, {new: "ann@example.com", bob: "bob@example.com"}, {new: [old], bob: [b"b" * 16]})
    with write(it, NOW, "import") as w:
        added = bulk.add_many(w, batch, seconds(NOW), {})
    fates = dict(zip([r[:2] for r in rows], added.fates, strict=True))
    assert fates == {(new, ALL): "already", (new, 1): "added", (bob, ALL): "added"}
    assert people(ledger) == [
        "ann@example.com",
        "bob@example.com",
    ]  # ann: from before she was forgotten, under the old key
    with it.connect() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM person WHERE key = ?", (new,)).scalar() == 0


def test_a_lift_under_an_older_key_counts(ledger: Books) -> None:
    it = ledger.ledger
    opt_out(ledger)
    lift(ledger)
    old = key(it, "ann@example.com")
    it.site_key = SiteKey((b"n" * 32, *it.site_key.keys))
    new = key(it, "ann@example.com")
    with write(it, NOW, "import") as w:
        assert bulk.add_many(w, Batch([(new, ALL, 2, UNDATED)], {}, {new: [old]}), 1, {}).fates == ["skipped"]


# ------------------------------------------------------------------ in any portions

ROWS = st.lists(
    st.tuples(
        st.sampled_from([b"a" * 16, b"b" * 16]),
        st.sampled_from([ALL, 1, 2]),
        st.sampled_from([int(Reason.OPT_OUT), int(Reason.WANTED), int(Reason.HARD_BOUNCE)]),
        st.sampled_from([UNDATED, 100, 200, 300]),
    ).filter(lambda r: r[1] != ALL or r[2] != WANTED),
    max_size=12,
)


class _RollBack(Exception):
    pass


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(ROWS, st.integers(1, 5), st.randoms(use_true_random=False))
def test_it_does_not_matter_where_a_list_is_cut(ledger: Books, rows: list[Row], most: int, dice: random.Random) -> None:
    """Killed and resumed, or of another size: the same list comes to the same rows, and the same again adds nothing."""

    def put(portions: list[list[Row]]) -> tuple[object, list[str]]:
        found: tuple[object, list[str]]
        with suppress(_RollBack), write(ledger.ledger, NOW, "import") as w:
            fates = list[str]()
            for portion in portions:
                batch = Batch(sorted(portion, key=itemgetter(0)))
                fates += bulk.add_many(w, batch, 250, {}, run=1).fates
            stand = w.db.exec_driver_sql("SELECT key, scope, reason, since FROM suppression ORDER BY 1, 2, 3")
            found = [tuple(r) for r in stand], sorted(fates)
            again = bulk.add_many(w, Batch(sorted(rows, key=itemgetter(0))), 250, {}, run=1)
            assert not again.new or any(r[2] == WANTED for r in rows)  # a list may contradict itself
            raise _RollBack
        return found

    cuts, rest = [], list(rows)
    while rest:
        n = dice.randint(1, most)
        cuts.append(rest[:n])
        rest = rest[n:]
    assert put([rows]) == put(cuts)


# ------------------------------------------------------------------ how far an import has come


def test_an_import_goes_on_where_it_stopped_and_begins_anew_after_its_end(ledger: Books) -> None:
    def begin(now: datetime) -> imports.Run:
        with write(ledger.ledger, now, "import") as w:
            return imports.begin(w, b"digest", "a.csv")

    first = begin(NOW)
    assert (first.position, first.at, first.again) == (0, NOW, False)
    with write(ledger.ledger, NOW, "import") as w:
        further = imports.advance(w, first, rows=10, added=5, already=3, skipped=1, bad=1)
    assert begin(NOW + HOUR) == further == replace(first, position=10, added=5, already=3, skipped=1, bad=1)
    with write(ledger.ledger, NOW, "import") as w:
        imports.finish(w, further)
    assert begin(NOW + HOUR) == replace(first, again=True)


def test_two_that_import_the_same_file_do_not_count_it_twice(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "import") as w:
        run = imports.begin(w, b"digest", "a.csv")
        imports.advance(w, run, rows=1, added=1, already=0, skipped=0, bad=0)
    with pytest.raises(imports.OutOfStep), write(ledger.ledger, NOW, "import") as w:
        imports.advance(w, run, rows=1, added=1, already=0, skipped=0, bad=0)
    with pytest.raises(imports.OutOfStep), write(ledger.ledger, NOW, "import") as w:
        imports.finish(w, run)


def test_what_an_import_brought_and_what_of_it_stands(ledger: Books) -> None:
    ann, bob = row(ledger, "ann@example.com"), row(ledger, "bob@example.com")
    first, second = add(ledger, ann, bob, run=3), add(ledger, (b"c" * 16, ALL, 2, 1), run=3)
    add(ledger, (b"d" * 16, ALL, 2, 1), run=4)
    lift(ledger)
    with ledger.ledger.connect() as db:
        found = imports.brought(db, first.evidence)
        assert found == imports.Brought("a.csv", "", None, None, 2, 1, 3, 2)
        other = imports.brought(db, second.evidence)
        assert other
        assert (other.rows, other.standing, other.total) == (1, 1, 3)
        assert imports.brought(db, 999) is None
