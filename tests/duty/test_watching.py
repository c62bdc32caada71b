"""The watch: rounds by the clock, and mail over a real upstream, which may be away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest

from daemon.duty import watching
from daemon.duty.alarm import Limits
from daemon.duty.letters import Envelope
from daemon.duty.rounds import Rounds
from daemon.duty.watching import Surroundings, Watch
from daemon.upstream import Endpoint, Pool
from daemon.vitals import Vitals
from storage.engine import Unavailable
from tests.duty.support import DAY, HOUR, MINUTE, Clock, rows, support, vitals
from tests.duty.test_rounds import Aside
from tests.ledgers import Books
from tests.sink import Sink, sink, told_to_stop_in_mid_message

ENVELOPE = Envelope("Quill PDF", "support@quillpdf.example", "ops@quillpdf.example")
Logged = Callable[[], list[dict[str, Any]]]


@dataclass
class Stage:
    """A watch over a daemon that a test makes up."""

    ledger: Books
    pool: Pool
    clock: Clock = field(default_factory=Clock)
    silent: bool = False
    jobs: bool = True
    jumps: int = 0

    def watch(self, envelope: Envelope | None = ENVELOPE, weekday: int | None = None) -> Watch:
        rounds = Rounds(self.ledger.ledger, self.clock.now, monotonic=self.clock.monotonic)
        made = Watch(rounds, Surroundings(self.vitals, lambda: self.jobs, lambda: self.pool, self.jumped), every=0.02)
        made.take_over(Limits(), envelope, weekday)
        return made

    def vitals(self) -> Vitals:
        heard = self.clock.at - (HOUR if self.silent else timedelta(0))
        return vitals(support(last_success=heard), upstream=self.pool.trouble, started=self.clock.at - DAY)

    def jumped(self) -> None:
        self.jumps += 1

    async def minutes(self, watch: Watch, number: int = 1) -> None:
        for _ in range(number):
            self.clock.goes(MINUTE)
            await watch.round()


@pytest.fixture
def server() -> Iterator[Sink]:
    with sink() as it:
        yield it


@pytest.fixture
async def stage(ledger: Books, server: Sink, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(watching, "_RETRY_SECONDS", (0.0, 0.0))
    monkeypatch.setattr("daemon.upstream.REST_SECONDS", (0.0, 0.0))
    pool = Pool([Endpoint("127.0.0.1", server.port)], hostname="relay.example", timeout=5)
    yield Stage(ledger, pool)
    pool.close()
    await asyncio.sleep(0)


def subjects(server: Sink) -> list[str]:
    return [str(message_from_bytes(m.data, policy=policy.default)["Subject"]) for m in server.messages]


def bodies(server: Sink) -> list[str]:
    parsed = [message_from_bytes(m.data, policy=policy.default) for m in server.messages]
    return [message.get_content() for message in parsed if isinstance(message, EmailMessage)]


async def test_an_alarm_is_mailed_at_once_and_its_end_too(stage: Stage, server: Sink, logged: Logged) -> None:
    watch = stage.watch()
    before = watch.duty
    assert before is None
    await stage.minutes(watch)
    assert server.messages == []
    stage.silent = True
    await stage.minutes(watch)
    assert subjects(server) == ["[optoutd] alarm: mailbox support has been silent for 60 minutes"]
    (mail,) = server.messages
    assert (mail.mail_from, mail.rcpt_to) == ("<>", ("<ops@quillpdf.example>",))
    stage.silent = False
    await stage.minutes(watch, 14)
    assert len(server.messages) == 1
    await stage.minutes(watch)
    assert subjects(server)[1:] == ["[optoutd] over: mailbox support has been silent for 60 minutes"]
    await stage.minutes(watch, 40)
    assert len(server.messages) == 2
    assert [x["event"] for x in logged()] == ["alarm_raised", "alarms_mailed", "alarm_ended", "alarms_mailed"]
    assert watch.duty is not None
    assert watch.duty.alarms == ()


async def test_what_comes_within_15_minutes_is_one_mail_and_what_stands_is_told_each_day(
    stage: Stage, server: Sink
) -> None:
    watch = stage.watch()
    stage.silent = True
    await stage.minutes(watch)
    watch.rounds.limits = replace(Limits(), disk_free=1 << 60)
    await stage.minutes(watch, 14)
    assert len(server.messages) == 1
    await stage.minutes(watch)
    assert len(server.messages) == 2
    assert "Still so:" in bodies(server)[1]
    stage.clock.goes(23 * HOUR)
    await stage.minutes(watch)
    assert len(server.messages) == 2
    stage.clock.goes(HOUR)
    await stage.minutes(watch, 3)
    assert [s.partition(":")[0] for s in subjects(server)[2:]] == [f"[optoutd] {len(rows(stage.ledger))} still"]


async def test_a_restart_does_not_mail_again(stage: Stage, server: Sink) -> None:
    stage.silent = True
    await stage.minutes(stage.watch())
    await stage.minutes(stage.watch(), 20)
    assert len(server.messages) == 1


@pytest.mark.parametrize("reply", ["451 4.3.0 later", "550 5.1.1 nobody"])
async def test_an_upstream_that_does_not_take_it_is_asked_until_it_does(
    stage: Stage, server: Sink, logged: Logged, reply: str
) -> None:
    watch = stage.watch()
    server.replies["RCPT"] = reply
    stage.silent = True
    await stage.minutes(watch, 2)
    assert server.messages == []
    assert [x["event"] for x in logged()].count("alarm_mail_failed") == 2
    del server.replies["RCPT"]
    await stage.minutes(watch)
    assert len(server.messages) == 1


async def test_an_upstream_that_is_away_loses_no_alarm(stage: Stage, server: Sink) -> None:
    """Not even one that was over before anybody could be told."""
    watch = stage.watch()
    server.stop()
    stage.silent = True
    await stage.minutes(watch, 3)
    stage.silent = False
    await stage.minutes(watch, 15)
    server.start()
    await stage.minutes(watch, 16)
    told = "".join(bodies(server))
    assert "Mailbox support has been silent" in told
    assert "upstream-down" in told
    assert all(row.ended for row in rows(stage.ledger))
    assert stage.pool.trouble == ""


async def test_an_upstream_is_asked_whether_it_is_back_though_nobody_sends(stage: Stage, server: Sink) -> None:
    watch = stage.watch()
    server.stop()
    stage.silent = True
    await stage.minutes(watch)
    assert stage.pool.trouble
    server.start()
    watch.take_over(Limits(), None, None)
    await stage.minutes(watch)
    assert stage.pool.trouble == ""


async def test_it_mails_while_the_database_is_away_and_not_again_when_it_is_back(stage: Stage, server: Sink) -> None:
    watch = stage.watch()
    await stage.minutes(watch)
    file = Aside(stage.ledger)
    file.take()
    stage.jobs = False  # of several nodes none has the jobs then
    await stage.minutes(watch, 4)
    assert [s.partition(" (")[0] for s in subjects(server)] == ["[optoutd] alarm: the database cannot be asked"]
    stage.jobs = True
    file.put_back()
    await stage.minutes(watch, 20)
    assert [s.partition(":")[0] for s in subjects(server)] == ["[optoutd] alarm", "[optoutd] over"]
    assert [(row.kind, row.told is None, row.closed is None) for row in rows(stage.ledger)] == [
        ("database-away", False, False)
    ]


async def test_only_the_node_with_the_jobs_mails(stage: Stage, server: Sink) -> None:
    watch = stage.watch()
    stage.jobs, stage.silent = False, True
    await stage.minutes(watch, 2)
    assert server.messages == []
    assert [row.told for row in rows(stage.ledger)] == [None]
    stage.jobs = True
    await stage.minutes(watch)
    assert len(server.messages) == 1


async def test_without_an_address_nobody_is_mailed_and_a_reload_brings_one(stage: Stage, server: Sink) -> None:
    watch = stage.watch(None)
    stage.silent = True
    await stage.minutes(watch, 2)
    assert server.messages == []
    watch.take_over(Limits(), ENVELOPE, None)
    await stage.minutes(watch)
    assert len(server.messages) == 1


async def test_a_clock_that_jumps_is_passed_on(stage: Stage) -> None:
    watch = stage.watch()
    await stage.minutes(watch, 2)
    assert stage.jumps == 0
    stage.clock.at += 400 * DAY
    await stage.minutes(watch)
    stage.clock.at -= 400 * DAY
    await stage.minutes(watch)
    assert stage.jumps == 2


async def test_it_goes_on_for_ever_whatever_happens(stage: Stage, logged: Logged) -> None:
    watch = stage.watch()
    whole, calls = stage.vitals, []

    def failing() -> Vitals:
        calls.append(1)
        if len(calls) == 1:
            raise KeyError("a bug")
        return whole()

    watch._around = replace(watch._around, vitals=failing)
    task = asyncio.create_task(watch.run())
    async with asyncio.timeout(20):
        while watch.duty is None:
            await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [x["where"] for x in logged() if x["event"] == "failed"] == ["duty"]


async def test_told_to_stop_it_finishes_the_mail_in_hand(stage: Stage, server: Sink) -> None:
    """Else the next start would send it again."""
    watch = stage.watch()
    stage.silent = True
    await told_to_stop_in_mid_message(watch.run(), server)
    assert [row.told is None for row in rows(stage.ledger)] == [False]


# ------------------------------------------------------------------ the digest


async def test_the_digest_goes_out_on_its_day_once(stage: Stage, server: Sink) -> None:
    """The clock begins on a Monday at noon: the first digest is a week later."""
    watch = stage.watch(weekday=0)
    for _ in range(20 * 4):
        stage.clock.goes(6 * HOUR)
        await watch.round()
    assert [s.partition(": ")[0] for s in subjects(server)] == [
        "[optoutd] 2026-05-04 to 2026-05-11",
        "[optoutd] 2026-05-11 to 2026-05-18",
    ]
    assert subjects(server)[0].endswith(": The promise was kept")


async def test_digests_that_were_missed_are_one(stage: Stage, server: Sink) -> None:
    watch = stage.watch(weekday=0)
    await stage.minutes(watch)
    stage.clock.goes(23 * DAY)
    server.replies["RCPT"] = "451 later"
    await stage.minutes(watch, 2)
    del server.replies["RCPT"]
    await stage.minutes(watch, 5)
    assert [s.partition(": ")[0] for s in subjects(server)] == ["[optoutd] 2026-05-04 to 2026-05-27"]


async def test_no_digest_if_none_is_wanted(stage: Stage, server: Sink) -> None:
    watch = stage.watch()
    await stage.minutes(watch)
    stage.clock.goes(30 * DAY)
    await stage.minutes(watch, 2)
    assert server.messages == []


async def test_a_clock_that_was_a_year_ahead_stops_no_digest(stage: Stage, server: Sink) -> None:
    watch = stage.watch(weekday=0)
    await stage.minutes(watch)
    stage.clock.at += 400 * DAY
    await stage.minutes(watch)
    stage.clock.at -= 400 * DAY
    stage.clock.goes(20 * MINUTE)
    await stage.minutes(watch)
    server.reset()
    stage.clock.goes(7 * DAY)
    await stage.minutes(watch)
    assert "[optoutd] 2026-05-04 to 2026-05-11: The promise was kept" in subjects(server)


async def test_a_disk_that_is_full_does_not_mail_the_digest_each_minute(
    stage: Stage, server: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be read and mailed, and not be noted that it was."""
    watch = stage.watch(weekday=stage.clock.at.weekday())
    await stage.minutes(watch)
    stage.clock.goes(7 * DAY)

    def full(*_: object) -> None:
        raise Unavailable("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("daemon.duty.digest.sent", full)
        await stage.minutes(watch, 5)
    assert len(server.messages) == 1
    await stage.minutes(watch, 3)
    assert len(server.messages) == 1
    await stage.minutes(stage.watch(weekday=stage.clock.at.weekday()), 3)  # after a restart, too: it was noted since
    assert len(server.messages) == 1
    stage.clock.goes(7 * DAY)
    await stage.minutes(watch, 3)
    assert len(server.messages) == 2
