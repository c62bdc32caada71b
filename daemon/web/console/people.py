"""Suppressions: search any address, see why it may (not) be mailed, put it on the list, take it off again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import Response
from starlette.routing import Route

from daemon import hand, telling
from daemon.gate import Gate
from daemon.web.console import searching, typed, why
from daemon.web.console.typed import NotUnderstood
from daemon.web.console.visit import Visit, room
from daemon.web.context import Context, asked
from storage import newest, suppressions
from storage.address import Address, NotAnAddress
from storage.newest import Line, Wanted
from storage.suppressions import Whom
from storage.terms import REASONS, SOURCES

PATH: Final = "/console/suppressions"


@dataclass(frozen=True, slots=True)
class Entry:
    """What was typed into the form that suppresses somebody. `provider`: the whole of a public mail provider is meant."""

    address: str = ""
    list: str = ""
    reason: str = "operator"
    source: str = "operator"
    note: str = ""
    provider: bool = False


# ------------------------------------------------------------------ looking


async def _look(visit: Visit) -> Response:
    text = visit.given("q", searching.LONGEST + 1)
    return await person_page(visit, text) if text else await _newest(visit)


async def person_page(
    visit: Visit, text: str, *, entry: Entry | None = None, because: str = "", wrong: str = ""
) -> Response:
    """What is found for a text. `entry`, `because`: of a form that was not accepted, and `wrong`, why."""
    template, facts = await asked(visit.request, lambda gate: _found(visit.context, gate, text))
    status = HTTPStatus.UNPROCESSABLE_ENTITY if wrong else HTTPStatus.OK
    kept = entry or Entry(address=text if template == "nothing.html" else facts.get("name") or "")
    return visit.page(
        template, status, q=text, entry=asdict(kept), because=because, wrong=wrong, **_choices(visit), **facts
    )


def _found(of: Context, gate: Gate, text: str) -> tuple[str, dict[str, Any]]:
    with of.ledger.reading() as db:
        found = searching.search(db, of.ledger.site_key, text)
        match found:
            case searching.Someone():
                return "person.html", {**why.page(db, gate, of, found), "query": searching.query_of(found)}
            case searching.Behind():
                return "behind.html", {**searching.told(found), "query_of": searching.query_of, "events": why.EVENTS}
            case searching.Message():
                return "message.html", {"message": found, "query_of": searching.query_of, "events": why.EVENTS}
            case searching.Nothing():
                return "nothing.html", {"sentence": found.sentence}


def _choices(visit: Visit) -> dict[str, Any]:
    """What may be chosen in the forms."""
    return {
        "house_lists": visit.context.house.lists,
        "reasons": why.reasons(),
        "sources": SOURCES,
        "because_of": why.BECAUSE,
        "source_of": why.SOURCES,
    }


# ------------------------------------------------------------------ the newest


async def _newest(visit: Visit) -> Response:
    filters = {name: visit.given(name, 100) for name in ("list", "reason", "source", "since")}
    before = visit.given("before", 18)
    try:
        wanted = await _wanted(visit, filters)
    except NotUnderstood as problem:
        wrong, page = str(problem), None
    else:
        wrong, page = "", await visit.workers.read(lambda: _page(visit.context, wanted, before))
    given = {name: value for name, value in filters.items() if value}
    status = HTTPStatus.UNPROCESSABLE_ENTITY if wrong else HTTPStatus.OK
    facts = {"filters": filters, "given": given, "wrong": wrong, "first": not before, "entry": asdict(Entry()), "q": ""}
    return visit.page(
        "suppressions.html", status, **facts, **(page or {"lines": [], "before": None}), **_choices(visit)
    )


async def _wanted(visit: Visit, filters: dict[str, str]) -> Wanted:
    """Raises NotUnderstood."""
    if filters["reason"] not in ("", *REASONS) or filters["source"] not in ("", *SOURCES):
        raise NotUnderstood("There is no such reason or source.")
    numbers = await visit.workers.read(lambda: typed.numbers_of(visit.context))
    scope, since = typed.scope(filters["list"], visit.context, numbers), typed.moment(filters["since"])
    return Wanted(scope, REASONS.get(filters["reason"]), filters["source"] or None, since)


def _page(of: Context, wanted: Wanted, before: str) -> dict[str, Any]:
    with of.ledger.reading() as db:
        found = newest.newest(db, wanted, int(before) if before.isdecimal() and before.isascii() else None)
        numbers = suppressions.list_numbers(db)
    return {"lines": [_line(line, numbers) for line in found.lines], "before": found.before}


def _line(line: Line, numbers: dict[str, int]) -> dict[str, Any]:
    told = {
        "at": line.at,
        "source": line.source,
        "ref": line.evidence,
        "key": None,
        "rows": line.rows,
        "file": line.file,
    }
    if line.key is None:
        return told
    of_it = telling.listed((line.key, line.address, line.scope, line.reason, line.since, 0, line.source), numbers)
    query = line.address or f"key {line.key.hex()}"
    return {**told, **of_it, "query": query}


# ------------------------------------------------------------------ doing


async def _suppress(visit: Visit) -> Response:
    entry = _entry(visit)
    if entry.reason == "wanted" and not visit.may("lift"):  # it gives back: one list is mailed again
        return visit.page("refused.html", HTTPStatus.FORBIDDEN, right="lift")
    try:
        who = hand.person(entry.address)
        wish = hand.Wish(entry.list or None, entry.reason, entry.source, entry.note)
        of = hand_of(visit, force=entry.provider)
        (added,) = await visit.workers.write(lambda: of.suppress([who], wish))
    except NotAnAddress as problem:
        return await person_page(visit, entry.address, entry=entry, wrong=f"That is not an address: {problem}.")
    except hand.Refused as problem:
        return await person_page(visit, entry.address, entry=entry, wrong=_sentence(problem))
    return visit.go(PATH, _DONE[added.outcome].format(who, entry.list or "everything"), q=str(who))


_DONE: Final = {
    "new": "{} is on the list now ({}).",
    "repeated": "{} was on the list already ({}); it is noted that it was asked again.",
    "outdated": "Nothing was done: {} was taken off the list later ({}).",
}


def _entry(visit: Visit) -> Entry:
    reason, source = visit.given("reason", 40) or "operator", visit.given("source", 40) or "operator"
    return Entry(
        visit.given("address", 1_000),
        visit.given("list", 40),
        reason,
        source,
        visit.given("note"),
        visit.given("provider") == "yes",
    )


def _sentence(problem: hand.Refused) -> str:
    text = str(problem).rstrip(".")
    hint = " (tick the box below if the whole provider is meant)" if problem.why == "provider" else ""
    return f"{text[:1].upper()}{text[1:]}{hint}."


def hand_of(visit: Visit, *, force: bool = False) -> hand.Hand:
    """The operator's own hand."""
    of = visit.context
    return hand.Hand(of.ledger, of.house, of.now(), visit.actor, force)


async def _lift(visit: Visit) -> Response:
    text, list_id, because = visit.given("address", 1_000), visit.given("list", 40), visit.given("because")
    try:
        who = _whom(text, visit.given("key", 40))
    except NotAnAddress as problem:
        return await person_page(visit, text, because=because, wrong=f"That is not an address: {problem}.")
    query = str(who) if isinstance(who, Address) else f"key {who.hex()}"
    if not because:
        return await person_page(visit, query, wrong="Say why: it is kept in the record, and asked for one day.")
    of = hand_of(visit)
    try:
        gone = await visit.workers.write(lambda: of.lift(who, list_id or None, because))
    except hand.Refused as problem:
        return await person_page(visit, query, because=because, wrong=_sentence(problem))
    left = await visit.workers.read(lambda: hand.left_standing(visit.context.ledger, who))
    name = list_id or "everything"
    said = f"Taken off the list ({name})." if gone else f"Nothing was done: nothing of their own stood for {name}."
    return visit.go(PATH, said + (f" Still suppressed: {', '.join(left)}." if left else ""), q=query)


def _whom(address: str, key: str) -> Whom:
    """Raises NotAnAddress."""
    if key and not address:
        try:
            found = bytes.fromhex(key)
        except ValueError:
            found = b""
        if len(found) == 16:
            return found
    return hand.person(address)


ROUTES: Final = [
    Route(PATH, room("check", _look), methods=["GET"]),
    Route("/console/suppress", room("suppress", _suppress), methods=["POST"]),
    Route("/console/lift", room("lift", _lift), methods=["POST"]),
]
