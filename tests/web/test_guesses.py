"""Who guesses waits; who sits at the machine is not kept out by a crowd elsewhere."""

from __future__ import annotations

import asyncio
import time

import pytest

from daemon.web.console import guesses
from daemon.web.console.guesses import CROWD, FAILURES, QUEUE, SECONDS, Guesses, TooMany


async def tried(of: Guesses, client: str) -> None:
    """A wrong password."""
    async with of.turn(client):
        pass


async def test_ten_in_a_minute_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    of = Guesses()
    for _ in range(FAILURES):
        assert not of.too_many("203.0.113.1")
        await tried(of, "203.0.113.1")
    assert of.too_many("203.0.113.1")
    assert not of.too_many("203.0.113.2")
    clock[0] += SECONDS + 1
    assert not of.too_many("203.0.113.1")


async def test_whoever_has_an_ipv6_network_has_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    of = Guesses()
    for n in range(FAILURES):
        await tried(of, f"2001:db8:1:2::{n + 1:x}")
    assert of.too_many("2001:db8:1:2:ffff::1")
    assert not of.too_many("2001:db8:1:3::1")


async def test_a_hundred_at_once_are_a_hundred() -> None:
    of = Guesses()
    async with asyncio.TaskGroup() as group:
        for _ in range(FAILURES):
            group.create_task(tried(of, "203.0.113.1"))
    assert of.too_many("203.0.113.1")


async def test_a_crowd_gets_its_turns_slowly_and_the_operator_at_the_machine_does_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    of = Guesses()
    monkeypatch.setattr(asyncio, "sleep", sleep)
    for n in range(CROWD):
        await tried(of, f"198.51.100.{n}")
    assert slept == []
    await tried(of, "203.0.113.1")
    assert slept == [guesses.SLOWLY]
    await tried(of, "127.0.0.1")
    await tried(of, "::1")
    assert len(slept) == 1


async def test_when_too_many_wait_the_next_is_told_so_but_not_who_is_here() -> None:
    of = Guesses()
    going = asyncio.Event()

    async def slow(client: str) -> None:
        async with of.turn(client):
            await going.wait()

    waiting = [asyncio.create_task(slow(f"198.51.100.{n}")) for n in range(QUEUE)]
    await asyncio.sleep(0)
    with pytest.raises(TooMany):
        await tried(of, "203.0.113.1")
    async with asyncio.timeout(1):
        await tried(of, "127.0.0.1")
    going.set()
    await asyncio.gather(*waiting)
    await tried(of, "203.0.113.1")


async def test_what_is_remembered_of_clients_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "_MOST_CLIENTS", 50)
    of = Guesses()
    for n in range(200):
        await tried(of, f"2001:db8:{n:x}::1") if n < 99 else await tried(of, "127.0.0.1")
    assert len(of._tries) <= 50


async def test_who_knew_the_password_is_forgiven_only_that_try() -> None:
    of = Guesses()
    for _ in range(FAILURES):
        await tried(of, "203.0.113.1")
    of.forgive("203.0.113.1")
    assert not of.too_many("203.0.113.1")
    await tried(of, "203.0.113.1")
    assert of.too_many("203.0.113.1")
