"""Many bad links from one place wait and are sent away; a good one never does, whatever its neighbours do."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.web import badlinks
from daemon.web.badlinks import AT_ONCE, NETWORKS, PATIENCE_SECONDS, SECONDS_EACH, BadLinks, network_of
from tests.ledgers import Books
from tests.web.support import Door, context, door


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_some_are_answered_at_once_some_wait_and_the_rest_is_sent_away() -> None:
    clock = Clock()
    bad_links = BadLinks(clock)
    assert [bad_links.delay("192.0.2.1") for _ in range(AT_ONCE)] == [0.0] * AT_ONCE
    waits = [bad_links.delay("192.0.2.1") for _ in range(AT_ONCE)]
    late = [w for w in waits if w is not None]
    assert late == pytest.approx([SECONDS_EACH * n for n in range(1, len(late) + 1)])
    assert max(late) <= PATIENCE_SECONDS
    assert waits[-1] is None
    clock.now += 2 * SECONDS_EACH  # who was sent away is not counted: place comes by itself
    assert bad_links.delay("192.0.2.1") is not None
    clock.now += 3600
    assert bad_links.delay("192.0.2.1") == 0


def test_a_network_pays_and_no_other() -> None:
    bad_links = BadLinks(Clock())
    for number in range(AT_ONCE * 3):
        bad_links.delay(f"192.0.2.{number % 256}")
    assert bad_links.delay("192.0.2.77") is None
    assert bad_links.delay("192.0.3.77") == 0


@pytest.mark.parametrize(
    ("client", "network"),
    [("192.0.2.77", "192.0.2.0/24"), ("2001:db8:1:2::5", "2001:db8:1::/48"), ("", ""), ("unknown", "")],
)
def test_whose_doing_it_is_taken_for(client: str, network: str) -> None:
    assert network_of(client) == network


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1)), max_size=300))
def test_nobody_waits_longer_than_we_say(asked: list[tuple[int, float]]) -> None:
    clock = Clock()
    bad_links = BadLinks(clock)
    for client, later in asked:
        clock.now += later
        wait = bad_links.delay(f"192.0.{client}.1")
        assert wait is None or 0 <= wait <= PATIENCE_SECONDS


def test_it_remembers_so_many_networks_and_no_more() -> None:
    bad_links = BadLinks(Clock())
    for number in range(NETWORKS + 500):
        bad_links.delay(f"10.{number >> 8}.{number & 255}.1")
    assert len(bad_links._full_at) == NETWORKS


def test_whoever_goes_on_is_not_forgotten_for_others() -> None:
    bad_links = BadLinks(Clock())
    for number in range(NETWORKS * 2):
        bad_links.delay("192.0.2.1")
        bad_links.delay(f"10.{number >> 8}.{number & 255}.1")
    assert bad_links.delay("192.0.2.1") is None


async def test_only_so_many_wait_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(badlinks, "WAITING", 3)
    monkeypatch.setattr(badlinks, "AT_ONCE", 1)
    bad_links = BadLinks()
    answers = await asyncio.gather(*(bad_links.wait("192.0.2.1") for _ in range(10)))
    assert answers == [True] * 4 + [False] * 6
    assert bad_links._waiting == 0


def test_a_good_link_is_served_while_bad_ones_are_sent_away(web: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(badlinks, "AT_ONCE", 2)
    monkeypatch.setattr(badlinks, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(badlinks, "SECONDS_EACH", 60.0)
    assert [web.ask("GET", f"/{page}/bad").status for page in ("u", "p", "undo")] == [400, 400, 429]
    refused = web.ask("POST", "/u/bad")
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) > 0
    assert "support@quillpdf.example" in refused.body  # a person is told all the same whom to write to
    began = time.monotonic()
    assert web.ask("GET", f"/u/{web.token()}").status == 200
    assert web.post(web.token()).status == 200
    assert web.ask("GET", "/healthz").status == 200
    assert time.monotonic() - began < 2


def test_it_is_the_client_behind_our_proxy_who_pays(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(badlinks, "AT_ONCE", 1)
    monkeypatch.setattr(badlinks, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(badlinks, "SECONDS_EACH", 60.0)
    with door(ledger, context(ledger, trusted_proxies=("127.0.0.0/8", "::1"))) as web:
        for client, status in (("192.0.2.1", 400), ("192.0.2.1", 429), ("198.51.100.1", 400)):
            assert web.ask("GET", "/u/bad", f"X-Forwarded-For: 203.0.113.5, {client}").status == status
