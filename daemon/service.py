"""The daemon, put together: `run` starts every part in order, says READY, and stops them in reverse.

    config -> lock -> ledger -> relay, web (listen) -> mailbox threads -> jobs -> READY=1 ... SIGTERM -> the same backwards

Only this file, doctor and demo know the whole config; a part gets its own section plus house and lists.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial

from daemon import events, jobs, notices, postfix, relaying, systemd
from daemon.config import Config, ConfigError, House, Loaded, Mailbox, host_port, is_loopback, load
from daemon.intake import Intake
from daemon.mail.links import undo_by_mail
from daemon.mail.reading import Reading
from daemon.mail.triage import read
from daemon.mailbox.session import Session, connect
from daemon.mailbox.watcher import Means, Watcher
from daemon.opening import Busy, announce, now, number_lists, open_for_run, sole_owner
from daemon.register import Register
from daemon.relay.server import Server
from daemon.upstream import Lost, Pool
from daemon.web import app as web
from daemon.web.context import Context as WebContext
from storage.deferral import deferred
from storage.engine import Ledger, Unavailable, Unusable

_ASK_AGAIN_SECONDS = (1.0, 60.0)  # doubling from the first to the last


# ------------------------------------------------------------------ building


def build_watcher(loaded: Loaded, settings: Mailbox, ledger: Ledger, numbers: dict[str, int]) -> Watcher:
    """The watcher of one mailbox, not started."""
    config = loaded.config
    intake = Intake(ledger, config.house, numbers, config.bounce, config.intake, notices=writes_to_people(config))
    return Watcher(
        settings, Means(partial(_log_in, loaded, settings), partial(_read, config.house, ledger), intake, now)
    )


def writes_to_people(config: Config) -> bool:
    """Are notices wanted, and is there something to send them with and from?"""
    sender = notices.sender_of(config.notices.sender, config.house)
    return config.notices.confirm and config.upstream is not None and bool(sender)


def build_post(config: Config, ledger: Ledger, pool: Pool) -> notices.Post:
    """What sends our own mail."""
    sender = notices.sender_of(config.notices.sender, config.house)
    undo_link = partial(undo_by_mail, next(iter(config.house.addresses), sender))  # there is no page to undo at yet
    return notices.Post(ledger, config.house, sender, pool, undo_link, now)


def build_web(config: Config, ledger: Ledger, numbers: dict[str, int]) -> WebContext:
    """What the HTTP door answers with."""
    return WebContext(ledger, config.house, numbers, config.web.public_url, now)


def _log_in(loaded: Loaded, settings: Mailbox) -> Session:
    """The password is read at each log-in, so that a new one counts from the next on."""
    ca_file = loaded.file(settings.ca_file) if settings.ca_file else None
    return connect(settings, loaded.secret(settings.password_file), ca_file)


def _read(house: House, ledger: Ledger, raw: bytes) -> Reading:
    return read(raw, house, ledger.site_key)


# ------------------------------------------------------------------ running


@dataclass
class Service:
    """The running daemon."""

    loaded: Loaded
    ledger: Ledger
    numbers: dict[str, int]
    register: Register = field(init=False)
    relay: Server | None = None
    policy: postfix.Server | None = None
    asking: asyncio.Task[None] | None = None  # what the upstream offers
    watchers: dict[str, Watcher] = field(default_factory=dict)
    webs: list[web.Server] = field(default_factory=list)
    writing: asyncio.Task[None] | None = None  # of notices
    bound: dict[str, list[str]] = field(default_factory=dict)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    reload: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self, stack: AsyncExitStack) -> None:
        """Start every part; `stack` stops them in reverse. Raises Busy when a port is taken."""
        config = self.loaded.config
        self.register = Register(self.ledger, now)
        self.register.start()
        stack.push_async_callback(self.register.stop)
        await self._open_relay(stack)
        await self._open_policy(stack)
        await self._open_web(stack, "web", "listen")
        await self._open_web(stack, "public", "public_listen")
        await self._write_to_people()
        stack.push_async_callback(self._stop_writing)
        stack.push_async_callback(self._stop_watchers)
        for settings in config.mailbox:
            self._watch(settings)
        due = jobs.Jobs(self.ledger, config.bounce, now, config.retention.refusals, self.loaded.backup_dir)
        scheduler = jobs.schedule(due)
        scheduler.start()
        stack.callback(scheduler.shutdown, wait=False)

    async def _open_relay(self, stack: AsyncExitStack) -> None:
        context = relaying.context(self.loaded, self.ledger, self.numbers, self.register)
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
        return relaying.policy_context(self.loaded.config, self.ledger, self.numbers, self.register)

    async def _open_web(self, stack: AsyncExitStack, name: str, option: str) -> None:
        """The HTTP door on the address of this option, if it has one."""
        listen = getattr(self.loaded.config.web, option)
        if listen:
            server = web.Server(listen, build_web(self.loaded.config, self.ledger, self.numbers))
            stack.push_async_callback(server.stop)
            try:
                self.bound[name] = await server.start()
            except OSError as why:
                raise Busy(f"web.{option}: {why.strerror or why}") from None
            self.webs.append(server)

    async def _write_to_people(self) -> None:
        """(Re)start the sending of notices, as the config now says."""
        await self._stop_writing()
        if self.relay is not None and writes_to_people(self.loaded.config):
            post = build_post(self.loaded.config, self.ledger, self.relay.pool)
            self.writing = asyncio.create_task(post.run())

    async def _stop_writing(self) -> None:
        """The notice in hand is finished first, or it would be sent twice."""
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing

    def _watch(self, settings: Mailbox) -> None:
        watcher = build_watcher(self.loaded, settings, self.ledger, self.numbers)
        self.watchers[settings.name] = watcher
        watcher.start()

    async def _stop_watchers(self) -> None:
        for watcher in self.watchers.values():
            watcher.ask_to_stop()  # all at once: there are fewer threads to wait in than there may be mailboxes
        await asyncio.gather(*(asyncio.to_thread(w.stop) for w in self.watchers.values()))

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
        fixed = list(_needs_restart(old, new))
        if fixed:
            events.reload_refused([f"{path}: cannot change without a restart" for path in fixed])
            new = _keep(old, new)
            fresh = Loaded(new, fresh.path)
        self.numbers = await asyncio.to_thread(number_lists, self.ledger, new)
        self.loaded = fresh
        events.configure(new.log.format, new.log.level, new.log.addresses)
        if self.relay is not None and new.upstream is not None:
            context = relaying.context(fresh, self.ledger, self.numbers, self.register)
            assert context is not None
            self.relay.take_over(context, relaying.listening(fresh))
            self._ask_upstream()
        if self.policy is not None:
            self.policy.take_over(self._policy_context())
        for server in self.webs:
            server.take_over(build_web(new, self.ledger, self.numbers))
        await self._write_to_people()
        await self._stop_watchers()  # passwords, CA files and house are read again
        self.watchers.clear()
        for settings in new.mailbox:
            self._watch(settings)
        events.reloaded([name for name in type(new).model_fields if getattr(old, name) != getattr(new, name)])


def _needs_restart(old: Config, new: Config) -> Iterator[str]:
    """The options that differ and cannot change in place: where we listen, and what we write to."""
    if old.storage != new.storage:
        yield "storage"
    if (old.upstream is None) != (new.upstream is None):
        yield "upstream"
    if _sockets(old) != _sockets(new):
        yield "relay.listener" if old.relay.listener or new.relay.listener else "relay.listen"
    if old.postfix.policy != new.postfix.policy:
        yield "postfix.policy"
    for option in ("listen", "public_listen"):
        if getattr(old.web, option) != getattr(new.web, option):
            yield f"web.{option}"


def _sockets(config: Config) -> list[tuple[str, bool]]:
    return [(listener.address, listener.tls == "implicit") for listener in config.relay.listeners()]


def _keep(old: Config, new: Config) -> Config:
    """The new config with what cannot change as it was."""
    kept: dict[str, object] = {"storage": old.storage}
    if (old.upstream is None) != (new.upstream is None):
        kept["upstream"] = old.upstream
    if _sockets(old) != _sockets(new):
        kept["relay"] = old.relay
    kept["postfix"] = new.postfix.model_copy(update={"policy": old.postfix.policy})
    listening = {"listen": old.web.listen, "public_listen": old.web.public_listen}
    kept["web"] = new.web.model_copy(update=listening)
    return new.model_copy(update=kept)


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


async def _run(loaded: Loaded, ledger: Ledger, numbers: dict[str, int], ready: Callable[[Service], None]) -> None:
    async with AsyncExitStack() as stack:
        service = Service(loaded, ledger, numbers)
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
    with ledger.connect() as db:
        gap = deferred(db)
    if gap is not None:
        events.lookups_deferred(gap.since.isoformat())


def run(loaded: Loaded, ready: Callable[[Service], None] = lambda _: None) -> None:
    """Run in the foreground until SIGTERM or SIGINT. Raises Busy, Unusable, Unavailable before it is ready."""
    log = loaded.config.log
    events.configure(log.format, log.level, log.addresses)
    with sole_owner(loaded.database):
        ledger = open_for_run(loaded, events.journal_failed)
        announce(loaded.database, ledger.site_key)
        _tell_if_deferring(ledger)
        try:
            asyncio.run(_run(loaded, ledger, number_lists(ledger, loaded.config), ready))
        finally:
            ledger.close()
