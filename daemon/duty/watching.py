"""The clock of duty: a round a minute, and a mail to the operators when something begins, goes on or ends.

Every node looks at its own parts; the one with the jobs looks into the ledger, too, and is the one that mails. While the
database is away nobody has the jobs: then whoever had them last mails.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from daemon import events
from daemon.duty import digest, letters
from daemon.duty.alarm import Limits
from daemon.duty.letters import Envelope
from daemon.duty.parts import JUMP
from daemon.duty.rounds import Rounds
from daemon.own_mail import deliver, to_the_end
from daemon.upstream import Lost, Pool
from daemon.vitals import DutyVitals, Vitals
from storage.engine import Unavailable, Unusable

EVERY_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = (60.0, 1800.0)  # of a mail that was not taken: doubling from the first to the last
_PROBE_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Surroundings:
    """What the watch needs of the daemon around it.

    `vitals`: how the parts are; `jobs`: are they ours to do?; `pool`: what mail goes through; `jumped`: the wall clock did.
    """

    vitals: Callable[[], Vitals]
    jobs: Callable[[], bool]
    pool: Callable[[], Pool | None]
    jumped: Callable[[], None]


class Watch:
    """Looks, tells, and looks again. `envelope`: None: nobody is mailed; `weekday` of the digest: Monday is 0, None: none."""

    def __init__(self, rounds: Rounds, around: Surroundings, *, every: float | None = None):
        self.rounds = rounds
        self._around, self._every = around, every
        self._envelope: Envelope | None = None
        self._weekday: int | None = None
        self._jobs = True  # as of when the database could last be asked
        self._failures, self._not_before = 0, 0.0
        self._digest: datetime | None = None  # mailed then, and not noted yet
        self._looked = False

    def take_over(self, limits: Limits, envelope: Envelope | None, weekday: int | None) -> None:
        """Other settings, from the next round on."""
        self.rounds.limits = limits
        self._envelope, self._weekday = envelope, weekday
        self.rounds.quiet = envelope is None

    @property
    def duty(self) -> DutyVitals | None:
        """What was seen last; None: there was no look yet."""
        return self.rounds.duty if self._looked else None

    async def run(self) -> None:
        """For ever. The first round comes a while after the start: by then the parts have found out how they are."""
        while True:
            await asyncio.sleep(EVERY_SECONDS if self._every is None else self._every)
            try:
                await to_the_end(self.round())
            except Exception as error:  # noqa: BLE001 - the outermost loop: whatever it is, the next round must come
                events.failed("duty", error)

    async def round(self) -> None:
        """Look once, and tell what is to be told."""
        await self._probe()
        await asyncio.to_thread(self.rounds.look, self._around.vitals(), everything=self._around.jobs())
        self._looked = True
        if self.rounds.reachable:
            self._jobs = self._around.jobs()
        if abs(self.rounds.jump) > JUMP:
            self._around.jumped()
        if self._jobs and self._envelope is not None:
            await self._tell(self._envelope)
            await self._tell_week(self._envelope)

    async def _probe(self) -> None:
        """An upstream that failed is asked whether it still does: when no mail is sent nobody else would find out."""
        pool = self._around.pool()
        if pool is not None and pool.trouble:
            with suppress(Lost, TimeoutError):
                async with asyncio.timeout(_PROBE_SECONDS):
                    await pool.probe()

    async def _tell(self, envelope: Envelope) -> None:
        rounds, now = self.rounds, self.rounds.now()
        letter = letters.due(rounds.known, now, rounds.last_told)
        if letter is None:
            return
        about, text = letters.subject(letter), letters.body(letter, now)
        if await self._send(envelope, about, text, "alarm"):
            events.alarms_mailed(len(letter.new), len(letter.over), len(letter.standing))
            rounds.last_told = now
            told = [replace(alarm, told=now) for alarm in (*letter.new, *letter.standing)]
            closed = [replace(alarm, closed=now) for alarm in letter.over]
            await asyncio.to_thread(rounds.keep, [*closed, *told])

    async def _tell_week(self, envelope: Envelope) -> None:
        """The digest, if its time has come since the last one; several that were missed are one."""
        if self._weekday is None or not self.rounds.reachable:
            return
        with suppress(Unavailable, Unusable):  # next minute, then
            await self._note_digest()
            week = await asyncio.to_thread(digest.if_due, self.rounds.ledger, self.rounds.now(), self._weekday)
            if week is None:
                return
            text = digest.text(week, self.rounds.limits.due)
            if await self._send(envelope, digest.subject(week), text, "digest"):
                events.digest_mailed()
                self._digest = self.rounds.now()
                await self._note_digest()

    async def _note_digest(self) -> None:
        """A full disk can be read: what was mailed and not noted would be mailed again each minute. Raises Unavailable, Unusable."""
        if self._digest is not None:
            await asyncio.to_thread(digest.sent, self.rounds.ledger, self._digest)
            self._digest = None

    async def _send(self, envelope: Envelope, about: str, text: str, name: str) -> bool:
        """Was it taken? If not, it is tried again in a while."""
        pool = self._around.pool()
        if pool is None or time.monotonic() < self._not_before:
            return False
        octets = letters.compose(envelope, about, text, self.rounds.now(), name)
        try:
            reply = await deliver(pool, envelope.to, octets)
        except Lost as lost:
            reply = str(lost)
        if reply.startswith("2"):
            self._failures, self._not_before = 0, 0.0
            return True
        events.alarm_mail_failed(name, reply)
        first, last = _RETRY_SECONDS
        self._not_before = time.monotonic() + min(first * 2 ** min(self._failures, 10), last)
        self._failures += 1
        return False
