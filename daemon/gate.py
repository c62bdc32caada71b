"""May this recipient be mailed? The one decision, and every refusal text.

Every door asks here: the relay, `optoutd check`, later the API and Postfix. Nothing is cached: the table is asked anew
each time, so an opt-out counts from the moment it is committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final, Literal, Protocol

from daemon import metrics
from storage.address import Address, NotAnAddress, parse
from storage.engine import Unavailable, Unusable
from storage.lookup import Row, Verdict, verdict
from storage.routes import is_routed, meant
from storage.terms import ALL, Reason

Purpose = Literal["marketing", "service"]


@dataclass(frozen=True, slots=True)
class Refused:
    """Something does. `of`: the id of the list the refusal is limited to, or None."""

    verdict: Verdict
    of: str | None

    def reply(self, rcpt_to: str) -> str:
        """The SMTP reply: one ASCII line; a recipient that is not ASCII is left out of it."""
        named = f"<{rcpt_to}> " if rcpt_to.isascii() and rcpt_to.isprintable() else ""
        return f"550 5.7.1 {named}{self.text} (ref {self.verdict.evidence})"

    @property
    def text(self) -> str:
        """Why, as the reply of a refusal has it."""
        if self.verdict.matched == "domain":
            return "is suppressed: domain"
        if self.verdict.reason == Reason.OPT_OUT:
            return f"has opted out of {self.of}" if self.of else "has opted out"
        return f"is suppressed: {self.verdict.reason.word}"


@dataclass(frozen=True, slots=True)
class Unknown:
    """The ledger could not be asked. Doubt defers."""

    why: str
    reply: str = "451 4.3.0 cannot tell whether this recipient has opted out, try again later"


@dataclass(frozen=True, slots=True)
class Pass:
    """Nothing stands against it. `despite`: what would have stopped marketing, but does not stop service mail."""

    despite: Refused | None = None


Answer = Pass | Refused | Unknown
_PASS = Pass()
_TOO_FAR: Final = "550 5.1.3 bad address: routed through too many hops"


class Lookup(Protocol):
    """What answers at once: storage.lookup.Lookup, storage.questions.Lookup. Each method raises Unavailable, Unusable."""

    def rows(self, address: Address) -> list[Row]:
        """All rows that any form of this address hits."""

    def rows_of_all(self, addresses: Iterable[Address]) -> list[list[Row]]:
        """As `rows` for several."""

    def sweep(self, texts: Sequence[str]) -> list[Sequence[Row] | None]:
        """As `rows_of_all` for addresses as a list has them; None: not a plain one, ask for it by itself."""

    def close(self) -> None:
        """Close its connection."""


class Questions(Protocol):
    """What has to be waited for: a database on the other side of a network (storage.questions.Questions)."""

    async def rows_of_all(self, addresses: Sequence[Address]) -> list[list[Row]]:
        """All rows that any form of each address hits. Raises Unavailable, Unusable."""

    async def close(self) -> None:
        """Close its connection."""


class Gate:
    """The decision over one Lookup. `numbers`: list id -> list number, as in the ledger.

    `questions`: where the database must be waited for, what `ask` asks in the place of the lookup.
    """

    def __init__(self, lookup: Lookup, numbers: Mapping[str, int], questions: Questions | None = None):
        self._lookup, self._questions = lookup, questions
        self.numbers = dict(numbers)
        self._ids = {n: i for i, n in self.numbers.items()}

    def renumbered(self, numbers: Mapping[str, int]) -> Gate:
        """The same gate for other lists, on the same connections."""
        return Gate(self._lookup, numbers, self._questions)

    async def close(self) -> None:
        """Close its connections."""
        self._lookup.close()
        if self._questions is not None:
            await self._questions.close()

    def may(self, rcpt_to: Address, list_id: str | None = None, purpose: Purpose = "marketing") -> Answer:
        """May this recipient get mail of the list with this id (None: of no list we know)?

        Service mail (receipts, password resets) is stopped by hard bounces only.
        """
        if is_routed(rcpt_to):
            return self._routed(rcpt_to, list_id, purpose)
        try:
            rows = self._lookup.rows(rcpt_to)
        except (Unavailable, Unusable) as why:
            return Unknown(str(why))
        return self.judge(rows, list_id, purpose) if rows else _PASS

    def may_all(
        self, rcpt_tos: Sequence[Address], list_id: str | None = None, purpose: Purpose = "marketing"
    ) -> Sequence[Answer]:
        """As `may`, one statement for all."""
        if any(map(is_routed, rcpt_tos)):
            return [self.may(rcpt_to, list_id, purpose) for rcpt_to in rcpt_tos]
        try:
            rows = self._lookup.rows_of_all(rcpt_tos)
        except (Unavailable, Unusable) as why:
            return [Unknown(str(why))] * len(rcpt_tos)
        return [self.judge(r, list_id, purpose) if r else _PASS for r in rows]

    async def ask(
        self, rcpt_tos: Sequence[Address], list_id: str | None = None, purpose: Purpose = "marketing"
    ) -> Sequence[Answer]:
        """As `may_all`, from the event loop: it waits where the database must be waited for."""
        began = perf_counter()
        if self._questions is not None:
            answers = await self._ask_far(self._questions, rcpt_tos, list_id, purpose)
        elif len(rcpt_tos) == 1:
            answers = (self.may(rcpt_tos[0], list_id, purpose),)
        else:
            answers = self.may_all(rcpt_tos, list_id, purpose)
        metrics.lookup_seconds.observe(perf_counter() - began)
        return answers

    async def _ask_far(
        self, questions: Questions, rcpt_tos: Sequence[Address], list_id: str | None, purpose: Purpose
    ) -> Sequence[Answer]:
        asked = [_meant(rcpt_to) for rcpt_to in rcpt_tos]
        try:
            rows = iter(await questions.rows_of_all([a for of_one in asked if of_one for a in of_one]))
        except (Unavailable, Unusable) as why:
            return [Unknown(str(why))] * len(rcpt_tos)
        return [
            Unknown("routed through too many hops", _TOO_FAR)
            if of_one is None
            else _worst([self.judge(next(rows), list_id, purpose) for _ in of_one])
            for of_one in asked
        ]

    def _routed(self, rcpt_to: Address, list_id: str | None, purpose: Purpose) -> Answer:
        """Of an address that a mail server may read as another one."""
        asked = _meant(rcpt_to)
        if asked is None:
            return Unknown("routed through too many hops", _TOO_FAR)
        try:
            rows = self._lookup.rows_of_all(asked)
        except (Unavailable, Unusable) as why:
            return Unknown(str(why))
        return _worst([self.judge(r, list_id, purpose) for r in rows])

    def may_each(self, texts: Sequence[str], list_id: str | None = None) -> list[Answer | NotAnAddress]:
        """As `may` of each of these addresses as a list has them (no space around them), some ten thousand at a time.

        What is no address, or a whole domain, is answered with why.
        """
        try:
            swept = self._lookup.sweep(texts)
        except (Unavailable, Unusable) as why:
            return [Unknown(str(why))] * len(texts)
        return [
            self._one_of_many(text, list_id) if rows is None else self.judge(rows, list_id) if rows else _PASS
            for text, rows in zip(texts, swept, strict=True)
        ]

    def _one_of_many(self, text: str, list_id: str | None) -> Answer | NotAnAddress:
        try:
            address = parse(text)
            return NotAnAddress("this is a whole domain") if address.is_domain else self.may(address, list_id)
        except NotAnAddress as why:
            return why

    def rows(self, rcpt_to: Address) -> list[Row]:
        """All that stands against it, whatever the list. Raises Unavailable, Unusable."""
        return self._lookup.rows(rcpt_to)

    def rows_of_all(self, rcpt_tos: Sequence[Address]) -> list[list[Row]]:
        """As `rows` for several, one statement for all. Raises Unavailable, Unusable."""
        return self._lookup.rows_of_all(rcpt_tos)

    def list_ids(self, scopes: Iterable[int]) -> list[str]:
        """The ids of these list numbers."""
        return [self._ids[s] for s in scopes if s in self._ids]

    def judge(self, rows: Sequence[Row], list_id: str | None, purpose: Purpose = "marketing") -> Pass | Refused:
        """What rows already asked for come to."""
        number = self.numbers.get(list_id) if list_id else None
        if purpose == "service":
            bounced = self._judged([r for r in rows if r.reason == Reason.HARD_BOUNCE], number)
            return bounced or Pass(despite=self._judged(rows, number))
        return self._judged(rows, number) or _PASS

    def _judged(self, rows: Sequence[Row], number: int | None) -> Refused | None:
        found = verdict(rows, number)
        return Refused(found, None if found.scope == ALL else self._ids.get(found.scope)) if found else None


def _meant(rcpt_to: Address) -> Sequence[Address] | None:
    """Whom mail to this address may reach; None: through more hops than we follow."""
    if not is_routed(rcpt_to):
        return (rcpt_to,)
    try:
        return meant(f"{rcpt_to.local}@{rcpt_to.domain}")
    except NotAnAddress:
        return None


def _worst(answers: Sequence[Pass | Refused]) -> Pass | Refused:
    """The first refusal, else what is to be told, else a pass."""
    refusals = [answer for answer in answers if isinstance(answer, Refused)]
    return next((answer for answer in (*refusals, *answers) if answer != _PASS), _PASS)
