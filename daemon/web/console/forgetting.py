"""Forgetting a person, and the two papers about one: what we hold on them (GDPR Art. 15), and what we can prove."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from daemon.papers import certificate, dossier, erasing
from daemon.texts import harmless
from daemon.web.console.begun import begin
from daemon.web.console.people import PATH, hand_of, person_page
from daemon.web.console.typed import numbers_of
from daemon.web.console.visit import Visit, room
from daemon.web.errands import Errand
from storage.address import Address, NotAnAddress, parse
from storage.people import Erased


def _person(visit: Visit) -> Address:
    """Raises NotAnAddress."""
    person = parse(visit.given("address", 1_000))
    if person.is_domain:
        raise NotAnAddress("it is a whole domain, not a person")
    return person


async def _erase(visit: Visit) -> Response:
    try:
        person = _person(visit)
    except NotAnAddress as problem:
        return await person_page(visit, visit.given("address", 1_000), wrong=f"Nobody to forget: {problem}.")
    if visit.request.method == "GET" or visit.given("sure") != "yes":
        asked = visit.request.method == "POST"
        status = HTTPStatus.UNPROCESSABLE_ENTITY if asked else HTTPStatus.OK
        wrong = "Tick the box to say that it is meant." if asked else ""
        return visit.page("erase.html", status, person=str(person), wrong=wrong, suppressions=PATH)
    of = hand_of(visit)

    def work(errand: Errand) -> dict[str, Any]:
        done = of.erase(person, errand.step)
        return {"fact": erasing.facts(done, person, numbers_of(visit.context), []), "done": _plain(done)}

    return begin(visit, "Forgetting a person", "erased.html", work, kinds=erasing.KINDS, person=str(person))


def _plain(done: Erased) -> dict[str, Any]:
    return {"undecided": done.undecided, "shared": done.shared, "clean": done.clean}


async def _paper(visit: Visit) -> Response:
    """A paper, made while a page waits. Raises HTTPException for one that there is not."""
    if visit.given("paper") not in _PAPERS:
        raise HTTPException(HTTPStatus.BAD_REQUEST)
    title, name, made = _PAPERS[visit.given("paper")]
    try:
        person = _person(visit)
    except NotAnAddress as problem:
        return await person_page(visit, visit.given("address", 1_000), wrong=f"There is no paper: {problem}.")
    return begin(visit, title, "paper.html", lambda _: made(visit, person), file=name, person=str(person))


def _for_subject(visit: Visit, person: Address) -> dict[str, Any]:
    of = visit.context
    fact = dossier.made(of.ledger, person, of.house.name, visit.inside.kept_days, of.now())
    text = dossier.text(fact)
    return {"paper": harmless(text), "blanks": dossier.blanks(text), "broken": None}


def _certificate(visit: Visit, person: Address) -> dict[str, Any]:
    of = visit.context
    fact = certificate.made(of.ledger, person, of.house.name, of.now())
    if fact is None:
        return {"paper": None, "blanks": 0, "broken": None}
    return {"paper": harmless(certificate.text(fact)), "blanks": 0, "broken": fact["chain"]["error"]}


_Made = Callable[[Visit, Address], dict[str, Any]]
_PAPERS: Final[dict[str, tuple[str, str, _Made]]] = {
    "subject": ("What we hold on a person", "what-we-hold.txt", _for_subject),
    "certificate": ("Certificate", "certificate.txt", _certificate),
}

ROUTES: Final = [
    Route("/console/erase", room("erase", _erase), methods=["GET", "POST"]),
    Route("/console/papers", room("export", _paper), methods=["POST"]),
]
