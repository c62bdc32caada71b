"""What goes by the clock: each kind after its days, what still explains something never, and nothing is read twice for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daemon.config import Bounce, Retention
from daemon.jobs import Jobs
from storage import audit, incoming, retention, suppressions, watched
from storage.address import parse
from storage.incoming import Place, State
from storage.terms import ALL, Reason, seconds
from storage.watched import FirstSight
from storage.write import write
from tests.ledgers import Books, bring, queued, verified

NOW = datetime(2032, 5, 4, 12, tzinfo=UTC)
ANN, BOB = parse("ann@example.com"), parse("bob@example.org")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Books]:
    with verified(tmp_path / "ledger") as it:
        yield it


def jobs(it: Books, now: datetime = NOW, **days: int) -> Jobs:
    every = {"evidence": 2190, "refusals": 400, "ordinary": 400, "review_excerpt": 90}
    return Jobs(it.ledger, Bounce(), lambda: now, Retention.model_validate(every | days))


def days(number: float) -> timedelta:
    return timedelta(days=number)


# ------------------------------------------------------------------ evidence


def asked(it: Books, whom: object, ago: float, reason: Reason = Reason.OPT_OUT, scope: int = ALL) -> int:
    with write(it.ledger, NOW - days(ago), "test") as w:
        assert whom in (ANN, BOB)
        return suppressions.add(w, ANN if whom == ANN else BOB, scope, reason, "mail", {"words": "stop"}).evidence


def lifted(it: Books, ago: float) -> None:
    with write(it.ledger, NOW - days(ago), "test") as w:
        suppressions.lift(w, ANN, ALL, "ann@example.com wants it back")


def told(it: Books) -> dict[int, bool]:
    """Evidence -> are its particulars still there?"""
    with it.ledger.connect() as db:
        rows = db.exec_driver_sql("SELECT id, detail IS NOT NULL FROM evidence").all()
    return {number: bool(detail) for number, detail in rows}


def people(it: Books) -> list[str]:
    with it.ledger.connect() as db:
        return list(db.exec_driver_sql("SELECT address FROM person ORDER BY address").scalars())


def test_what_explains_a_standing_suppression_stays_however_old(ledger: Books) -> None:
    asked(ledger, ANN, 5000)
    asked(ledger, BOB, 5000, Reason.HARD_BOUNCE)
    jobs(ledger).forget_evidence()
    assert set(told(ledger).values()) == {True}
    assert people(ledger) == [str(ANN), str(BOB)]


def test_what_only_tells_of_the_past_goes_after_its_days_and_the_address_with_it(ledger: Books) -> None:
    asked(ledger, ANN, 5000)
    lifted(ledger, 2189)
    asked(ledger, BOB, 5000)
    jobs(ledger).forget_evidence()
    assert list(told(ledger).values()) == [False, True, True]
    assert people(ledger) == [str(ANN), str(BOB)]  # the lift is younger, and tells of her
    jobs(ledger, NOW + days(2)).forget_evidence()
    assert list(told(ledger).values()) == [False, False, True]
    assert people(ledger) == [str(BOB)]


def test_one_of_several_rows_that_stands_keeps_the_evidence_of_all(ledger: Books) -> None:
    with write(ledger.ledger, NOW - days(3000), "test") as w:
        number = w.evidence(address=f"{ANN};{BOB}", words="us both")
        for person in (ANN, BOB):
            suppressions.add(w, person, ALL, Reason.OPT_OUT, "mail", {}, evidence=lambda: number)
    lifted(ledger, 2900)
    jobs(ledger).forget_evidence()
    assert list(told(ledger).values()) == [True, False]


def test_the_evidence_of_an_import_stays_for_it_names_nobody(ledger: Books) -> None:
    key = ledger.ledger.site_key.address_key("ann@example.com")
    with write(ledger.ledger, NOW - days(3000), "test") as w:
        bring(w, [(key, ALL, 2, seconds(NOW - days(3000)))], "import", {"file": "old.csv"})
    jobs(ledger).forget_evidence()
    assert told(ledger) == {1: True}


def test_what_came_to_stand_on_it_meanwhile_keeps_its_evidence(ledger: Books) -> None:
    number = asked(ledger, ANN, 3000)
    lifted(ledger, 2999)
    with ledger.ledger.connect() as db:
        found = retention.old_evidence(db, NOW - days(2190))
        salt, detail = db.exec_driver_sql("SELECT salt, detail FROM evidence WHERE id = ?", (number,)).one()
    assert number in found
    with write(ledger.ledger, NOW, "test") as w:
        again = (number, audit.digest(salt, detail))
        suppressions.add(w, ANN, ALL, Reason.OPT_OUT, "mail", {}, evidence=lambda: again)
    with write(ledger.ledger, NOW, "test") as w:
        assert retention.forget_evidence(w, found, NOW - days(2190)) == 1
    assert told(ledger) == {1: True, 2: False}
    assert people(ledger) == [str(ANN)]


def test_for_ever_is_for_ever(ledger: Books) -> None:
    asked(ledger, ANN, 9000)
    lifted(ledger, 9000)
    read(ledger, 1, 9000)
    read(ledger, 100, 9000)
    decided(ledger, 9000)
    it = jobs(ledger, evidence=0, ordinary=0, review_excerpt=0)
    it.forget_evidence()
    it.forget_ordinary()
    it.forget_reviews()
    assert set(told(ledger).values()) == {True}
    assert kept(ledger) == [1, 100]
    assert [i.words for i in items(ledger)] == ["stop, I think"]


def test_old_evidence_goes_in_pieces_and_a_live_opt_out_gets_its_turn(
    ledger: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "MOST", 40)
    with write(ledger.ledger, NOW - days(3000), "test") as w:
        for n in range(200):
            number = w.evidence(address=f"a{n}@example.com")
            w.audit("bounce", key=b"%016d" % n, evidence=number)
    waited = []

    def opt_out() -> None:
        began = time.monotonic()
        ledger.suppress("carla@example.com")
        waited.append(time.monotonic() - began)

    live = threading.Timer(0.01, opt_out)
    live.start()
    began = time.monotonic()
    jobs(ledger).forget_evidence()
    took = time.monotonic() - began
    live.join()
    assert sorted(told(ledger).values()) == [False] * 200 + [True]
    assert waited[0] < took


# ------------------------------------------------------------------ ordinary mail

INBOX = ("support", "INBOX", 7)


def begun(it: Books, uidnext: int, ago: float, place: tuple[str, str, int] = INBOX) -> None:
    with write(it.ledger, NOW - days(ago), "test") as w:
        watched.begin_folder(w, *place, uidnext, 30)


def read(
    it: Books, uid: int, ago: float | None, label: str = "ordinary", state: State = "done", place: tuple[str, str, int] = INBOX
) -> int:  # fmt: skip
    came = None if ago is None else NOW - days(ago)
    with write(it.ledger, NOW, "test") as w:
        return incoming.record(
            w, Place(*place, uid), digest=b"%d" % uid, size=9, message_id=f"<{uid}@example.com>", internaldate=came, label=label, state=state
        )  # fmt: skip


def kept(it: Books) -> list[int]:
    with it.ledger.connect() as db:
        return list(db.exec_driver_sql("SELECT uid FROM incoming ORDER BY uid").scalars())


def beginning(it: Books, place: tuple[str, str, int] = INBOX) -> FirstSight:
    with it.ledger.connect() as db:
        found = watched.first_sight(db, *place)
    assert found is not None
    return found


def new(it: Books, lying: dict[int, float]) -> list[int]:
    """Which of these messages (UID -> days ago) would the watcher read? As `Folders.unread` has it."""
    with it.ledger.connect() as db:
        ended = {u for u, e in watched.known(db, *INBOX).items() if e}
    first = beginning(it)
    since = first.since.date()
    found = {u for u, ago in lying.items() if u >= first.uidnext or (NOW - days(ago)).date() >= since}
    return sorted(found - ended)


def test_old_ordinary_mail_is_forgotten_and_not_read_again(ledger: Books) -> None:
    begun(ledger, 10, 700)
    lying = {1: 720.0, 2: 710, 3: 800, 11: 600, 12: 500, 13: 399, 14: 10, 15: 650, 16: 1}
    for uid, ago in lying.items():
        if uid not in (3, 16):  # one from before the first days, one that has just come
            read(ledger, uid, ago)
    assert new(ledger, lying) == [16]
    jobs(ledger).forget_ordinary()
    assert kept(ledger) == [13, 14, 15]  # the last that was read tells how far we have come
    assert new(ledger, lying) == [16]
    assert beginning(ledger) == FirstSight(13, NOW - days(400))
    read(ledger, 16, 1)
    jobs(ledger, NOW + days(100)).forget_ordinary()
    assert kept(ledger) == [14, 16]
    assert new(ledger, lying) == []


def test_what_was_honoured_waits_or_is_owed_stays(ledger: Books) -> None:
    begun(ledger, 1, 900)
    read(ledger, 1, 800, "opt-out", "filed")
    read(ledger, 2, 800, "opt-out", "owed")
    read(ledger, 3, 800, "bounce")
    review = read(ledger, 4, 800, "review")
    read(ledger, 5, 800, "auto-reply")
    read(ledger, 6, 800)
    read(ledger, 7, None, "", "settled")
    with write(ledger.ledger, NOW, "test") as w:
        queued(w, NOW, of=review)
    jobs(ledger).forget_ordinary()
    assert kept(ledger) == [1, 2, 3, 4, 7]


def test_nothing_goes_while_the_first_reading_of_a_folder_may_not_have_ended(ledger: Books) -> None:
    """It began at UID 100 and has come to 2: moving the beginning would lose the 98 that were not read yet."""
    begun(ledger, 100, 500)
    read(ledger, 1, 520)
    read(ledger, 2, 510)
    lying = {1: 520.0, 2: 510, 3: 505, 99: 501}
    jobs(ledger).forget_ordinary()
    assert kept(ledger) == [1, 2]
    assert new(ledger, lying) == [3, 99]


def test_a_message_without_a_date_is_never_old(ledger: Books) -> None:
    begun(ledger, 1, 900)
    with write(ledger.ledger, NOW, "test") as w:
        incoming.record(
            w, Place(*INBOX, 1), digest=b"1", size=9, message_id="", internaldate=datetime.fromtimestamp(0, UTC), label="ordinary", state="done"
        )  # fmt: skip
    read(ledger, 2, 800)
    read(ledger, 3, 1)
    jobs(ledger).forget_ordinary()
    assert kept(ledger) == [1, 3]


def test_under_a_new_uidvalidity_forgotten_mail_is_not_looked_at_again(ledger: Books) -> None:
    begun(ledger, 1, 900)
    for uid, ago in ((1, 800.0), (2, 700), (3, 1)):
        read(ledger, uid, ago)
    jobs(ledger).forget_ordinary()
    begun(ledger, 50, 0, ("support", "INBOX", 8))
    assert beginning(ledger, ("support", "INBOX", 8)) == FirstSight(50, NOW - days(400))


def test_a_folder_that_is_still_being_read_anew_keeps_its_beginning(ledger: Books) -> None:
    """UIDVALIDITY has changed and the reading of what lies there is under way while the old numbers are forgotten."""
    begun(ledger, 1, 900)
    read(ledger, 1, 800)
    read(ledger, 2, 1)
    begun(ledger, 50, 0, ("support", "INBOX", 8))
    before = beginning(ledger, ("support", "INBOX", 8))
    jobs(ledger).forget_ordinary()
    assert kept(ledger) == [2]
    assert beginning(ledger, ("support", "INBOX", 8)) == before


def test_much_ordinary_mail_goes_in_pieces(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MOST", 3)
    begun(ledger, 1, 900)
    for uid in range(1, 11):
        read(ledger, uid, 800)
    read(ledger, 11, 1)
    jobs(ledger).forget_ordinary()
    assert kept(ledger) == [11]
    assert new(ledger, dict.fromkeys(range(1, 11), 800.0) | {11: 1}) == []


# ------------------------------------------------------------------ decided reviews


def decided(it: Books, ago: float | None, words: str = "stop, I think", received: float = 9000) -> int:
    with write(it.ledger, NOW - days(received), "test") as w:
        number = queued(w, sender=str(ANN), addresses=[str(ANN)], rules=["h-odd"], words=words, excerpt="Subject: x")
    if ago is not None:
        with write(it.ledger, NOW - days(ago), "test") as w:
            item = incoming.review(w.db, number)
            assert item is not None
            incoming.decide(w, item, False, "a question")
    return number


def items(it: Books) -> list[incoming.Item]:
    with it.ledger.connect() as db:
        return incoming.reviews(db, None)


def test_what_a_doubtful_message_said_goes_some_time_after_the_decision(ledger: Books) -> None:
    decided(ledger, 91)
    decided(ledger, 89)
    decided(ledger, None)
    jobs(ledger).forget_reviews()
    old, *others = items(ledger)
    assert (old.sender, old.addresses, old.words, old.excerpt) == ("", (), "", "")
    assert (old.state, old.rules, old.note) == ("rejected", ("h-odd",), "a question")
    assert [(i.sender, i.words, i.excerpt) for i in others] == [(str(ANN), "stop, I think", "Subject: x")] * 2


def test_a_message_whose_words_are_gone_is_not_queued_a_second_time(ledger: Books) -> None:
    """`replay --apply --reviews` over the same archive, a year later."""
    decided(ledger, 91)
    jobs(ledger).forget_reviews()
    with ledger.ledger.connect() as db:
        assert incoming.was_queued(db, NOW - days(9000), str(ANN), "stop, I think")
        assert not incoming.was_queued(db, NOW - days(8999), str(ANN), "stop, I think")
        assert not incoming.was_queued(db, None, str(ANN), "stop, I think")
