"""The record of every change: who did what when, and whether it is whole."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from daemon import telling
from daemon.web.checks import Kind, checks_of
from daemon.web.console.visit import Visit, room
from storage import audit
from storage.audit import Noted
from storage.suppressions import Fact
from storage.terms import reason_word
from storage.trail import Stretch, backwards

HOME: Final = "/console/audit"
PAGE: Final = 100
_EACH_SECONDS: Final = 2
_QUICK_SECONDS: Final = 4.0  # a check that ends within them is waited for
_LONGEST_ACTOR: Final = 200
_LONGEST_VALUE: Final = 2_000  # characters of a value of the evidence
_HEAD: Final = re.compile(r"([0-9]{1,19}):([0-9A-Fa-f]{32})")


@dataclass(frozen=True, slots=True)
class Line:
    """A row as it is shown. `person`: whom it is about, "" if nobody knows; `detail`: what is kept of it, None if forgotten."""

    fact: Fact
    scope: str
    reason: str
    person: str
    detail: tuple[tuple[str, str], ...] | None


def line(fact: Fact, stretch: Stretch, numbers: telling.Numbers) -> Line:
    """What is said of a row."""
    detail = fact.detail
    known = stretch.addresses.get(fact.key, "") if fact.key else ""
    named = str(detail.get("address") or "") if detail else ""
    scope = "" if fact.scope is None else telling.scope_word(fact.scope, numbers)
    told = (
        None if detail is None else tuple((str(k), _value(v)) for k, v in detail.items() if v not in ("", None, [], {}))
    )
    return Line(fact, scope, reason_word(fact.reason) or "", known or named, told)


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


async def trail(visit: Visit) -> Response:
    """GET: the trail, newest first, and how the last check went."""
    event, actor = visit.given("event"), visit.given("actor", _LONGEST_ACTOR)
    before = visit.given("before")
    if event and event not in audit.EVENTS:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    above = int(before) if before.isascii() and before.isdigit() and len(before) < 19 else None
    ledger, numbers = visit.context.ledger, visit.context.numbers

    def look() -> tuple[Stretch, dict[str, Any]]:
        with ledger.reading() as db:
            found = backwards(db, above, event=event, actor=actor, most=PAGE)
            return found, {
                "all_checked": audit.last_run(db, "verify_audit"),
                "new_checked": audit.last_run(db, "note_head"),
                "verified": audit.last_verified(db, ledger.site_key),
                "head": audit.Chain(ledger.site_key).head(db),
            }

    found, state = await visit.workers.read(look)
    check = checks_of(visit.request).last
    page = visit.page(
        "audit.html",
        lines=[line(fact, found, numbers) for fact in found.facts],
        reached=found.reached,
        full=len(found.facts) == PAGE,
        event=event,
        actor=actor,
        events=audit.EVENTS,
        first=above is None,
        check=check,
        **state,
    )
    if check is not None and not check.over:
        page.headers["Refresh"] = str(_EACH_SECONDS)
    return page


async def verify(visit: Visit) -> Response:
    """POST: begin a check, of what is new or of everything."""
    kind: Kind = "all" if visit.given("what") == "all" else "new"
    noted = _noted(visit.given("head", 100))
    if noted is None:
        return visit.go(HOME, "A head is SEQ:HASH, as this page shows it. Nothing was checked.")
    begun = checks_of(visit.request).begin(visit.context, visit.actor, kind, noted)
    if begun is None:
        return visit.go(HOME, "A check is under way already.")
    await asyncio.wait([begun], timeout=_QUICK_SECONDS)
    return visit.go(HOME)


def _noted(text: str) -> list[Noted] | None:
    """A head that somebody noted earlier; None: this is none."""
    if not text:
        return []
    found = _HEAD.fullmatch(text)
    return [(int(found[1]), found[2].lower())] if found else None


ROUTES: Final = [
    Route(HOME, room("check", trail)),
    Route(f"{HOME}/verify", room("check", verify), methods=["POST"]),
]
