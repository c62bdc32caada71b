"""An older wish brings nobody back, whatever key the person stood under when taken off the list."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from daemon.exchange.importing import Import
from daemon.exchange.portions import Tally, Terms
from daemon.exchange.rows import Entry
from daemon.options import House
from storage import audit, hashes, lifts, suppressions
from storage.address import HashKind, SiteKey, parse
from storage.lifts import Lifted
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import Books

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
BEFORE, SINCE, LATER = NOW - timedelta(days=9), NOW + timedelta(days=1), NOW + timedelta(days=2)
HOUSE = House(name="Quill PDF", domains=("quillpdf.example",), addresses=("support@quillpdf.example",))
NARROW, WIDE = (), ("tag", "alias")


@pytest.fixture(autouse=True)
def _whole(ledger: Books) -> object:
    """Whatever a test does, the record agrees with the table at its end."""
    yield
    with ledger.ledger.reading() as db:
        audit.verify(db, ledger.ledger.site_key)


def brought(it: Books, *rows: Entry | str, ahead: bool = False, dry: bool = False) -> Tally:
    """What comes of an import whose rows are older than every lift, if they do not say otherwise."""
    given = [row if isinstance(row, Entry) else Entry(n, row, since=BEFORE) for n, row in enumerate(rows, 1)]
    one = Import(it.ledger, HOUSE, it.numbers, Terms(), {"file": "a.csv"}, "test", lambda: LATER)
    one.wait, one.ahead = lambda _: None, ahead
    if dry:
        return one.rehearse(iter(given))
    return one.run(one.begin(hashlib.sha256(repr(rows).encode()).digest(), "a.csv"), iter(given))


def hashed(address: str, kind: HashKind = "md5", since: datetime = BEFORE) -> Entry:
    return Entry(1, "", since=since, hashed=(kind, hashlib.new(kind, address.encode()).digest()))


def taken_off(it: Books, stood: str, lifted: str = "", same_person: tuple[str, ...] = WIDE) -> None:
    """`stood` was suppressed, and under this or another spelling taken off again, while this was sameness."""
    it.ledger.same_person = same_person
    with write(it.ledger, BEFORE, "test") as w:
        assert suppressions.add(w, parse(stood), ALL, Reason.OPT_OUT, "mail", {}).outcome == "new"
    with write(it.ledger, NOW, "test") as w:
        assert suppressions.lift(w, parse(lifted or stood), ALL, "wrote again")
    it.ledger.same_person = WIDE


ADDED, SKIPPED = Tally(1, 1, 0, 0, 0), Tally(1, 0, 0, 1, 0)


@pytest.mark.parametrize("address", ["ann+x@example.com", "a.nn@gmail.com", "a.nn+x@googlemail.com"])
def test_who_was_taken_off_under_a_narrower_form_stays_off(ledger: Books, address: str) -> None:
    taken_off(ledger, address, same_person=NARROW)
    assert brought(ledger, address, dry=True) == SKIPPED
    assert brought(ledger, address) == SKIPPED
    assert brought(ledger, Entry(1, address, since=SINCE)) == ADDED


def test_whose_wider_form_stood_comes_back(ledger: Books) -> None:
    """All of ann's mail was never taken off the list, only that to ann+x."""
    taken_off(ledger, "ann+x@example.com", same_person=NARROW)
    assert brought(ledger, "ann@example.com") == ADDED


@pytest.mark.parametrize("rows", [["ann+x@example.com", "ann+y@example.com"], ["ann@example.com", "ann+x@example.com"]])
def test_of_two_who_are_one_row_the_one_who_was_never_taken_off_counts(ledger: Books, rows: list[str]) -> None:
    taken_off(ledger, "ann+x@example.com", same_person=NARROW)
    assert brought(ledger, *rows) == Tally(2, 1, 1, 0, 0)


def test_a_narrower_form_under_an_older_site_key_counts(ledger: Books) -> None:
    taken_off(ledger, "ann+x@example.com", same_person=NARROW)
    ledger.ledger.site_key = SiteKey((b"n" * 32, *ledger.ledger.site_key.keys))
    assert brought(ledger, "ann+x@example.com") == SKIPPED


def of_a_list_of_hashes(it: Books, address: str) -> None:
    """Stood in a list of hashes, and was taken off."""
    assert brought(it, hashed(address)).added == 1
    with write(it.ledger, NOW, "test") as w:
        assert suppressions.lift(w, parse(address), ALL, "wrote again")


@pytest.mark.parametrize("address", ["ann@example.com", "ann+x@example.com", "ann@xn--bcher-kva.example"])
def test_who_was_taken_off_a_list_of_hashes_stays_off(ledger: Books, address: str) -> None:
    of_a_list_of_hashes(ledger, address)
    assert brought(ledger, address.upper()) == SKIPPED
    assert brought(ledger, f"b.{address}") == ADDED
    assert brought(ledger, Entry(1, address, since=SINCE)) == ADDED


@pytest.mark.parametrize("keep_addresses", [False, True])
def test_read_in_another_process_they_stay_off_too(ledger: Books, keep_addresses: bool) -> None:
    ledger.ledger.keep_addresses = keep_addresses
    of_a_list_of_hashes(ledger, "ann@example.com")
    taken_off(ledger, "bob+x@example.com", same_person=NARROW)
    rows = [*(f"p{n}@example.com" for n in range(7000)), "ann@example.com", "bob+x@example.com"]
    assert brought(ledger, *rows, ahead=True) == Tally(7002, 7000, 0, 2, 0)


@pytest.mark.parametrize("kind", ["md5", "sha256"])
@pytest.mark.parametrize(
    ("lifted", "row", "fate"),
    [
        ("ann@example.com", "ann@example.com", SKIPPED),
        ("ann+x@example.com", "ann@example.com", SKIPPED),  # which ended all that stood against ann
        ("ann+x@example.com", "ann+x@example.com", SKIPPED),
        ("ann+x@example.com", "ann+y@example.com", ADDED),  # nobody can tell that this hash is ann's
        ("ann@example.com", "bob@example.com", ADDED),
    ],
)
def test_who_was_taken_off_does_not_come_back_by_a_hash(
    ledger: Books, kind: HashKind, lifted: str, row: str, fate: Tally
) -> None:
    taken_off(ledger, "ann@example.com", lifted)
    assert brought(ledger, hashed(row, kind), dry=True) == fate
    assert brought(ledger, hashed(row, kind)) == fate
    assert brought(ledger, hashed(row, kind, SINCE)).skipped == 0


def test_what_was_undone_by_its_cause_comes_back_by_a_hash(ledger: Books) -> None:
    key = ledger.ledger.site_key.address_key("ann@example.com")
    with write(ledger.ledger, NOW, "test") as w:
        number = w.evidence(address="ann@example.com", because="the wrong list", cause="import a.csv")
        w.audit("lifted", key=key, scope=ALL, reason=int(Reason.OPT_OUT), source="operator", evidence=number)
    assert brought(ledger, hashed("ann@example.com")) == ADDED


@pytest.mark.parametrize(
    "off",
    [
        lambda it: taken_off(it, "ann+x@example.com", same_person=NARROW),
        lambda it: of_a_list_of_hashes(it, "ann+x@example.com"),
    ],
)
def test_an_old_mail_that_is_read_late_brings_nobody_back_either(ledger: Books, off: Callable[[Books], None]) -> None:
    off(ledger)
    for since, outcome in ((BEFORE, "outdated"), (SINCE, "new")):
        with write(ledger.ledger, LATER, "test") as w:
            added = suppressions.add(w, parse("ann+x@example.com"), ALL, Reason.OPT_OUT, "mail", {}, since=since)
        assert added.outcome == outcome


def test_nobody_taken_off_is_nothing_to_ask_for(ledger: Books) -> None:
    ledger.suppress("ann@example.com")
    with ledger.ledger.reading() as db:
        assert lifts.elsewhere(db, ledger.ledger, Lifted()) is None
    ledger.lift("ann@example.com")
    with ledger.ledger.reading() as db:
        found = lifts.elsewhere(db, ledger.ledger, Lifted())
        assert hashes.kinds(db) == ()
    assert found is not None
    assert not found.of_plain_too
