"""The relay's record: what is written, learned, reported and forgotten."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import SQLModel

from storage import audit, bulk, incoming, refusals, sqlite, suppressions
from storage.address import parse, person
from storage.engine import REVISION, Ledger
from storage.incoming import Place
from storage.refusals import OUTCOMES, Outcome, Refusal, Tally
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import IN_A_FILE, Books, books

NOW = datetime(2026, 11, 27, 12, 30, tzinfo=UTC)
HOUR = int(NOW.timestamp()) // 3600


def key(ledger: Books, address: str) -> bytes:
    return ledger.ledger.site_key.address_key(person(parse(address), ledger.ledger.same_person))


def refusal(ledger: Books, whose: str = "ann@example.com", /, **other: Any) -> Refusal:
    usual = Refusal(NOW, "refused", key(ledger, whose), 1, Reason.OPT_OUT, "crm", "<1@crm.example>", 7, 0, whose)
    return usual._replace(**other)


def record(ledger: Books, *some: Refusal, tallies: dict[Tally, int] | None = None, now: datetime = NOW) -> None:
    with write(ledger.ledger, now, "relay") as w:
        refusals.record(w, some, tallies or {})


def all_rows(ledger: Books, table: str) -> list[tuple[Any, ...]]:
    with ledger.ledger.connect() as db:
        return [tuple(row) for row in db.exec_driver_sql(f"SELECT * FROM {table}")]


def report(ledger: Books, by: refusals.By | None, since: datetime | None = None) -> list[refusals.Line]:
    with ledger.ledger.reading() as db:
        return list(refusals.report(db, since, by))


# ------------------------------------------------------------------ writing


def test_a_refusal_is_kept_as_it_was(ledger: Books) -> None:
    record(ledger, refusal(ledger, others=3))
    with ledger.ledger.connect() as db:
        (found,) = refusals.of_key(db, [key(ledger, "ann@example.com")])
    assert found == refusal(ledger, others=3)._replace(address=None)


def test_it_is_no_change_of_state_so_the_audit_log_does_not_grow(ledger: Books) -> None:
    ledger.suppress("ann@example.com")
    record(ledger, refusal(ledger), tallies={Tally(HOUR, 1, "crm", "refused", 2): 1})
    with ledger.ledger.reading() as db:
        assert audit.verify(db, ledger.ledger.site_key).seq == 1


def test_counts_are_added_to_what_is_there(ledger: Books) -> None:
    one, other = Tally(HOUR, 1, "crm", "passed", 0), Tally(HOUR, 1, "crm", "refused", 2)
    record(ledger, tallies={one: 5})
    record(ledger, tallies={one: 7, other: 1})
    assert sorted(all_rows(ledger, "tally")) == [(*one, 12), (*other, 1)]


@given(st.text(max_size=400))
def test_a_message_id_is_a_clients_text(ledger_of_all: Books, text: str) -> None:
    """Surrogates (octets that were no UTF-8), NULs and great lengths must not stop the rest from being written."""
    before = len(all_rows(ledger_of_all, "refusal"))
    record(ledger_of_all, refusal(ledger_of_all, message_id="\udcff\0" + text), refusal(ledger_of_all))
    rows = all_rows(ledger_of_all, "refusal")
    assert len(rows) == before + 2
    assert rows[-2][7].startswith("??")
    assert len(rows[-2][7]) <= 300


@pytest.fixture(scope="module")
def ledger_of_all(tmp_path_factory: pytest.TempPathFactory) -> Any:
    it = books(tmp_path_factory.mktemp("all") / "ledger")
    yield it
    it.ledger.close()


# ------------------------------------------------------------------ learning an address


def by_token(ledger: Books, address: str) -> bytes:
    """An opt-out by link: the address key is all that is known."""
    with write(ledger.ledger, NOW, "web") as w:
        suppressions.add(w, key(ledger, address), ALL, Reason.OPT_OUT, "one-click", {})
    return key(ledger, address)


def people(ledger: Books) -> dict[bytes, str]:
    return {bytes(row[0]): row[1] for row in all_rows(ledger, "person")}


def test_who_opted_out_by_a_link_gets_a_name_when_next_refused(ledger: Books) -> None:
    of_ann = by_token(ledger, "ann@example.com")
    assert people(ledger) == {}
    record(ledger, refusal(ledger, "Ann+News@Example.COM"))
    assert people(ledger) == {of_ann: "Ann+News@example.com"}
    record(ledger, refusal(ledger, "ann@example.com"))
    assert people(ledger) == {of_ann: "Ann+News@example.com"}, "what is known stays"


def test_nobody_else_gets_a_name(ledger: Books) -> None:
    of_ann = by_token(ledger, "ann@example.com")
    ledger.suppress("@example.org", reason=Reason.OPERATOR)
    before = people(ledger)
    for one in (
        refusal(ledger, "bob@example.com"),  # no row under his key
        refusal(ledger, "carla@example.org"),  # refused for her domain
        refusal(ledger, "dan@example.com", key=of_ann),  # a key that is not his
        refusal(ledger, "ann@example.com", address=None),
        refusal(ledger, "ann@example.com", address="no address at all"),
        refusal(ledger, "ann@example.com", address="\udcff@example.com"),
    ):
        record(ledger, one)
        assert people(ledger) == before


def test_a_domain_does_not_get_the_name_of_one_of_its_people(ledger: Books) -> None:
    of_domain = by_token(ledger, "@example.com")
    record(ledger, refusal(ledger, "ann@example.com", key=of_domain))
    assert people(ledger) == {}


def test_a_ledger_that_keeps_no_addresses_learns_none(ledger: Books) -> None:
    by_token(ledger, "ann@example.com")
    sparing = Ledger(ledger.ledger.store, ledger.ledger.site_key, keep_addresses=False)
    with write(sparing, NOW, "relay") as w:
        refusals.record(w, [refusal(ledger)], {})
    sparing.close()
    assert people(ledger) == {}


def test_many_names_at_once(ledger: Books) -> None:
    addresses = [f"a{n}@example.com" for n in range(1200)]
    with write(ledger.ledger, NOW, "web") as w:
        bulk.add_many(w, bulk.Batch(sorted((key(ledger, a), ALL, 2, 1) for a in addresses)), 1, {}, source="one-click")
    record(ledger, *(refusal(ledger, a) for a in addresses))
    assert sorted(people(ledger).values()) == sorted(addresses)


# ------------------------------------------------------------------ the report


def test_nothing_is_one_line_of_zeros_or_no_line(ledger: Books) -> None:
    assert report(ledger, None) == [refusals.Line(None, dict.fromkeys(OUTCOMES, 0), {})]
    groups: list[refusals.By] = ["list", "credential", "message-id"]
    for by in groups:
        assert report(ledger, by) == []


def test_by_list_and_by_credential(ledger: Books) -> None:
    record(
        ledger,
        tallies={
            Tally(HOUR, 1, "crm", "passed", 0): 90,
            Tally(HOUR, 1, "crm", "refused", Reason.OPT_OUT): 4,
            Tally(HOUR, 1, "shop", "refused", Reason.COMPLAINT): 3,
            Tally(HOUR, 0, "", "deferred", 0): 2,
            Tally(HOUR - 1, 1, "crm", "passed", 0): 1000,
        },
    )
    nothing: dict[Outcome, int] = dict.fromkeys(OUTCOMES, 0)
    why = {Reason.COMPLAINT: 3, Reason.OPT_OUT: 4}
    assert report(ledger, None) == [(None, {**nothing, "passed": 1090, "refused": 7, "deferred": 2}, why)]
    assert report(ledger, "list") == [
        (0, {**nothing, "deferred": 2}, {}),
        (1, {**nothing, "passed": 1090, "refused": 7}, why),
    ]
    of = {line.group: line for line in report(ledger, "credential", NOW)}
    assert of["crm"].counts["passed"] == 90, "the hour of --since counts from its beginning, the one before it does not"
    assert of["shop"].reasons == {Reason.COMPLAINT: 3}
    assert set(of) == {"", "crm", "shop"}


def test_by_message_with_those_who_got_it_beside_him(ledger: Books) -> None:
    """Two transactions of a campaign; the recipients who passed are told by one refusal of each."""
    old = NOW - timedelta(days=1)
    record(
        ledger,
        refusal(ledger, message_id="<old@crm>", at=old, others=5),
        refusal(ledger, message_id="<new@crm>", outcome="stripped", others=98),
        refusal(ledger, message_id="<new@crm>", outcome="stripped", reason=Reason.HARD_BOUNCE),
        refusal(ledger, message_id="<new@crm>", outcome="withdrawn", others=0),
        refusal(ledger, message_id="<new@crm>", others=99),
    )
    new, before = report(ledger, "message-id")
    assert new == (
        "<new@crm>",
        {"passed": 197, "refused": 1, "stripped": 2, "withdrawn": 1, "would-refuse": 0, "service": 0},
        {Reason.OPT_OUT: 3, Reason.HARD_BOUNCE: 1},
    )
    assert (before.group, before.counts["passed"]) == ("<old@crm>", 5)
    assert [line.group for line in report(ledger, "message-id", NOW)] == ["<new@crm>"]
    with ledger.ledger.reading() as db:
        assert [line.group for line in refusals.report(db, None, "message-id", 1)] == ["<new@crm>"]


def test_of_a_person_the_latest_are_shown_oldest_first(ledger: Books) -> None:
    record(ledger, *(refusal(ledger, evidence=n, at=NOW + timedelta(seconds=n)) for n in range(60)))
    record(ledger, refusal(ledger, "bob@example.com"))
    with ledger.ledger.connect() as db:
        found = refusals.of_key(db, [key(ledger, "ann@example.com"), bytes(16)], most=3)
    assert [r.evidence for r in found] == [57, 58, 59]


# ------------------------------------------------------------------ forgetting


def test_what_is_old_goes_some_at_a_time_and_what_is_not_stays(ledger: Books) -> None:
    old = NOW - timedelta(days=400, seconds=1)
    record(ledger, *[refusal(ledger, at=old)] * 7, refusal(ledger, at=NOW - timedelta(days=400)), refusal(ledger))
    hours = [HOUR - 400 * 24 - 1, HOUR - 400 * 24, HOUR]
    record(ledger, tallies={Tally(h, n, "", "passed", 0): 1 for h in hours for n in range(4)})
    gone = []
    while True:
        with write(ledger.ledger, NOW, "job") as w:
            gone.append(refusals.forget(w, 400, most=3))
        if gone[-1] == 0:
            break
    assert gone == [6, 4, 1, 0]
    assert len(all_rows(ledger, "refusal")) == 2
    assert sorted({row[0] for row in all_rows(ledger, "tally")}) == hours[1:]


def test_for_ever_is_for_ever(ledger: Books) -> None:
    record(ledger, refusal(ledger, at=datetime(1990, 1, 1, tzinfo=UTC)), tallies={Tally(1, 1, "", "passed", 0): 1})
    with write(ledger.ledger, NOW, "job") as w:
        assert refusals.forget(w, 0) == 0
    assert len(all_rows(ledger, "refusal")) == len(all_rows(ledger, "tally")) == 1


@IN_A_FILE
def test_forgetting_finds_the_old_ones_without_a_look_at_the_rest(ledger: Books) -> None:
    query = "EXPLAIN QUERY PLAN SELECT id FROM refusal WHERE at < 1 ORDER BY at LIMIT 1"
    with ledger.ledger.connect() as db:
        assert "ix_refusal_at" in str(db.exec_driver_sql(query).all())


# ------------------------------------------------------------------ the ledger in numbers


def saw(ledger: Books, place: Place, label: str, message_id: str = "", digest: bytes = b"") -> None:
    with write(ledger.ledger, NOW, "mailbox") as w:
        incoming.attempt(w, place)
        incoming.record(
            w, place, digest=digest, size=1, message_id=message_id, internaldate=NOW, label=label, state="done"
        )


def test_a_message_in_two_mailboxes_is_one(ledger: Books) -> None:
    saw(ledger, Place("support", "INBOX", 1, 1), "opt-out", "<a@x>", b"1")
    saw(ledger, Place("sales", "INBOX", 1, 1), "opt-out", "<a@x>", b"2")
    saw(ledger, Place("sales", "INBOX", 1, 2), "review", "<a@x>", b"2")  # found back in the inbox
    saw(ledger, Place("support", "INBOX", 1, 2), "opt-out", "<b@x>", b"1")
    saw(ledger, Place("support", "INBOX", 1, 3), "ordinary", "", b"3")
    saw(ledger, Place("sales", "INBOX", 1, 3), "ordinary", "", b"3")
    saw(ledger, Place("support", "INBOX", 1, 4), "ordinary", "", b"4")
    saw(ledger, Place("support", "INBOX", 1, 5), "review")  # never fetched
    saw(ledger, Place("support", "INBOX", 1, 6), "review")
    with write(ledger.ledger, NOW, "mailbox") as w:
        incoming.attempt(w, Place("support", "INBOX", 1, 7))  # not read yet
    with ledger.ledger.reading() as db:
        assert refusals.overview(db).intake == {"opt-out": 2, "ordinary": 2, "review": 2}


def test_the_overview_counts_rows(ledger: Books) -> None:
    ledger.suppress("ann@example.com")
    ledger.suppress("ann@example.com", "offers")
    ledger.suppress("bob@example.com", reason=Reason.COMPLAINT)
    with ledger.ledger.reading() as db:
        found = refusals.overview(db)
    offers = ledger.numbers["offers"]
    assert found.rows == {(ALL, Reason.OPT_OUT): 1, (offers, Reason.OPT_OUT): 1, (ALL, Reason.COMPLAINT): 1}
    assert (found.review_open, found.audit_rows) == (0, 3)


# ------------------------------------------------------------------ from the version before


SINCE = ("refusal", "tally", "forgotten", "import_run", "lease", "hook", "undelivered", "answered", "alarm")  # tables


def test_a_ledger_of_the_version_before_gets_its_tables_and_loses_nothing(tmp_path: Path) -> None:
    it = books(tmp_path / "ledger")
    it.suppress("ann@example.com")
    it.ledger.close()
    with closing(sqlite3.connect(it.ledger.path)) as db:
        for table in SINCE:
            db.execute(f"DROP TABLE {table}")
        db.executescript(
            "DELETE FROM meta WHERE name IN ('needs', 'sealed'); UPDATE alembic_version SET version_num = '0002'"
        )
    assert sqlite.migrate(it.ledger.path, it.ledger.site_key) == ("0002", REVISION)
    again = books(tmp_path / "ledger")
    with again.ledger.reading() as db:
        assert audit.verify(db, again.ledger.site_key).seq == 1
        context = MigrationContext.configure(db)
        assert context.get_current_revision() == REVISION
        for table in SINCE:
            columns = {row[1] for row in db.exec_driver_sql(f"PRAGMA table_info({table})")}
            assert columns == set(SQLModel.metadata.tables[table].columns.keys())
    record(again, refusal(again), tallies={Tally(HOUR, 1, "", "passed", 0): 1})
    again.ledger.close()
