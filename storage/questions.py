"""The question before every recipient, asked of PostgreSQL.

    Lookup      for commands: answers at once
    Questions   for the daemon: waits in the event loop, and asks together what comes together

One statement for all keys of all who ask, on a connection of its own that never writes. Nothing is cached: a question
that was put is answered by a statement that began afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

import psycopg

from storage.address import Address, FormKind, SiteKey, keys_of
from storage.engine import Unavailable, Unusable, judge_identity
from storage.lookup import Row
from storage.postgres import Server

SECONDS: Final = (
    2.0  # for a question, reconnecting included; one that waits behind another is answered within CONTRACT 4's 5 s
)
_QUESTION: Final = b"SELECT key, scope, reason, since, evidence FROM suppression WHERE key = ANY(%s)"
_IDENTITY: Final = b"""
    SELECT (SELECT version_num FROM alembic_version), (SELECT value FROM meta WHERE name = 'check'),
           (SELECT value FROM meta WHERE name = 'needs')
"""
_Asked = Sequence[tuple[bytes, FormKind]]  # every form of one address
_Found = dict[bytes, list[tuple[int, int, int, int]]]  # key -> scope, reason, since, evidence


class Lookup:
    """As storage.lookup.Lookup. Not for several threads."""

    def __init__(self, server: Server, site_key: SiteKey):
        self.server, self.site_key = server, site_key
        self._db: psycopg.Connection[Any] | None = None

    def rows(self, address: Address) -> list[Row]:
        """All rows that any form of this address hits. Raises Unavailable, Unusable."""
        return self.rows_of_all([address])[0]

    def rows_of_all(self, addresses: Iterable[Address]) -> list[list[Row]]:
        """As `rows` for several, in one statement."""
        asked = [keys_of(self.site_key, a) for a in addresses]
        try:
            if self._db is None or self._db.closed:
                self._db = psycopg.connect(self.server.conninfo(SECONDS), autocommit=True)
                _identify(self._db.execute(_IDENTITY).fetchone(), self.site_key)
            found = self._db.execute(_QUESTION, (_keys(asked),), prepare=True, binary=True).fetchall()
        except psycopg.Error as why:
            self.close()
            raise Unavailable(f"{self.server.name}: {_said(why)}") from None
        except (Unavailable, Unusable):
            self.close()
            raise
        return _answers(asked, _gathered(found))

    def close(self) -> None:
        """Close the connection; the next question opens one."""
        db, self._db = self._db, None
        if db is not None:
            db.close()


class Questions:
    """For one event loop. While a statement is under way, further questions gather for the next one."""

    def __init__(self, server: Server, site_key: SiteKey):
        self.server, self.site_key = server, site_key
        self._db: psycopg.AsyncConnection[Any] | None = None
        self._waiting: list[tuple[Sequence[_Asked], asyncio.Future[_Found]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def rows_of_all(self, addresses: Sequence[Address]) -> list[list[Row]]:
        """All rows that any form of each address hits. Raises Unavailable, Unusable."""
        asked = [keys_of(self.site_key, a) for a in addresses]
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Found] = loop.create_future()
        self._waiting.append((asked, answer))
        if self._asking is None:
            self._asking = loop.create_task(self._ask())
        return _answers(asked, await answer)

    async def _ask(self) -> None:
        """Ask until nobody waits."""
        try:
            while self._waiting:
                together, self._waiting = self._waiting, []
                try:
                    async with asyncio.timeout(SECONDS):
                        found = await self._found([of_one for asked, _ in together for of_one in asked])
                except (psycopg.Error, TimeoutError, Unavailable, Unusable) as why:
                    await self.close()
                    _fail(together, f"{self.server.name}: {_said(why)}")
                else:
                    for _, answer in together:
                        if not answer.done():  # whoever asked may have gone
                            answer.set_result(found)
        finally:
            self._asking = None

    async def _found(self, asked: Sequence[_Asked]) -> _Found:
        if self._db is None:
            self._db = await psycopg.AsyncConnection.connect(self.server.conninfo(SECONDS), autocommit=True)
            _identify(await (await self._db.execute(_IDENTITY)).fetchone(), self.site_key)
        cursor = await self._db.execute(_QUESTION, (_keys(asked),), prepare=True, binary=True)
        return _gathered(await cursor.fetchall())

    async def close(self) -> None:
        """Close the connection; the next question opens one."""
        db, self._db = self._db, None
        if db is not None:
            await db.close()


def _fail(together: Sequence[tuple[Sequence[_Asked], asyncio.Future[_Found]]], why: str) -> None:
    for _, answer in together:
        if not answer.done():
            answer.set_exception(Unavailable(why))


def _said(why: BaseException) -> str:
    if isinstance(why, TimeoutError):
        return f"no answer within {SECONDS:.0f} s"
    return str(why).strip().partition("\n")[0] or type(why).__name__


def _identify(row: Sequence[Any] | None, site_key: SiteKey) -> None:
    version, check, needs = row or (None, None, None)
    judge_identity(version, check, needs, site_key)


def _keys(asked: Sequence[_Asked]) -> list[bytes]:
    return list({key for of_one in asked for key, _ in of_one})


def _gathered(rows: Iterable[Sequence[Any]]) -> _Found:
    found: _Found = {}
    for key, scope, reason, since, evidence in rows:
        found.setdefault(bytes(key), []).append((scope, reason, since, evidence))
    return found


def _answers(asked: Sequence[_Asked], found: _Found) -> list[list[Row]]:
    if not found:
        return [[] for _ in asked]
    return [[Row(kind, *rest) for key, kind in of_one for rest in found.get(key, ())] for of_one in asked]
