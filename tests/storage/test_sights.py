"""What an operator sees at a glance is what stands in the ledger."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import brake, deferral, hooks, incoming, leases, refusals, sights, suppressions
from storage.address import parse
from storage.incoming import Place
from storage.refusals import Tally
from storage.sights import HookSight, OptOuts
from storage.terms import ALL, Reason, seconds
from storage.write import write
from tests.ledgers import IN_A_FILE, Books, queued

NOW = datetime(2026, 11, 27, 12, 30, tzinfo=UTC)
TODAY = NOW.date()


def opted_out(ledger: Books, who: str, at: datetime, source: str = "mail", reason: Reason = Reason.OPT_OUT) -> None:
    with write(ledger.ledger, at, "test") as w:
        suppressions.add(w, parse(who), ALL, reason, source, {})


def test_an_empty_ledger_has_nothing_to_show(ledger: Books) -> None:
    found = sights.sight(ledger.ledger, ["support"])
    assert (found.reviews, found.oldest_review, found.begun, found.to_be_filed) == (0, None, 0, 0)
    assert (found.record.last, found.record.verified, found.record.as_left) == (0, 0, True)
    assert (dict(found.jobs), found.deferring_since, dict(found.holders)) == ({}, None, {})
    assert sights.opt_outs(ledger.ledger, NOW, 30) == OptOuts({}, True)
    assert sights.relayed(ledger.ledger, NOW, 48) == {}


def test_what_waits_is_counted_from_the_oldest(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        for hours in (3, 30, 7):
            queued(w, NOW - timedelta(hours=hours))
        item = incoming.review(w.db, 2)
        assert item is not None
        incoming.decide(w, item, accepted=False, note="")
        incoming.attempt(w, Place("support", "INBOX", 1, 1))
        incoming.attempt(w, Place("elsewhere", "INBOX", 1, 1))
        place = Place("support", "INBOX", 1, 2)
        facts = {"digest": b"d", "size": 1, "message_id": "", "internaldate": None, "label": "opt-out"}
        incoming.record(w, place, state="owed", target="Opt-outs", **facts)  # type: ignore[arg-type]  # each is of its kind
    found = sights.sight(ledger.ledger, ["support"])
    assert (found.reviews, found.oldest_review) == (2, NOW - timedelta(hours=7))
    assert (found.begun, found.to_be_filed) == (1, 1)


def test_jobs_leases_and_gaps_show(ledger: Books) -> None:
    leases.take(ledger.ledger, "node-a", ["jobs", "mailbox support"])
    with write(ledger.ledger, NOW, "test") as w:
        w.job_ran("back_up")
        deferral.begin(w, seconds(NOW) - 3600)
    found = sights.sight(ledger.ledger, [])
    assert found.jobs == {"back_up": NOW}
    assert found.holders == {"jobs": "node-a", "mailbox support": "node-a"}
    assert found.deferring_since == NOW - timedelta(hours=1)


def test_an_end_that_was_cut_off_the_record_shows(ledger: Books) -> None:
    opted_out(ledger, "ann@example.com", NOW)
    opted_out(ledger, "bob@example.com", NOW)
    assert sights.sight(ledger.ledger, []).record.as_left
    with ledger.ledger.connect() as db:
        db.exec_driver_sql("DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)")
        db.commit()
    found = sights.sight(ledger.ledger, []).record
    assert (found.last, found.as_left) == (1, False)


def test_opt_outs_are_counted_by_day_and_source_and_nothing_else_is(ledger: Books) -> None:
    midnight = datetime(2026, 11, 27, tzinfo=UTC)
    opted_out(ledger, "old@example.com", midnight - timedelta(days=2, seconds=1))
    opted_out(ledger, "a@example.com", midnight - timedelta(days=2))
    opted_out(ledger, "b@example.com", midnight - timedelta(seconds=1), "one-click")
    opted_out(ledger, "c@example.com", midnight, "one-click")
    opted_out(ledger, "d@example.com", NOW, "one-click")
    opted_out(ledger, "e@example.com", NOW, "dsn", Reason.HARD_BOUNCE)
    assert ledger.lift("d@example.com") == 1
    assert sights.opt_outs(ledger.ledger, NOW, 3) == OptOuts(
        {
            (date(2026, 11, 25), "mail"): 1,
            (date(2026, 11, 26), "one-click"): 1,
            (TODAY, "one-click"): 2,
        },
        True,
    )


def test_of_too_many_rows_the_last_are_counted_and_it_says_so(ledger: Books) -> None:
    for n in range(5):
        opted_out(ledger, f"p{n}@example.com", NOW)
    assert sights.opt_outs(ledger.ledger, NOW, 3, most=3) == OptOuts({(TODAY, "mail"): 3}, False)
    assert sights.opt_outs(ledger.ledger, NOW, 3, most=5).whole


@IN_A_FILE
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(times=st.lists(st.integers(0, 60), max_size=40), asked=st.integers(-1, 61), first=st.integers(1, 9))
def test_the_first_row_of_a_time_is_found_by_looking_in_the_middle(
    ledger: Books, times: list[int], asked: int, first: int
) -> None:
    with ledger.ledger.connect() as db:
        db.exec_driver_sql("DELETE FROM audit")
        for seq, at in enumerate(sorted(times), first):
            db.exec_driver_sql(
                "INSERT INTO audit (seq, at, actor, event, standing, mac) VALUES (?, ?, '', '', ?, ?)",
                (seq, at, b"", b""),
            )
        start = first if times else 1
        expected = next((s for s, at in enumerate(sorted(times), first) if at >= asked), start + len(times))
        assert sights.first_since(db, asked) == expected


def test_the_relay_is_counted_by_hour(ledger: Books) -> None:
    hour = seconds(NOW) // 3600
    tallies = {
        Tally(hour, 1, "crm", "refused", 2): 3,
        Tally(hour, 2, "", "refused", 1): 4,
        Tally(hour, 1, "crm", "passed", 0): 10,
        Tally(hour - 1, 1, "crm", "passed", 0): 20,
        Tally(hour - 2, 1, "crm", "passed", 0): 40,
    }
    with write(ledger.ledger, NOW, "relay") as w:
        refusals.record(w, [], tallies)
    begun = datetime(2026, 11, 27, 12, tzinfo=UTC)
    assert sights.relayed(ledger.ledger, NOW, 2) == {
        (begun, "refused"): 7,
        (begun, "passed"): 10,
        (begun - timedelta(hours=1), "passed"): 20,
    }


def test_suppressions_are_counted_by_scope_and_reason(ledger: Books) -> None:
    ledger.suppress("ann@example.com")
    ledger.suppress("bob@example.com", "offers")
    ledger.suppress("bob@example.com", "offers", Reason.COMPLAINT)
    offers = ledger.numbers["offers"]
    with ledger.ledger.connect() as db:
        assert refusals.standing(db) == {
            (ALL, Reason.OPT_OUT): 1,
            (offers, Reason.OPT_OUT): 1,
            (offers, Reason.COMPLAINT): 1,
        }


def test_a_pulled_brake_and_a_webhook_in_trouble_are_seen(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        brake.set_to(w, ["complaints"], [], "a forged reporter")
        hooks.begin(w, "crm")
        hooks.begin(w, "shop")
        w.db.exec_driver_sql("UPDATE hook SET failures = 3, trouble = 'connect: refused' WHERE name = 'crm'")
        w.db.exec_driver_sql(
            "INSERT INTO undelivered (hook, seq, at, trouble) VALUES ('gone', 1, ?, 'x')", (seconds(NOW),)
        )
    found = sights.sight(ledger.ledger, [])
    assert dict(found.pulled) == {"complaints": NOW}
    assert dict(found.hooks) == {"crm": HookSight("connect: refused", 0), "gone": HookSight("", 1)}


@IN_A_FILE
def test_where_a_day_begins_is_found_without_walking_over_the_record(ledger: Books) -> None:
    opted_out(ledger, "ann@example.com", NOW)
    asked: list[str] = []
    with ledger.ledger.reading() as db:
        raw = db.connection.driver_connection
        assert raw is not None
        raw.set_trace_callback(asked.append)
        assert sights.first_since(db, seconds(NOW)) == 1
        raw.set_trace_callback(None)
        plans = [row[3] for query in asked for row in db.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")]
    assert len(asked) > 1
    assert not any(plan.startswith("SCAN audit") for plan in plans), plans
