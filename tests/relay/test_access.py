"""Who may send, as whom; and how guessing is slowed without hurting those who only mistyped."""

from __future__ import annotations

import hashlib
import hmac
import tracemalloc
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.relay import access
from daemon.relay.access import MAX_FAILURES, MAX_NETWORKS, WINDOW, Brake, Credentials, Policy
from storage.address import NotAnAddress


def policy(*senders: str, credential: str = "") -> Policy:
    return Policy("refuse", None, "marketing", senders, credential)


# ------------------------------------------------------------------ MAIL FROM


@pytest.mark.parametrize(
    ("senders", "mail_from", "may"),
    [
        ((), "anybody@anywhere.example", True),
        ((), "not an address", True),  # the syntax is for envelope.py to judge
        (("example.com",), "news@example.com", True),
        (("example.com",), "news@EXAMPLE.Com.", True),
        (("Example.COM",), "news@example.com", True),
        (("example.com",), "news@mail.eu.example.com", True),
        (("example.com",), "news@notexample.com", False),
        (("example.com",), "news@example.com.evil.example", False),
        (("mail.example.com",), "news@example.com", False),
        (("example.com", "example.org"), "news@example.org", True),
        (("example.com",), "", True),  # the null sender
        (("bücher.example",), "news@xn--bcher-kva.example", True),
        (("xn--bcher-kva.example",), "news@BÜCHER.example", True),
        (("xn--bcher-kva.example",), "news@post.bücher.example", True),
        (("bücher.example",), "news@bucher.example", False),
        (("example.com",), '"news@example.com"@evil.example', False),
        (("example.com",), "news@evil.example@example.com", False),  # no address at all
        (("example.com",), "news", False),
        (("example.com",), "@example.com", False),
        (("example.com",), "news@[192.0.2.1]", False),
        (("[192.0.2.1]",), "news@[192.0.2.1]", True),
        (("example.com",), "news@\udcff.example.com", False),
    ],
)
def test_who_may_stand_in_mail_from(senders: tuple[str, ...], mail_from: str, may: bool) -> None:
    assert policy(*senders).may_send_as(mail_from) is may


LABEL = st.text("abcxyz09", min_size=1, max_size=5)
DOMAIN = st.lists(LABEL, min_size=1, max_size=4).map(".".join)


@given(DOMAIN, DOMAIN)
def test_a_domain_has_its_subdomains_and_no_others(sender: str, domain: str) -> None:
    expected = domain.split(".")[-len(sender.split(".")) :] == sender.split(".")
    assert policy(sender).may_send_as(f"x@{domain}") is expected
    assert policy(sender).may_send_as(f"x@{domain}.{sender}") is True


def test_a_sender_that_is_no_domain_is_an_error_at_once() -> None:
    with pytest.raises(NotAnAddress):
        policy("example com")


# ------------------------------------------------------------------ user name and password

CRM, SHOP = policy(credential="crm"), policy("shop.example", credential="shop")


def test_whoever_knows_the_password_has_the_policy() -> None:
    known = Credentials({"crm": ("secret-1", CRM), "shop": ("secret-2", SHOP)})
    assert known.check("crm", "secret-1") is CRM
    assert known.check("shop", "secret-2") is SHOP


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("crm", "secret-2"),
        ("crm", "secret-"),
        ("crm", "secret-11"),
        ("crm", "Secret-1"),
        ("crm", ""),
        ("CRM", "secret-1"),
        ("", "secret-1"),
        ("crms", "ecret-1"),  # the border between the two counts
        ("nobody", "secret-1"),
        ("crm", "\ud800"),
    ],
)
def test_anything_else_is_nobody(username: str, password: str) -> None:
    assert Credentials({"crm": ("secret-1", CRM), "shop": ("secret-2", SHOP)}).check(username, password) is None


@given(*[st.text(max_size=8)] * 4)
def test_only_what_was_put_in_is_known(username: str, password: str, name: str, guess: str) -> None:
    known = Credentials({username or "x": (password or "x", CRM)})
    same = [unicodedata.normalize("NFC", text) for text in (username or "x", password or "x")]
    assert (known.check(name, guess) is CRM) is ([unicodedata.normalize("NFC", t) for t in (name, guess)] == same)
    assert known.check(username or "x", password or "x") is CRM


def test_how_an_accent_is_composed_does_not_count() -> None:
    known = Credentials({"andr\u00e9": ("caf\u00e9", CRM)})
    assert known.check("andre\u0301", "cafe\u0301") is CRM


def test_nobody_is_known_where_no_credential_is() -> None:
    assert not Credentials({})
    assert Credentials({}).check("crm", "") is None
    assert Credentials({"crm": ("x", CRM)})


@pytest.mark.parametrize("bad", [{"crm": ("", CRM)}, {"": ("x", CRM)}, {"\u00e9": ("x", CRM), "e\u0301": ("y", CRM)}])
def test_credentials_that_would_let_the_wrong_one_in_are_refused(bad: dict[str, tuple[str, Policy]]) -> None:
    with pytest.raises(ValueError):
        Credentials(bad)


def test_a_password_is_nowhere_to_be_read() -> None:
    known = Credentials({"crm": ("hunter2", CRM), "shop": ("hunter2", SHOP)})
    assert repr(known) == "Credentials(2)"
    kept = known._known.values()
    assert len({digest for digest, _ in kept}) == 2  # the same password of two is not the same digest
    assert "hunter2" not in repr(vars(known))
    other = Credentials({"crm": ("hunter2", CRM)})
    assert not {digest for digest, _ in kept} & {digest for digest, _ in other._known.values()}


def counted(monkeypatch: pytest.MonkeyPatch, name: str, of: Callable[..., Any], work: list[str]) -> None:
    def counting(*positional: Any, **named: Any) -> Any:
        work.append(name)
        return of(*positional, **named)

    monkeypatch.setattr(access, name, counting)


def test_an_unknown_name_is_as_much_work_as_a_wrong_password(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Credentials({f"user-{n}": (f"secret-{n}", CRM) for n in range(20)})
    work: list[str] = []
    counted(monkeypatch, "blake2b", hashlib.blake2b, work)
    counted(monkeypatch, "compare_digest", hmac.compare_digest, work)
    done = {}
    for username, password in (("user-0", "secret-0"), ("user-19", "wrong-19"), ("nobody", "secret-0"), ("", "")):
        known.check(username, password)
        done[username] = work.copy()
        work.clear()
    assert set(map(tuple, done.values())) == {("blake2b", "blake2b", "compare_digest")}


# ------------------------------------------------------------------ how many connections

THERE = "203.0.113.5"


def test_one_client_has_so_many_connections_and_no_more() -> None:
    brake = Brake(per_client=2)
    assert [brake.connected(THERE) for _ in range(4)] == [True, True, False, False]
    assert brake.connected("203.0.113.6")
    brake.disconnected(THERE)
    assert [brake.connected(THERE) for _ in range(2)] == [True, False]


def test_no_limit_is_no_limit_but_a_later_one_finds_the_count() -> None:
    brake = Brake(per_client=0)
    assert all(brake.connected(THERE) for _ in range(500))
    brake.per_client = 500
    assert not brake.connected(THERE)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("203.0.113.5", "::ffff:203.0.113.5", True),
        ("203.0.113.5", "203.0.113.6", False),
        ("2001:db8:0:1::5", "2001:db8:0:1:ffff::1", True),
        ("2001:db8:0:1::5", "2001:db8:0:2::5", False),
        ("fe80::1%lo", "fe80::2", True),
    ],
)
def test_what_one_client_is(one: str, other: str, same: bool) -> None:
    brake = Brake(per_client=1)
    assert brake.connected(one)
    assert brake.connected(other) is not same
    brake.failed(one, 0.0)
    assert (brake.delay(other, 0.0) > 0) is same


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=60), st.integers(0, 3))
def test_the_count_is_that_of_the_connections_there_are(steps: list[tuple[bool, int]], most: int) -> None:
    brake, there = Brake(most), [0, 0, 0, 0]
    for comes, n in steps:
        peer = f"198.51.100.{n}"
        if comes:
            taken = brake.connected(peer)
            assert taken is (not most or there[n] < most)
            there[n] += taken
        elif there[n]:
            brake.disconnected(peer)
            there[n] -= 1
    for n, left in enumerate(there):
        for _ in range(left):
            brake.disconnected(f"198.51.100.{n}")
    assert brake._open == {}


# ------------------------------------------------------------------ guessing


def test_each_failure_waits_longer() -> None:
    brake = Brake(0)
    assert brake.delay(THERE, 100.0) == 0.0
    assert [brake.failed(THERE, 100.0 + n) for n in range(8)] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert brake.delay("203.0.113.6", 110.0) == 0.0


def test_whoever_mistyped_waits_a_little_and_not_for_ever() -> None:
    brake = Brake(0)
    brake.failed(THERE, 0.0)
    assert brake.delay(THERE, 1.0) == 1.0
    for n in range(10):
        brake.failed(THERE, float(n))
    assert brake.delay(THERE, 10.0) == 4.0  # wrong answers wait 30 s by now
    assert brake.delay(THERE, 9.0 + WINDOW - 0.1) == 1.0
    assert brake.delay(THERE, 9.0 + WINDOW) == 0.0
    assert brake.failed(THERE, 9.0 + WINDOW) == 1.0


def test_fifty_failures_in_ten_minutes_close_the_door() -> None:
    brake = Brake(0)
    for n in range(MAX_FAILURES):
        assert not brake.blocked(THERE, float(n))
        brake.failed(THERE, float(n))
    assert brake.blocked(THERE, 50.0)
    assert not brake.blocked("203.0.113.6", 50.0)
    assert brake.blocked(THERE, WINDOW - 0.1)
    assert not brake.blocked(THERE, WINDOW)  # the first of them is forgotten
    brake.failed(THERE, WINDOW)
    assert brake.blocked(THERE, WINDOW)


def test_failures_spread_over_time_never_close_it() -> None:
    brake, gap = Brake(0), 12.25  # seconds: 49 of them in any ten minutes
    for n in range(500):
        brake.failed(THERE, n * gap)
        assert not brake.blocked(THERE, n * gap)


@given(st.lists(st.floats(0, 120), max_size=120))
def test_the_count_is_that_of_the_last_ten_minutes(gaps: list[float]) -> None:
    brake, times, now = Brake(0), list[float](), 0.0
    for gap in gaps:
        now += gap
        times.append(now)
        recent = sum(now - time < WINDOW for time in times)
        assert brake.failed(THERE, now) == min(2.0 ** (recent - 1), 30.0)
        assert brake.blocked(THERE, now) is (recent >= MAX_FAILURES)


@pytest.mark.parametrize("here", ["127.0.0.1", "127.0.0.53", "::1", "::ffff:127.0.0.1", ""])
def test_this_machine_is_slowed_but_never_locked_out(here: str) -> None:
    """A cron job with an old password must not stop the marketing tool beside it. "" is a local socket's name."""
    brake = Brake(per_client=1)
    assert all(brake.connected(here) for _ in range(10))
    brake.disconnected(here)
    assert [brake.failed(here, 0.0) for _ in range(100)][-1] == 30.0
    assert not brake.blocked(here, 0.0)
    assert brake.delay("127.0.0.1", 0.0) == 1.0


def test_memory_is_bounded_by_forgetting_who_has_been_quiet_longest() -> None:
    brake = Brake(0)
    brake.failed("192.0.2.1", 0.0)
    brake.failed("192.0.2.2", 0.0)
    for n in range(MAX_NETWORKS - 2):
        brake.failed(f"2001:db8:{n:x}::1", 1.0)
    brake.failed("192.0.2.1", 2.0)
    brake.failed("192.0.2.3", 2.0)  # one too many
    assert brake.delay("192.0.2.1", 2.0) == 2.0
    assert brake.delay("192.0.2.2", 2.0) == 0.0
    assert brake.delay("192.0.2.3", 2.0) == 1.0
    assert len(brake._failures) == MAX_NETWORKS
    brake.failed("192.0.2.3", 2.0 + WINDOW)
    assert len(brake._failures) == 1  # what has no weight any more takes no room either


def test_an_attacker_with_many_networks_fills_some_megabytes_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_NETWORKS", 50)  # of 10,000: tracing is slow
    brake = Brake(0)
    tracemalloc.start()
    try:
        for n in range(100):
            for _ in range(MAX_FAILURES * 4):
                brake.failed(f"2001:db8:{n:x}::1", 1.0)
        octets, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(brake._failures) == 50
    assert octets / 50 * MAX_NETWORKS < 10_000_000
