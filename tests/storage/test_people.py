"""Forgetting a person who is never mailed all the same: whatever happened before, and whatever comes after."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import forgotten, people, refusals, suppressions
from storage.address import parse
from storage.incoming import reviews, twins
from storage.refusals import Refusal
from storage.terms import ALL, Reason
from storage.traces import trace
from storage.write import write
from tests.ledgers import books
from tests.storage.lives import BOB, NOW, ZELDA, ZELDAS_SHOP, Life, fresh

EVERYTHING = (
    "asks asks_of_a_list is_named_with_bob is_doubtful wants_back clicks bounces complains asks_support is_decided is_turned_down"
    " is_imported is_imported_by_digest is_refused is_lifted is_noted is_told is_erased"
).split()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty ledger."""
    directory = tmp_path_factory.mktemp("empty") / "ledger"
    books(directory).ledger.close()
    return directory


@pytest.fixture
def life(template: Path, tmp_path: Path) -> Iterator[Life]:
    it = fresh(template, tmp_path / "ledger")
    yield it
    it.verify()
    it.it.ledger.close()


def happened(life: Life, *names: str) -> None:
    for name in names:
        getattr(life, name)()


# ------------------------------------------------------------------ whatever happened


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(EVERYTHING), max_size=12), st.lists(st.sampled_from(EVERYTHING), max_size=5))
def test_after_an_erase_no_table_and_no_file_knows_the_person(
    template: Path, before: list[str], after: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as home:
        life = fresh(template, Path(home) / "ledger")
        happened(life, *before)
        refused = life.refuses()
        done = life.is_erased()
        assert done.clean
        assert life.found() == []
        assert life.files() == []
        life.verify()
        assert life.refuses() or not refused
        again = life.is_erased()
        assert not sum(again.removed.values())

        known = done.known
        happened(life, *after)
        happened(life, "is_decided", "is_told")
        if not known:  # nothing had to be forgotten, so this is a new acquaintance
            life.is_erased()
        assert life.found() == []
        life.verify()
        life.it.ledger.close()


def test_everything_at_once_leaves_keys_and_nothing_else(life: Life) -> None:
    happened(life, *EVERYTHING[:-1], "asks", "is_doubtful")
    assert {table for table, _ in life.found()} >= {"evidence", "incoming", "person", "refusal", "review"}
    assert life.files()
    done = life.is_erased()
    assert {kind for kind, n in done.removed.items() if n} == {
        "address", "evidence", "message_id", "review", "notice", "soft_bounce", "digest",
    }  # fmt: skip
    assert life.found() == []
    assert life.files() == []
    assert done.undecided
    assert done.shared
    assert done.suppressions
    assert life.refuses(ZELDA)
    assert life.refuses(ZELDAS_SHOP)
    assert life.refuses(BOB)


# ------------------------------------------------------------------ what stays


def test_the_audit_row_says_what_went_and_not_who(life: Life) -> None:
    life.asks()
    life.is_erased()
    with life.it.ledger.reading() as db:
        *_, last = suppressions.history(db, life.it.ledger.site_key, parse(ZELDA))
    assert (last.event, last.key, last.actor) == ("erased", life.key, "cli root")
    assert last.detail == {"source": "operator", "removed": {"address": 1, "evidence": 1, "message_id": 1, "notice": 1}}


def test_somebody_whom_we_never_met_is_not_written_down(life: Life) -> None:
    before = life.tables()
    assert not life.is_erased().known
    assert life.tables() == before


def test_somebody_lifted_is_forgotten_and_not_suppressed_again(life: Life) -> None:
    happened(life, "asks", "is_lifted", "is_erased")
    assert not life.refuses()
    assert life.found() == []


def test_only_the_person_goes_from_what_several_share(life: Life) -> None:
    happened(life, "is_named_with_bob", "is_imported")
    done = life.is_erased()
    assert len(done.shared) == 1
    assert life.refuses(BOB)
    assert [cell for table, cell in life.found("bob@example.org") if table == "person"] == [BOB]
    with life.it.ledger.reading() as db:
        imported = db.exec_driver_sql("SELECT detail FROM evidence WHERE detail LIKE '%old.csv%'").all()
    assert len(imported) == 1


def test_a_batch_that_names_nobody_is_not_taken_from_the_others(life: Life) -> None:
    with write(life.it.ledger, NOW, "test") as w:
        for address in (ZELDA, BOB):
            suppressions.add(w, parse(address), ALL, Reason.SOFT_BOUNCE, "dsn", {}, since=NOW - timedelta(days=40))
        suppressions.expire(w, NOW)
    life.is_erased()
    with life.it.ledger.reading() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM evidence WHERE detail LIKE '%ran out%'").scalar() == 1


def test_an_open_review_about_others_too_stays_open_for_them(life: Life) -> None:
    from daemon.mail.reading import Review

    life._act(Review((ZELDA, "carla@example.net"), ("all",), None, "en", (), "stop for zelda.quux@example.com"), BOB)
    life._act(Review((), ("all",), None, "en", (), "and Zelda.Quux@example.com?"), BOB)
    life._act(Review((ZELDA,), ("all",), None, "en", (), "take her off"), BOB)
    done = life.is_erased()
    with life.it.ledger.reading() as db:
        items = reviews(db, None)
    assert [(i.state, i.sender, i.addresses, i.words, i.excerpt) for i in items] == [
        ("open", BOB, ("carla@example.net",), "", ""),
        ("open", BOB, (), "", ""),
        ("rejected", BOB, (), "", ""),
    ]
    assert done.undecided == (3,)


# ------------------------------------------------------------------ whatever comes later


def test_a_repeated_request_does_not_bring_the_address_back(life: Life) -> None:
    happened(
        life,
        "asks",
        "is_erased",
        "asks",
        "asks_of_a_list",
        "clicks",
        "bounces",
        "complains",
        "is_imported",
        "is_refused",
    )
    assert life.found() == []
    life.it.ledger.close()
    with life.it.ledger.reading() as db:
        rows = suppressions.standing(db, life.it.ledger.site_key, parse(ZELDA))
        explained = suppressions.details(db, [r[4] for r in rows])
    assert len(rows) == 5  # opt-out of all and of a list, hard bounce, complaint, imported
    assert {d["source"] for d in explained.values()} >= {"dsn", "arf", "mail"}


def test_a_later_request_that_names_the_forgotten_beside_others_keeps_the_others(life: Life) -> None:
    happened(life, "asks", "is_erased", "is_named_with_bob")
    with life.it.ledger.reading() as db:
        (row,) = suppressions.standing(db, life.it.ledger.site_key, parse(BOB))
        detail = suppressions.details(db, [row[4]])[row[4]]
    assert detail == {"address": BOB, "source": "mail", "rules": ["3-stop"], "proof": "dmarc"}


def test_a_doubtful_message_of_the_forgotten_is_shown_until_it_is_decided(life: Life) -> None:
    happened(life, "asks", "is_erased", "is_doubtful")
    assert {table for table, _ in life.found()} == {"review"}
    life.is_turned_down()
    assert life.found() == []


def test_no_notice_is_owed_to_the_forgotten(life: Life) -> None:
    happened(life, "asks", "is_erased", "is_lifted", "asks")
    assert life.refuses()
    assert life.tables()["outbox"] == []


def test_the_relay_does_not_learn_the_address_of_the_forgotten(life: Life) -> None:
    happened(life, "clicks", "is_erased", "is_refused")
    assert life.found() == []
    assert life.tables()["person"] == []
    with write(life.it.ledger, NOW, "relay") as w:  # somebody else is learned as before
        suppressions.add(w, life.key_of(BOB), ALL, Reason.OPT_OUT, "one-click", {})
        refusals.record(w, [Refusal(NOW, "refused", life.key_of(BOB), 0, 2, "", "", 1, 0, BOB)], {})
    assert [row[1] for row in life.tables()["person"]] == [BOB]


def test_a_message_is_known_by_its_octets_once_its_identity_is_gone(life: Life) -> None:
    life.asks()
    (row,) = life.tables()["incoming"]
    digest, identity = row[8], row[10]
    life.is_erased()
    with life.it.ledger.reading() as db:
        assert [s.id for s in twins(db, identity, digest)] == [row[0]]
        assert twins(db, identity, b"another") == []


def test_a_wish_from_before_the_lift_counts_once_the_evidence_is_forgotten(life: Life) -> None:
    """When it was wished is not known any more: who has asked in the last months before the lift is not mailed."""
    happened(life, "asks", "is_lifted", "is_erased")
    for days, outcome in ((100, "outdated"), (10, "new")):
        with write(life.it.ledger, life.now, "test") as w:
            asked = life.now - timedelta(days=days)
            added = suppressions.add(w, parse(ZELDA), ALL, Reason.OPT_OUT, "mail", {}, since=asked)
        assert added.outcome == outcome


# ------------------------------------------------------------------ whose keys


@pytest.mark.parametrize(
    ("written", "erased"),
    [
        ("zelda.quux+a@example.com", "zelda.quux@example.com"),
        ("zelda.quux@example.com", "ZELDA.QUUX+b@EXAMPLE.com"),
        ("z.elda.quux+a@gmail.com", "zeldaquux@googlemail.com"),
        ('"zelda quux"@example.com', '"Zelda Quux"@example.com'),
        ("zelda.quüx@bücher.example", "Zelda.Quüx@xn--bcher-kva.example"),
    ],
)
def test_all_forms_of_an_address_are_one_person(tmp_path: Path, written: str, erased: str) -> None:
    """Even where the operator takes tagged addresses for different people: the mailbox is the same."""
    it = books(tmp_path / "ledger", same_person=())
    it.suppress(written)
    assert people.erase_everywhere(it.ledger, parse(erased), NOW, "test").removed["address"] == 1
    with it.ledger.reading() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM person").scalar() == 0
        assert db.exec_driver_sql("SELECT count(*) FROM evidence WHERE detail LIKE '%uux%'").scalar() == 0
        assert forgotten.is_marked(db, it.ledger.site_key, parse(written))
        assert len(suppressions.standing(db, it.ledger.site_key, parse(written))) == 1
    it.ledger.close()


def test_rows_under_an_older_site_key_are_found(life: Life) -> None:
    from storage.address import SiteKey
    from storage.engine import Ledger

    happened(life, "asks", "bounces")
    ledger = life.it.ledger
    life.it.ledger = newer = Ledger(ledger.store, SiteKey((bytes(32), *ledger.site_key.keys)))
    people.erase_everywhere(newer, parse(ZELDA), NOW, "test")
    assert life.found() == []
    with write(newer, NOW, "test") as w:
        suppressions.add(w, parse(ZELDA), 1, Reason.OPT_OUT, "mail", {"words": "zelda.quux again"})
    assert life.found() == []


def test_a_digest_that_anybody_can_make_does_not_stay(life: Life) -> None:
    life.is_imported_by_digest()
    (before,) = life.tables()["suppression"]
    done = life.is_erased()
    (after,) = life.tables()["suppression"]
    assert done.removed["digest"] == 1
    assert (after[0], after[1:]) == (life.key, before[1:])
    assert life.refuses(ZELDA)


def test_somebody_of_a_similar_address_is_left_alone(life: Life) -> None:
    near = ["azelda.quux@example.com", "zelda.quux@example.com.au", "zelda.quuxx@example.com", "zelda.quux@example.org"]
    for address in near:
        life.it.suppress(address)
    life.is_refused()
    with life.it.ledger.reading() as db:
        found = trace(db, life.it.ledger.site_key, parse(ZELDA))
    assert (found.people, found.evidence, found.suppressions) == ((), (), ())


def test_much_about_one_person_goes_in_pieces(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "_MOST", 2)
    happened(life, "asks", "bounces", "complains", *["is_doubtful"] * 3, *["is_refused"] * 4)
    done = life.is_erased()
    assert life.found() == []
    assert (done.removed["address"], done.removed["soft_bounce"]) == (1, 1)
    with life.it.ledger.reading() as db:
        told = [
            f.detail for f in suppressions.history(db, life.it.ledger.site_key, parse(ZELDA)) if f.event == "erased"
        ]
    assert sum(t["removed"].get("message_id", 0) for t in told if t) == done.removed["message_id"] > 6
    assert len(told) > 3


def test_who_is_taken_off_while_we_look_is_not_put_back(life: Life) -> None:
    life.is_imported_by_digest()
    with life.it.ledger.reading() as db:
        found = trace(db, life.it.ledger.site_key, parse(ZELDA))
    assert len(found.hashed) == 1
    with write(life.it.ledger, NOW, "test") as w:
        suppressions.lift(w, found.hashed[0][0], ALL, "a slip")
    with write(life.it.ledger, NOW, "test") as w:
        assert people.erase(w, parse(ZELDA), found).removed["digest"] == 0
    assert life.tables()["suppression"] == []
