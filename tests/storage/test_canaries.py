"""What is kept of canaries and gaps: in both databases the same, and nothing of it is left on the list."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from storage import alarms, audit, canaries, gaps, hooks, incoming, sights, suppressions, watched
from storage.address import parse
from storage.alarms import Noted
from storage.canaries import Result, Run, State
from storage.gaps import Gap
from storage.incoming import Place
from storage.terms import ALL, Reason, seconds
from storage.week import week
from storage.write import write
from tests.ledgers import Books

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
AT = seconds(NOW)
RUN = Run(AT, "canary-abc@optoutd.invalid", "token", "<abc@optoutd.invalid>", "INBOX")
FULL = State(1, 2, RUN, True, True, Result(3, "read", "why", {"append": 0.5}), 4, 5, "no")
HERE = Place("support", "INBOX", 1, 7)


def test_a_state_is_kept_as_it_is(ledger: Books) -> None:
    for mailbox, state in (("support", FULL), ("hilfe", State(1, 2)), ("hilfe", State(1, 3))):
        with write(ledger.ledger, NOW, "test") as w:
            canaries.put(w, mailbox, state)
    with ledger.ledger.reading() as db:
        assert canaries.state(db, "support") == FULL
        assert canaries.states(db) == {"hilfe": State(1, 3), "support": FULL}
        assert canaries.state(db, "ayuda") is None
        audit.verify(db, ledger.ledger.site_key)
    with write(ledger.ledger, NOW, "test") as w:
        canaries.forget(w, "support")
    with ledger.ledger.reading() as db:
        assert canaries.states(db) == {"hilfe": State(1, 3)}


def test_what_is_taken_back_is_nowhere_but_in_the_record(ledger: Books) -> None:
    whom = parse(RUN.address)
    with write(ledger.ledger, NOW, canaries.ACTOR) as w:
        suppressions.add(w, whom, ALL, Reason.OPT_OUT, "mail", {})
        suppressions.add(w, whom, ledger.numbers["offers"], Reason.OPT_OUT, "mail", {})
        incoming.attempt(w, HERE)
    ledger.suppress("ann@example.com")
    with write(ledger.ledger, NOW, canaries.ACTOR) as w:
        canaries.take_back(w, RUN, [HERE])
    with write(ledger.ledger, NOW, canaries.ACTOR) as w:
        canaries.take_back(w, RUN, [HERE])  # once more changes nothing
    with ledger.ledger.reading() as db:
        audit.verify(db, ledger.ledger.site_key)
        assert [row.reason for row in map(_Row, suppressions.listing(db))] == [Reason.OPT_OUT]
        assert not suppressions.standing(db, ledger.ledger.site_key, whom)
        assert db.exec_driver_sql("SELECT count(*) FROM person").scalar_one() == 1
        assert db.exec_driver_sql("SELECT count(*) FROM incoming").scalar_one() == 0
        done = [(f.actor, f.event) for f in suppressions.history(db, ledger.ledger.site_key, whom)]
        assert done == [("canary", "suppressed")] * 2 + [("canary", "lifted")] * 2
        told, _ = hooks.window(db, 0, 99)
        assert [fact.actor for fact in told] == ["test"]
        assert hooks.waiting(db, 0) == [("suppressed", int(Reason.OPT_OUT), 1)]
    assert sum(sights.opt_outs(ledger.ledger, datetime.now(UTC), 9_999).of.values()) == 1


class _Row:
    """Of `listing`."""

    def __init__(self, row: tuple[object, ...]):
        self.reason = row[3]


def test_what_nobody_asked_for_but_the_operator_stays(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "cli root") as w:
        suppressions.add(w, parse(RUN.address), ALL, Reason.OPERATOR, "operator", {})
        suppressions.add(w, parse("@optoutd.invalid"), ALL, Reason.OPERATOR, "operator", {})
    with write(ledger.ledger, NOW, canaries.ACTOR) as w:
        canaries.take_back(w, RUN, [])
    with ledger.ledger.reading() as db:
        assert len(suppressions.standing(db, ledger.ledger.site_key, parse(RUN.address))) == 2


def test_gaps_are_added_up_while_they_are_told_of(ledger: Books) -> None:
    for missed in (2, 0, 3):
        with write(ledger.ledger, NOW, "test") as w:
            gaps.note(w, "support", "INBOX", missed)
    with ledger.ledger.reading() as db:
        assert gaps.found(db, AT) == {"support": Gap(AT, AT, "INBOX", 5)}
        assert gaps.found(db, AT + gaps.TOLD_SECONDS + 1) == {}


def test_numbers_given_free_are_nobodys(ledger: Books) -> None:
    with write(ledger.ledger, NOW, "test") as w:
        for uid, state in ((3, "owed"), (7, "owed"), (8, "done")):
            incoming.record(
                w,
                Place("support", "INBOX", 1, uid),
                digest=b"x",
                size=9,
                message_id=f"<{uid}@y>",
                internaldate=NOW,
                label="opt-out",
                state=state,  # type: ignore[arg-type]  # one of those words
                target="Opt-outs",
            )
        incoming.attempt(w, Place("support", "INBOX", 1, 9))
        watched.begin_folder(w, "support", "INBOX", 1, 6, 30)
        watched.give_free(w, "support", "INBOX", 1, 5)
        watched.give_free(w, "support", "INBOX", 1, 5)
    with ledger.ledger.reading() as db:
        assert [d.place.uid for d in incoming.owed(db, "support")] == [3]
        known = watched.known(db, "support", "INBOX", 1)
        assert [uid for uid in known if uid > 0] == [3]
        assert len(known) == 3
        assert watched.identities(db, "support", "INBOX", 1, [3, 7, 8]) == {3: (9, NOW)}
        assert [t.state for t in incoming.twins(db, "<7@y>", b"x")] == ["settled"]
        begun = watched.first_sight(db, "support", "INBOX", 1)
    assert begun is not None
    assert begun.uidnext == 5


def test_nobody_counts_it_among_people(ledger: Books) -> None:
    for actor, address in ((canaries.ACTOR, RUN.address), ("mailbox support", "ann@example.com")):
        with write(ledger.ledger, NOW, actor) as w:
            suppressions.add(w, parse(address), ALL, Reason.OPT_OUT, "mail", {})
    later = NOW + timedelta(hours=1)
    with ledger.ledger.connect() as db:
        assert sights.suppressed(db, NOW - timedelta(1), NOW, 100) == {"mail": (1, NOW)}
        assert sights.suppressed_before(db, later, 3600, 24, 100) == {"mail": [1]}
    with write(ledger.ledger, NOW, "test") as w:
        canaries.put(w, "support", State(1, 2, passed=AT))
        alarms.save(w, [Noted("mailbox-silent", "support", "", "x", NOW, NOW, "x", "x")])
    of = week(ledger.ledger, NOW - timedelta(1), later)
    assert (of.opt_outs, of.canaries, of.kinds) == ({"mail": 1}, {"support": NOW}, {"mailbox-silent": 1})
