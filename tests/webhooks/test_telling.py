"""Changes of the list, told to a real server: in order, at least once, and not for ever."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from daemon.webhooks import teller as of_teller
from storage import hooks, people, suppressions
from storage.address import parse
from storage.terms import ALL, Reason
from storage.write import write
from tests.loopback import free_port
from tests.webhooks.conftest import Hooks, hook
from tests.webhooks.receiver import Receiver, raw, receiver, until

ANN, BOB = "ann@customer.example", "bob@customer.example"


def refusing(times: int, status: int = 500) -> Any:
    """Say no so many times, then yes."""
    left = [status] * times
    return lambda change: left.pop() if left else 204


def test_each_change_is_told_once_in_order_and_signed(at: Hooks, crm: Receiver) -> None:
    at.books.suppress("before@customer.example")
    at.start(hook(crm))
    until(at.has_begun)
    at.books.suppress(ANN, "offers")
    at.books.suppress(BOB, reason=Reason.HARD_BOUNCE)
    at.books.suppress(ANN, reason=Reason.COMPLAINT)
    crm.until(lambda: len(crm.heard) == 3)
    at.books.lift(BOB)
    at.books.suppress("@spam.example", reason=Reason.OPERATOR)
    crm.until(lambda: len(crm.heard) == 5)
    until(lambda: at.place().reached == 6)
    assert [(c["type"], c["address"], c["scope"], c["reason"], c["suppressed"]) for c in crm.heard] == [
        ("opt-out", ANN, "list:offers", "opt-out", True),
        ("bounce", BOB, "all", "hard-bounce", True),
        ("complaint", ANN, "all", "complaint", True),
        ("lift", BOB, "all", "hard-bounce", False),
        ("operator", "@spam.example", "all", "operator", True),
    ]
    assert crm.ids == [f"crm-{seq}" for seq in range(2, 7)]
    first = crm.heard[0]
    assert list(first) == "id type at address key scope suppressed reason source ref".split()
    assert len(bytes.fromhex(first["key"])) == 16
    assert (first["source"], first["at"][-1]) == ("operator", "Z")
    assert crm.wrong == []
    assert at.told("hook_told") == [("crm", seq) for seq in range(2, 7)]


def test_a_hook_is_told_only_of_what_it_wants_to_know(at: Hooks, crm: Receiver) -> None:
    at.begin("crm")
    at.start(hook(crm, events=frozenset({"lift", "complaint"})))
    at.books.suppress(ANN)
    at.books.suppress(BOB, reason=Reason.COMPLAINT)
    at.books.lift(ANN)
    crm.until(lambda: len(crm.heard) == 2)
    assert [c["type"] for c in crm.heard] == ["complaint", "lift"]


def test_a_list_that_is_wanted_again_is_a_lift_and_that_it_is_not_any_more_an_opt_out(at: Hooks, crm: Receiver) -> None:
    at.books.suppress(ANN)
    at.begin("crm")
    offers = at.books.numbers["offers"]
    with write(at.books.ledger, at.clock(), "test") as w:
        suppressions.add(w, parse(ANN), offers, Reason.WANTED, "operator", {})
    at.start(hook(crm))
    crm.until(lambda: crm.heard)
    at.clock.on(seconds=5)
    with write(at.books.ledger, at.clock(), "test") as w:
        suppressions.add(w, parse(ANN), ALL, Reason.OPT_OUT, "mail", {})
    crm.until(lambda: len(crm.heard) == 2)
    assert [(c["type"], c["scope"], c["reason"], c["suppressed"]) for c in crm.heard] == [
        ("lift", "list:offers", "wanted", False),
        ("opt-out", "list:offers", "wanted", True),
    ]


def test_a_forgotten_person_is_told_without_the_address(at: Hooks, crm: Receiver) -> None:
    at.begin("crm")
    at.books.suppress(ANN)
    people.erase_everywhere(at.books.ledger, parse(ANN), at.clock(), "test")
    at.start(hook(crm))
    crm.until(lambda: crm.heard)
    (change,) = crm.heard
    assert (change["address"], change["type"], change["suppressed"]) == (None, "opt-out", True)


def test_what_fails_is_tried_again_and_nothing_overtakes_it(
    at: Hooks, crm: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_teller, "_RETRY", (0.0, 0.0))
    at.begin("crm")
    crm.answer = refusing(3, 503)
    at.books.suppress(ANN)
    at.books.suppress(BOB)
    at.start(hook(crm))
    until(lambda: at.told("hook_recovered") and at.place().reached == 2)  # told after the commit that the place shows
    assert at.told("hook_recovered") == [("crm", 3)]
    assert crm.addresses() == [ANN, ANN, ANN, ANN, BOB]
    assert crm.ids == ["crm-1"] * 4 + ["crm-2"]
    assert [(name, why) for name, why, _ in at.told("hook_failed")] == [("crm", "HTTP 503")] * 3
    assert (at.place().failures, at.place().trouble) == (0, "")


def test_the_waits_double_up_to_an_hour() -> None:
    waits = [of_teller._wait(failures) for failures in range(14)]
    for wait, longest in zip(
        waits, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600, 3600], strict=True
    ):
        assert 0.8 * longest <= wait <= longest


def test_a_restart_goes_on_with_the_wait(at: Hooks, crm: Receiver) -> None:
    at.begin("crm")
    crm.answer = refusing(1)
    at.books.suppress(ANN)
    first = at.start(hook(crm))
    until(lambda: at.place().failures == 1)
    first.stop()
    at.start(hook(crm))
    time.sleep(0.2)
    assert len(crm.heard) == 1
    at.clock.on(seconds=6)
    until(lambda: at.place().reached == 1)
    assert crm.ids == ["crm-1", "crm-1"]
    assert at.place().failures == 0


def test_a_dead_hook_delays_no_other(at: Hooks, crm: Receiver) -> None:
    at.begin("crm", "shop")
    at.start(hook(f"http://127.0.0.1:{free_port()}/", "shop"), hook(crm))
    for number in range(20):
        at.books.suppress(f"{number}@customer.example")
    crm.until(lambda: len(crm.heard) == 20)
    until(lambda: at.place("shop").failures >= 1)
    assert at.place("shop").reached == 0
    assert at.place("shop").trouble == "not reached: Connection refused"


def test_what_could_not_be_told_for_three_days_waits_for_somebody(at: Hooks, crm: Receiver) -> None:
    """Each change that a receiver refuses is tried; the hook goes on behind it."""
    at.begin("crm")
    crm.answer = lambda change: 422 if change["address"] == ANN else 204
    at.books.suppress(ANN)
    at.books.suppress(BOB)
    at.start(hook(crm))
    for failures in range(1, of_teller._TRIES):
        at.until_failed(failures)
        assert at.untold() == []
        at.clock.on(days=3.1 if failures == of_teller._TRIES - 1 else 0.05)
    until(lambda: at.place().reached == 2)
    assert [(x.change.seq, x.trouble) for x in at.untold()] == [(1, "HTTP 422")]
    assert crm.addresses() == [ANN] * of_teller._TRIES + [BOB]
    assert at.told("hook_gave_up") == [("crm", 1, "HTTP 422")]
    assert at.place().failures == 0


def test_while_nobody_answers_all_that_is_old_is_given_up_at_once(at: Hooks) -> None:
    at.begin("crm")
    for number in range(30):
        at.books.suppress(f"{number}@customer.example")
    with write(at.books.ledger, at.clock(), "test") as w:
        hooks.failed(w, "crm", 0, of_teller._TRIES, at.clock(), "not reached")
    at.clock.on(days=3, minutes=1)
    with write(at.books.ledger, at.clock(), "test") as w:  # a young one
        suppressions.add(w, parse(ANN), ALL, Reason.OPT_OUT, "mail", {})
    at.start(hook(f"http://127.0.0.1:{free_port()}/"))
    until(lambda: at.place().failures == of_teller._TRIES + 1)
    assert len(at.untold()) == 30
    assert at.place().reached == 30
    assert at.place().due > at.clock().timestamp() + 2800


def test_after_a_long_stop_of_ours_what_is_old_is_told_all_the_same(at: Hooks, crm: Receiver) -> None:
    at.begin("crm")
    at.books.suppress(ANN)
    at.clock.on(days=30)
    crm.answer = refusing(1)
    at.start(hook(crm))
    until(lambda: at.place().failures == 1)
    at.clock.on(seconds=6)
    until(lambda: at.place().reached == 1)
    assert at.untold() == []


def given_up(at: Hooks, *addresses: str) -> list[int]:
    at.begin("crm")
    for address in addresses:
        at.books.suppress(address)
    with at.books.ledger.connect() as db:
        changes, last = hooks.window(db, 0, len(addresses))
    with write(at.books.ledger, at.clock(), "test") as w:
        hooks.give_up(w, "crm", changes, "HTTP 500")
        hooks.failed(w, "crm", last, 50, at.clock().replace(year=2050), "HTTP 500")
    return [x.id for x in at.untold()]


def test_what_somebody_wants_sent_again_is_sent_before_what_is_new(at: Hooks, crm: Receiver) -> None:
    first, _ = given_up(at, ANN, BOB)
    at.books.suppress("new@customer.example")
    at.start(hook(crm))
    time.sleep(0.1)
    assert crm.heard == []
    with write(at.books.ledger, at.clock(), "test") as w:
        hooks.again(w, [first])
    crm.until(lambda: len(crm.heard) == 2)
    assert crm.addresses() == [ANN, "new@customer.example"]
    assert crm.ids[0] == "crm-1"
    until(lambda: at.place().reached == 4)
    assert [x.change.seq for x in at.untold()] == [2]
    until(lambda: at.place().due != 0)


def test_what_is_refused_again_keeps_nothing_back(at: Hooks, crm: Receiver) -> None:
    numbers = given_up(at, ANN, BOB)
    crm.answer = lambda change: 422 if change["address"] == ANN else 204
    with write(at.books.ledger, at.clock(), "test") as w:
        hooks.again(w, numbers)
    at.start(hook(crm))
    crm.until(lambda: BOB in crm.addresses())
    until(lambda: [x.trouble for x in at.untold()] == ["HTTP 422"])
    assert crm.addresses() == [ANN, BOB]


def test_what_is_to_be_sent_again_waits_for_a_receiver_that_is_not_there(at: Hooks) -> None:
    numbers = given_up(at, ANN)
    with write(at.books.ledger, at.clock(), "test") as w:
        hooks.again(w, numbers)
    port = free_port()
    at.start(hook(f"http://127.0.0.1:{port}/hook?of=optoutd"))
    until(lambda: at.place().failures == 51)
    assert [x.trouble for x in at.untold()] == [""]
    with receiver(port=port) as crm:
        at.clock.on(hours=2)
        crm.until(lambda: crm.addresses() == [ANN])
        until(lambda: at.untold() == [] and at.place().failures == 0)


def test_stopping_does_not_wait_for_a_receiver_that_hangs(at: Hooks) -> None:
    ended = threading.Event()
    heard = threading.Event()

    def hang(connection: socket.socket) -> None:
        connection.recv(65536)
        heard.set()
        ended.wait(20)

    at.begin("crm")
    at.books.suppress(ANN)
    with raw(hang) as url:
        tellers = at.start(hook(url))
        assert heard.wait(10)
        began = time.monotonic()
        tellers.stop()
        assert time.monotonic() - began < 3.5
        ended.set()
    place = at.place()
    assert (place.reached, place.failures) == (0, 0), "it was we who hung up"


def test_a_ledger_that_is_away_is_waited_for(at: Hooks, crm: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_teller, "_AWAY_SECONDS", 0.02)
    at.begin("crm")
    file = at.books.ledger.path
    at.books.ledger.close()
    file.rename(file.with_name("away"))
    at.start(hook(crm))
    until(lambda: at.told("database_unavailable"))
    file.with_name("away").rename(file)
    at.books.suppress(ANN)
    crm.until(lambda: crm.addresses() == [ANN])


def test_what_was_told_but_not_written_down_is_not_told_again_by_the_same_process(
    at: Hooks, crm: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from storage.engine import Unavailable

    monkeypatch.setattr(of_teller, "_AWAY_SECONDS", 0.02)
    at.begin("crm")
    real, full = hooks.went_well, [True]

    def went_well(*of: Any, **more: Any) -> None:
        if full[0]:
            raise Unavailable("the disk is full")
        real(*of, **more)

    monkeypatch.setattr(hooks, "went_well", went_well)
    at.books.suppress(ANN)
    at.start(hook(crm))
    until(lambda: at.told("database_unavailable"))
    time.sleep(0.2)
    assert crm.addresses() == [ANN]
    full[0] = False
    at.books.suppress(BOB)
    until(lambda: at.place().reached == 2)
    assert crm.addresses() == [ANN, BOB]


def test_rows_of_which_no_hook_is_told_cost_no_writing(
    at: Hooks, crm: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_teller, "_LAZY", 5)
    at.begin("crm")
    at.start(hook(crm, events=frozenset({"complaint"})))
    for number in range(4):
        at.books.suppress(f"{number}@customer.example")
    time.sleep(0.2)
    assert at.place().reached == 0
    at.books.suppress(ANN)
    until(lambda: at.place().reached == 5)
    assert crm.heard == []


def test_after_a_restore_under_a_running_hook_nothing_new_is_left_out(at: Hooks, crm: Receiver) -> None:
    """Audit numbers are given a second time."""
    at.begin("crm")
    at.start(hook(crm))
    at.books.suppress(ANN)
    until(lambda: at.place().reached == 1)
    path = at.books.ledger.path
    backup = path.with_name("backup.db")
    with at.books.ledger.connect() as db:
        db.exec_driver_sql("VACUUM INTO ?", (str(backup),))
    for number in range(5):
        at.books.suppress(f"lost{number}@customer.example")
    until(lambda: at.place().reached == 6)
    for name in ("", "-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)
    backup.rename(path)
    at.books.suppress(BOB)
    crm.until(lambda: [c["address"] for c in crm.heard[6:]] == [BOB])
    until(lambda: at.place().reached == 2)
