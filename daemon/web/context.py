"""What every answer of the HTTP door is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from starlette.requests import Request

from daemon.config import House, MailingList, Retention, Webhook
from daemon.duty.alarm import Limits
from daemon.gate import Gate
from daemon.intake import Intake
from daemon.values import Right
from daemon.vitals import Vitals
from daemon.web.workers import Workers
from storage.engine import Ledger
from storage.terms import ALL

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody (an operator) or something (a program with a token) who may come in. `secret`: a password, an argon2 hash of
    it, or a token; "": nothing lets them in but the word of a trusted proxy."""

    name: str
    secret: str
    rights: frozenset[Right]

    def __repr__(self) -> str:
        return f"Holder({self.name!r})"  # no secret in a traceback


@dataclass(frozen=True)
class Inside:
    """What the operators' rooms work with: console, API, metrics.

    `open_gate`: a gate of its own for each thread that asks. `settings`: (path of an option, its value in TOML), without
    what is secret. `uploads`: the directory where a list is kept while it is imported. `kept_days`: section retention;
    `limits`: section duty. `console_host`: the one host, beside our own names, by which operators may come through a proxy;
    "": none in particular.
    """

    open_gate: Callable[[], Gate]
    intake: Intake
    vitals: Callable[[], Vitals]
    operators: Mapping[str, Holder]
    programs: tuple[Holder, ...]
    settings: tuple[tuple[str, str], ...]
    uploads: Path
    max_upload: int
    user_header: str = ""
    console_host: str = ""
    hooks: tuple[Webhook, ...] = ()
    kept_days: Mapping[str, int] = field(default_factory=lambda: Retention().model_dump())
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Context:
    """`numbers`: list id -> list number, of all lists there ever were; of a database that was never reached it raises
    Unavailable, whatever is asked (daemon.opening.Unnumbered), as then do `lists` and `title`. `public_url`: the https base of stamped links.

    `colour`: the house's, as "#rrggbb"; "" = ours. `trusted_proxies`: addresses and networks whose word on who asks counts.
    `inside`: of the operators' rooms; None: this door has none.
    """

    ledger: Ledger
    house: House
    numbers: Mapping[str, int]
    public_url: str
    now: Callable[[], datetime]
    colour: str = ""
    trusted_proxies: tuple[str, ...] = ()
    inside: Inside | None = None

    @property
    def base(self) -> str:
        """The path that stamped links begin with: "" or "/mail"."""
        return urlsplit(self.public_url).path

    def lists(self) -> dict[int, MailingList]:
        """List number -> list, of those the house has now."""
        return {self.numbers[x.id]: x for x in self.house.lists if x.id in self.numbers}

    def title(self, list_number: int) -> str | None:
        """What people know a list by; None if the config has none of this number (any more)."""
        found = self.lists().get(list_number) if list_number != ALL else None
        return None if found is None else found.title or found.id


def context_of(request: Request) -> Context:
    """By which settings this request is answered."""
    context: Context = request.state.context
    return context


def inside_of(request: Request) -> Inside:
    """The same of a request to the operators' rooms, which `app` lets nobody into where there are none."""
    inside = context_of(request).inside
    assert inside is not None
    return inside


def workers_of(request: Request) -> Workers:
    """The threads for it."""
    workers: Workers = request.state.workers
    return workers


async def asked(request: Request, question: Callable[[Gate], _T]) -> _T:
    """What the gate says, asked in a reading thread. Raises Unavailable, Unusable, TimeoutError."""
    inside, workers = inside_of(request), workers_of(request)
    return await workers.read(lambda: question(workers.gate(inside.open_gate, inside)))
