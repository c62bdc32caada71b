"""check, suppress, lift, show: one person, or ten thousand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final
from urllib.parse import unquote

from fastapi import APIRouter, Request
from starlette.responses import Response

from daemon import events, hand, telling
from daemon.gate import Gate
from daemon.hand import Hand, Refused
from daemon.web.api import models
from daemon.web.api.answering import answer, encoded, looked_up, person_of, told
from daemon.web.api.callers import actor_of, demand, program_of
from daemon.web.api.guarding import Guarded, takes
from daemon.web.api.problems import Wrong, may_come
from daemon.web.api.repeating import Key, committed
from daemon.web.context import asked, context_of, workers_of
from storage import suppressions
from storage.address import Address, NotAnAddress, parse
from storage.answers import Answer
from storage.engine import Unavailable
from storage.terms import reason_word
from storage.write import Write

ROUTER: Final = APIRouter(route_class=Guarded)
_PORTION: Final = 500  # addresses: what a thread does in some 10 ms, before the event loop gets its turn
_LONGEST: Final = 1_000  # characters that are looked at as an address
_OFTEN: Final = (401, 403, 422, 429, 503)
_WITH_BODY: Final = (*_OFTEN, 400, 408, 413, 415)


# ------------------------------------------------------------------ check


@ROUTER.post(
    "/check",
    operation_id="check",
    summary="May these people be mailed?",
    response_model=models.Results,
    responses=may_come(*_WITH_BODY),
    openapi_extra=takes("check"),
)
async def check(request: Request, body: models.Check) -> Response:
    """Of each address, in the order of the question, whether mail may go there (of this list).

    What is no address has `suppressed` null and an `error`. 503: nothing is known, so nobody is to be mailed.
    """
    judged = partial(_judged, list_id=body.list_id)
    if body.list_id is not None:
        await asked(request, lambda gate: _known(gate, body.list_id))
    pieces = [await asked(request, partial(judged, texts=some)) for some in _portions(body.addresses)]
    return answer(b'{"results":[' + b",".join(pieces) + b"]}")


def _portions(addresses: Sequence[str]) -> Sequence[Sequence[str]]:
    return [addresses[start : start + _PORTION] for start in range(0, len(addresses), _PORTION)]


def _known(gate: Gate, list_id: str | None) -> None:
    if list_id is not None and list_id not in gate.numbers:
        raise Wrong(hand.no_such_list(list_id, set(gate.numbers)), pointer="/list")


def _judged(gate: Gate, *, texts: Sequence[str], list_id: str | None) -> bytes:
    """The facts of these addresses, as JSON with commas between. Raises Unavailable, Unusable."""
    read = [_read(text) for text in texts]
    rows = iter(gate.rows_of_all([person for person in read if isinstance(person, Address)]))
    facts = [
        telling.judged(gate, text, next(rows), list_id)[1]
        if isinstance(person, Address)
        else telling.unchecked(text, str(person))
        for text, person in zip(texts, read, strict=True)
    ]
    return encoded(facts)[1:-1]


def _read(text: str) -> Address | NotAnAddress:
    if len(text) > _LONGEST:
        return NotAnAddress("this is too long for an address")
    try:
        return parse(text)
    except NotAnAddress as why:
        return why


# ------------------------------------------------------------------ suppress


@ROUTER.post(
    "/suppressions",
    operation_id="suppress",
    summary="Put somebody on the list",
    status_code=201,
    response_model=models.Suppressed,
    responses={200: {"model": models.Suppressed, "description": "It stood already."}, **may_come(*_WITH_BODY, 409)},
    openapi_extra=takes("suppress"),
)
async def suppress(request: Request, body: models.Wish, idempotency_key: Key = None) -> Response:
    """On disk when it is answered: the relay refuses this person from then on. `@example.com`: a domain with its subdomains.

    Nothing is widened or narrowed by it: each reason stands by itself, until it is lifted. The reason `wanted` gives back
    (one list is mailed again to somebody who left everything), so it takes the right `lift`, too.
    """
    if body.reason == "wanted":
        demand(program_of(request), "lift")
    person, wish = person_of(body.address, pointer="/address"), _wish(body)
    act = partial(_suppress, _hand(request), person, wish)
    try:
        done = await committed(request, idempotency_key, body, act)
    except Refused as why:
        raise _refused(why) from None
    scope = "all" if body.list_id is None else f"list:{body.list_id}"
    outcome = "new" if done.status == 201 else "repeated"
    fact = {"address": str(person), "outcome": outcome, "scope": scope, "reason": body.reason, "ref": done.ref}
    return told(fact, done.status)


def _wish(body: models.Wish) -> hand.Wish:
    try:
        return hand.Wish(body.list_id, body.reason, body.source, body.note)
    except Refused as why:
        raise _refused(why) from None


def _refused(why: Refused) -> Wrong:
    pointer = "/list" if why.why == "list" else "/reason" if why.why == "reason" else "/address"
    return Wrong(str(why), pointer=pointer)


def _hand(request: Request) -> Hand:
    context = context_of(request)
    return Hand(context.ledger, context.house, context.now(), actor_of(request))


def _suppress(of: Hand, person: Address, wish: hand.Wish, w: Write) -> Answer:
    """Raises Refused, Unavailable."""
    added = of.add(w, person, wish)
    if added.outcome == "outdated":  # nobody asks before now: our clock was set back behind a later lift
        raise Unavailable("the clock is behind what the ledger has of this person")
    tell = events.opt_out_recorded if added.outcome == "new" else events.opt_out_repeated
    who, scope = of.ledger.site_key.who(person), "all" if wish.list_id is None else f"list:{wish.list_id}"
    w.after_commit(lambda: tell(who, scope, added.evidence, wish.source))
    return Answer(201 if added.outcome == "new" else 200, added.evidence)


# ------------------------------------------------------------------ lift


@ROUTER.post(
    "/lift",
    operation_id="lift",
    summary="Take somebody off the list again",
    response_model=models.Lifted,
    responses=may_come(*_WITH_BODY, 404, 409),
    openapi_extra=takes("lift"),
)
async def lift(request: Request, body: models.Lift, idempotency_key: Key = None) -> Response:
    """Ends what stands for everything, complaints and bounces too; with `list` what stands for that list. Say why.

    404: nothing stands there. What stands for other lists, or for the whole domain, is told in `still_suppressed`, as it
    is when you ask.
    """
    person = person_of(body.address, pointer="/address")
    try:
        done = await committed(request, idempotency_key, body, partial(_lift, _hand(request), person, body))
    except Refused as why:
        raise _refused(why) from None
    reasons, left = await workers_of(request).read(partial(_what_went, request, person, done.ref))
    scope = "all" if body.list_id is None else f"list:{body.list_id}"
    if done.status == 404:
        raise Wrong(f"Nothing stands against this address ({scope}).", status=404, more={"still_suppressed": left})
    return told({"address": str(person), "scope": scope, "lifted": reasons, "still_suppressed": left})


def _lift(of: Hand, person: Address, body: models.Lift, w: Write) -> Answer:
    """Raises Refused."""
    gone = of.end(w, person, body.list_id, body.because, "api")
    if not gone:
        return Answer(404, 0)
    who, scope = of.ledger.site_key.who(person), suppressions.scope_word(w.db, gone[0][1])
    w.after_commit(lambda: events.suppression_lifted(who, scope, len(gone)))
    return Answer(200, w.latest_evidence)


def _what_went(request: Request, person: Address, ref: int) -> tuple[list[str], list[str]]:
    """(for which reasons it had stood, what still stands). Raises Unavailable."""
    ledger = context_of(request).ledger
    with ledger.connect() as db:
        facts = suppressions.by_evidence(db, ref) if ref else []
    reasons = {str(reason_word(fact.reason)) for fact in facts if fact.event == "lifted"}
    return sorted(reasons), hand.left_standing(ledger, person)


# ------------------------------------------------------------------ show


@ROUTER.get(
    "/suppressions/{address:path}",
    operation_id="show",
    summary="Why is somebody (not) mailed?",
    response_model=models.Story,
    responses=may_come(*_OFTEN),
    openapi_extra=takes("check"),
)
async def show(request: Request, address: str) -> Response:
    """What stands against this address, and all that ever happened. Of somebody unknown both are empty."""
    person = person_of(_as_sent(request, address), parameter="address")
    site_key = context_of(request).ledger.site_key
    return await looked_up(request, lambda db, numbers: telling.story(db, site_key, person, numbers), of_people=True)


def _as_sent(request: Request, address: str) -> str:
    """The address in a path, octet for octet: the door removes slashes that look needless, and X.400 has such in its names."""
    path = request.scope.get("raw_path", b"").decode("ascii", "replace")
    _, found, rest = path.partition("/suppressions/")
    return unquote(rest.lstrip("/"), errors="surrogateescape") if found else address
