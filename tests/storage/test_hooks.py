"""Where a hook stands in the audit log, and what it was never told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from storage import deferral, hooks, people, suppressions
from storage.address import parse
from storage.hooks import Counts
from storage.suppressions import Fact
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import Books, bring

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
ANN, BOB = "ann@customer.example", "bob@customer.example"


def begun(ledger: Books, name: str = "crm") -> hooks.Place:
    with write(ledger.ledger, NOW, "test") as w:
        hooks.begin(w, name)
    return at(ledger, name)


def at(ledger: Books, name: str = "crm") -> hooks.Place:
    with ledger.ledger.reading() as db:
        found = hooks.place(db, name)
    assert found is not None
    return found


def changes(ledger: Books, after: int = 0) -> list[Fact]:
    with ledger.ledger.reading() as db:
        found, _ = hooks.window(db, after, 10_000)
    return found


def given_up(ledger: Books, *addresses: str, hook: str = "crm") -> list[int]:
    for address in addresses:
        ledger.suppress(address)
    with write(ledger.ledger, NOW, "test") as w:
        hooks.give_up(w, hook, changes(ledger)[-len(addresses) :], "HTTP 500")
    with ledger.ledger.reading() as db:
        return hooks.ids_of(db, hook)[-len(addresses) :]


def test_a_new_hook_begins_at_the_end_of_the_log(ledger: Books) -> None:
    with ledger.ledger.reading() as db:
        assert hooks.place(db, "crm") is None
    assert begun(ledger).reached == 0
    ledger.suppress(ANN)
    place = begun(ledger, "shop")
    assert (place.reached, place.head, place.failures, place.trouble) == (1, 1, 0, "")
    assert begun(ledger).reached == 0  # to begin once more changes nothing
    with ledger.ledger.reading() as db:
        assert list(hooks.places(db)) == ["crm", "shop"]


def test_a_window_has_what_is_about_one_person_and_no_more_rows_than_asked_for(ledger: Books) -> None:
    ledger.suppress(ANN)
    ledger.suppress(ANN)  # repeated: nothing has changed
    with write(ledger.ledger, NOW, "test") as w:
        bring(w, [(bytes(16), ALL, int(Reason.OPERATOR), 1)], "import", {"file": "x"})
    ledger.lift(ANN)
    with ledger.ledger.reading() as db:
        found, last = hooks.window(db, 0, 3)
        assert ([c.event for c in found], last) == (["suppressed", "lifted"], 3)
        assert hooks.window(db, 1, 2) == ([], 2)
        assert hooks.waiting(db, 1) == [("lifted", Reason.OPT_OUT, 1)]


def test_a_place_only_goes_on(ledger: Books) -> None:
    begun(ledger)
    with write(ledger.ledger, NOW, "test") as w:
        hooks.failed(w, "crm", 7, 3, NOW + timedelta(seconds=5), "HTTP 500")
    place = at(ledger)
    assert (place.reached, place.failures, place.trouble) == (7, 3, "HTTP 500")
    assert place.due == int(NOW.timestamp()) + 5
    with write(ledger.ledger, NOW, "test") as w:
        hooks.went_well(w, "crm", 5)
    place = at(ledger)
    assert (place.reached, place.failures, place.trouble, place.due) == (7, 0, "", int(NOW.timestamp()))


def test_what_was_given_up_waits_until_somebody_wants_it_sent_again(ledger: Books) -> None:
    begun(ledger)
    first, second = given_up(ledger, ANN, BOB)
    with ledger.ledger.reading() as db:
        assert hooks.counts(db) == {"crm": Counts(2, 0)}
        assert [(x.id, x.trouble, x.change.seq) for x in hooks.lost(db)] == [
            (first, "HTTP 500", 1),
            (second, "HTTP 500", 2),
        ]
        assert [x.id for x in hooks.lost(db, "crm", after=first)] == [second]
        assert hooks.lost(db, "shop") == []
        assert hooks.wanted_again(db, "crm") == []
    with write(ledger.ledger, NOW, "cli kim") as w:
        assert hooks.again(w, [second, 999]) == 1
    assert at(ledger).due == 0
    with ledger.ledger.reading() as db:
        assert [x.id for x in hooks.wanted_again(db, "crm")] == [second]
        assert hooks.counts(db) == {"crm": Counts(1, 1)}
        (fact,) = [f for f, _ in suppressions.facts(db, 2)]
    assert (fact.event, fact.actor) == ("hook-again", "cli kim")

    with write(ledger.ledger, NOW, "test") as w:
        hooks.went_well(w, "crm", 2)
        hooks.all_sent_again(w, "crm")
    assert at(ledger).due == 0, "there is still one to be sent again"
    with write(ledger.ledger, NOW, "test") as w:
        hooks.sent_again(w, [second])
        hooks.all_sent_again(w, "crm")
    assert at(ledger).due == int(NOW.timestamp())


def test_what_is_refused_again_waits_for_somebody_once_more(ledger: Books) -> None:
    begun(ledger)
    (number,) = given_up(ledger, ANN)
    with write(ledger.ledger, NOW, "test") as w:
        hooks.again(w, [number])
        hooks.refused_again(w, number, "HTTP 422")
    with ledger.ledger.reading() as db:
        assert [x.trouble for x in hooks.lost(db)] == ["HTTP 422"]


def test_what_is_dropped_is_gone_and_the_record_says_by_whom_and_why(ledger: Books) -> None:
    begun(ledger)
    numbers = given_up(ledger, ANN, BOB)
    numbers += given_up(ledger, "carla@customer.example", hook="shop")
    with write(ledger.ledger, NOW, "console kim") as w:
        assert hooks.drop(w, numbers, "moved by hand") == 3
    with ledger.ledger.reading() as db:
        assert hooks.counts(db) == {}
        facts = [f for f, _ in suppressions.facts(db, 3)]
        told = suppressions.details(db, [f.evidence for f in facts if f.evidence])
    assert [(f.event, f.actor) for f in facts] == [("hook-dropped", "console kim")] * 2
    assert [(d["hook"], d["rows"], d["first"], d["last"], d["because"]) for d in told.values()] == [
        ("crm", 2, 1, 2, "moved by hand"),
        ("shop", 1, 3, 3, "moved by hand"),
    ]
    with write(ledger.ledger, NOW, "test") as w:
        assert hooks.drop(w, numbers, "twice") == hooks.again(w, numbers) == 0


def address(ledger: Books, change: Fact) -> str | None:
    with ledger.ledger.reading() as db:
        found = hooks.address_of(db, ledger.ledger.site_key, change)
    return None if found is None else str(found)


def test_the_address_is_the_one_that_is_kept_or_that_the_evidence_names(ledger: Books) -> None:
    ledger.suppress(ANN)
    ledger.suppress("@spam.example", reason=Reason.OPERATOR)
    assert [address(ledger, c) for c in changes(ledger)] == [ANN, "@spam.example"]
    with ledger.ledger.connect() as db:
        db.exec_driver_sql("DELETE FROM person")
    assert [address(ledger, c) for c in changes(ledger)] == [ANN, "@spam.example"]


def test_of_several_whom_a_message_names_it_is_the_one_whose_key_it_is(ledger: Books) -> None:
    ledger.ledger.keep_addresses = False
    with write(ledger.ledger, NOW, "test") as w:
        number = w.evidence(address=f"{ANN};{BOB};nonsense", source="mail")
        for one in (ANN, BOB):
            suppressions.add(w, parse(one), ALL, Reason.OPT_OUT, "mail", {}, evidence=lambda: number)
        key = ledger.ledger.site_key.address_key("@customer.example")
        suppressions.add(w, key, ALL, Reason.OPT_OUT, "mail", {}, evidence=lambda: number)
    assert [address(ledger, c) for c in changes(ledger)] == [ANN, BOB, None]


def test_nobody_is_told_who_a_forgotten_person_was(ledger: Books) -> None:
    ledger.suppress(ANN)
    ledger.suppress(BOB)
    before = changes(ledger)[0]
    people.erase_everywhere(ledger.ledger, parse(ANN), NOW, "test")
    assert address(ledger, before) is None, "though what was read before names her"
    assert [address(ledger, c) for c in changes(ledger)] == [None, BOB]


def stands(ledger: Books, change: Fact, who: str | None) -> bool:
    with ledger.ledger.connect() as db:
        return hooks.stands(db, ledger.ledger.site_key, change, parse(who) if who else None)


def test_what_is_lifted_may_stand_for_another_reason(ledger: Books) -> None:
    ledger.suppress(ANN)
    ledger.suppress(ANN, reason=Reason.HARD_BOUNCE)
    with write(ledger.ledger, NOW, "test") as w:
        suppressions.lift(w, parse(ANN), ALL, "test", only=Reason.HARD_BOUNCE)
    lifted = changes(ledger)[-1]
    assert stands(ledger, lifted, ANN)
    assert stands(ledger, lifted, None)
    ledger.lift(ANN)
    assert not stands(ledger, lifted, ANN)
    ledger.suppress("@customer.example")
    assert stands(ledger, lifted, ANN)
    assert not stands(ledger, lifted, None), "of a key nobody knows the domain"


def test_of_one_list_the_answer_is_about_that_list(ledger: Books) -> None:
    ledger.suppress(ANN, "offers")
    (change,) = changes(ledger)
    ledger.suppress(ANN, "newsletter")
    ledger.lift(ANN, ledger.numbers["offers"])
    assert not stands(ledger, change, ANN)
    ledger.suppress(ANN)
    assert stands(ledger, change, ANN)
    with write(ledger.ledger, datetime.now(UTC), "test") as w:
        suppressions.add(w, parse(ANN), ledger.numbers["offers"], Reason.WANTED, "operator", {})
    assert not stands(ledger, change, ANN)


def test_after_a_restore_with_a_gap_nobody_is_said_to_be_free(ledger: Books) -> None:
    ledger.suppress(ANN)
    ledger.lift(ANN)
    change = changes(ledger)[-1]
    assert not stands(ledger, change, ANN)
    with write(ledger.ledger, NOW, "test") as w:
        deferral.begin(w, 1)
    assert stands(ledger, change, ANN)
