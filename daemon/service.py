"""The daemon, put together: `run` starts every part in order, says READY, and stops them in reverse.

    config -> lock -> ledger -> doors (listen) -> roles: mailboxes, jobs, notices, hooks -> READY=1 ... SIGTERM -> the same backwards

Only what composes (tests/test_layers.py) and the command line know the whole config; a part gets its own section plus house and lists.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final

from daemon import building, events, jobs, metrics, process, reloading, systemd
from daemon.config import Config, ConfigError, Loaded, load
from daemon.doors import Doors
from daemon.duty.watching import Surroundings
from daemon.gate import Gate
from daemon.loop import Loop
from daemon.nodes import JOBS, Duties
from daemon.opening import Away, announce, gate_of, lookup_of, now, number_lists, open_for_run, sole_daemon
from daemon.register import Register
from daemon.roles import Present, Roles
from daemon.vitals import Vitals
from daemon.witness import Witness
from storage.deferral import deferred
from storage.engine import Ledger, Unavailable, Unusable

_REACH_SECONDS: Final = 2.0  # between two tries to reach a database that was away when we started


class Service:
    """The running daemon. `numbers`: of the lists; None: the database is away, and we start all the same."""

    def __init__(self, loaded: Loaded, ledger: Ledger, started: datetime, numbers: dict[str, int] | None):
        hooks = building.hooks(loaded)
        gate = Gate(Away(), {}) if numbers is None else gate_of(ledger, numbers)
        self.present = Present(loaded, gate, hooks, numbers)
        self.ledger, self.started = ledger, started
        self._register = Register(ledger, now)
        self._witness = Witness(ledger, partial(lookup_of, ledger))
        self.doors = Doors(ledger, self._register, self._witness, self.vitals)
        config, duties = loaded.config, Duties(ledger)
        clockwork = jobs.Jobs(ledger, config.bounce, now, config.retention, loaded.backup_dir)
        self.roles = Roles(ledger, duties, lambda: self.present, lambda: self.doors.pool, clockwork)
        around = Surroundings(
            self._vitals_in_full, lambda: duties.ours(JOBS), lambda: self.doors.pool, self.roles.restart_clockwork
        )
        self.watch = building.watch(loaded, ledger, duties, around)
        self._tasks: list[asyncio.Task[None]] = []  # watching; reaching the database
        self.stop, self.reload = asyncio.Event(), asyncio.Event()

    async def start(self, stack: AsyncExitStack) -> None:
        """Start every part; `stack` stops them in reverse. Raises Busy when a port is taken."""
        stack.push_async_callback(self._close_gate)
        self._register.start()
        stack.push_async_callback(self._register.stop)
        self._witness.start()
        stack.callback(self._witness.stop)
        await self.doors.open(self.present.loaded, self.present.gate, stack)
        self.roles.start(stack)
        stack.push_async_callback(self._stop_tasks)
        self._tasks.append(asyncio.create_task(self.watch.run()))
        if self.present.numbers is None:
            self._tasks.append(asyncio.create_task(self._reach()))
        else:
            await self.roles.begin()

    async def _close_gate(self) -> None:
        await self.present.gate.close()

    async def _stop_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _reach(self) -> None:
        """Until the database is there: then what stands for doubt gives way to it, and our roles begin."""
        while self.present.numbers is None:
            await asyncio.sleep(_REACH_SECONDS)
            before = self.present
            try:
                numbers = await asyncio.to_thread(number_lists, self.ledger, before.loaded.config)
                if before is not self.present:
                    continue  # reloaded meanwhile: its lists want numbers, too
                fresh = replace(before, gate=gate_of(self.ledger, numbers), numbers=numbers)
                hand_out = self._prepare(fresh)
                self.present = fresh
                hand_out()
            except (Unavailable, Unusable) as why:
                events.database_unavailable(why)
            except ConfigError as error:  # a secret or a certificate cannot be read any more
                events.reload_refused([str(p) for p in error.problems])
        events.database_reached()
        await self.roles.begin()

    # ---- how it is

    def vitals(self) -> Vitals:
        """How the parts are."""
        pool = self.doors.pool
        return Vitals(
            self.started,
            {door: tuple(addresses) for door, addresses in self.doors.bound.items()},
            self.roles.mailboxes(),
            None if pool is None else pool.trouble,
            self.roles.ours(),
            metrics.audit_broken.on,
            metrics.promise_broken.of().value,
            metrics.suppressions_unexplained.on,
            self.ledger.journal is not None and self.ledger.journal.behind,
            hooks=tuple(hook.name for hook in self.present.hooks),
            duty=self.watch.duty,
        )

    def _vitals_in_full(self) -> Vitals:
        """With what has to be read from files."""
        return replace(self.vitals(), certificates=building.certificates(self.present.loaded))

    def status(self) -> str:
        """One line for `systemctl status`."""
        bound, watchers = self.doors.bound, self.roles.watchers
        parts = [f"relay on {' '.join(bound['relay'])}"] if "relay" in bound else []
        up = sum(w.connected for w in watchers.values())
        parts += [f"web on {' '.join(bound[name])}" for name in ("web", "public") if name in bound]
        parts += [f"{up} of {len(watchers)} mailboxes connected"] if watchers else []
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
            fresh = load(self.present.loaded.path)
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
        before = self.present
        old, new = before.loaded.config, fresh.config
        fixed = list(reloading.needs_restart(old, new))
        if fixed:
            events.reload_refused([f"{p}: cannot change without a restart; the rest is taken over" for p in fixed])
            new = reloading.keep(old, new)
            fresh = Loaded(new, fresh.path)
        numbers, gate = before.numbers, before.gate
        if numbers is not None:
            numbers = await self._numbered(new, numbers)
            gate = gate.renumbered(numbers)
        present = Present(fresh, gate, building.hooks(fresh), numbers)
        hand_out = self._prepare(present)  # before anything changes
        self.present = present
        events.configure(new.log.format, new.log.level, new.log.addresses)
        hand_out()
        await self.roles.restart()
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

    def _prepare(self, fresh: Present) -> Callable[[], None]:
        """All that can go wrong is done now; what is returned lets every part work by this. Raises ConfigError."""
        doors = self.doors.prepare(fresh.loaded, fresh.gate)

        def hand_out() -> None:
            doors()
            building.take_over(self.watch, fresh.loaded)
            self.roles.clockwork.take_over(fresh.loaded.config.bounce, fresh.loaded.config.retention)

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
        events.ready(**service.doors.bound)
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
    process.open_files()
    process.tell_where()
    log = loaded.config.log
    events.configure(log.format, log.level, log.addresses)
    with sole_daemon(loaded):
        ledger = open_for_run(loaded, events.journal_failed)
        if not loaded.in_postgres:
            announce(loaded.database, ledger.site_key)
        _tell_if_deferring(ledger)
        try:
            with asyncio.Runner(loop_factory=Loop) as runner:
                runner.run(_run(loaded, ledger, _numbers(loaded, ledger), ready))
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
