"""The mailing lists: who has left them, and how their mail is known and stamped."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response
from starlette.routing import Route

from daemon.config import MailingList
from daemon.web.console import glance
from daemon.web.console.visit import Visit, room
from storage.refusals import Line
from storage.terms import ALL, Reason

DAYS: Final = 30
_OF_A_LIST: Final = re.compile(r"(relay\.(credential|listener)\[\d+\])\.list")
Counts = Mapping[tuple[int, Reason], int]


@dataclass(frozen=True, slots=True)
class Told:
    """A list as it is shown. `left`, `wanted`, `others`: rows of its own; `known_by`: how the relay knows its mail."""

    id: str
    title: str
    left: int
    others: int
    wanted: int
    refused: int
    known_by: Sequence[str]


async def lists(visit: Visit) -> Response:
    """Those of the config, and those that are gone from it and still mean something."""
    counts, relayed = await asyncio.gather(glance.standing(visit), glance.by_list(visit, DAYS))
    numbers, settings = visit.context.numbers, dict(visit.inside.settings)
    configured = {of_it.id: of_it for of_it in visit.context.house.lists}
    told = [
        _told(x.id, x.title, numbers.get(x.id), counts, relayed, _known_by(x, settings)) for x in configured.values()
    ]
    others = [
        _told(i, "", number, counts, relayed, ["nothing any more"])
        for i, number in sorted(numbers.items())
        if i not in configured
    ]
    return visit.page(
        "lists.html",
        lists=told,
        gone=[list_ for list_ in others if list_.left or list_.others or list_.wanted or list_.refused],
        everything=sum(n for (scope, reason), n in counts.items() if scope == ALL and reason == Reason.OPT_OUT),
        stamped=_stamped(settings, visit.context.public_url, relays="relay" in visit.inside.vitals().bound),
        days=DAYS,
    )


def _told(
    list_id: str,
    title: str,
    number: int | None,
    counts: Counts,
    relayed: Mapping[int, Line],
    known_by: Sequence[str],
) -> Told:
    """`number`: None, while the ledger has not met the list."""
    of_it = {reason: n for (scope, reason), n in counts.items() if scope == number}
    left, wanted = of_it.pop(Reason.OPT_OUT, 0), of_it.pop(Reason.WANTED, 0)
    line = relayed.get(number or -1)
    refused = sum(line.counts.get(o, 0) for o in ("refused", "stripped", "withdrawn")) if line else 0
    return Told(list_id, title, left, sum(of_it.values()), wanted, refused, known_by)


def _known_by(of_it: MailingList, settings: Mapping[str, str]) -> list[str]:
    """By its List-Id, and by who sends it or where it comes in."""
    found = [f"List-Id {of_it.list_id}"] if of_it.list_id else []
    for path, value in settings.items():
        place = _OF_A_LIST.fullmatch(path)
        if place and value == json.dumps(of_it.id):
            name = settings.get(f"{place[1]}.username" if place[2] == "credential" else f"{place[1]}.address", '""')
            found.append(f"{place[2]} {json.loads(name)}")
    return found


def _stamped(settings: Mapping[str, str], public_url: str, *, relays: bool) -> str:
    """What the relay puts into mail of a list, as a sentence."""
    if not relays:
        return "There is no relay here, so nothing is stamped."
    if settings.get("relay.stamp") == "false":
        return "Nothing is stamped (relay.stamp): mailings must bring their own way out."
    fields = "a List-Id, where it is missing"
    if not public_url:
        return f"Mail gets a mailto: List-Unsubscribe and {fields}. For one-click, set web.public_url."
    return f"Mail to a single recipient gets a one-click List-Unsubscribe (https and mailto:), other mail mailto: alone; and {fields}."


ROUTES: Final = [Route("/console/lists", room("check", lists))]
