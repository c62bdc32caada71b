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
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from daemon import building, events, jobs, metrics, postfix, relaying, reloading, systemd
from daemon.config import Config, ConfigError, Loaded, Mailbox, host_port, is_loopback, load
from daemon.gate import Gate
from daemon.mailbox.watcher import Watcher
from daemon.nodes import HOOKS, JOBS, NOTICES, Duties, mailbox
from daemon.opening import Away, Busy, announce, gate_of, lookup_of, now, number_lists, open_for_run, sole_daemon
from daemon.register import Register
from daemon.relay.server import Server
from daemon.upstream import Lost, Pool
from daemon.vitals import MailboxVitals, Vitals
from daemon.web import server as web
from daemon.web.context import Context as WebContext
from daemon.webhooks import Hook, Tellers
from daemon.witness import Witness
from storage.deferral import deferred
from storage.engine import Ledger, Unavailable, Unusable

_REACH_SECONDS = 2.0  # between two tries to reach a database that was away when we started
_ASK_AGAIN_SECONDS = (1.0, 60.0)  # doubling from the first to the last


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
    webs: list[tuple[str, web.Server]] = field(default_factory=list)  # each with the address of the config
    writing: asyncio.Task[None] | None = None  # of notices
    restarting: asyncio.Lock = field(default_factory=asyncio.Lock)  # of it: a reload may come while our duties change
    hooks: tuple[Hook, ...] = ()
    telling: Tellers | None = None  # them
    clockwork: jobs.Jobs = field(init=False)
    scheduler: AsyncIOScheduler = field(init=False)
    keeping: list[asyncio.Task[None]] = field(default_factory=list)  # of our duties; reaching the database
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
        await self._open_relay(stack)
        await self._open_policy(stack)
        await self._open_web(stack, "web", "listen")
        await self._open_web(stack, "public", "public_listen")
        self.clockwork = jobs.Jobs(self.ledger, config.bounce, now, config.retention, self.loaded.backup_dir)
        self.scheduler = jobs.schedule(self.clockwork)
        self.scheduler.start(paused=True)
        stack.callback(self.scheduler.shutdown, wait=False)
        stack.push_async_callback(self.duties.give_up)
        stack.push_async_callback(self._stop_writing)
        stack.push_async_callback(self._stop_telling)
        stack.push_async_callback(self._stop_watchers)
        stack.push_async_callback(self._stop_keeping)
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
                self.gate = gate_of(self.ledger, numbers)
                self._hand_out()
            except (Unavailable, Unusable) as why:
                events.database_unavailable(why)
            except ConfigError as error:  # a secret or a certificate cannot be read any more
                events.reload_refused([str(p) for p in error.problems])
            else:
                self.numbers = numbers
        events.database_reached()
        await self._begin_duties()

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
        _refuse_ourselves(self.loaded.config, self.bound["relay"])
        self._ask_upstream()
        stack.callback(self._stop_asking)

    def _ask_upstream(self) -> None:
        self._stop_asking()
        assert self.relay is not None
        self.asking = asyncio.create_task(_ask_upstream(self.relay.pool))

    def _stop_asking(self) -> None:
        if self.asking is not None:
            self.asking.cancel()

    async def _open_policy(self, stack: AsyncExitStack) -> None:
        listen = self.loaded.config.postfix.policy
        if not listen:
            return
        self.policy = postfix.Server([listen], self._policy_context())
        stack.push_async_callback(self.policy.stop)
        try:
            self.bound["policy"] = await self.policy.start()
        except OSError as why:
            raise Busy(f"postfix.policy: {why.strerror or why}") from None

    def _policy_context(self) -> postfix.Context:
        return relaying.policy_context(self.loaded.config, self.ledger, self.gate, self.register)

    async def _open_web(self, stack: AsyncExitStack, name: str, option: str) -> None:
        """The HTTP door on the address of this option, if it has one."""
        listen = getattr(self.loaded.config.web, option)
        if listen:
            server = web.Server(listen, self._web_context(listen))
            stack.push_async_callback(server.stop)
            try:
                self.bound[name] = await server.start()
            except OSError as why:
                raise Busy(f"web.{option}: {why.strerror or why}") from None
            self.webs.append((listen, server))
            settings = self.loaded.config.web
            wanted = settings.admin_password_file or settings.operator or settings.token
            if option == "listen" and wanted and not is_loopback(host_port(listen)[0]):
                events.operators_shut_out(listen)

    def _web_context(self, listen: str) -> WebContext:
        """Operators come to `web.listen`, and there only where nobody else can reach it."""
        apart = listen == self.loaded.config.web.listen and is_loopback(host_port(listen)[0])
        return building.web_context(self.loaded, self.ledger, self.gate.numbers, self.vitals if apart else None)

    def vitals(self) -> Vitals:
        """How the parts are."""
        return Vitals(
            self.started,
            {door: tuple(addresses) for door, addresses in self.bound.items()},
            tuple(self._mailbox_vitals(settings.name) for settings in self.loaded.config.mailbox),
            None if self.relay is None else self.relay.pool.trouble,
            tuple(role for role in (JOBS, NOTICES, HOOKS) if self.duties.ours(role)),
            metrics.audit_broken.on,
            metrics.promise_broken.of().value,
        )

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
        watcher = building.watcher(self.loaded, settings, self.ledger, self.gate.numbers)
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
        """Beat the watchdog from the event loop, reload on demand, until told to stop."""
        beat = systemd.watchdog_seconds()
        while not self.stop.is_set():
            waiting = [asyncio.ensure_future(self.stop.wait()), asyncio.ensure_future(self.reload.wait())]
            await asyncio.wait(waiting, timeout=min(beat or 5.0, 5.0), return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
            with suppress(Unavailable, Unusable):  # a database that took the place of another is taken up soon
                self.ledger.store.verify(self.ledger.site_key)
            if beat is not None:
                systemd.notify("WATCHDOG=1", f"STATUS={self.status()}")
            if self.reload.is_set() and not self.stop.is_set():
                self.reload.clear()
                await self._reload()

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
            events.reload_refused([f"{path}: cannot change without a restart" for path in fixed])
            new = reloading.keep(old, new)
            fresh = Loaded(new, fresh.path)
        hooks, _ = building.hooks(fresh), building.holders(fresh)  # before anything changes
        if self.numbers is not None:
            self.numbers = await asyncio.to_thread(number_lists, self.ledger, new)
            self.gate = self.gate.renumbered(self.numbers)
        self.loaded, self.hooks = fresh, hooks
        events.configure(new.log.format, new.log.level, new.log.addresses)
        self._hand_out()
        await self._write_to_people()
        await self._tell_programs()
        await self._stop_watchers()  # passwords, CA files and house are read again
        if self.numbers is not None:
            await self._follow_duties()
        events.reloaded([name for name in type(new).model_fields if getattr(old, name) != getattr(new, name)])

    def _hand_out(self) -> None:
        """Let every door work by the gate and the config that there are now."""
        if self.relay is not None:
            context = relaying.context(self.loaded, self.ledger, self.gate, self.register, self.witness)
            assert context is not None
            self.relay.take_over(context, relaying.listening(self.loaded))
            self._ask_upstream()
        if self.policy is not None:
            self.policy.take_over(self._policy_context())
        for listen, server in self.webs:
            server.take_over(self._web_context(listen))
        self.clockwork.take_over(self.loaded.config.bounce, self.loaded.config.retention)


def _refuse_ourselves(config: Config, bound: list[str]) -> None:
    """An upstream that is one of our own listeners would be a loop."""
    assert config.upstream is not None
    for address in bound:
        host, port = host_port(address)
        for server in (config.upstream, *config.upstream.fallback):
            if port == server.port and (server.host == host or is_loopback(server.host)):
                where = f"{server.host}:{port}"
                raise Unusable(f"upstream: {where} is the relay's own listener; name the mail server behind it")


async def _ask_upstream(pool: Pool) -> None:
    """Until it answers once, so that EHLO offers what it has."""
    delay, last = _ASK_AGAIN_SECONDS
    while True:
        try:
            await pool.probe()
        except Lost as lost:
            events.upstream_lost(lost.step, lost)
        else:
            return
        await asyncio.sleep(delay)
        delay = min(2 * delay, last)


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
