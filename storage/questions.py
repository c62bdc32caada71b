"""The question before every recipient, asked of PostgreSQL.

    Lookup      for commands: answers at once
    Questions   for the daemon: waits in the event loop, and asks together what comes together

One statement for all keys of all who ask, on a connection of its own that never writes. Nothing is cached: a question
that was put is answered by a statement that began afterwards.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import psycopg

from storage import hashes
from storage.address import Address, FormKind, HashKind, SiteKey, keys_of
from storage.engine import Unavailable, Unusable, judge_identity, refuse_deferred
from storage.lookup import Found, Row, answers_of, gather, rows_of
from storage.postgres import Server
from storage.sweep import sweep

T = TypeVar("T")

SECONDS: Final = 2.0  # for a question; one that waits behind another is answered within 5 s
_LET_GO: Final = 0.1  # s in which the server may hear that we do not wait for a statement any more
_LOOK: Final = hashes.LOOK.encode()
_QUESTION: Final = b"SELECT key, scope, reason, since, evidence FROM suppression WHERE key = ANY(%s)"
_MOST: Final = 5_000  # keys a statement
_IDENTITY: Final = b"""
    SELECT (SELECT version_num FROM alembic_version), (SELECT value FROM meta WHERE name = 'check'),
           (SELECT value FROM meta WHERE name = 'needs'), (SELECT value FROM meta WHERE name = 'newest'),
           (SELECT value FROM meta WHERE name = 'deferred')
"""


class Lookup:
    """As storage.lookup.Lookup. Not for several threads."""

    def __init__(self, server: Server, site_key: SiteKey):
        self.server, self.site_key = server, site_key
        self._db: psycopg.Connection[Any] | None = None
        self._known = hashes.Known()

    def rows(self, address: Address) -> list[Row]:
        """All rows that any form of this address hits. Raises Unavailable, Unusable."""
        return self.rows_of_all([address])[0]

    def rows_of_all(self, addresses: Iterable[Address]) -> list[list[Row]]:
        """As `rows` for several."""
        kinds = self._kinds()
        asked = [keys_of(self.site_key, a, kinds) for a in addresses]
        return rows_of(asked, self._found(_keys(asked)))

    def sweep(self, texts: Sequence[str]) -> list[Sequence[Row] | None]:
        """As `rows_of_all` for addresses as a list has them; None: not one that storage.sweep knows, parse it."""
        kinds = self._kinds()
        asked = sweep(self.site_key, texts, kinds)
        return answers_of(asked, texts, self._found(asked.wanted), hashes_too=bool(kinds))

    def _kinds(self) -> Sequence[HashKind]:
        return self._known.kinds(lambda: self._asked(self._look))

    def _look(self, db: psycopg.Connection[Any]) -> bytes | None:
        return hashes.seen(db.execute(_LOOK).fetchone(), self.site_key)

    def _found(self, keys: Sequence[bytes]) -> Found:
        found: Found = {}
        for start in range(0, len(keys), _MOST):
            some = list(keys[start : start + _MOST])
            gather(found, self._asked(partial(_ask, keys=some)))
        return found

    def _asked(self, question: Callable[[psycopg.Connection[Any]], T]) -> T:
        try:
            if self._db is None or self._db.closed:
                self._known.forget()
                self._db = psycopg.connect(self.server.conninfo(SECONDS), autocommit=True)
                _identify(self._db.execute(_IDENTITY).fetchone(), self.site_key)
            return question(self._db)
        except psycopg.Error as why:
            self.close()
            raise Unavailable(f"{self.server.name}: {_said(why)}") from None
        except (Unavailable, Unusable):
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; the next question opens one."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def __del__(self) -> None:
        """The gate of a thread ends with the thread, and nobody is left to close it."""
        self.close()


def _ask(db: psycopg.Connection[Any], keys: list[bytes]) -> list[Any]:
    return db.execute(_QUESTION, (keys,), prepare=True, binary=True).fetchall()


class Questions:
    """For one event loop. While a statement is under way, further questions gather for the next one."""

    def __init__(self, server: Server, site_key: SiteKey):
        self.server, self.site_key = server, site_key
        self._db: psycopg.AsyncConnection[Any] | None = None
        self._known = hashes.Known()
        self._waiting: list[_Question] = []
        self._asking: asyncio.Task[None] | None = None
        self._connecting: asyncio.Task[psycopg.AsyncConnection[Any]] | None = None

    async def rows_of_all(self, addresses: Sequence[Address]) -> list[list[Row]]:
        """All rows that any form of each address hits. Raises Unavailable, Unusable."""
        loop = asyncio.get_running_loop()
        question = _Question(addresses, loop.create_future())
        self._waiting.append(question)
        if self._asking is None:
            self._asking = loop.create_task(self._ask())
        return await question.answer

    async def _ask(self) -> None:
        """Ask until nobody waits."""
        try:
            while self._waiting:
                together, self._waiting = self._waiting, []
                try:
                    await _in_time(self._answer(together))
                except (psycopg.Error, OSError, TimeoutError, Unavailable, Unusable) as why:
                    await self._disconnect()
                    for question in together:
                        question.fail(f"{self.server.name}: {_said(why)}")
        finally:
            self._asking = None

    async def _answer(self, together: Sequence[_Question]) -> None:
        db = await self._connected()
        if (kinds := self._known.fresh()) is None:
            began = time.monotonic()
            value = hashes.seen(await (await db.execute(_LOOK)).fetchone(), self.site_key)
            self._known.learn(value, began)
            kinds = hashes.named(value)  # however long it took: `fresh` may say by now that it is too old
        asked = [[keys_of(self.site_key, a, kinds) for a in question.addresses] for question in together]
        keys = _keys([of_one for of_question in asked for of_one in of_question])
        cursor = await db.execute(_QUESTION, (keys,), prepare=True, binary=True)
        found: Found = {}
        gather(found, await cursor.fetchall())
        for question, of_question in zip(together, asked, strict=True):
            question.tell(rows_of(of_question, found))

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        """Connecting may take longer than a question has (a host that is silent before the one that answers), so it goes on
        when nobody waits for it any more, and a later question has the connection."""
        if self._db is None:
            if self._connecting is None or _failed(self._connecting):
                self._connecting = asyncio.create_task(self._connect())
            self._db, self._connecting = await asyncio.shield(self._connecting), None
            self._known.forget()
        return self._db

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        db = await psycopg.AsyncConnection.connect(self.server.conninfo(SECONDS), autocommit=True)
        try:
            await _in_time(self._identify(db))
        except BaseException:
            await db.close()
            raise
        return db

    async def _identify(self, db: psycopg.AsyncConnection[Any]) -> None:
        _identify(await (await db.execute(_IDENTITY)).fetchone(), self.site_key)

    async def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            await db.close()

    async def close(self) -> None:
        """Answer whoever waits, and close the connection; the next question opens one."""
        if self._asking is not None:
            await asyncio.wait({self._asking})
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
            await asyncio.wait({connecting})
            if not _failed(connecting):
                await connecting.result().close()
        await self._disconnect()


@dataclass(frozen=True, slots=True)
class _Question:
    """About whom, and who waits for it. Whoever asked may have gone meanwhile."""

    addresses: Sequence[Address]
    answer: asyncio.Future[list[list[Row]]]

    def tell(self, rows: list[list[Row]]) -> None:
        if not self.answer.done():
            self.answer.set_result(rows)

    def fail(self, why: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(Unavailable(why))


async def _in_time(work: Coroutine[Any, Any, T]) -> T:
    """Raises TimeoutError after SECONDS, and what `work` raises.

    A statement of psycopg that is cancelled first asks the server to cancel it, and waits ten seconds for a server that is
    frozen. Cancelled once more it closes the connection.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=SECONDS)
    finally:
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_LET_GO)
    if task.cancelled():
        raise TimeoutError
    return task.result()


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _said(why: BaseException) -> str:
    if isinstance(why, TimeoutError):
        return f"no answer within {SECONDS:.0f} s"
    return str(why).strip().partition("\n")[0] or type(why).__name__


def _identify(row: Sequence[Any] | None, site_key: SiteKey) -> None:
    version, check, needs, newest, deferred = row or (None,) * 5
    judge_identity(version, check, needs, newest, site_key)
    refuse_deferred(lambda _: deferred)


def _keys(asked: Iterable[Sequence[tuple[bytes, FormKind]]]) -> list[bytes]:
    return list({key for of_one in asked for key, _ in of_one})
