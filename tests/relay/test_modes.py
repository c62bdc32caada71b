"""Whom the relay lets a message reach, what it says, and what it writes down: every mode, purpose and kind of row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from storage.address import Who, parse, person
from storage.terms import Reason
from tests.ledgers import Books
from tests.relay.doors import Recording, doors, sender
from tests.relay.people import (
    CASES,
    CLEAR,
    CREDENTIAL,
    DOMAIN,
    HERE,
    PEOPLE,
    Against,
    Case,
    Expected,
    expected,
)
from tests.relay.puppet import Puppet


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.mode}-{c.purpose}-{c.known}")
async def test_the_table(
    case: Case,
    everybody: tuple[Books, dict[tuple[str, str | None, Reason], int]],
    upstream: Puppet,
    told: list[tuple[str, str, str, int, str | None]],
) -> None:
    ledger, refs = everybody
    async with doors(ledger, upstream, case.policy) as relay, sender(relay.ports[0]) as client:
        for name, company, pipelined in product([*PEOPLE, "domain"], ("alone", "before", "after"), (False, True)):
            address = DOMAIN if name == "domain" else f"{name}@example.com"
            recipients = {"alone": [address], "before": [address, CLEAR], "after": [CLEAR, address]}[company]

            def ref(against: Against, name: str = name) -> int:
                return refs[name, against.scope, against.reason]

            wanted = expected(case, name, address, ref, company=company != "alone")
            record = fresh_record(relay)
            upstream.messages.clear()
            told.clear()
            said, final = await client.send(recipients, case.message, pipelined=pipelined)
            where = (case, name, company, pipelined)
            assert said[recipients.index(address)].startswith(wanted.rcpt), where
            assert all(s.startswith("250 2.1.5") for s, r in zip(said, recipients, strict=True) if r == CLEAR), where
            assert final == wanted.final, where
            got = [rcpt[1:-1] for rcpts, _ in upstream.messages for rcpt in rcpts]
            assert sorted(got) == sorted(wanted.got), where
            check_record(ledger, record, wanted, case, address, recipients, ref)
            check_events(ledger, told, wanted, address, ref)


def fresh_record(relay: Any) -> Recording:
    record: Recording = relay.record
    record.counted.clear()
    record.kept.clear()
    return record


def check_record(
    ledger: Books,
    record: Recording,
    wanted: Expected,
    case: Case,
    address: str,
    recipients: list[str],
    ref: Callable[[Against], int],
) -> None:
    """Everybody is counted once, under the list and the credential; of the person it is kept why."""
    where = (case, address, recipients)
    list_known = case.known == "credential" or (case.known == "List-Id" and wanted.read)
    number = ledger.numbers[HERE] if list_known else 0
    passed = len(wanted.got) - (wanted.outcome in ("would-refuse", "service"))
    counted: Counter[tuple[str, int, str, int]] = Counter()
    if passed:
        counted["passed", number, CREDENTIAL, 0] = passed
    if wanted.outcome:
        assert wanted.against is not None
        counted[wanted.outcome, number, CREDENTIAL, int(wanted.against.reason)] = 1
    assert record.counted == counted, where
    assert sum(record.counted.values()) == len(recipients), where
    if not wanted.outcome or not wanted.against:
        assert record.kept == [], where
        return
    ((kept,),) = record.kept
    key = ledger.ledger.site_key.address_key(person(parse(address), ("tag", "alias")))
    assert kept[1:] == (
        wanted.outcome,
        key,
        number,
        wanted.against.reason,
        CREDENTIAL,
        "<spring@crm.quillpdf.example>" if wanted.read else "",
        ref(wanted.against),
        passed,
        address,
    ), where


def check_events(
    ledger: Books,
    told: list[tuple[str, str, str, int, str | None]],
    wanted: Expected,
    address: str,
    ref: Callable[[Against], int],
) -> None:
    """One line of the person whom something stands against; nobody by address."""
    if not wanted.event or not wanted.against:
        assert told == []
        return
    who: Who = ledger.ledger.site_key.who(parse(address))
    assert told == [(wanted.event, who.digest, wanted.against.words, ref(wanted.against), wanted.against.scope)]
    assert address not in repr(told)
