"""What the parts get of the config."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest

from daemon import building, hosting, jobs
from daemon.config import Bounce, Config, ConfigError, House, Listener, Loaded
from daemon.duty.alarm import Limits
from daemon.duty.letters import Envelope
from daemon.duty.watching import Surroundings
from daemon.gate import Gate, Pass, Refused, Unknown
from daemon.mail import tokens
from daemon.nodes import Duties
from daemon.opening import Away
from daemon.options import Duty, MailingList, Relay, Upstream, Web
from daemon.roles import Present, Roles
from daemon.upstream import Endpoint, Pool
from daemon.vitals import Vitals
from storage.address import parse
from storage.engine import Unavailable
from storage.terms import ALL
from tests.certificates import certify
from tests.ledgers import Books, books

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> Books:
    return books(tmp_path / "ledger")


@pytest.mark.parametrize(
    ("public_url", "begins"),
    [("", "mailto:support@quillpdf.example?subject=undo%20"), ("https://m.example/x", "https://m.example/x/undo/")],
)
def test_a_notice_leads_to_a_page_where_there_is_one_and_else_to_a_mail(
    ledger: Books, public_url: str, begins: str
) -> None:
    house = House(name="Quill", addresses=("support@quillpdf.example",))
    config = Config(house=house, web=Web(public_url=public_url))
    post = building.post(config, ledger.ledger, Pool([Endpoint("127.0.0.1", 1)], hostname="relay.example", timeout=2))
    token = tokens.make(ledger.ledger.site_key, "undo", bytes(16), 0, day=1)
    assert post.undo_link(token) == begins + token


def test_the_pages_know_the_colour_and_the_proxies(ledger: Books) -> None:
    config = Config(house=House(name="Quill"), web=Web(colour="#aa0022", trusted_proxies=("10.0.0.0/8",)))
    made = hosting.context(Loaded(config, Path("/etc/optoutd/config.toml")), ledger.ledger, ledger.numbers, None)
    assert (made.colour, made.trusted_proxies) == ("#aa0022", ("10.0.0.0/8",))


def test_the_pages_are_in_doubt_about_lists_that_have_no_numbers_yet(ledger: Books) -> None:
    config = Config(house=House(name="Quill"), list=(MailingList(id="newsletter"), MailingList(id="offers")))
    loaded = Loaded(config, Path("/etc/optoutd/config.toml"))
    known = hosting.context(loaded, ledger.ledger, ledger.numbers, None)
    assert known.numbers == ledger.numbers
    unknown = hosting.context(loaded, ledger.ledger, {}, None)
    with pytest.raises(Unavailable):
        unknown.numbers["offers"]
    assert unknown.title(ALL) is None


@pytest.mark.parametrize(
    ("secret", "said"),
    [("", "is empty"), ("$argon2id$v=19$m=65536", "is no whole argon2 hash (`optoutd password` makes one)"), ("x", "")],
)
def test_a_password_file_that_lets_nobody_in_is_told(tmp_path: Path, secret: str, said: str) -> None:
    (tmp_path / "admin").write_text(secret + "\n")
    config = Config(house=House(name="Quill"), web=Web(admin_password_file="admin"))
    loaded = Loaded(config, tmp_path / "optoutd.toml")
    if not said:
        assert hosting.holders(loaded)[0]["admin"].secret == secret
        return
    with pytest.raises(ConfigError) as told:
        hosting.holders(loaded)
    assert [str(p) for p in told.value.problems] == [f"web.admin_password_file: {tmp_path / 'admin'}: {said}"]


# ------------------------------------------------------------------ the clock of duty


@pytest.mark.parametrize(
    ("operators_mail", "upstream", "addresses", "sender"),
    [
        ("", Upstream(), ("support@quillpdf.example",), None),
        ("ops@quillpdf.example", None, ("support@quillpdf.example",), None),
        ("ops@quillpdf.example", Upstream(), ("support@quillpdf.example",), "support@quillpdf.example"),
        ("ops@quillpdf.example", Upstream(), (), "ops@quillpdf.example"),
    ],
)
def test_who_writes_to_the_operators(
    operators_mail: str, upstream: Upstream | None, addresses: tuple[str, ...], sender: str | None
) -> None:
    house = House(name="Quill", operators_mail=operators_mail, addresses=addresses)
    made = building.envelope(Config(house=house, upstream=upstream))
    assert made == (Envelope("Quill", sender, operators_mail) if sender else None)


def test_operators_who_cannot_be_mailed_are_told_of_in_the_log(
    ledger: Books, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    config = Config(house=House(name="Quill", operators_mail="ops@quillpdf.example"))
    around = Surroundings(lambda: Vitals(NOW), lambda: True, lambda: None, lambda: None)
    building.watch(Loaded(config, Path("/etc/optoutd/config.toml")), ledger.ledger, Duties(ledger.ledger), around)
    assert [line["event"] for line in logged()] == ["operators_not_mailed"]


def test_limits_and_day_are_those_of_the_config() -> None:
    duty = Duty(due_hours=3, review_hours=2, silent_minutes=5, disk_free_mb=7, digest="sunday")
    config = Config(house=House(name="Quill"), duty=duty)
    limits = building.limits(config)
    assert (limits.due, limits.review, limits.silent) == (timedelta(hours=3), timedelta(hours=2), timedelta(minutes=5))
    assert (limits.disk_free, building.weekday(config)) == (7 * 1024 * 1024, 6)
    assert building.limits(Config(house=House(name="Quill"))) == Limits()
    assert building.weekday(Config(house=House(name="Quill"), duty=Duty(digest=""))) is None
    assert building.weekday(Config(house=House(name="Quill"))) == 0


def test_the_days_that_our_certificates_last(tmp_path: Path) -> None:
    key, pem = tmp_path / "relay.key", tmp_path / "relay.pem"
    certify(key, pem)
    listeners = (
        Listener(address="127.0.0.1:0", tls="starttls", cert_file="relay.pem", key_file="relay.key"),
        Listener(address="127.0.0.1:0", tls="implicit", cert_file="missing.pem", key_file="relay.key"),
        Listener(address="127.0.0.1:0", tls="none", cert_file="relay.key", key_file="relay.key"),
    )
    config = Config(house=House(name="Quill"), relay=Relay(listen=(), listener=listeners))
    found = building.certificates(Loaded(config, tmp_path / "optoutd.toml"))
    assert found.keys() == {"relay.pem"}
    assert found["relay.pem"] > 0


async def test_after_a_jump_of_the_clock_the_timetable_is_made_anew(ledger: Books, tmp_path: Path) -> None:
    """Else an hourly job would wait for the time before a clock was set back by a year."""
    loaded = Loaded(Config(house=House(name="Quill")), tmp_path / "x.toml")
    present = Present(loaded, ledger.gate(), (), ledger.numbers)
    clockwork = jobs.Jobs(ledger.ledger, Bounce())
    roles = Roles(ledger.ledger, Duties(ledger.ledger), lambda: present, lambda: None, clockwork)
    async with AsyncExitStack() as stack:
        roles.start(stack)
        before = roles.scheduler
        for job in before.get_jobs():
            job.modify(next_run_time=datetime.now(UTC) + timedelta(days=365))
        roles.restart_clockwork()
        await asyncio.sleep(0)  # it ends in the loop's next turn
        assert not before.running
        times = [job.next_run_time - datetime.now(UTC) for job in roles.scheduler.get_jobs()]
        assert max(times) <= timedelta(days=1)


async def test_another_thread_gets_the_answer_of_the_gate_that_there_is_now(ledger: Books) -> None:
    ledger.suppress("ann@example.com")
    now: list[Gate] = []
    ask = building.asking(asyncio.get_running_loop(), lambda: now[-1])
    now.append(Gate(Away(), {}))
    assert isinstance(await asyncio.to_thread(ask, parse("ann@example.com")), Unknown)
    now.append(ledger.gate())
    assert isinstance(await asyncio.to_thread(ask, parse("ann@example.com")), Refused)
    assert await asyncio.to_thread(ask, parse("bob@example.com")) == Pass()


async def test_a_gate_that_does_not_answer_is_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck(Gate):
        async def ask(self, *_: object) -> NoReturn:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(building, "_GATE_SECONDS", 0.1)
    ask = building.asking(asyncio.get_running_loop(), lambda: Stuck(Away(), {}))
    assert isinstance(await asyncio.to_thread(ask, parse("ann@example.com")), Unknown)
