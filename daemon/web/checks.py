"""Checks of the record that an operator asks for: one at a time, in the thread for what takes long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from starlette.requests import Request

from daemon import events
from daemon.web.context import Context
from daemon.web.workers import Workers
from storage import audit
from storage.audit import Head, Noted
from storage.write import write

Kind = Literal["new", "all"]
# What the jobs of the clock call the same: so that it is known everywhere when the last of them ended well.
_JOBS: dict[Kind, str] = {"new": "note_head", "all": "verify_audit"}


@dataclass
class Check:
    """One check. `rows` of about `total` are done (total 0: not known yet).

    When it is `over`: `head` is where the record ends, and was found whole; else `broken` says where it was changed, or
    `trouble` why nobody knows. `after`: the sequence number behind which it began. `noted`: heads that were given with it.
    """

    kind: Kind
    actor: str
    began: datetime
    noted: tuple[Noted, ...] = ()
    rows: int = 0
    total: int = 0
    over: bool = False
    ended: datetime | None = None
    head: Head | None = None
    after: int = 0
    broken: str = ""
    trouble: str = ""


class Checks:
    """Of one door. For one event loop."""

    def __init__(self, workers: Workers):
        self._workers = workers
        self.last: Check | None = None

    def begin(
        self, context: Context, actor: str, kind: Kind, noted: Sequence[Noted] = ()
    ) -> asyncio.Future[None] | None:
        """Begin one; None if one is under way already."""
        if self.last is not None and not self.last.over:
            return None
        check = self.last = Check(kind, actor, context.now(), tuple(noted))

        def over(_: None, trouble: str) -> None:
            check.ended, check.trouble, check.over = context.now(), trouble, True

        return self._workers.begin(lambda: self._run(context, check), over)

    def _run(self, context: Context, check: Check) -> None:
        try:
            self._verify(context, check)
            self._remember(context, check)
        except audit.ChainBroken as broken:
            check.broken = str(broken)
            events.audit_broken(str(broken))

    def _verify(self, context: Context, check: Check) -> None:
        ledger = context.ledger

        def progress(rows: int) -> None:
            check.rows = rows
            self._workers.give_way()

        with ledger.reading() as db:
            if check.kind == "new":
                check.head, check.after = audit.verify_new(db, ledger.site_key, progress, heads=check.noted)
            else:
                check.total = audit.rows_to_verify(db)
                check.head = audit.verify(db, ledger.site_key, None, progress, heads=check.noted)

    def _remember(self, context: Context, check: Check) -> None:
        assert check.head is not None
        with write(context.ledger, context.now(), check.actor) as w:
            audit.remember_verified(w.db, context.ledger.site_key, check.head)
            w.job_ran(_JOBS[check.kind])
        events.audit_head(check.head.seq, str(check.head))


def checks_of(request: Request) -> Checks:
    """Those of this door."""
    checks: Checks = request.state.checks
    return checks
