"""The daemon, put together: `run` starts every part in order, says READY, and stops them in reverse.

    config -> lock -> ledger -> relay, web (listen) -> mailbox threads -> jobs -> READY=1 ... SIGTERM -> the same backwards

Only what composes (tests/test_layers.py) and the command line know the whole config; a part gets its own section plus house and lists.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from daemon import building, events, jobs, metrics, postfix, process, relaying, reloading, systemd
from daemon.config import Config, ConfigError, Loaded, Mailbox, host_port, is_loopback, load
from daemon.duty.watching import Surroundings, Watch
from daemon.gate import Gate
from daemon.mailbox.watcher import Watcher
from daemon.nodes import HOOKS, JOBS, NOTICES, Duties, mailbox
from daemon.opening import Away, Busy, announce, gate_of, lookup_of, now, number_lists, open_for_run, sole_daemon
from daemon.register import Register
from daemon.relay.server import Server
from daemon.upstream import Pool
from daemon.vitals import MailboxVitals, Vitals
from daemon.webhooks import Hook, Tellers
from daemon.witness import Witness
from storage.deferral import deferred
from storage.engine import Ledger, Unavailable, Unusable

if TYPE_CHECKING:
    from daemon.web.context import Context as WebContext
    from daemon.web.server import Server as WebServer

_REACH_SECONDS = 2.0  # between two tries to reach a database that was away when we started


@dataclass
class Service:
    """The running daemon."""

    loaded: Loaded
    ledger: Ledger
    started: datetime
    numbers: dict[str, int] | None  # of the lists; None: the database is away, and we start all the same
    gate: Gate = field(init=False)
    duties: Duties = field(init=False)
    register: Register = field(init=False)
    witness: Witness = field(init=False)
    relay: Server | None = None
    policy: postfix.Server | None = None
    asking: asyncio.Task[None] | None = None  # what the upstream offers
    watchers: dict[str, Watcher] = field(default_factory=dict)
    webs: list[tuple[str, WebServer]] = field(default_factory=list)  # each with the address of the config
    writing: asyncio.Task[None] | None = None  # of notices
    restarting: asyncio.Lock = field(default_factory=asyncio.Lock)  # of it: a reload may come while our duties change
    hooks: tuple[Hook, ...] = ()
    telling: Tellers | None = None  # them
    watch: Watch = field(init=False)  # over our duties
    clockwork: jobs.Jobs = field(init=False)
    scheduler: AsyncIOScheduler = field(init=False)
    keeping: list[asyncio.Task[None]] = field(default_factory=list)  # of our duties; watching; reaching the database
    bound: dict[str, list[str]] = field(default_factory=dict)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    reload: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self, stack: AsyncExitStack) -> None:
        """Start every part; `stack` stops them in reverse. Raises Busy when a port is taken."""
        config = self.loaded.config
        self.hooks = building.hooks(self.loaded)
        self.gate = Gate(Away(), {}) if self.numbers is None else gate_of(self.ledger, self.numbers)
        stack.push_async_callback(self._close_gate)
        self.duties = Duties(self.ledger)
        self.register = Register(self.ledger, now)
        self.register.start()
        stack.push_async_callback(self.register.stop)
        self.witness = Witness(self.ledger, partial(lookup_of, self.ledger))
        self.witness.start()
        stack.callback(self.witness.stop)
        around = Surroundings(self._vitals_in_full, lambda: self.duties.ours(JOBS), self._pool, self._restart_clockwork)
        self.watch = building.watch(self.loaded, self.ledger, self.duties, around)
        await self._open_relay(stack)
        await self._open_policy(stack)
        stack.push_async_callback(self._stop_webs)
        await self._open_web("web", "listen")
        await self._open_web("public", "public_listen")
        self.clockwork = jobs.Jobs(self.ledger, config.bounce, now, config.retention, self.loaded.backup_dir)
        self.scheduler = jobs.schedule(self.clockwork)
        self.scheduler.start(paused=True)
        stack.callback(self._stop_clockwork)
        stack.push_async_callback(self.duties.give_up)
        stack.push_async_callback(self._stop_writing)
        stack.push_async_callback(self._stop_telling)
        stack.push_async_callback(self._stop_watchers)
        stack.push_async_callback(self._stop_keeping)
        self.keeping.append(asyncio.create_task(self.watch.run()))
        if self.numbers is None:
            self.keeping.append(asyncio.create_task(self._reach()))
        else:
            await self._begin_duties()

    async def _close_gate(self) -> None:
        await self.gate.close()

    # ---- what only one node does

    async def _begin_duties(self) -> None:
        if self.duties.alone:
            await self._follow_duties()
        else:
            self.keeping.append(asyncio.create_task(self.duties.keep(self._roles, self._follow_duties)))

    def _roles(self) -> list[str]:
        """What we could do, if no other node does it."""
        watched = [mailbox(m.name) for m in self.loaded.config.mailbox]
        writes = [NOTICES] if self.relay is not None and building.writes_to_people(self.loaded.config) else []
        tells = [HOOKS] if self.hooks else []
        # the first is nobody else's: it says that we run
        return [f"node {self.duties.holder}", JOBS, *watched, *writes, *tells]

    async def _follow_duties(self) -> None:
        """Begin what is ours to do now, and end what is not any more."""
        self.scheduler.resume() if self.duties.ours(JOBS) else self.scheduler.pause()
        if (self.writing is not None) != (NOTICES in self._roles() and self.duties.ours(NOTICES)):
            await self._write_to_people()
        if (self.telling is not None) != (HOOKS in self._roles() and self.duties.ours(HOOKS)):
            await self._tell_programs()
        await self._stop_watchers(lambda name: not self.duties.ours(mailbox(name)))
        for settings in self.loaded.config.mailbox:
            if settings.name not in self.watchers and self.duties.ours(mailbox(settings.name)):
                self._watch(settings)

    async def _reach(self) -> None:
        """Until the database is there: then what stands for doubt gives way to it, and the duties begin."""
        while self.numbers is None:
            await asyncio.sleep(_REACH_SECONDS)
            loaded = self.loaded
            try:
                numbers = await asyncio.to_thread(number_lists, self.ledger, loaded.config)
                if loaded is not self.loaded:
                    continue  # reloaded meanwhile: its lists want numbers, too
                gate = gate_of(self.ledger, numbers)
                hand_out = self._prepare(loaded, gate)
                self.gate = gate
                hand_out()
            except (Unavailable, Unusable) as why:
                events.database_unavailable(why)
            except ConfigError as error:  # a secret or a certificate cannot be read any more
                events.reload_refused([str(p) for p in error.problems])
            else:
                self.numbers = numbers
        events.database_reached()
        await self._begin_duties()

    def _stop_clockwork(self) -> None:
        self.scheduler.shutdown(wait=False)

    def _restart_clockwork(self) -> None:
        """The wall clock jumped: times that were reckoned by the old one may be a year away."""
        self._stop_clockwork()
        self.scheduler = jobs.schedule(self.clockwork)
        self.scheduler.start(paused=not self.duties.ours(JOBS))

    async def _stop_keeping(self) -> None:
        for task in self.keeping:
            task.cancel()
        await asyncio.gather(*self.keeping, return_exceptions=True)

    async def _open_relay(self, stack: AsyncExitStack) -> None:
        context = relaying.context(self.loaded, self.ledger, self.gate, self.register, self.witness)
        if context is None:
            return
        self.relay = Server(context, relaying.listening(self.loaded))
        stack.push_async_callback(self.relay.stop)
        try:
            self.bound["relay"] = await self.relay.start()
        except OSError as why:
            raise Busy(f"relay.listen: {why.strerror or why}") from None
        relaying.refuse_ourselves(self.loaded.config, self.bound["relay"])
        self._ask_upstream()
        stack.callback(self._stop_asking)

    def _ask_upstream(self) -> None:
        self._stop_asking()
        assert self.relay is not None
        self.asking = asyncio.create_task(relaying.ask_upstream(self.relay.pool))

    def _stop_asking(self) -> None:
        if self.asking is not None:
            self.asking.cancel()

    async def _open_policy(self, stack: AsyncExitStack) -> None:
        listen = self.loaded.config.postfix.policy
        if not listen:
            return
        self.policy = postfix.Server([listen], self._policy_context(self.loaded, self.gate))
        stack.push_async_callback(self.policy.stop)
        try:
            self.bound["policy"] = await self.policy.start()
        except OSError as why:
            raise Busy(f"postfix.policy: {why.strerror or why}") from None

    def _policy_context(self, loaded: Loaded, gate: Gate) -> postfix.Context:
        return relaying.policy_context(loaded.config, self.ledger, gate, self.register)

    async def _open_web(self, name: str, option: str) -> None:
        """The HTTP door on the address of this option, if it has one."""
        listen = getattr(self.loaded.config.web, option)
        if listen:
            from daemon import hosting  # a third of a second that a restart without this door need not wait for

            server = hosting.server(self.loaded, listen, self._web_context(listen, self.loaded, self.gate))
            self.webs.append((listen, server))
            try:
                self.bound[name] = await server.start()
            except OSError as why:
                raise Busy(f"web.{option}: {why.strerror or why}") from None

    async def _stop_webs(self) -> None:
        await asyncio.gather(*(server.stop() for _, server in self.webs))

    def _web_context(self, listen: str, loaded: Loaded, gate: Gate) -> WebContext:
        """Operators come to `web.listen`, and there only where nobody else can reach it."""
        from daemon import hosting

        apart = listen == loaded.config.web.listen and is_loopback(host_port(listen)[0])
        return hosting.context(loaded, self.ledger, gate.numbers, self.vitals if apart else None)

    def vitals(self) -> Vitals:
        """How the parts are."""
        return Vitals(
            self.started,
            {door: tuple(addresses) for door, addresses in self.bound.items()},
            tuple(self._mailbox_vitals(settings.name) for settings in self.loaded.config.mailbox),
            None if (pool := self._pool()) is None else pool.trouble,
            tuple(role for role in (JOBS, NOTICES, HOOKS) if self.duties.ours(role)),
            metrics.audit_broken.on,
            metrics.promise_broken.of().value,
            metrics.suppressions_unexplained.on,
            self.ledger.journal is not None and self.ledger.journal.behind,
            hooks=tuple(hook.name for hook in self.hooks),
            duty=self.watch.duty,
        )

    def _vitals_in_full(self) -> Vitals:
        """With what has to be read from files."""
        return replace(self.vitals(), certificates=building.certificates(self.loaded))

    def _pool(self) -> Pool | None:
        return None if self.relay is None else self.relay.pool

    def _mailbox_vitals(self, name: str) -> MailboxVitals:
        watcher = self.watchers.get(name)
        if watcher is None:
            return MailboxVitals(name, ours=False, connected=False)
        return MailboxVitals(name, True, watcher.connected, watcher.last_success, watcher.trouble)

    async def _write_to_people(self) -> None:
        """(Re)start the sending of notices, as the config now says, if it is ours to do."""
        async with self.restarting:
            await self._stop_writing()
            if self.relay is not None and NOTICES in self._roles() and self.duties.ours(NOTICES):
                post = building.post(self.loaded.config, self.ledger, self.relay.pool)
                self.writing = asyncio.create_task(post.run())

    async def _stop_writing(self) -> None:
        """The notice in hand is finished first, or it would be sent twice."""
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing

    async def _tell_programs(self) -> None:
        """(Re)start the telling of webhooks, as the config now says, if it is ours to do."""
        async with self.restarting:
            await self._stop_telling()
            if self.numbers is not None and HOOKS in self._roles() and self.duties.ours(HOOKS):
                self.telling = Tellers(self.ledger, self.hooks, now)
                self.telling.start()

    async def _stop_telling(self) -> None:
        telling, self.telling = self.telling, None
        if telling is not None:
            await asyncio.to_thread(telling.stop)

    def _watch(self, settings: Mailbox) -> None:
        ask = building.asking(asyncio.get_running_loop(), lambda: self.gate)
        watcher = building.watcher(self.loaded, settings, self.ledger, self.gate.numbers, ask)
        self.watchers[settings.name] = watcher
        watcher.start()

    async def _stop_watchers(self, which: Callable[[str], bool] = lambda name: True) -> None:
        """Stop watching those mailboxes."""
        stopping = [self.watchers.pop(name) for name in list(self.watchers) if which(name)]
        for watcher in stopping:
            watcher.ask_to_stop()  # all at once: there are fewer threads to wait in than there may be mailboxes
        await asyncio.gather(*(asyncio.to_thread(w.stop) for w in stopping))

    def status(self) -> str:
        """One line for `systemctl status`."""
        parts = [f"relay on {' '.join(self.bound['relay'])}"] if self.relay else []
        up = sum(w.connected for w in self.watchers.values())
        parts += [f"web on {' '.join(self.bound[name])}" for name in ("web", "public") if name in self.bound]
        parts += [f"{up} of {len(self.watchers)} mailboxes connected"] if self.watchers else []
        return ", ".join(parts) or "nothing to do: no [upstream], no [[mailbox]], no [web]"

    async def serve(self) -> None:
        """Reload on demand, until told to stop."""
        beating = asyncio.create_task(self._beat())
        while not self.stop.is_set():
            waiting = [asyncio.ensure_future(self.stop.wait()), asyncio.ensure_future(self.reload.wait())]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
            if self.reload.is_set() and not self.stop.is_set():
                self.reload.clear()
                await self._reload()
        beating.cancel()

    async def _beat(self) -> None:
        """The watchdog hears from the event loop, in a reload too: many mailboxes that hang take long to let go."""
        beat = systemd.watchdog_seconds()
        while True:
            await asyncio.sleep(min(beat or 5.0, 5.0))
            with suppress(Unavailable, Unusable):  # a database that took the place of another is taken up soon
                self.ledger.store.verify(self.ledger.site_key)
            if beat is not None:
                systemd.notify("WATCHDOG=1", f"STATUS={self.status()}")

    # ---- SIGHUP

    async def _reload(self) -> None:
        """Take over what can change in place; a bad file, or one that asks for more than that, is told of."""
        systemd.reloading()
        try:
            fresh = load(self.loaded.path)
        except ConfigError as error:
            events.reload_refused([str(p) for p in error.problems])
        else:
            try:
                await self._take_over(fresh)
            except ConfigError as error:
                events.reload_refused([str(p) for p in error.problems])
            except (Unavailable, Unusable) as why:
                events.reload_refused([str(why)])
        systemd.notify("READY=1", f"STATUS={self.status()}")

    async def _take_over(self, fresh: Loaded) -> None:
        old, new = self.loaded.config, fresh.config
        fixed = list(reloading.needs_restart(old, new))
        if fixed:
            events.reload_refused([f"{p}: cannot change without a restart; the rest is taken over" for p in fixed])
            new = reloading.keep(old, new)
            fresh = Loaded(new, fresh.path)
        numbers, gate = self.numbers, self.gate
        if numbers is not None:
            numbers = await self._numbered(new, numbers)
            gate = gate.renumbered(numbers)
        hooks, hand_out = building.hooks(fresh), self._prepare(fresh, gate)  # before anything changes
        self.loaded, self.hooks, self.numbers, self.gate = fresh, hooks, numbers, gate
        events.configure(new.log.format, new.log.level, new.log.addresses)
        hand_out()
        await self._write_to_people()
        await self._tell_programs()
        await self._stop_watchers()  # passwords, CA files and house are read again
        if self.numbers is not None:
            await self._follow_duties()
        events.reloaded([name for name in type(new).model_fields if getattr(old, name) != getattr(new, name)])

    async def _numbered(self, new: Config, known: dict[str, int]) -> dict[str, int]:
        """The lists of a config with their numbers. Raises Unavailable; not if there is no new list: a new certificate or
        password does not wait for the database."""
        try:
            return await asyncio.to_thread(number_lists, self.ledger, new)
        except Unavailable:
            if all(x.id in known for x in new.list):
                return known
            raise

    def _prepare(self, loaded: Loaded, gate: Gate) -> Callable[[], None]:
        """All that can go wrong is done now; what is returned lets every door work by this config and gate. Raises ConfigError."""
        relay = relaying.context(loaded, self.ledger, gate, self.register, self.witness)
        listening = [] if self.relay is None else relaying.renewed(loaded, self.relay.listening)
        policy = self._policy_context(loaded, gate)
        webs = [(server, self._web_context(listen, loaded, gate)) for listen, server in self.webs]

        def hand_out() -> None:
            if self.relay is not None and relay is not None:
                self.relay.take_over(relay, listening)
                self._ask_upstream()
            if self.policy is not None:
                self.policy.take_over(policy)
            for server, context in webs:
                server.take_over(context)
            building.take_over(self.watch, loaded)
            self.clockwork.take_over(loaded.config.bounce, loaded.config.retention)

        return hand_out


def _signals(service: Service, loop: asyncio.AbstractEventLoop) -> None:
    def stop(name: str) -> None:
        if service.stop.is_set():  # the second one means it
            os._exit(130 if name == "SIGINT" else 143)
        systemd.notify("STOPPING=1", f"STATUS=stopping on {name}")
        events.stopping(name)
        service.stop.set()

    for name in ("SIGTERM", "SIGINT"):
        loop.add_signal_handler(getattr(signal, name), stop, name)
    loop.add_signal_handler(signal.SIGHUP, service.reload.set)


async def _run(
    loaded: Loaded, ledger: Ledger, numbers: dict[str, int] | None, ready: Callable[[Service], None]
) -> None:
    async with AsyncExitStack() as stack:
        service = Service(loaded, ledger, now(), numbers)
        _signals(service, asyncio.get_running_loop())
        await service.start(stack)
        gc.collect()
        gc.freeze()  # what starting up made will stay: no collection needs to walk over it for every campaign
        gc.set_threshold(10_000, 20, 100)
        events.ready(**service.bound)
        systemd.notify("READY=1", f"STATUS={service.status()}")
        ready(service)
        await service.serve()
    events.stopped()


def _tell_if_deferring(ledger: Ledger) -> None:
    with suppress(Unavailable), ledger.connect() as db:  # of a database that is away it is told with every recipient
        if (gap := deferred(db)) is not None:
            events.lookups_deferred(gap.since.isoformat())


def run(loaded: Loaded, ready: Callable[[Service], None] = lambda _: None) -> None:
    """Run in the foreground until SIGTERM or SIGINT. Raises Busy, Unusable, Unavailable before it is ready."""
    process.close_memory()
    process.tell_where()
    log = loaded.config.log
    events.configure(log.format, log.level, log.addresses)
    with sole_daemon(loaded):
        ledger = open_for_run(loaded, events.journal_failed)
        if not loaded.in_postgres:
            announce(loaded.database, ledger.site_key)
        _tell_if_deferring(ledger)
        try:
            asyncio.run(_run(loaded, ledger, _numbers(loaded, ledger), ready))
        finally:
            ledger.close()


def _numbers(loaded: Loaded, ledger: Ledger) -> dict[str, int] | None:
    """Of the lists; None: the database is on another machine and away, which does not hold us back."""
    try:
        return number_lists(ledger, loaded.config)
    except Unavailable as why:
        if not loaded.in_postgres:
            raise
        events.database_unavailable(why)
        return None
