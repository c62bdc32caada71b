"""The state of the brake: kept, explained, sealed."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

import pytest

from storage import audit, brake, engine, suppressions
from storage.audit import ChainBroken
from storage.brake import Pulled, What
from storage.engine import Unusable
from storage.write import write
from tests.ledgers import Books

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
