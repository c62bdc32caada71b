"""What only one node does at a time, as far as it is ours: mailboxes are watched, the jobs run, notices go out, hooks are told.

daemon.nodes says what is ours; here it is begun and ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from daemon import building, jobs
from daemon.config import Loaded, Mailbox
from daemon.gate import Gate
from daemon.mailbox.watcher import Watcher
from daemon.nodes import HOOKS, JOBS, NOTICES, Duties, mailbox
from daemon.opening import now
from daemon.upstream import Pool
from daemon.vitals import MailboxVitals
from daemon.webhooks import Hook, Tellers
from storage.engine import Ledger


@dataclass(frozen=True)
class Present:
    """What all parts work by, until a reload puts another in its place.

    `numbers`: of the lists; None: the database was away when we started, and the gate stands for doubt.
    """

    loaded: Loaded
    gate: Gate
    hooks: tuple[Hook, ...]
    numbers: dict[str, int] | None


@dataclass
class Roles:
    """What is done just now of all that only one node does. `pool`: what notices go through; None: there is no relay."""

    ledger: Ledger
    duties: Duties
    present: Callable[[], Present]
    pool: Callable[[], Pool | None]
    clockwork: jobs.Jobs
    watchers: dict[str, Watcher] = field(default_factory=dict)
    scheduler: AsyncIOScheduler = field(init=False)
    _writing: asyncio.Task[None] | None = None  # of notices
    _telling: Tellers | None = None  # hooks
    # Of these: a reload may come while our duties change.
    _restarting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _keeping: asyncio.Task[None] | None = None  # of our leases

    def start(self, stack: AsyncExitStack) -> None:
        """Get ready; `begin` begins. `stack` ends it all."""
        self.scheduler = jobs.schedule(self.clockwork)
        self.scheduler.start(paused=True)
        stack.callback(self.stop_clockwork)
        stack.push_async_callback(self.duties.give_up)
        stack.push_async_callback(self.stop_writing)
        stack.push_async_callback(self._stop_telling)
        stack.push_async_callback(self.stop_watchers)
        stack.push_async_callback(self._stop_keeping)

    async def begin(self) -> None:
        """Do what is ours to do, now and whenever that changes."""
        if self.duties.alone:
            await self._follow()
        else:
            self._keeping = asyncio.create_task(self.duties.keep(self._all, self._follow))

    def ours(self) -> tuple[str, ...]:
        """What we do just now beside watching mailboxes."""
        return tuple(role for role in (JOBS, NOTICES, HOOKS) if self.duties.ours(role))

    async def restart(self) -> None:
        """As the config now says: passwords, CA files and house are read again."""
        await self.write_to_people()
        await self._tell_programs()
        await self.stop_watchers()
        if self.present().numbers is not None:
            await self._follow()

    def _all(self) -> list[str]:
        """What we could do, if no other node does it."""
        present = self.present()
        watched = [mailbox(m.name) for m in present.loaded.config.mailbox]
        writes = [NOTICES] if self.pool() is not None and building.writes_to_people(present.loaded.config) else []
        tells = [HOOKS] if present.hooks else []
        # the first is nobody else's: it says that we run
        return [f"node {self.duties.holder}", JOBS, *watched, *writes, *tells]

    def _wanted(self, role: str) -> bool:
        return role in self._all() and self.duties.ours(role)

    async def _follow(self) -> None:
        """Begin what is ours to do now, and end what is not any more."""
        self.scheduler.resume() if self.duties.ours(JOBS) else self.scheduler.pause()
        if (self._writing is not None) != self._wanted(NOTICES):
            await self.write_to_people()
        if (self._telling is not None) != self._wanted(HOOKS):
            await self._tell_programs()
        await self.stop_watchers(lambda name: not self.duties.ours(mailbox(name)))
        for settings in self.present().loaded.config.mailbox:
            if settings.name not in self.watchers and self.duties.ours(mailbox(settings.name)):
                self._watch(settings)

    async def _stop_keeping(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)

    # ---- the jobs

    def stop_clockwork(self) -> None:
        """No job begins any more."""
        self.scheduler.shutdown(wait=False)

    def restart_clockwork(self) -> None:
        """The wall clock jumped: times that were reckoned by the old one may be a year away."""
        self.stop_clockwork()
        self.scheduler = jobs.schedule(self.clockwork)
        self.scheduler.start(paused=not self.duties.ours(JOBS))

    # ---- notices, hooks

    async def write_to_people(self) -> None:
        """(Re)start the sending of notices, as the config now says, if it is ours to do."""
        async with self._restarting:
            await self.stop_writing()
            pool = self.pool()
            if pool is not None and self._wanted(NOTICES):
                post = building.post(self.present().loaded.config, self.ledger, pool)
                self._writing = asyncio.create_task(post.run())

    async def stop_writing(self) -> None:
        """The notice in hand is finished first, or it would be sent twice."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing

    async def _tell_programs(self) -> None:
        """(Re)start the telling of webhooks, as the config now says, if it is ours to do."""
        async with self._restarting:
            await self._stop_telling()
            present = self.present()
            if present.numbers is not None and self._wanted(HOOKS):
                self._telling = Tellers(self.ledger, present.hooks, now)
                self._telling.start()

    async def _stop_telling(self) -> None:
        telling, self._telling = self._telling, None
        if telling is not None:
            await asyncio.to_thread(telling.stop)

    # ---- mailboxes

    def _watch(self, settings: Mailbox) -> None:
        present = self.present()
        ask = building.asking(asyncio.get_running_loop(), lambda: self.present().gate)
        watcher = building.watcher(present.loaded, settings, self.ledger, present.gate.numbers, ask)
        self.watchers[settings.name] = watcher
        watcher.start()

    async def stop_watchers(self, which: Callable[[str], bool] = lambda name: True) -> None:
        """Stop watching those mailboxes."""
        stopping = [self.watchers.pop(name) for name in list(self.watchers) if which(name)]
        for watcher in stopping:
            watcher.ask_to_stop()  # all at once: there are fewer threads to wait in than there may be mailboxes
        await asyncio.gather(*(asyncio.to_thread(w.stop) for w in stopping))

    def mailboxes(self) -> tuple[MailboxVitals, ...]:
        """How each mailbox of the config is."""
        return tuple(self._mailbox(settings.name) for settings in self.present().loaded.config.mailbox)

    def _mailbox(self, name: str) -> MailboxVitals:
        watcher = self.watchers.get(name)
        if watcher is None:
            return MailboxVitals(name, ours=False, connected=False)
        return MailboxVitals(name, True, watcher.connected, watcher.last_success, watcher.trouble)
