"""Undo by cause: what came of it goes, what a person asked for stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from storage import audit, suppressions, undo
from storage.address import parse
from storage.terms import ALL, Reason
from storage.undo import Cause, Tally
from storage.write import write
from tests.ledgers import Books, bring

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
IMPORTED = Cause(imported="list.csv")


def add(
    it: Books,
    name: str,
    reason: Reason = Reason.OPT_OUT,
    source: str = "mail",
    *,
    at: datetime = NOW,
    scope: int = ALL,
    **detail: Any,
) -> suppressions.Added:
    """As the desks do it."""
    with write(it.ledger, at, "test") as w:
        return suppressions.add(w, parse(f"{name}@example.com"), scope, reason, source, detail)


def key(it: Books, name: str) -> bytes:
    return it.ledger.site_key.address_key(f"{name}@example.com")


def load(
    it: Books,
    names: Iterable[str],
    reason: Reason = Reason.OPT_OUT,
    *,
    at: datetime = NOW,
    file: str = "list.csv",
    number: int = 7,
) -> None:
    """As an import does it."""
    people = sorted((key(it, name), f"{name}@example.com") for name in names)
    with write(it.ledger, at, "import") as w:
        rows = [(k, ALL, int(reason), 1_700_000_000) for k, _ in people]
        bring(w, rows, "import", {"file": file, "import": number}, people)


def run(it: Books, cause: Cause, now: datetime = NOW + HOUR) -> Tally:
    """Undone as the survey said, and the record is whole."""
    expected = undo.survey(it.ledger, cause)
    done = undo.undo(it.ledger, cause, "the wrong file", lambda: now, "test")
    assert done == expected
    with it.ledger.reading() as db:
        audit.verify(db, it.ledger.site_key)
    return done


def standing(it: Books) -> set[str]:
    """Who is suppressed, by the names that tests use."""
    names = ("ann", "bob", "cem", "dee", "eve")
    with it.ledger.reading() as db:
        return {n for n in names if suppressions.standing(db, it.ledger.site_key, parse(f"{n}@example.com"))}


# ------------------------------------------------------------------ what goes


def test_an_import_goes_by_its_file_and_by_its_number(ledger: Books) -> None:
    load(ledger, ["ann", "bob"])
    load(ledger, ["cem"], file="other.csv", number=8)
    add(ledger, "dee")
    assert run(ledger, IMPORTED).lifted == {(Reason.OPT_OUT, ALL): 2}
    assert standing(ledger) == {"cem", "dee"}
    assert run(ledger, Cause(imported="8")).lifted.total() == 1
    assert standing(ledger) == {"dee"}
    assert run(ledger, Cause(imported="8")) == Tally()


def test_a_mail_that_calls_itself_an_import_is_none(ledger: Books) -> None:
    add(ledger, "ann", Reason.HARD_BOUNCE, "dsn", file="list.csv")
    assert run(ledger, IMPORTED) == Tally()


def test_by_cause_source_and_mailbox_all_of_which_must_hold(ledger: Books) -> None:
    add(ledger, "ann", Reason.HARD_BOUNCE, "dsn", mailbox="bounces")
    add(ledger, "bob", Reason.HARD_BOUNCE, "dsn", mailbox="support")
    add(ledger, "cem", Reason.COMPLAINT, "arf", mailbox="bounces")
    add(ledger, "dee", Reason.OPERATOR, "operator")
    assert undo.survey(ledger.ledger, Cause(reason=Reason.HARD_BOUNCE)).lifted.total() == 2
    assert undo.survey(ledger.ledger, Cause(source="arf")).lifted == {(Reason.COMPLAINT, ALL): 1}
    assert undo.survey(ledger.ledger, Cause(mailbox="bounces")).lifted.total() == 2
    run(ledger, Cause(reason=Reason.HARD_BOUNCE, source="dsn", mailbox="bounces"))
    assert standing(ledger) == {"bob", "cem", "dee"}


def test_by_domain_and_status_exactly_the_rows_of_the_cause(ledger: Books) -> None:
    causes = {
        "ann": "bounces:outlook.com/5.1.1",
        "bob": "bounces:outlook.com/5.1.10",
        "cem": "bounces:google.com/5.1.1",
        "dee": "complaints:outlook.com",
    }
    for name, cause in causes.items():
        complained = cause.startswith("complaints")
        reason = Reason.COMPLAINT if complained else Reason.HARD_BOUNCE
        add(ledger, name, reason, "arf" if complained else "dsn", cause=cause)
    add(ledger, "eve", cause="bounces:outlook.com/5.1.1")  # it is her own wish, whatever else is written there
    rows = {name: rows_of(ledger, name) for name in (*causes, "eve")}
    assert undo.survey(ledger.ledger, Cause(domain="outlook.com")).lifted.total() == 3
    assert undo.survey(ledger.ledger, Cause(diagnostic="5.1.1")).lifted.total() == 2
    assert run(ledger, Cause(domain="outlook.com", diagnostic="5.1.1")).lifted == {(Reason.HARD_BOUNCE, ALL): 1}
    assert {name: rows_of(ledger, name) for name in rows} == {**rows, "ann": []}
    assert run(ledger, Cause(source="arf", domain="outlook.com")).lifted == {(Reason.COMPLAINT, ALL): 1}
    assert standing(ledger) == {"bob", "cem", "eve"}


def rows_of(it: Books, name: str) -> list[suppressions.RawRow]:
    with it.ledger.reading() as db:
        return suppressions.standing(db, it.ledger.site_key, parse(f"{name}@example.com"))


def test_older_bounces_go_by_their_recipients_domain_and_what_the_server_said(ledger: Books) -> None:
    """Evidence from before there were names for causes."""
    add(ledger, "ann", Reason.HARD_BOUNCE, "dsn", words="550-5.1.1 no such user. 5.1.1 Learn more")
    add(ledger, "bob", Reason.HARD_BOUNCE, "dsn", words="550 15.1.1 no")
    add(ledger, "cem", Reason.HARD_BOUNCE, "dsn", words="550 no")
    assert undo.survey(ledger.ledger, Cause(domain="example.com")).lifted.total() == 3
    assert undo.survey(ledger.ledger, Cause(domain="other.example")) == Tally()
    assert run(ledger, Cause(domain="example.com", diagnostic="5.1.1")).lifted.total() == 1
    assert standing(ledger) == {"bob", "cem"}


def test_the_window_is_of_when_it_was_recorded(ledger: Books) -> None:
    for hour, name in enumerate(("ann", "bob", "cem")):
        add(ledger, name, Reason.HARD_BOUNCE, "dsn", at=NOW + hour * HOUR)
    begin = Cause(reason=Reason.HARD_BOUNCE, begin=NOW + HOUR, end=NOW + HOUR)
    assert run(ledger, begin, NOW + 9 * HOUR).lifted.total() == 1
    assert standing(ledger) == {"ann", "cem"}


def test_one_list_and_one_reason_of_several(ledger: Books) -> None:
    offers = ledger.numbers["offers"]
    add(ledger, "ann", Reason.HARD_BOUNCE, "dsn")
    add(ledger, "ann", Reason.HARD_BOUNCE, "dsn", scope=offers)
    add(ledger, "ann", Reason.COMPLAINT, "arf")
    assert run(ledger, Cause(source="dsn", scope=offers)).lifted == {(Reason.HARD_BOUNCE, offers): 1}
    assert run(ledger, Cause(reason=Reason.HARD_BOUNCE)).lifted == {(Reason.HARD_BOUNCE, ALL): 1}
    assert standing(ledger) == {"ann"}


def test_each_row_has_its_audit_row_and_one_evidence_says_why(ledger: Books) -> None:
    load(ledger, ["ann", "bob", "cem"])
    run(ledger, IMPORTED)
    with ledger.ledger.reading() as db:
        facts = suppressions.history(db, ledger.ledger.site_key, parse("ann@example.com"))
        assert [f.event for f in facts] == ["lifted"]
        lifted = db.exec_driver_sql("SELECT count(*), count(DISTINCT evidence) FROM audit WHERE event = 'lifted'").one()
    assert tuple(lifted) == (3, 1)
    detail = facts[0].detail
    assert detail
    assert (detail["because"], detail["cause"], detail["rows"]) == ("the wrong file", {"import": "list.csv"}, 3)


def test_more_than_one_batch_and_page(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undo, "BATCH", 7)
    monkeypatch.setattr(undo, "_PAGE", 5)
    monkeypatch.setattr(undo, "_KEYS", 2)
    monkeypatch.setattr(undo, "GAP", 0)
    load(ledger, [f"p{n}" for n in range(30)])
    load(ledger, [f"p{n}" for n in range(0, 30, 2)], Reason.COMPLAINT)
    add(ledger, "p3")
    told: list[int] = []
    assert undo.undo(ledger.ledger, IMPORTED, "x", lambda: NOW, "test", told.append).lifted == {
        (Reason.OPT_OUT, ALL): 29,
        (Reason.COMPLAINT, ALL): 15,
    }
    assert told == [7, 14, 21, 28, 35, 42, 45]
    with ledger.ledger.reading() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM suppression").scalar() == 1
        audit.verify(db, ledger.ledger.site_key)


def test_what_was_broken_off_goes_on(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undo, "BATCH", 4)
    load(ledger, [f"p{n}" for n in range(10)])

    def power(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        undo.undo(ledger.ledger, IMPORTED, "x", lambda: NOW, "test", power)
    assert run(ledger, IMPORTED).lifted.total() == 6


# ------------------------------------------------------------------ what stays


def test_what_people_asked_for_stays_unless_it_is_meant(ledger: Books) -> None:
    for name, source in (("ann", "mail"), ("bob", "one-click"), ("cem", "phone")):
        add(ledger, name, Reason.OPT_OUT, source, mailbox="support")
    add(ledger, "dee", Reason.HARD_BOUNCE, "dsn", mailbox="support")
    assert run(ledger, Cause(mailbox="support")).kept == {"own": 3}
    assert standing(ledger) == {"ann", "bob", "cem"}
    assert run(ledger, Cause(mailbox="support", even_opt_outs=True)).lifted.total() == 3
    assert standing(ledger) == set()


@pytest.mark.parametrize("asked", [NOW + HOUR, NOW - 900 * HOUR], ids=["since", "before, and read late"])
def test_an_imported_row_whose_person_asked_himself_stays(ledger: Books, asked: datetime) -> None:
    load(ledger, ["ann", "bob"])
    with write(ledger.ledger, NOW + 2 * HOUR, "mailbox support") as w:
        again = suppressions.add(w, parse("ann+x@example.com"), ALL, Reason.OPT_OUT, "mail", {}, since=asked)
        clicked = suppressions.add(w, key(ledger, "bob"), ALL, Reason.OPT_OUT, "one-click", {}, since=asked)
    assert (again.outcome, clicked.outcome) == ("repeated", "repeated")
    assert run(ledger, IMPORTED) == Tally(Counter(), Counter({"asked-again": 2}), [])
    assert standing(ledger) == {"ann", "bob"}
    assert run(ledger, Cause(imported="list.csv", even_opt_outs=True)).lifted.total() == 2


def test_a_bounce_of_its_own_keeps_an_imported_one(ledger: Books) -> None:
    load(ledger, ["ann"], Reason.HARD_BOUNCE)
    assert add(ledger, "ann", Reason.HARD_BOUNCE, "dsn").outcome == "repeated"
    assert run(ledger, IMPORTED).kept == {"asked-again": 1}


def test_bounces_repeated_within_the_window_are_part_of_it_and_others_are_not(ledger: Books) -> None:
    for name in ("ann", "bob", "cem"):
        add(ledger, name, Reason.HARD_BOUNCE, "dsn")
    add(ledger, "ann", Reason.HARD_BOUNCE, "dsn", at=NOW + HOUR)
    add(ledger, "bob", Reason.HARD_BOUNCE, "dsn", at=NOW + 24 * HOUR)
    done = run(ledger, Cause(reason=Reason.HARD_BOUNCE, begin=NOW - HOUR, end=NOW + 2 * HOUR))
    assert (done.lifted.total(), done.kept) == (2, {"asked-again": 1})
    assert standing(ledger) == {"bob"}


def test_who_asks_while_it_runs_stays(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undo, "BATCH", 1)
    load(ledger, ["ann", "bob"])
    first, second = sorted(("ann", "bob"), key=lambda name: key(ledger, name))

    def meanwhile(done: int) -> None:
        if done == 1:
            add(ledger, second, at=NOW + HOUR)

    done = undo.undo(ledger.ledger, IMPORTED, "x", lambda: NOW + HOUR, "test", meanwhile)
    assert (done.lifted.total(), done.kept) == (1, {"asked-again": 1})
    assert standing(ledger) == {second}
    assert first != second


def test_wanted_is_no_suppression_and_stays(ledger: Books) -> None:
    add(ledger, "ann", Reason.WANTED, "import", scope=ledger.numbers["offers"], file="list.csv")
    assert run(ledger, IMPORTED) == Tally()


def test_evidence_that_was_forgotten_is_nobodys_import(ledger: Books) -> None:
    load(ledger, ["ann"])
    added = add(ledger, "bob")
    with write(ledger.ledger, NOW, "test") as w:
        w.forget_evidence([1, added.evidence])
    assert run(ledger, IMPORTED) == Tally()
    assert run(ledger, Cause(reason=Reason.OPT_OUT)).kept == {"own": 2}


# ------------------------------------------------------------------ afterwards


def test_a_request_that_was_under_way_is_not_outdated_by_an_undo(ledger: Books) -> None:
    """Nobody wished the import's end: whoever wrote before it, and is read after, has opted out."""
    load(ledger, ["ann"])
    run(ledger, IMPORTED, NOW + 2 * HOUR)
    with write(ledger.ledger, NOW + 3 * HOUR, "mailbox support") as w:
        added = suppressions.add(w, parse("ann@example.com"), ALL, Reason.OPT_OUT, "mail", {}, since=NOW + HOUR)
    assert added.outcome == "new"
    assert standing(ledger) == {"ann"}


def test_the_address_goes_with_the_last_row(ledger: Books) -> None:
    load(ledger, ["ann", "bob"])
    add(ledger, "bob", Reason.COMPLAINT, "arf")
    run(ledger, IMPORTED)
    with ledger.ledger.connect() as db:
        assert db.exec_driver_sql("SELECT address FROM person").scalars().all() == ["bob@example.com"]


def test_soft_bounces_are_counted_anew(ledger: Books) -> None:
    add(ledger, "ann", Reason.SOFT_BOUNCE, "dsn")
    with ledger.ledger.connect() as db:
        db.exec_driver_sql("INSERT INTO soft_bounce VALUES (?, 20000), (?, 20001)", (key(ledger, "ann"), bytes(16)))
    run(ledger, Cause(reason=Reason.SOFT_BOUNCE))
    with ledger.ledger.connect() as db:
        assert db.exec_driver_sql("SELECT day FROM soft_bounce").scalars().all() == [20001]


def test_the_first_ten_are_named(ledger: Books) -> None:
    load(ledger, [f"p{n}" for n in range(15)])
    tally = undo.survey(ledger.ledger, IMPORTED)
    with ledger.ledger.connect() as db:
        assert len(undo.addresses(db, tally.first)) == 10
        assert undo.addresses(db, []) == []
