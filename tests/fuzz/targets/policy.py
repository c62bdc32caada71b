"""The policy service: an answer for each request, or none at all; and never a good one for somebody who is suppressed."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from tests.fuzz.driving import One
from tests.fuzz.talking import ANN, GONE, PAUSE, ledger, running, said, watched
from tests.policy.desk import Desk, Service, rcpt, serving, written

_ANSWER: Final = re.compile(rb"action=(DUNNO|[45]\d\d [\x20-\x7e]{1,600})\n\n")
_RCPT: Final = re.compile(rb"(?:\A|\n)protocol_state=RCPT(?:\n|\Z)")
_GONE: Final = re.compile(
    rb"(?:\A|\n)recipient=(?:[a-z]{1,20}@(?:[a-z]{1,20}\.)?gone\.example|ann@customer\.example)(?:\n|\Z)"
)
BASES: Final = (
    written(rcpt("bob@customer.example")),
    written(rcpt(ANN)) + written(rcpt("bob@customer.example", "list=offers")),
    written(rcpt(f"x@sub.{GONE}", "purpose=marketing list=newsletter")),
    written(rcpt(f"x@{GONE}", state="DATA")) + PAUSE + written(rcpt("", state="END-OF-MESSAGE")),
    written(rcpt("ann%customer.example@mta.example.org", sasl_username="crm")),
)
WORDS: Final = (
    b"request=smtpd_access_policy\n",
    b"protocol_state=RCPT\n",
    b"protocol_state=DATA\n",
    b"recipient=",
    b"recipient=any@gone.example\n",
    b"recipient=ann@customer.example\n",
    b"policy_context=list=offers\n",
    b"policy_context=purpose=service\n",
    b"policy_context=list=nothing\n",
    b"sasl_username=app\n",
    b"\n\n",
    b"=",
    b"%",
    b"!",
    b"@",
    b'"',
    PAUSE,
)


def _look_at(octets: bytes, answered: bytes) -> None:
    answers = _ANSWER.findall(answered)
    assert b"".join(b"action=%b\n\n" % a for a in answers) == answered, answered[:300]
    requests = octets.replace(PAUSE, b"").split(b"\n\n")
    assert len(answers) < len(requests)
    for asked, answer in zip(requests, answers, strict=False):
        plain = asked.count(b"recipient=") == asked.count(b"protocol_state=") == 1 and b"purpose" not in asked
        if plain and b"sasl_username=app" not in asked and _RCPT.search(asked) and _GONE.search(asked):
            assert answer != b"DUNNO", asked


@asynccontextmanager
async def _serving(desk: Desk) -> AsyncIterator[Service]:
    """Its context is made in the loop that asks it: a connection to SQLite is of one thread."""
    async with serving(desk.context()) as service:
        yield service


@contextmanager
def ready() -> Iterator[One]:
    """A policy service."""
    with watched() as failed, ledger() as books:
        desk = Desk(books)
        with running(_serving(desk), failed) as (served, _):

            def one(octets: bytes) -> None:
                answered = said(served.port, octets)
                failed.check()
                desk.counted.clear()
                _look_at(octets, answered)

            yield one
