"""By which settings the daemon runs: to be looked at; the config file is where they are changed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.routing import Route

from daemon.web.console.visit import Visit, room
from storage.engine import REVISION

_NAMES: Final = ("id", "name", "username", "address", "host")  # the option that says which of several tables it is


async def settings(visit: Visit) -> Response:
    """All options that the config gives, none of which is a secret, and what they led to."""
    ledger = visit.context.ledger
    return visit.page(
        "settings.html",
        sections=by_section(visit.inside.settings),
        database=ledger.name,
        schema=REVISION,
        site_keys=len(ledger.site_key.keys),
        same_person=ledger.same_person,
        keep_addresses=ledger.keep_addresses,
        vitals=visit.inside.vitals(),
        operators=sorted(visit.inside.operators.values(), key=lambda operator: operator.name),
        programs=sorted(visit.inside.programs, key=lambda program: program.name),
    )


def by_section(given: Iterable[tuple[str, str]]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """(section, which one of several it is, its (option, value)s) in the order of the config."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for path, value in given:
        section, _, option = path.rpartition(".")
        sections.setdefault(section, []).append((option, _without_secret(section, option, value)))
    return [(section, _which(section, options), options) for section, options in sections.items()]


def _which(section: str, options: Iterable[tuple[str, str]]) -> str:
    found = dict(options)
    named = next((found[name] for name in _NAMES if name in found), "") if section.endswith("]") else ""
    return str(json.loads(named)) if named else ""


def _without_secret(section: str, option: str, value: str) -> str:
    """The path of a webhook's URL is often what lets one in there."""
    if not section.startswith("webhook") or option != "url":
        return value
    found = urlsplit(json.loads(value))
    return json.dumps(f"{found.scheme}://{found.netloc}/...")


ROUTES: Final = [Route("/console/settings", room("check", settings))]
