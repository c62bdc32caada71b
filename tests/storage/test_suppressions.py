"""The verbs on the suppression table: a row per reason, nothing upgraded or downgraded, each ended by its own lift."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from storage import audit, suppressions
from storage.address import parse
from storage.lookup import Row, verdict
from storage.suppressions import Added
from storage.terms import ALL, Reason, joined
from storage.write import write
from tests.ledgers import Books, books

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def add(
    it: Books, address: str, scope: int = ALL, reason: Reason = Reason.OPT_OUT, *, now: datetime = NOW, asked: datetime | None = None
) -> Added:  # fmt: skip
    with write(it.ledger, now, "test") as w:
        return suppressions.add(w, parse(address), scope, reason, "mail", {"words": "please stop"}, since=asked)


def lift(it: Books, address: str, scope: int = ALL, *, only: Reason | None = None, now: datetime = NOW) -> list[int]:
    """The reasons that went."""
    with write(it.ledger, now, "test") as w:
        return [row[2] for row in suppressions.lift(w, parse(address), scope, "asked on the phone", only=only)]


def rows(it: Books, address: str) -> list[Row]:
    lookup = it.lookup()
    try:
        return lookup.rows(parse(address))
    finally:
        lookup.close()


def shown(it: Books, address: str, list_id: str | None = None) -> str | None:
    """The reason that a refusal would give."""
    found = verdict(rows(it, address), it.numbers[list_id] if list_id else None)
    return found.reason.word if found else None


@pytest.fixture(autouse=True)
def _whole(ledger: Books) -> object:
    """Whatever a test does, the record agrees with the table at its end."""
    yield
    with ledger.ledger.reading() as db:
        audit.verify(db, ledger.ledger.site_key)


# ------------------------------------------------------------------ adding


def test_the_first_wish_is_new_and_the_second_repeated(ledger: Books) -> None:
    first, second = add(ledger, "ann@example.com"), add(ledger, "Ann+x@Example.com", now=NOW + HOUR)
    assert (first.outcome, second.outcome) == ("new", "repeated")
    assert first.evidence == second.evidence
    assert [r.since for r in rows(ledger, "ann@example.com")] == [int(NOW.timestamp())]


def test_since_is_when_it_was_asked(ledger: Books) -> None:
    add(ledger, "ann@example.com", asked=NOW - HOUR)
    assert [r.since for r in rows(ledger, "ann@example.com")] == [int((NOW - HOUR).timestamp())]


def test_there_is_a_row_per_reason_and_the_strongest_is_shown(ledger: Books) -> None:
    weakest_first = [Reason.SOFT_BOUNCE, Reason.HARD_BOUNCE, Reason.OPERATOR, Reason.OPT_OUT, Reason.COMPLAINT]
    for n, reason in enumerate(weakest_first, 1):
        add(ledger, "ann@example.com", reason=reason)
        assert shown(ledger, "ann@example.com") == reason.word
        assert len(rows(ledger, "ann@example.com")) == n


def test_a_weaker_reason_that_comes_later_hides_nothing(ledger: Books) -> None:
    add(ledger, "ann@example.com", reason=Reason.COMPLAINT)
    add(ledger, "ann@example.com", reason=Reason.SOFT_BOUNCE)
    assert shown(ledger, "ann@example.com") == "complaint"


def test_one_evidence_may_cover_several_people(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        number = w.evidence(note="one message")
        both = [
            suppressions.add(w, parse(a), ALL, Reason.OPT_OUT, "mail", {}, evidence=lambda: number)
            for a in ("ann@example.com", "bob@example.com")
        ]
    assert {x.evidence for x in both} == {number[0]}


def test_a_repeated_wish_makes_no_evidence_and_no_audit_row(ledger: Books) -> None:
    add(ledger, "ann@example.com")
    add(ledger, "ann@example.com")
    with ledger.ledger.connect() as db:
        assert db.exec_driver_sql("SELECT (SELECT count(*) FROM audit), (SELECT count(*) FROM evidence)").one() == (
            1,
            1,
        )


def test_plain_addresses_are_kept_only_if_the_operator_wants_it(ledger: Books) -> None:
    add(ledger, "Ann+x@example.com")
    quiet = replace(ledger.ledger, keep_addresses=False)
    add(Books(quiet, ledger.numbers), "bob@example.com")
    quiet.close()
    with ledger.ledger.connect() as db:
        assert db.exec_driver_sql("SELECT address FROM person").scalars().all() == ["Ann+x@example.com"]


@pytest.mark.parametrize(
    ("same", "covered"),
    [
        ((), {"a.nn+x@gmail.com"}),
        (("tag",), {"a.nn+x@gmail.com", "a.nn@gmail.com", "a.nn+y@gmail.com"}),
        (("tag", "alias"), {"a.nn+x@gmail.com", "a.nn@gmail.com", "a.nn+y@gmail.com", "ann@gmail.com", "ann@googlemail.com"}),
    ],
)  # fmt: skip
def test_the_operator_says_how_far_a_tagged_opt_out_reaches(
    tmp_path: Path, same: tuple[str, ...], covered: set[str]
) -> None:
    it = books(tmp_path / "narrow", same_person=same)
    add(it, "a.nn+x@gmail.com")
    asked = [
        "a.nn+x@gmail.com",
        "a.nn@gmail.com",
        "a.nn+y@gmail.com",
        "ann@gmail.com",
        "ann@googlemail.com",
        "bob@gmail.com",
    ]
    assert {a for a in asked if rows(it, a)} == covered
    it.ledger.close()


# ------------------------------------------------------------------ domains


def test_a_domain_covers_everybody_below_it(ledger: Books) -> None:
    add(ledger, "@example.com", reason=Reason.OPERATOR)
    assert all(rows(ledger, a) for a in ("ann@example.com", "bob@mail.example.com", "@example.com"))
    assert not any(rows(ledger, a) for a in ("ann@example.org", "ann@notexample.com"))
    found = verdict(rows(ledger, "ann@mail.example.com"), None)
    assert found
    assert found.matched == "domain"


def test_lifting_a_person_leaves_the_domain_and_the_other_way_round(ledger: Books) -> None:
    add(ledger, "@example.com", reason=Reason.OPERATOR)
    add(ledger, "ann@example.com")
    assert lift(ledger, "ann@example.com") == [Reason.OPT_OUT]
    assert shown(ledger, "ann@example.com") == "operator"
    add(ledger, "ann@example.com", now=NOW + HOUR)
    assert lift(ledger, "@example.com") == [Reason.OPERATOR]
    assert shown(ledger, "ann@example.com") == "opt-out"


def test_lifting_a_domain_leaves_its_parent(ledger: Books) -> None:
    add(ledger, "@example.com", reason=Reason.OPERATOR)
    assert lift(ledger, "@mail.example.com") == []
    assert shown(ledger, "ann@mail.example.com") == "operator"


# ------------------------------------------------------------------ lifting


def test_a_lift_ends_every_reason_of_its_scope_and_no_other_scope(ledger: Books) -> None:
    offers = ledger.numbers["offers"]
    add(ledger, "ann@example.com")
    add(ledger, "ann@example.com", reason=Reason.HARD_BOUNCE)
    add(ledger, "ann@example.com", offers)
    assert sorted(lift(ledger, "ann@example.com")) == [Reason.OPT_OUT, Reason.HARD_BOUNCE]
    assert shown(ledger, "ann@example.com") is None
    assert shown(ledger, "ann@example.com", "offers") == "opt-out"


def test_a_lift_of_one_reason_leaves_the_others(ledger: Books) -> None:
    add(ledger, "ann@example.com")
    add(ledger, "ann@example.com", reason=Reason.COMPLAINT)
    assert lift(ledger, "ann@example.com", only=Reason.OPT_OUT) == [Reason.OPT_OUT]
    assert shown(ledger, "ann@example.com") == "complaint"


def test_any_spelling_lifts_what_any_spelling_asked(ledger: Books) -> None:
    add(ledger, "a.nn+x@gmail.com")
    assert lift(ledger, "Ann@googlemail.com") == [Reason.OPT_OUT]
    assert rows(ledger, "a.nn+x@gmail.com") == []


def test_lifting_nobody_writes_nothing(ledger: Books) -> None:
    assert lift(ledger, "ann@example.com") == []
    with ledger.ledger.connect() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM audit").scalar() == 0


def test_an_older_wish_read_after_a_lift_does_not_count(ledger: Books) -> None:
    add(ledger, "ann@example.com")
    lift(ledger, "ann@example.com", now=NOW + HOUR)
    assert add(ledger, "ann@example.com", now=NOW + 3 * HOUR, asked=NOW + HOUR / 2) == Added("outdated", 0)
    assert rows(ledger, "ann@example.com") == []
    assert add(ledger, "ann@example.com", now=NOW + 3 * HOUR, asked=NOW + 2 * HOUR).outcome == "new"


def test_a_lift_of_one_scope_outdates_no_wish_for_another(ledger: Books) -> None:
    add(ledger, "ann@example.com", ledger.numbers["offers"])
    lift(ledger, "ann@example.com", ledger.numbers["offers"], now=NOW + HOUR)
    assert add(ledger, "ann@example.com", now=NOW + 2 * HOUR, asked=NOW).outcome == "new"


@pytest.mark.parametrize("reason", [Reason.COMPLAINT, Reason.HARD_BOUNCE, Reason.OPERATOR])
def test_only_wishes_become_outdated(ledger: Books, reason: Reason) -> None:
    add(ledger, "ann@example.com")
    lift(ledger, "ann@example.com", now=NOW + HOUR)
    assert add(ledger, "ann@example.com", reason=reason, now=NOW + 2 * HOUR, asked=NOW).outcome == "new"


@pytest.mark.parametrize("reason", [Reason.SOFT_BOUNCE, Reason.HARD_BOUNCE])
def test_the_end_of_a_bounce_outdates_no_wish(ledger: Books, reason: Reason) -> None:
    """The mailbox works again: that says nothing of what its owner wrote an hour before."""
    add(ledger, "ann@example.com", reason=reason)
    lift(ledger, "ann@example.com", now=NOW + HOUR)
    assert add(ledger, "ann@example.com", now=NOW + 2 * HOUR, asked=NOW).outcome == "new"


# ------------------------------------------------------------------ expiry


def test_soft_bounces_run_out_and_nothing_else(ledger: Books) -> None:
    old, new = NOW - timedelta(days=31), NOW - timedelta(days=29)
    for reason in Reason:
        add(ledger, "ann@example.com", reason=reason, asked=old)
    add(ledger, "bob@example.com", reason=Reason.SOFT_BOUNCE, asked=new)
    with write(ledger.ledger, NOW, "job expire") as w:
        assert suppressions.expire(w, NOW - timedelta(days=30)) == 1
    assert {r.reason for r in rows(ledger, "ann@example.com")} == set(Reason) - {Reason.SOFT_BOUNCE}
    assert shown(ledger, "bob@example.com") == "soft-bounce"


def test_an_expiry_outdates_no_wish(ledger: Books) -> None:
    add(ledger, "ann@example.com", reason=Reason.SOFT_BOUNCE, asked=NOW - timedelta(days=31))
    with write(ledger.ledger, NOW, "job expire") as w:
        suppressions.expire(w, NOW - timedelta(days=30))
    assert add(ledger, "ann@example.com", now=NOW + HOUR, asked=NOW - HOUR).outcome == "new"


def test_nothing_to_expire_writes_nothing(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "job expire") as w:
        assert suppressions.expire(w, NOW) == 0
    with ledger.ledger.connect() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM audit").scalar() == 0


# ------------------------------------------------------------------ wanted


@pytest.fixture
def newsletter(ledger: Books) -> int:
    return ledger.numbers["newsletter"]


def test_wanted_takes_one_list_out_of_an_opt_out_of_everything(ledger: Books, newsletter: int) -> None:
    add(ledger, "ann@example.com")
    add(ledger, "ann@example.com", newsletter, Reason.WANTED)
    assert shown(ledger, "ann@example.com", "newsletter") is None
    assert shown(ledger, "ann@example.com", "offers") == "opt-out"
    assert shown(ledger, "ann@example.com") == "opt-out"


@pytest.mark.parametrize("reason", [Reason.COMPLAINT, Reason.OPERATOR, Reason.HARD_BOUNCE, Reason.SOFT_BOUNCE])
def test_wanted_takes_it_out_of_nothing_else(ledger: Books, newsletter: int, reason: Reason) -> None:
    add(ledger, "ann@example.com", reason=reason)
    add(ledger, "ann@example.com", newsletter, Reason.WANTED)
    assert shown(ledger, "ann@example.com", "newsletter") == reason.word


def test_wanted_by_itself_suppresses_nobody(ledger: Books, newsletter: int) -> None:
    add(ledger, "ann@example.com", newsletter, Reason.WANTED)
    assert shown(ledger, "ann@example.com", "newsletter") is None
    assert shown(ledger, "ann@example.com") is None


def test_an_opt_out_of_everything_ends_what_was_wanted(ledger: Books, newsletter: int) -> None:
    add(ledger, "ann@example.com", newsletter, Reason.WANTED)
    add(ledger, "ann@example.com", now=NOW + HOUR)
    assert shown(ledger, "ann@example.com", "newsletter") == "opt-out"


def test_a_repeated_opt_out_of_everything_ends_what_was_wanted(ledger: Books, newsletter: int) -> None:
    """The row for everything stands already; the person says again, and later, that all of it shall stop."""
    add(ledger, "ann@example.com")
    add(ledger, "ann@example.com", newsletter, Reason.WANTED, now=NOW + HOUR)
    assert add(ledger, "ann@example.com", now=NOW + 2 * HOUR).outcome == "repeated"
    assert shown(ledger, "ann@example.com", "newsletter") == "opt-out"


def test_an_opt_out_that_is_older_than_the_exemption_and_read_late_leaves_it(ledger: Books, newsletter: int) -> None:
    add(ledger, "ann@example.com")
    add(ledger, "ann@example.com", newsletter, Reason.WANTED, now=NOW + HOUR)
    add(ledger, "ann@example.com", now=NOW + 2 * HOUR, asked=NOW)
    assert shown(ledger, "ann@example.com", "newsletter") is None


def test_an_opt_out_of_the_list_ends_what_was_wanted_of_it_alone(ledger: Books, newsletter: int) -> None:
    offers = ledger.numbers["offers"]
    add(ledger, "ann@example.com")
    for scope in (newsletter, offers):
        add(ledger, "ann@example.com", scope, Reason.WANTED)
    add(ledger, "ann@example.com", newsletter, now=NOW + HOUR)
    assert shown(ledger, "ann@example.com", "newsletter") == "opt-out"
    assert shown(ledger, "ann@example.com", "offers") is None


# ------------------------------------------------------------------ lists


def test_a_list_has_its_number_for_ever(ledger: Books) -> None:
    before = ledger.numbers
    with write(ledger.ledger, NOW, "test") as w:
        after = suppressions.number_lists(w, ["webinars", "offers"])
    assert after == before | {"webinars": max(before.values()) + 1}
    with write(ledger.ledger, NOW, "test") as w:
        assert suppressions.number_lists(w, []) == after
        assert suppressions.scope_word(w.db, after["webinars"]) == "list:webinars"
        assert suppressions.scope_word(w.db, ALL) == "all"
        assert suppressions.scope_word(w.db, 99) == "list:99"
    assert ALL not in after.values()


def test_scopes_are_written_as_the_contract_says() -> None:
    ids = {1: "b", 2: "a"}
    assert joined([1, 2], ids) == "list:a;list:b"
    assert joined([1, ALL], ids) == "all;list:b"


# ------------------------------------------------------------------ telling


def test_a_history_tells_all_that_was_done_about_a_person(ledger: Books) -> None:
    add(ledger, "a.nn+x@gmail.com")
    add(ledger, "bob@example.com")
    lift(ledger, "ann@gmail.com", now=NOW + HOUR)
    with ledger.ledger.connect() as db:
        told = suppressions.history(db, ledger.ledger.site_key, parse("ann@googlemail.com"))
    assert [(f.event, f.at, f.actor) for f in told] == [("suppressed", NOW, "test"), ("lifted", NOW + HOUR, "test")]
    assert told[0].detail == {"address": "a.nn+x@gmail.com", "source": "mail", "words": "please stop"}
    assert told[1].detail
    assert told[1].detail["because"] == "asked on the phone"


def test_a_reference_leads_to_what_was_done_on_it(ledger: Books) -> None:
    ref = add(ledger, "ann@example.com").evidence
    with ledger.ledger.connect() as db:
        (fact,) = suppressions.by_evidence(db, ref)
        assert suppressions.by_evidence(db, ref + 1) == []
    assert (fact.event, fact.evidence, fact.reason, fact.scope) == ("suppressed", ref, Reason.OPT_OUT, ALL)


def test_what_stands_is_told_oldest_first(ledger: Books) -> None:
    add(ledger, "ann@example.com", asked=NOW)
    add(ledger, "ann@example.com", reason=Reason.COMPLAINT, asked=NOW - HOUR)
    with ledger.ledger.connect() as db:
        stands = suppressions.standing(db, ledger.ledger.site_key, parse("ann+x@example.com"))
    assert [r[2] for r in stands] == [Reason.COMPLAINT, Reason.OPT_OUT]


def test_the_whole_log_can_be_read_with_its_macs(ledger: Books) -> None:
    add(ledger, "ann@example.com")
    add(ledger, "bob@example.com")
    with ledger.ledger.reading() as db:
        log = list(suppressions.facts(db))
        head = audit.verify(db, ledger.ledger.site_key)
    assert [f.seq for f, _ in log] == [1, 2]
    assert log[-1][1] == head.mac
    assert all(f.detail is None for f, _ in log)


def test_a_listing_can_be_narrowed(ledger: Books) -> None:
    offers = ledger.numbers["offers"]
    add(ledger, "ann@example.com", asked=NOW - HOUR)
    add(ledger, "bob@example.com", offers)
    add(ledger, "cem@example.com", reason=Reason.COMPLAINT)

    def listed(**narrow: object) -> set[str]:
        with ledger.ledger.reading() as db:
            return {row[1] for row in suppressions.listing(db, **narrow)}  # type: ignore[arg-type]

    assert listed() == {"ann@example.com", "bob@example.com", "cem@example.com"}
    assert listed(scope=offers) == {"bob@example.com"}
    assert listed(reason=Reason.COMPLAINT) == {"cem@example.com"}
    assert listed(since=NOW) == {"bob@example.com", "cem@example.com"}
    assert listed(source="mail", scope=ALL) == {"ann@example.com", "cem@example.com"}
    assert listed(source="api") == set()
