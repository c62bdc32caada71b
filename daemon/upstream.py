"""The SMTP client's pool: what the relay passes mail on with, over one upstream or several.

Connections are kept and used again, since a new one per message costs more than the message. One is retired after 5
refused recipients or 50 RSETs without a delivery (Postfix slows down at 10 and 110), and dropped without a word
whenever a message was begun and must not be finished: a connection that closes before the dot delivers nothing
(RFC 5321 4.1.1.4).

Of several servers the first that is well gets the mail; the next one is asked only when nothing of the message was
said to the one before. One that failed is left alone for a while, so that not every message waits for it; then one
message at a time tries it again, while the others keep to the next.

Failures are `Lost(step)`; what to tell the client is the relay's business.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final

from daemon import events, relay_events
from daemon.connection import Connection, Lost, Reply
from daemon.dialling import Endpoint, dial

__all__ = ["Connection", "Endpoint", "Hop", "Lost", "Pool", "Reply", "told"]

IDLE_SECONDS: Final = 60  # an idle connection is closed before the upstream's own limit (Postfix: 300 s) does it
REST_SECONDS: Final = (5.0, 60.0)  # how long a server that failed is left alone: doubling from the first to the last
_MAX_ERRORS: Final = 5
_MAX_RSETS: Final = 50
_BEFORE_MAIL: Final = ("connect", "greeting", "ehlo", "tls", "auth")  # steps, roughly by how far one has come


class Hop:
    """One server that mail may go to next: its places, its idle connections, and how it fares."""

    def __init__(self, endpoint: Endpoint, connections: int):
        self.endpoint = endpoint
        self.places = asyncio.Semaphore(connections)  # first come, first served; one is woken per place
        self.idle: deque[Connection] = deque()  # the one that came back last on the right
        self.features: dict[str, str] | None = None  # what it offered last; None: it has never answered
        self.lost = ""  # why it could not be reached last; "": it is well
        self._dials = 0  # under way
        self._rest = self._rested_at = 0.0

    @property
    def rests(self) -> bool:
        """Should it be left alone: it failed lately, or somebody is just finding out whether it still does?"""
        return bool(self.lost) and (self._dials > 0 or asyncio.get_running_loop().time() < self._rested_at)

    async def dial(self, hostname: str, seconds: float) -> Connection:
        """A new connection; how it went is noted. Raises Lost."""
        self._dials += 1
        try:
            connection = await dial(self.endpoint, hostname, seconds)
        except Lost as lost:
            self._failed(lost)
            raise
        finally:
            self._dials -= 1
        self.features, self.lost, self._rest, self._rested_at = connection.features, "", 0, 0
        return connection

    def _failed(self, lost: Lost) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._rested_at:  # else it is one of many that began before the first failed
            self._rest = min(max(2 * self._rest, REST_SECONDS[0]), REST_SECONDS[1])
            self._rested_at = now + self._rest
        self.lost = events.masked(lost)  # in words of a stranger, and in whatever encoding
        self.hang_up()  # a server that lets nobody in has most likely forgotten these

    def usable(self) -> Connection | None:
        """An idle connection that seems to be alive."""
        now = asyncio.get_running_loop().time()
        while self.idle:
            connection = self.idle.pop()
            if not (connection.gone or connection.spoke or now - connection.idle_since > IDLE_SECONDS):
                return connection
            connection.quit()
        return None

    def expire(self, now: float) -> None:
        """Close what nobody has used for long: the connections of a server whose turn is over."""
        while self.idle and now - self.idle[0].idle_since > IDLE_SECONDS:
            self.idle.popleft().quit()

    def hang_up(self) -> None:
        """Say goodbye on all idle connections."""
        while self.idle:
            self.idle.pop().quit()


class Pool:
    """Connections to the upstreams (one or more, in order of preference): at most `connections` to each, idle ones
    used again.

    `hostname` is what we call ourselves; `timeout` is in seconds, for one reply.
    """

    def __init__(self, endpoints: Sequence[Endpoint], *, hostname: str, timeout: float = 60, connections: int = 20):
        self.hops = tuple(Hop(endpoint, connections) for endpoint in endpoints)
        self.hostname, self.timeout = hostname, timeout
        self.features: dict[str, str] = {}  # what our own EHLO may offer: what all have that ever answered
        self.waiting = 0  # how many wait for a place
        self._homes: dict[Connection, Hop] = {}  # of the connections that are out
        self._current = self.hops[0]  # where mail went last
        self._closed = False

    @property
    def trouble(self) -> str:
        """Why no server was reached when it was last tried; "" if one was."""
        return "" if any(not hop.lost for hop in self.hops) else self.hops[0].lost

    async def probe(self) -> None:
        """Ask every upstream what it offers, so that the first EHLO knows. Raises Lost if none answers."""
        losses: dict[Hop, Lost] = {}
        for hop in self.hops:
            await self._place(hop)
            try:
                connection, _ = await self._take(hop, fresh=False)
            except Lost as lost:
                losses[hop] = lost
            else:
                self.give_back(connection)
        if len(losses) == len(self.hops):
            raise _most_telling(losses)

    def take_idle(self) -> Connection | None:
        """What nearly every message gets: a connection of the preferred server that was used before. None: ask `take`."""
        hop = self.hops[0]
        if hop is not self._current or hop.lost or hop.places.locked():
            return None
        connection = hop.usable()
        if connection is not None:
            _at_once(hop.places.acquire())
            self._homes[connection] = hop
        return connection

    async def take(self, *, fresh: bool = False) -> tuple[Connection, bool]:
        """A connection ready for MAIL, and whether it was used before.

        Raises Lost(connect|tls|greeting|ehlo|auth): no upstream can be used, or all connections are in use.
        """
        losses: dict[Hop, Lost] = {}
        for anyway in (False, True):  # at last those that rest, too: better a wait than a refusal
            for hop in self.hops:
                if hop in losses or not (anyway or self._is_due(hop)):
                    continue
                await self._place(hop)
                if hop.rests and not anyway:  # it failed while we waited
                    hop.places.release()
                    continue
                try:
                    return await self._take(hop, fresh=fresh)
                except Lost as lost:
                    losses[hop] = lost
        raise _most_telling(losses)

    @staticmethod
    def _is_due(hop: Hop) -> bool:
        """Well, or rested and with a place to try it: nobody waits in line for a server that failed."""
        return not hop.lost or not (hop.rests or hop.places.locked())

    async def _place(self, hop: Hop) -> None:
        """Wait for a place. Raises Lost when none comes free: ours to mend, and no reason to ask the next server."""
        if not hop.places.locked():
            await hop.places.acquire()  # at once, and without a timer
            return
        self.waiting += 1
        try:
            async with asyncio.timeout(self.timeout):
                await hop.places.acquire()
        except TimeoutError:
            raise Lost("connect", "all connections are in use") from None
        finally:
            self.waiting -= 1

    async def _take(self, hop: Hop, *, fresh: bool) -> tuple[Connection, bool]:
        """A connection for the place that we have. Raises Lost; the place is then given up."""
        try:
            connection = None if fresh else hop.usable()
            used = connection is not None
            if connection is None:
                connection = await hop.dial(self.hostname, self.timeout)
                self.features = _common([h.features for h in self.hops if h.features is not None])
        except BaseException:
            hop.places.release()
            raise
        self._homes[connection] = hop
        if hop is not self._current:
            self._note_change(hop)
        return connection, used

    def _note_change(self, hop: Hop) -> None:
        if all(better.lost for better in self.hops[: self.hops.index(hop)]):  # else it was asked beside, or too late
            reason = self._current.lost or "it is preferred, and answers again"
            self._current = hop
            relay_events.upstream_changed(hop.endpoint.host, hop.endpoint.port, reason)

    def give_back(self, connection: Connection, *, reset: bool = False) -> None:
        """Return a connection between transactions; `reset`: a transaction was begun and must be forgotten."""
        home = self._homes.pop(connection)
        home.places.release()
        if not connection.in_step:
            connection.drop("left in the middle of a command")
        if self._closed or connection.gone or connection.errors >= _MAX_ERRORS or connection.rsets >= _MAX_RSETS:
            connection.quit()
            return
        if reset:
            connection.reset()
        connection.idle_since = asyncio.get_running_loop().time()
        home.idle.append(connection)
        for hop in self.hops:
            hop.expire(connection.idle_since)

    def discard(self, connection: Connection) -> None:
        """Return a connection in the middle of a message: it is dropped."""
        self._homes.pop(connection).places.release()
        connection.drop()

    def close(self) -> None:
        """Say goodbye on all idle connections, and on the others as they come back."""
        self._closed = True
        for hop in self.hops:
            hop.hang_up()


def _at_once(acquiring: Coroutine[Any, Any, object]) -> None:
    """Run what does not have to wait: a semaphore that is not locked."""
    try:
        acquiring.send(None)
    except StopIteration:
        return
    raise AssertionError("a semaphore that is not locked made us wait")


def _common(offers: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What all offer, so that a message that one of them can take can go to any; of SIZE (RFC 1870) the least limit."""
    common = {keyword: rest for keyword, rest in offers[0].items() if all(keyword in offer for offer in offers)}
    if len(offers) > 1 and "SIZE" in common:
        sizes = [offer["SIZE"] for offer in offers]
        limits = [int(size) for size in sizes if re.fullmatch(r"[0-9]{1,20}", size)]
        common["SIZE"] = str(min(filter(None, limits), default=""))  # 0, or none told: no limit
    return common


def _most_telling(losses: Mapping[Hop, Lost]) -> Lost:
    """One loss for all: the step that the one came to which came furthest, and the words of each."""
    if len(losses) == 1:
        return next(iter(losses.values()))
    step = max((lost.step for lost in losses.values()), key=_BEFORE_MAIL.index)
    return Lost(step, "; ".join(f"{hop.endpoint} {lost}" for hop, lost in losses.items()))


def told(lost: Lost) -> str:
    """What a client is told when the upstream cannot be used, and the log beside it."""
    relay_events.upstream_lost(lost.step, lost)
    if lost.step in _BEFORE_MAIL:
        return "451 4.4.1 the next mail server cannot be reached, try again later"
    return "451 4.4.2 the connection to the next mail server was lost, try again later"
