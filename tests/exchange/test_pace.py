"""How much goes into one transaction of an import, and how long it leaves others the turn."""

from __future__ import annotations

import pytest

from daemon.exchange import pace


def no_wait(_: float) -> None:
    """Time is a fake here."""


@pytest.mark.parametrize(
    ("alone", "took", "rows"),
    [(False, 0.05, 5000), (False, 0.2, 2500), (False, 0.01, 5000), (True, 0.1, 50_000), (True, 2.0, 25_000)],
)
def test_a_slow_disk_gets_smaller_transactions(
    alone: bool, took: float, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("daemon.exchange.pace.time.monotonic", lambda: clock[0])
    it = pace.Pace(lambda: alone, no_wait)
    with it.turn():
        clock[0] += took
    assert it.rows == rows


@pytest.mark.parametrize(
    ("alone", "took", "gap"), [(False, 0.05, 0.03), (False, 0.15, 0.055), (False, 1, 0.105), (True, 1, 0)]
)
def test_the_gap_is_as_long_as_the_longest_pause_between_two_looks_of_those_who_wait(
    alone: bool, took: float, gap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, waited = [0.0], list[float]()
    monkeypatch.setattr("daemon.exchange.pace.time.monotonic", lambda: clock[0])
    it = pace.Pace(lambda: alone, waited.append)
    with it.turn():
        clock[0] += took
    clock[0] += 0.01  # reading the next rows
    with it.turn():
        pass
    assert sum(waited) == pytest.approx(max(gap - 0.01, 0))


def test_it_is_fast_only_as_long_as_nobody_minds(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [True]
    it = pace.Pace(lambda: alone[0], no_wait)
    assert it.rows == pace.ALONE
    alone[0] = False
    with it.turn():
        pass
    assert it.rows == pace.BESIDE_OTHERS


def test_where_writers_queue_nobody_needs_a_gap() -> None:
    waited: list[float] = []
    it = pace.Pace(lambda: False, waited.append, queues=True)
    for _ in range(3):
        with it.turn():
            pass
    assert waited == []
    assert pace.BESIDE_OTHERS < it.rows <= pace.IN_A_QUEUE
