"""Lists that come in by HTTP: kept in a file without a name, counted first, then put into the ledger, for console and API.

A file without a name is for nobody else's eyes, and gone when the daemon is, however it ends. What was imported until then
stays: the same list with the same choices goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import BinaryIO, Final, Literal

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from daemon import events
from daemon.exchange import preview
from daemon.exchange.asking import Asked
from daemon.exchange.formats import FORMATS, open_list
from daemon.exchange.importing import Import
from daemon.exchange.portions import Tally
from daemon.exchange.preview import Understood
from daemon.exchange.rejects import Rejects
from daemon.exchange.rows import Bad, Found, NotUnderstood
from daemon.web.context import Context
from daemon.web.rendering import SECURITY
from daemon.web.spool import Refused, Spool, no_room
from daemon.web.workers import Workers
from storage.terms import REASONS, moment

Stage = Literal["counting", "counted", "importing", "done", "failed", "cancelled"]

MOST_AT_ONCE: Final = 4  # lists that are here, or on their way
KEPT_SECONDS: Final = 3600.0  # a list that nobody says yes to; what is known of one that has ended: as long again
_MOST_KNOWN: Final = 50
_BAD: Final = 20
_CHUNK: Final = 30_000  # rows that are sorted together: some 30 MB
_REMEMBERED: Final = 200_000  # keys of a dry run: some 15 MB
_BREATH: Final = 200  # rows between two breaths of the other threads
_PIECE: Final = 1 << 16
_OPTION: Final = re.compile(r"--(format|column)")  # as the command line says it


class _Cancelled(Exception):
    """Somebody does not want it any more."""


def wish(context: Context, *, format: str, column: str, list_id: str, reason: str, as_of: str) -> Asked:
    """What is asked of a list, as a form or a query has it: "" for what is not said. Raises Refused (422)."""
    known = context.numbers

    def wrong(sentence: str) -> Refused:
        return Refused(HTTPStatus.UNPROCESSABLE_ENTITY, sentence)

    if (format or "auto") not in FORMATS:
        raise wrong(f"format: {format!r} must be one of {', '.join(FORMATS)}")
    if (reason or "opt-out") not in REASONS:
        raise wrong(f"reason: {reason!r} must be one of {', '.join(REASONS)}")
    if list_id and list_id not in known:
        raise wrong(f"list: there is no list {list_id!r}; known: {', '.join(sorted(known)) or 'none'}")
    if reason == "wanted" and not list_id:
        raise wrong("reason: `wanted` exempts one list: name the list")
    try:
        moment(as_of or "2000-01-01")
    except ValueError:
        raise wrong(f"as of: {as_of!r} is no date; write 2026-01-31 or 2026-01-31T12:00:00Z") from None
    return Asked(format or "auto", column or None, list_id or None, reason or "opt-out", as_of or None)


@dataclass
class Upload:
    """A list that was brought. Workers change it, the event loop reads it: each value for itself.

    `actor`: who brought it. `rows`: how many were read in the present stage, `octets`: how far into the file that is.
    `tally`: of the dry run, then of the import. `run`: the number of the import, `again`: it had been done before.
    """

    id: str
    actor: str
    name: str
    size: int
    asked: Asked
    understood: Understood
    began: datetime
    file: BinaryIO | None
    rejects: Rejects
    stage: Stage = "counting"
    rows: int = 0
    octets: int = 0
    tally: Tally | None = None
    bad: list[Bad] = field(default_factory=list)
    run: int | None = None
    again: bool = False
    trouble: str = ""
    cancelled: bool = False
    touched: float = 0.0

    @property
    def under_way(self) -> bool:
        """Will it change by itself?"""
        return self.stage in ("counting", "importing")

    def shut(self) -> None:
        """Let go of the list."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def forget(self) -> None:
        """Let go of all that is on disk."""
        self.shut()
        self.rejects.close()


class Uploads:
    """The lists that were brought to one door. For one event loop."""

    def __init__(self, workers: Workers):
        self._workers = workers
        self._all: dict[str, Upload] = {}
        self._arriving = 0

    def __iter__(self) -> Iterator[Upload]:
        """Newest first."""
        return reversed(self._all.values())

    @contextmanager
    def arriving(self, context: Context) -> Iterator[Spool]:
        """Room for one more. What was put into it is gone at the end, unless `begin` took it over.

        Raises Refused: 429 if too many are here, 507 if it cannot be kept.
        """
        self._tidy()
        if self._arriving + sum(upload.file is not None for upload in self) >= MOST_AT_ONCE:
            sentence = f"{MOST_AT_ONCE} lists are here already. Import or cancel one of them first."
            raise Refused(HTTPStatus.TOO_MANY_REQUESTS, sentence)
        inside = context.inside
        assert inside is not None
        try:
            spool = Spool(inside.uploads, inside.max_upload)
        except OSError as why:
            raise no_room(why) from None
        self._arriving += 1
        try:
            yield spool
        finally:
            self._arriving -= 1
            if not any(upload.file is spool.file for upload in self):
                spool.file.close()

    async def begin(
        self, context: Context, spool: Spool, actor: str, name: str, asked: Asked, *, at_once: bool = False
    ) -> Upload:
        """Find out what a list is, and begin to count what it would change, or to import it (`at_once`).

        Raises Refused (422), TimeoutError.
        """
        file = await spool.end()
        try:
            understood = await self._workers.read(lambda: preview.look(file, asked))
        except NotUnderstood as why:
            sentence = _OPTION.sub(r"`\1`", str(why))
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, f"This list was not understood: {sentence}.") from None
        inside = context.inside
        assert inside is not None
        upload = Upload(
            secrets.token_urlsafe(12),
            actor,
            base_name(name),
            spool.size,
            asked,
            understood,
            context.now(),
            file,
            Rejects(inside.uploads),
        )
        self._all[upload.id] = upload
        if at_once:
            upload.stage = "counted"
            self.go_on(context, upload, actor)
        else:
            self._begin(upload, lambda: self._count(context, upload))
        return upload

    def find(self, number: str, actor: str | None = None) -> Upload:
        """One by its id; `actor`: whose it must be. Raises Refused (404)."""
        self._tidy()
        upload = self._all.get(number)
        if upload is None or actor not in (None, upload.actor):
            raise Refused(HTTPStatus.NOT_FOUND, "There is no such upload, or it is too long ago.")
        return upload

    def go_on(self, context: Context, upload: Upload, actor: str) -> None:
        """Put it into the ledger, now that it was counted (or after it failed). Raises Refused (409)."""
        if upload.stage not in ("counted", "failed") or upload.file is None:
            raise Refused(HTTPStatus.CONFLICT, f"This list cannot be imported now: it is {upload.stage}.")
        upload.stage = "importing"
        self._begin(upload, lambda: self._import(context, upload, actor))

    def cancel(self, upload: Upload) -> None:
        """Let go of it. Of one that is being imported, what is in stays in."""
        upload.cancelled = True
        if upload.stage in ("counted", "failed"):
            upload.stage = "cancelled"
            upload.shut()

    def close(self) -> None:
        """The door is closed."""
        for upload in self._all.values():
            upload.forget()
        self._all.clear()

    # -------------------------------------------------------------- in the long thread

    def _begin(self, upload: Upload, work: Callable[[], Stage]) -> None:
        """Have it done. What stage comes of it is said here, on the event loop, when all that belongs to it is there."""
        upload.rows = upload.octets = 0
        upload.trouble = ""

        def over(stage: Stage | None, trouble: str) -> None:
            loop = asyncio.get_running_loop()
            upload.touched = loop.time()
            loop.call_later(KEPT_SECONDS + 1, self._tidy)
            upload.stage, upload.trouble = stage or "failed", trouble or upload.trouble
            if upload.stage in ("done", "cancelled"):
                upload.shut()

        self._workers.begin(lambda: _ended(upload, work), over)

    def _count(self, context: Context, upload: Upload) -> Stage:
        it, found = self._opened(context, upload, upload.actor)
        upload.tally = it.rehearse(found)
        return "counted"

    def _import(self, context: Context, upload: Upload, actor: str) -> Stage:
        it, found = self._opened(context, upload, actor)
        assert upload.file is not None
        run = it.begin(upload.asked.digest(upload.file), upload.name)
        upload.run, upload.again = run.id, run.again
        tally = upload.tally = it.run(run, found)
        events.list_imported(run.id, tally.added, tally.already, tally.skipped, tally.bad)
        return "done"

    def _opened(self, context: Context, upload: Upload, actor: str) -> tuple[Import, Iterator[Found]]:
        """The machinery, and the rows. The list is read from its beginning."""
        file, inside = upload.file, context.inside
        assert file is not None
        assert inside is not None
        if upload.cancelled:  # before its turn came
            raise _Cancelled
        file.seek(0)
        opened = open_list(file, format=upload.asked.format, column=upload.asked.column)
        upload.rejects.begin()
        upload.bad.clear()

        def bad(row: Bad) -> None:
            upload.rejects(row)
            if len(upload.bad) < _BAD:
                upload.bad.append(row)

        def done() -> None:
            upload.octets = file.tell()

        it = Import(
            context.ledger,
            context.house,
            context.numbers,
            upload.asked.terms(opened.format, context.numbers, inside.intake.limits.soft_days),
            {"file": upload.name, "format": opened.format},
            actor,
            context.now,
            bad=bad,
            done=done,
            chunk=_CHUNK,
            remembered=_REMEMBERED,
        )
        return it, self._breathing(upload, opened.found())

    def _breathing(self, upload: Upload, found: Iterator[Found]) -> Iterator[Found]:
        """The rows, with a moment for everybody else now and then. Raises _Cancelled, Stopping."""
        for number, row in enumerate(found, 1):
            if number % _BREATH == 0:
                upload.rows = number
                self._workers.give_way()
                if upload.cancelled:
                    raise _Cancelled
            yield row

    def _tidy(self) -> None:
        """Forget what nobody has said yes to, and what ended long ago."""
        now = asyncio.get_running_loop().time()
        idle = [u for u in self._all.values() if not u.under_way]
        too_many = idle[: max(0, len(self._all) - _MOST_KNOWN)]
        for upload in idle:
            if upload in too_many or now - upload.touched > KEPT_SECONDS:
                upload.forget()
                del self._all[upload.id]


def _ended(upload: Upload, work: Callable[[], Stage]) -> Stage:
    """How the work on an upload ended; what is wrong with the list is said of it."""
    try:
        return work()
    except _Cancelled:
        return "cancelled"
    except (NotUnderstood, OSError) as why:
        upload.trouble = str(why)
    return "failed"


def uploads_of(request: Request) -> Uploads:
    """Those of this door."""
    uploads: Uploads = request.state.uploads
    return uploads


def base_name(name: str) -> str:
    """What is kept of a file's name: no directory of somebody's, no controls."""
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(c for c in last if c.isprintable()).strip()
    return kept[:200].encode("utf-8", "backslashreplace").decode() or "list"


def rejects_of(upload: Upload) -> Response:
    """The rows that could not go in, as a file to be kept. Raises Refused: 409 while it is not complete, 404 for none."""
    if upload.under_way:
        raise Refused(HTTPStatus.CONFLICT, f"This list is {upload.stage}: ask again when that is over.")
    if not upload.rejects.octets:
        raise Refused(HTTPStatus.NOT_FOUND, "No row of it was bad.")
    headers = {
        **SECURITY,
        "Content-Disposition": 'attachment; filename="rejects.csv"',
        "Content-Length": str(upload.rejects.octets),
    }
    return StreamingResponse(_rejected(upload), headers=headers, media_type="text/csv")


async def _rejected(upload: Upload) -> AsyncIterator[bytes]:
    with upload.rejects.reading() as read:
        while piece := await asyncio.to_thread(read, _PIECE):
            yield piece
