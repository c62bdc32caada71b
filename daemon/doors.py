"""The doors at which others knock, opened as the config says: the relay, the policy service, HTTP on one address or two.

(The mailbox is a door at which we knock: daemon.roles.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from daemon import postfix, relaying
from daemon.config import Loaded, host_port, is_loopback
from daemon.gate import Gate
from daemon.opening import Busy
from daemon.register import Register
from daemon.relay.server import Server
from daemon.upstream import Pool
from daemon.vitals import Vitals
from daemon.witness import Witness
from storage.engine import Ledger

if TYPE_CHECKING:
    from daemon.web.context import Context as WebContext
    from daemon.web.server import Server as WebServer


@dataclass
class Doors:
    """What listens. `vitals`: how the daemon is, for the operators."""

    ledger: Ledger
    register: Register
    witness: Witness
    vitals: Callable[[], Vitals]
    bound: dict[str, list[str]] = field(default_factory=dict)  # door -> where it listens
    _relay: Server | None = None
    _policy: postfix.Server | None = None
    _webs: list[tuple[str, WebServer]] = field(default_factory=list)  # each with the address of the config
    _asking: asyncio.Task[None] | None = None  # what the upstream offers

    async def open(self, loaded: Loaded, gate: Gate, stack: AsyncExitStack) -> None:
        """Open all that this config has; `stack` closes them in reverse. Raises Busy when a port is taken."""
        await self._open_relay(loaded, gate, stack)
        await self._open_policy(loaded, gate, stack)
        stack.push_async_callback(self._close_webs)
        await self._open_web("web", "listen", loaded, gate)
        await self._open_web("public", "public_listen", loaded, gate)

    @property
    def pool(self) -> Pool | None:
        """Of connections to the upstream; None: there is no relay."""
        return None if self._relay is None else self._relay.pool

    def prepare(self, loaded: Loaded, gate: Gate) -> Callable[[], None]:
        """All that can go wrong is done now; what is returned lets every door work by this config and gate. Raises ConfigError."""
        relay = relaying.context(loaded, self.ledger, gate, self.register, self.witness)
        listening = [] if self._relay is None else relaying.renewed(loaded, self._relay.listening)
        policy = self._policy_context(loaded, gate)
        webs = [(server, self._web_context(listen, loaded, gate)) for listen, server in self._webs]

        def hand_out() -> None:
            if self._relay is not None and relay is not None:
                self._relay.take_over(relay, listening)
                self._ask_upstream(self._relay.pool)
            if self._policy is not None:
                self._policy.take_over(policy)
            for server, context in webs:
                server.take_over(context)

        return hand_out

    async def _open_relay(self, loaded: Loaded, gate: Gate, stack: AsyncExitStack) -> None:
        context = relaying.context(loaded, self.ledger, gate, self.register, self.witness)
        if context is None:
            return
        self._relay = Server(context, relaying.listening(loaded))
        stack.push_async_callback(self._relay.stop)
        try:
            self.bound["relay"] = await self._relay.start()
        except OSError as why:
            raise Busy(f"relay.listen: {why.strerror or why}") from None
        relaying.refuse_ourselves(loaded.config, self.bound["relay"])
        self._ask_upstream(self._relay.pool)
        stack.callback(self._stop_asking)

    def _ask_upstream(self, pool: Pool) -> None:
        self._stop_asking()
        self._asking = asyncio.create_task(relaying.ask_upstream(pool))

    def _stop_asking(self) -> None:
        if self._asking is not None:
            self._asking.cancel()

    async def _open_policy(self, loaded: Loaded, gate: Gate, stack: AsyncExitStack) -> None:
        listen = loaded.config.postfix.policy
        if not listen:
            return
        self._policy = postfix.Server([listen], self._policy_context(loaded, gate))
        stack.push_async_callback(self._policy.stop)
        try:
            self.bound["policy"] = await self._policy.start()
        except OSError as why:
            raise Busy(f"postfix.policy: {why.strerror or why}") from None

    def _policy_context(self, loaded: Loaded, gate: Gate) -> postfix.Context:
        return relaying.policy_context(loaded.config, self.ledger, gate, self.register)

    async def _open_web(self, name: str, option: str, loaded: Loaded, gate: Gate) -> None:
        """The HTTP door on the address of this option, if it has one."""
        listen = getattr(loaded.config.web, option)
        if listen:
            from daemon import hosting  # a third of a second that a restart without this door need not wait for

            server = hosting.server(loaded, listen, self._web_context(listen, loaded, gate))
            self._webs.append((listen, server))
            try:
                self.bound[name] = await server.start()
            except OSError as why:
                raise Busy(f"web.{option}: {why.strerror or why}") from None

    async def _close_webs(self) -> None:
        await asyncio.gather(*(server.stop() for _, server in self._webs))

    def _web_context(self, listen: str, loaded: Loaded, gate: Gate) -> WebContext:
        """Operators come to `web.listen`, and there only where nobody else can reach it."""
        from daemon import hosting

        apart = listen == loaded.config.web.listen and is_loopback(host_port(listen)[0])
        return hosting.context(loaded, self.ledger, gate.numbers, self.vitals if apart else None)
