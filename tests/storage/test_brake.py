"""The state of the brake: kept, explained, sealed."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import pytest

from storage import audit, brake, engine, held, incoming, suppressions
from storage.audit import ChainBroken
from storage.brake import Pulled, What
from storage.engine import Unusable
from storage.write import write
from tests.ledgers import Books, queued

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def change(
    ledger: Books, pull: Collection[What] = (), release: Collection[What] = (), because: str = "why"
) -> Collection[What]:
    with write(ledger.ledger, NOW, "cli root") as w:
        return brake.set_to(w, pull, release, because)


def now_pulled(ledger: Books) -> dict[What, Pulled]:
    with ledger.ledger.reading() as db:
        audit.verify(db, ledger.ledger.site_key)
        return dict(brake.pulled(db))


def test_nothing_is_pulled_at_first(ledger: Books) -> None:
    assert now_pulled(ledger) == {}


def test_pulled_it_says_by_whom_and_why(ledger: Books) -> None:
    assert change(ledger, ["bounces"], because="a broken relay") == ["bounces"]
    assert now_pulled(ledger) == {"bounces": Pulled(NOW, "cli root", "a broken relay", 1)}


def test_each_has_its_own_state(ledger: Books) -> None:
    change(ledger, ["bounces", "unproven"])
    assert change(ledger, ["complaints"], ["bounces"]) == ["bounces", "complaints"]
    assert list(now_pulled(ledger)) == ["complaints", "unproven"]
    with ledger.ledger.connect() as db:
        assert [brake.is_pulled(db, what) for what in brake.WHAT] == [False, True, True]


def test_what_is_so_already_is_not_written_down_again(ledger: Books) -> None:
    change(ledger, ["bounces"], because="first")
    assert change(ledger, ["bounces"], ["complaints"], because="second") == ()
    assert now_pulled(ledger)["bounces"].because == "first"
    with ledger.ledger.connect() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM audit").scalar() == 1


def test_pulled_and_released_at_once_stays_pulled(ledger: Books) -> None:
    assert change(ledger, ["bounces"], ["bounces"]) == ["bounces"]
    assert change(ledger, ["bounces"], ["bounces"]) == ()
    assert list(now_pulled(ledger)) == ["bounces"]


def test_released_it_is_as_if_it_had_never_been(ledger: Books) -> None:
    change(ledger, brake.WHAT)
    change(ledger, (), brake.WHAT)
    assert now_pulled(ledger) == {}
    with ledger.ledger.connect() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM meta WHERE name = 'brake'").scalar() == 0


def test_the_record_tells_of_it(ledger: Books) -> None:
    change(ledger, ["complaints"], because="a storm")
    change(ledger, (), ["complaints"], because="over")
    with ledger.ledger.connect() as db:
        facts = [suppressions.by_evidence(db, n)[0] for n in (1, 2)]
    assert [(f.event, f.actor, (f.detail or {})["because"], (f.detail or {})["brake"]) for f in facts] == [
        ("brake", "cli root", "a storm", {"complaints": True}),
        ("brake", "cli root", "over", {"complaints": False}),
    ]


@pytest.mark.parametrize(
    "edit", ["DELETE FROM meta WHERE name = 'brake'", "INSERT INTO meta VALUES ('brake', '{}')"], ids=["gone", "come"]
)
def test_what_is_changed_behind_our_back_is_found(ledger: Books, edit: str) -> None:
    if edit.startswith("DELETE"):
        change(ledger, ["bounces"])
    with ledger.ledger.connect() as db:
        db.exec_driver_sql(edit)
    with pytest.raises(ChainBroken, match="meta"):
        now_pulled(ledger)


def test_code_that_does_not_know_the_brake_is_kept_out_once_it_was_pulled(
    ledger: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would act all the same, and take the seal for broken, or break it."""
    with monkeypatch.context() as older:
        older.setattr(engine, "REVISION", "0004")
        with ledger.ledger.connect() as db:
            engine.verify_identity(lambda sql: db.exec_driver_sql(sql).scalar(), ledger.ledger.site_key)
    with write(ledger.ledger, NOW, "test") as w:
        brake.set_to(w, ["bounces"], [], "a storm")
    monkeypatch.setattr(engine, "REVISION", "0004")
    with pytest.raises(Unusable, match="newer version"), ledger.ledger.connect() as db:
        engine.verify_identity(lambda sql: db.exec_driver_sql(sql).scalar(), ledger.ledger.site_key)


# ------------------------------------------------------------------ one cause

NARROW = "bounces:outlook.com/5.1.1"


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("bounces", True),
        ("bounces:outlook.com", True),
        (NARROW, True),
        ("bounces:outlook.com/none", True),
        ("complaints:reporter.example", True),
        ("unproven:ann.example", False),
        ("complaints:reporter.example/5.1.1", False),
        ("bounces:", False),
        ("bounces:outlook.com/", False),
        ("bounces:outlook.com/9.1.1", False),
        ("bounces:Outlook.com", False),
        ("bounces:ann@outlook.com", False),
        ("bounces:-x", False),
        ("bounces:outlook.com\n", False),
        ("bounces:" + "a" * 200, False),
        ("", False),
    ],
)
def test_what_a_brake_can_be_pulled_on(text: str, known: bool) -> None:
    assert brake.is_name(text) == known


def test_a_narrow_one_holds_no_more_than_it_says(ledger: Books) -> None:
    change(ledger, [NARROW, "complaints:reporter.example"])
    with ledger.ledger.connect() as db:
        held = [brake.is_pulled(db, what) for what in (NARROW, "complaints:reporter.example")]
        free = ("bounces:outlook.com/5.1.2", "bounces:other.example/5.1.1", "bounces", "complaints", "unproven")
        assert (held, [brake.is_pulled(db, what) for what in free]) == ([True] * 2, [False] * 5)
    change(ledger, ["bounces:outlook.com"], [NARROW])
    with ledger.ledger.connect() as db:
        assert brake.is_pulled(db, NARROW)
        assert brake.is_pulled(db, "bounces:outlook.com/5.1.2")
    assert list(now_pulled(ledger)) == ["bounces:outlook.com", "complaints:reporter.example"]


def test_a_state_of_before_there_were_narrow_ones_is_read(ledger: Books) -> None:
    """As the version before wrote it."""
    with write(ledger.ledger, NOW, "cli root") as w:
        number = w.evidence(source="operator", because="a storm", brake={"bounces": True})
        w.audit("brake", source="operator", evidence=number)
        state = f'{{"bounces": {{"by": "cli root", "evidence": {number[0]}, "since": {w.at}}}}}'
        w.db.exec_driver_sql("INSERT INTO meta (name, value) VALUES ('brake', ?)", (state.encode(),))
    assert now_pulled(ledger) == {"bounces": Pulled(NOW, "cli root", "a storm", number[0])}
    with ledger.ledger.connect() as db:
        assert brake.is_pulled(db, NARROW)


def test_code_that_knows_no_narrow_brake_is_kept_out_by_one(ledger: Books) -> None:
    change(ledger, ["bounces"])
    assert needs(ledger) == "0005"
    change(ledger, [NARROW])
    assert needs(ledger) == min(engine.REVISION, "0006")


def needs(ledger: Books) -> str:
    with ledger.ledger.connect() as db:
        return bytes(db.exec_driver_sql("SELECT value FROM meta WHERE name = 'needs'").scalar_one()).decode()


def test_counts_are_by_cause_and_by_hour_and_nothing_to_those_of_the_unproven(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        came = [(NARROW, NOW), (NARROW, NOW), ("bounces", NOW), (NARROW, NOW + timedelta(hours=1))]
        assert [brake.count(w, what, at, 3) for what, at in came] == [3, 6, 3, 3]
        assert incoming.allow_unproven(w, b"w" * 16, NOW, 3, 3, 3)
        incoming.forget_unproven(w)
        assert brake.count(w, NARROW, NOW, 1) == 7


def test_counts_are_forgotten_and_what_is_released_begins_anew(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        brake.count(w, NARROW, NOW, 3)
        brake.count(w, "bounces", NOW, 3)
        brake.count(w, NARROW, NOW - timedelta(days=61), 3)
        incoming.allow_unproven(w, b"w" * 16, NOW - timedelta(days=61), 1, 3, 3)
        brake.forget_counts(w)
        assert w.db.exec_driver_sql("SELECT count(*) FROM unproven").scalar_one() == 3
        brake.set_to(w, [NARROW], [], "x")
        assert brake.count(w, NARROW, NOW, 1) == 4
        brake.set_to(w, [], [NARROW], "x")
        assert [brake.count(w, what, NOW, 1) for what in (NARROW, "bounces")] == [1, 4]


def test_counts_do_not_tell_whose_they_are(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        brake.count(w, NARROW, NOW, 3)
        (row,) = w.db.exec_driver_sql("SELECT writer FROM unproven").all()
    assert (len(row[0]), b"outlook" in bytes(row[0])) == (16, False)


# ------------------------------------------------------------------ what waits by it


def test_what_waits_is_found_by_the_name_of_its_brake(ledger: Books) -> None:
    rules = ["0.1-x", held.RULE]
    items = [
        ("hard-bounce", rules, f"{NARROW}: 550 5.1.1 no"),
        ("hard-bounce", rules, "bounces:outlook.com/5.1.10: 550 5.1.10 no"),
        ("soft-bounce", rules, "bounces:outlook.com/4.2.2: full"),
        ("hard-bounce", rules, "bounces: of several"),
        ("complaint", rules, "complaints:reporter.example: abuse"),
        ("opt-out", rules, "bounces:outlook.com/5.1.1: he writes"),
        ("hard-bounce", ["0.1-x", "7.5-unproven"], f"{NARROW}: 550 5.1.1 no"),
        ("resubscribe", rules, "again please"),
    ]
    with write(ledger.ledger, NOW, "test") as w:
        numbers = [queued(w, wish=wish, rules=rules, words=words) for wish, rules, words in items]
        decided = incoming.review(
            w.db, queued(w, wish="complaint", rules=rules, words="complaints:reporter.example: abuse")
        )
        assert decided
        incoming.decide(w, decided, accepted=False, note="")
    one, two, three, four, five, six, *_ = numbers
    with ledger.ledger.reading() as db:
        assert held.numbers(db, NARROW) == [one]
        assert held.numbers(db, "bounces:outlook.com") == [one, two, three]
        assert held.numbers(db, "bounces") == [one, two, three, four]
        assert held.numbers(db, "bounces", beyond=one, most=2) == [two, three]
        assert held.numbers(db, "bounces:other.example") == []
        assert held.numbers(db, "complaints:reporter.example") == held.numbers(db, "complaints") == [five]
        assert held.numbers(db, "unproven") == [six]


def test_of_which_cause_an_item_is(ledger: Books) -> None:
    assert held.cause_in((held.RULE,), held.words_of(NARROW, "550 5.1.1: no")) == NARROW
    assert held.cause_in(("7.5-unproven",), held.words_of(NARROW, "x")) is None
    assert held.cause_in((held.RULE,), "please stop: now") is None
    assert held.cause_in((held.RULE,), "") is None
