"""The canary on a real Dovecot: it goes the way of a request, and nothing is left of it, whatever comes between."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from imapclient import IMAPClient
from imapclient.exceptions import IMAPClientError

from daemon import metrics
from daemon.gate import Answer, Pass, Unknown
from daemon.intake import Done, Envelope, Intake
from daemon.mail import canary
from daemon.mail.reading import Ordinary, Reading
from daemon.mail.triage import read
from daemon.mailbox.canary import Rhythm
from daemon.mailbox.means import Means
from daemon.mailbox.session import Session
from storage import audit, brake, canaries, hooks, sights
from storage.address import Address, SiteKey, parse
from storage.canaries import State
from storage.terms import seconds
from storage.write import write
from tests.mailbox.canaries import (
    NOW,
    Logged,
    count,
    failed,
    is_lifted_again,
    make_due,
    nothing_is_left,
    passed,
    rows,
    state,
)
from tests.mailbox.support import HOUSE, QUESTION, Support, mail

pytestmark = [pytest.mark.dovecot, pytest.mark.usefixtures("at_once")]


# ------------------------------------------------------------------ as it should be


def test_it_goes_the_way_of_a_request_and_nothing_is_left(support: Support, logged: Logged) -> None:
    with support.watching():
        support.until(lambda: passed(support))
    nothing_is_left(support)
    found = state(support)
    assert found is not None
    assert found.run is not None
    assert found.result is not None
    assert found.due == found.run.began + 86_400
    steps = ["append", "noticed", "read", "committed", "refused", "removed"]
    assert sorted(found.result.seconds, key=found.result.seconds.__getitem__) == steps
    assert found.result.seconds["removed"] < 15
    with support.books.ledger.reading() as db:
        done = [tuple(r) for r in db.exec_driver_sql("SELECT actor, event, source FROM audit ORDER BY seq")]
        audit.verify(db, support.books.ledger.site_key)
    assert done == [("canary", "suppressed", "mail"), ("canary", "lifted", "mail")]
    told = Counter(line["event"] for line in logged())
    assert told["canary_passed"] == 1
    assert not told.keys() & {"message_read", "opt_out_recorded", "suppression_lifted", "canary_failed", "failed"}


def test_a_helpdesk_that_asks_for_what_is_unread_never_sees_it(support: Support) -> None:
    support.dovecot.append("support", mail("bob@example.com", QUESTION, subject="q"))
    before = support.messages()
    unseen, seen, stop = set[int](), set[int](), threading.Event()

    def poll() -> None:
        with support.dovecot.connect("support") as client:
            client.select_folder("INBOX", readonly=True)
            while not stop.is_set():
                client.noop()
                seen.update(client.search())
                unseen.update(client.search(["UNSEEN"]))

    helpdesk = threading.Thread(target=poll)
    helpdesk.start()
    try:
        for n in range(5):
            with support.watching():
                support.until(partial(is_lifted_again, support, n))
            make_due(support)
    finally:
        stop.set()
        helpdesk.join()
    assert unseen == {1}
    assert len(seen) > 1, "the helpdesk has not looked often enough for this to say anything"
    assert support.messages() == before


def test_once_a_day_whoever_starts(support: Support) -> None:
    with support.watching():
        support.until(lambda: passed(support))
    for _ in range(2):
        with support.watching() as watcher:
            support.until(lambda: watcher.connected)
            time.sleep(1.2)  # a round
    assert count(support, "suppressed") == 1
    make_due(support)
    with support.watching():
        support.until(lambda: count(support, "lifted") == 2)
    nothing_is_left(support)


def test_the_first_is_sent_some_minutes_after_the_first_start(support: Support) -> None:
    support.rhythm = Rhythm()
    began = seconds(datetime.now(UTC))
    with support.watching():
        support.until(lambda: state(support))
    found = state(support)
    assert found is not None
    assert 600 <= found.due - began <= 920
    assert found.run is None


def test_a_clock_that_was_set_back_does_not_silence_it(support: Support) -> None:
    now = seconds(datetime.now(UTC))
    with write(support.books.ledger, datetime.now(UTC), "test") as w:
        canaries.put(w, "support", State(first=now, due=now + 400 * 86_400))
    with support.watching():
        support.until(lambda: passed(support))


# ------------------------------------------------------------------ it is nobody


@pytest.mark.parametrize("options", [{"trusted_only": True}, {"processed_folder": ""}, {"machine_folder": "Machines"}])
def test_in_every_kind_of_mailbox(support: Support, options: dict[str, Any]) -> None:
    support.options |= options
    with support.watching():
        support.until(lambda: passed(support))
    nothing_is_left(support)


@pytest.mark.parametrize("authserv_id", ["", "mx.quillpdf.example"])
def test_neither_brake_nor_allowance_hold_it_up_and_it_takes_nothing_from_them(
    support: Support, authserv_id: str
) -> None:
    house = HOUSE.model_copy(update={"authserv_id": authserv_id})
    none_at_all = Intake(support.books.ledger, house, support.books.numbers).allowance.model_copy(
        update={"unproven_per_hour": 0}
    )
    support.reader = lambda raw: read(raw, house)
    support.means_of = lambda means: dataclasses.replace(
        means, intake=Intake(support.books.ledger, house, support.books.numbers, allowance=none_at_all, notices=True)
    )
    with write(support.books.ledger, datetime.now(UTC), "test") as w:
        brake.set_to(w, ["unproven", "bounces", "complaints"], [], "test")
    with support.watching():
        support.until(lambda: passed(support))
    nothing_is_left(support)


def test_webhooks_and_counts_hear_nothing_of_it(support: Support) -> None:
    before = list(metrics.intake_messages.samples())
    with support.watching():
        support.until(lambda: passed(support))
    assert metrics.intake_messages.samples() == before
    assert not sights.opt_outs(support.books.ledger, datetime.now(UTC), 2).of
    support.books.suppress("ann@example.com")
    with support.books.ledger.reading() as db:
        facts, last = hooks.window(db, 0, 99)
        waiting = hooks.waiting(db, 0)
    assert [(f.actor, f.event) for f in facts] == [("test", "suppressed")]
    assert last == 99
    assert [(event, number) for event, _, number in waiting] == [("suppressed", 1)]


@pytest.mark.parametrize("options", [{"observe": True}, {"canary": False}, {"role": "bounces"}])
def test_where_it_is_not_wanted_there_is_none(support: Support, options: dict[str, Any]) -> None:
    with write(support.books.ledger, datetime.now(UTC), "test") as w:
        canaries.put(w, "support", State(first=1, due=0, passed=1))
    support.options |= options
    with support.watching() as watcher:
        support.until(lambda: watcher.connected)
        time.sleep(1.2)
    assert state(support) is None
    assert not support.subjects()
    assert rows(support, "SELECT count(*) FROM audit") == 0


def test_a_server_that_cannot_remove_one_message_gets_none(
    support: Support, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    has = IMAPClient.has_capability
    monkeypatch.setattr(IMAPClient, "has_capability", lambda self, name: name != "UIDPLUS" and has(self, name))
    with support.watching():
        support.until(lambda: (found := state(support)) and found.skipped)
    assert [line["event"] for line in logged() if "canary" in line["event"]] == ["canary_skipped"]
    assert not support.subjects()
    found = state(support)
    assert found is not None
    assert found.run is None
    assert found.due > seconds(datetime.now(UTC))


# ------------------------------------------------------------------ forged


@pytest.mark.parametrize("whose", ["another house", "another day", "another address", "no token"])
def test_a_forged_one_is_a_message_like_any_other(support: Support, whose: str) -> None:
    site_key, now = support.books.ledger.site_key, datetime.now(UTC)
    if whose == "another house":
        raw = canary.compose(SiteKey((bytes(32),)), HOUSE, now, bytes(15)).raw
    elif whose == "another day":
        raw = canary.compose(site_key, HOUSE, now - timedelta(days=1), bytes(15)).raw
    elif whose == "another address":
        raw = canary.compose(site_key, HOUSE, now, bytes(15)).raw.replace(b"canary-aaaa", b"canary-bbbb")
    else:
        raw = canary.compose(site_key, HOUSE, now, bytes(15)).raw.replace(b"X-Optoutd-Canary", b"X-Other")
    address = next(a for a in raw.decode().split("<") if a.startswith("canary")).partition(">")[0]
    with support.watching():
        support.until(lambda: passed(support))
        support.dovecot.append("support", raw)
        support.until(lambda: support.subjects("Opt-outs") == ["optoutd self-test: unsubscribe"])
    assert support.suppressed(address)
    assert passed(support)


# ------------------------------------------------------------------ it fails


def with_ask(answer: Callable[[Address], Answer]) -> Callable[[Means], Means]:
    return lambda means: dataclasses.replace(means, ask=answer)


class _DoesNothing(Intake):
    """Says that all is well."""

    def act(self, reading: Reading, envelope: Envelope, now: datetime) -> Done:
        return super().act(Ordinary(()), envelope, now)


def broken(support: Support, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise IMAPClientError(f"{step} failed: no right to")

    if step == "append":
        monkeypatch.setattr(IMAPClient, "append", refused)
    elif step == "noticed":
        support.rhythm = dataclasses.replace(NOW, patience=0.5)
        monkeypatch.setattr(Session, "append", lambda *_: None)
    elif step == "read":
        support.reader = lambda raw: Ordinary(("2-ordinary",))
    elif step == "committed":
        support.means_of = lambda means: dataclasses.replace(
            means, intake=_DoesNothing(means.intake.ledger, HOUSE, means.intake.numbers)
        )
    elif step == "refused":
        support.means_of = with_ask(lambda _: Pass())
    else:
        monkeypatch.setattr(IMAPClient, "uid_expunge", refused)


@pytest.mark.parametrize("step", ["append", "noticed", "read", "committed", "refused", "removed"])
def test_each_step_that_fails_is_told_and_the_rest_is_taken_back(
    support: Support, step: str, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    with monkeypatch.context() as patch:
        broken(support, step, patch)
        with support.watching() as watcher:
            support.until(lambda: failed(support))
            assert watcher.connected
        told = [line for line in logged() if line["event"].startswith("canary")]
    result, found = failed(support), state(support)
    assert result is not None
    assert found is not None
    assert [(line["event"], line["step"], line["mailbox"]) for line in told] == [("canary_failed", step, "support")]
    assert result.step == step
    assert result.why
    assert found.due >= result.at + 3600
    assert found.failed is not None
    assert rows(support, "SELECT count(*) FROM suppression") == 0
    if step != "removed":
        nothing_is_left(support)
    support.means_of, support.reader, support.rhythm = (lambda means: means), (lambda raw: read(raw, HOUSE)), NOW
    make_due(support)
    with support.watching():
        support.until(lambda: passed(support))
    assert not support.subjects()
    nothing_is_left(support)
    found = state(support)
    assert found is not None
    assert found.failed is None


def test_where_one_cannot_be_removed_there_is_no_second(support: Support, monkeypatch: pytest.MonkeyPatch) -> None:
    """One an hour would fill somebody's inbox in the time until a person sees the alarm."""
    with monkeypatch.context() as patch:
        broken(support, "removed", patch)
        with support.watching():
            support.until(lambda: failed(support))
        for _ in range(2):
            make_due(support)
            with support.watching():
                support.until(lambda: (found := state(support)) is not None and found.due > 0 and not found.open)
    found = state(support)
    assert found is not None
    assert found.left
    assert found.failed is not None
    assert found.due > seconds(datetime.now(UTC)) + 3000
    assert len(support.subjects()) == 1
    make_due(support)
    with support.watching():
        support.until(lambda: passed(support))
    nothing_is_left(support)


def test_a_gate_that_cannot_tell_has_not_refused(support: Support) -> None:
    support.means_of = with_ask(lambda _: Unknown("disk I/O error"))
    with support.watching():
        support.until(lambda: failed(support))
    result = failed(support)
    assert result is not None
    assert (result.step, result.why) == ("refused", "the gate cannot tell: disk I/O error")


def test_a_refusal_for_another_reason_is_none(support: Support) -> None:
    def for_another(address: Address) -> Answer:
        return support.ask(parse("ann@example.com"))

    support.books.suppress("ann@example.com")
    support.means_of = with_ask(for_another)
    with support.watching():
        support.until(lambda: failed(support))
    result = failed(support)
    assert result is not None
    assert result.step == "refused"
    assert "not for this request" in result.why
