"""What is counted of the relay: everybody once, and each message once, whatever becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Any, Literal

import pytest

from daemon import metrics, postfix
from daemon.config import Config
from daemon.gate import Unknown
from daemon.relaying import policy_context
from tests.ledgers import Books
from tests.policy.desk import rcpt
from tests.relay.doors import Recording, doors, sender
from tests.relay.people import CLEAR, HERE, TO_LIST, Mode, policy
from tests.relay.puppet import Puppet, hang_up

Grown = Callable[[], dict[str, int]]


@pytest.fixture
def grown() -> Grown:
    """What has grown since the test began: outcome (of recipients) and `message OUTCOME` -> by how much."""

    def numbers() -> dict[str, int]:
        people = {values[0]: number for values, number in metrics.relay_recipients.samples()}
        messages = {f"message {values[0]}": number for values, number in metrics.relay_messages.samples()}
        despite = {f"despite {values[0]}": number for values, number in metrics.passed_all_the_same.samples()}
        late = {"late": metrics.late_opt_outs.of().value, "duplicated": metrics.possibly_duplicated.of().value}
        return {**people, **messages, **despite, **late}

    before = numbers()
    return lambda: {name: n - before[name] for name, n in numbers().items() if n != before[name]}


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("refuse", {"passed": 1, "refused": 2, "message sent": 1}),
        ("strip", {"passed": 1, "stripped": 2, "message sent": 1}),
        ("observe", {"passed": 3, "despite observe": 2, "message sent": 1}),
    ],
)
async def test_some_pass_and_some_do_not(
    everybody: Any, upstream: Puppet, grown: Grown, mode: Mode, expected: dict[str, int]
) -> None:
    ledger, _ = everybody
    async with doors(ledger, upstream, policy(mode, HERE)) as relay, sender(relay.ports[0]) as client:
        await client.send(["here@example.com", CLEAR, "all@example.com"], TO_LIST, pipelined=True)
    assert grown() == expected


async def test_service_mail_passes_and_is_told_apart(everybody: Any, upstream: Puppet, grown: Grown) -> None:
    ledger, _ = everybody
    async with doors(ledger, upstream, policy("refuse", HERE, "service")) as relay, sender(relay.ports[0]) as client:
        await client.send(["all@example.com", CLEAR, "bounced@example.com"], TO_LIST)
    assert grown() == {"passed": 2, "refused": 1, "despite service": 1, "message sent": 1}


@pytest.mark.parametrize("mode", ["refuse", "strip"])
async def test_nobody_left_is_withheld_if_it_turns_out_at_the_message(
    everybody: Any, upstream: Puppet, grown: Grown, mode: Mode
) -> None:
    ledger, _ = everybody
    async with doors(ledger, upstream, policy(mode)) as relay, sender(relay.ports[0]) as client:
        await client.send(["here@example.com"], TO_LIST)
    assert grown() == {"refused" if mode == "refuse" else "stripped": 1, "message withheld": 1}


async def test_a_message_that_was_never_sent_is_none(everybody: Any, upstream: Puppet, grown: Grown) -> None:
    """Everybody refused at RCPT; a client that resets."""
    ledger, _ = everybody
    async with doors(ledger, upstream, policy("refuse", HERE)) as relay, sender(relay.ports[0]) as client:
        await client.send(["all@example.com"], TO_LIST)
        await client.say("MAIL FROM:<n@quillpdf.example>", f"RCPT TO:<{CLEAR}>", "RSET")
    assert grown() == {"refused": 1}


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("RCPT", {"rejected": 2}),
        ("DATA", {"rejected": 2, "message rejected": 1}),
        ("DOT", {"rejected": 2, "message rejected": 1}),
        ("lost at RCPT", {"deferred": 2}),
        ("lost at DATA", {"deferred": 2, "message deferred": 1}),
        ("lost at DOT", {"deferred": 2, "message deferred": 1, "duplicated": 1}),
    ],
)
async def test_an_upstream_that_does_not_take_it(
    ledger: Books, upstream: Puppet, grown: Grown, step: str, expected: dict[str, int]
) -> None:
    if step.startswith("lost"):
        upstream.does[step.removeprefix("lost at ")] = hang_up
    else:
        upstream.says[step] = b"554 5.7.1 no\r\n"
    async with doors(ledger, upstream, policy("refuse", HERE)) as relay, sender(relay.ports[0]) as client:
        await client.send([CLEAR, "other@example.com"], TO_LIST, pipelined=True)
    assert grown() == expected


async def test_an_upstream_that_wants_it_later(ledger: Books, upstream: Puppet, grown: Grown) -> None:
    upstream.says["DOT"] = b"452 4.3.1 full\r\n"
    async with doors(ledger, upstream, policy("refuse", HERE)) as relay, sender(relay.ports[0]) as client:
        await client.send([CLEAR], TO_LIST)
    assert grown() == {"rejected": 1, "message deferred": 1}  # as in the record: it was the upstream that refused


async def test_doubt_defers(ledger: Books, upstream: Puppet, grown: Grown, monkeypatch: pytest.MonkeyPatch) -> None:
    async with doors(ledger, upstream, policy("refuse", HERE)) as relay, sender(relay.ports[0]) as client:
        monkeypatch.setattr(relay.gate, "may", lambda *_: Unknown("test"))
        await client.send([CLEAR], TO_LIST)
    assert grown() == {"deferred": 1}


async def test_a_late_opt_out_defers_the_message(ledger: Books, upstream: Puppet, grown: Grown) -> None:
    async with doors(ledger, upstream, policy("refuse", HERE)) as relay, sender(relay.ports[0]) as client:
        await client.say("MAIL FROM:<n@quillpdf.example>", f"RCPT TO:<{CLEAR}>", "RCPT TO:<late@example.com>", "DATA")
        ledger.suppress("late@example.com")
        client.write(TO_LIST + b".\r\n")
        assert (await client.heard()).startswith("451 4.7.1")
    assert grown() == {"deferred": 2, "message deferred": 1, "late": 1}


async def test_a_message_that_we_refuse_ourselves(ledger: Books, upstream: Puppet, grown: Grown) -> None:
    async with doors(ledger, upstream, policy("refuse", HERE)) as relay, sender(relay.ports[0]) as client:
        await client.send([CLEAR], b"Subject: x\r\n\r\nbare\nline\r\n")
    assert grown() == {"rejected": 1, "message rejected": 1}


async def test_counted_is_what_is_recorded(everybody: Any, upstream: Puppet, grown: Grown) -> None:
    """Whatever the record has of recipients is counted, and nothing twice."""
    ledger, _ = everybody
    people = ["here@example.com", CLEAR, "complained-here@example.com", "elsewhere@example.com", "all@example.com"]
    async with doors(ledger, upstream, policy("refuse"), policy("strip"), policy("observe")) as relay:
        for port in relay.ports:
            async with sender(port) as client:
                for said in (b"250 2.1.5 ok\r\n", b"550 5.1.1 no\r\n", b"450 4.2.1 no\r\n"):
                    upstream.says[f"RCPT TO:<{CLEAR}>"] = said
                    await client.send(people, TO_LIST)
                    await client.send(people[:1], TO_LIST, pipelined=True)
        recorded = sum(relay.record.totals.values())
    people_counted = sum(n for name, n in grown().items() if name in ("passed", "refused", "stripped", "rejected"))
    assert people_counted == recorded > 30


async def test_each_question_is_timed(ledger: Books, upstream: Puppet) -> None:
    before = metrics.lookup_seconds.snapshot()
    async with doors(ledger, upstream, policy("refuse", HERE)) as relay, sender(relay.ports[0]) as client:
        await client.send([CLEAR], TO_LIST)  # at RCPT, and before the dot
    after = metrics.lookup_seconds.snapshot()
    assert after[0][-1][1] - before[0][-1][1] == 2
    assert 0 < after[1] - before[1] < 5


# ------------------------------------------------------------------ whom the witness hears of


@pytest.mark.parametrize(
    ("mode", "purpose", "told"),
    [
        ("refuse", "marketing", [[CLEAR]]),
        ("strip", "marketing", [[CLEAR]]),
        ("observe", "marketing", []),
        ("refuse", "service", []),
    ],
)
async def test_the_witness_hears_of_those_to_whom_something_is_promised(
    everybody: Any, upstream: Puppet, mode: Mode, purpose: Literal["marketing", "service"], told: list[list[str]]
) -> None:
    ledger, _ = everybody
    heard: list[tuple[list[str], int, float]] = []
    began = monotonic()
    async with doors(ledger, upstream, policy(mode, HERE, purpose)) as relay, sender(relay.ports[0]) as client:
        relay.server.context = replace(
            relay.server.context, saw=lambda people, number, asked: heard.append(([*map(str, people)], number, asked))
        )
        await client.send(["here@example.com", CLEAR], TO_LIST)
        upstream.says["DOT"] = b"554 5.7.1 no\r\n"
        await client.send([CLEAR], TO_LIST)
    assert [people for people, _, _ in heard] == told
    assert {number for _, number, _ in heard} <= {ledger.numbers[HERE]}
    assert all(began <= asked <= monotonic() for _, _, asked in heard)


# ------------------------------------------------------------------ the policy service


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("refuse", {"passed": 1, "refused": 1, "deferred": 1}), ("observe", {"passed": 3})],
)
async def test_whom_postfix_asks_about(ledger: Books, grown: Grown, mode: Mode, expected: dict[str, int]) -> None:
    before = dict(metrics.policy_recipients.samples())
    ledger.suppress("all@example.com")
    config = Config.model_validate({"house": {"name": "Quill", "domains": ("quill.example",)}, "relay": {"mode": mode}})
    context = policy_context(config, ledger.ledger, ledger.gate(), Recording())
    for asked in (rcpt(CLEAR), rcpt("all@example.com"), rcpt(CLEAR, "list=no-such"), rcpt(CLEAR, state="DATA")):
        await postfix.action(context, asked)
    after = {values: number - before[values] for values, number in metrics.policy_recipients.samples()}
    assert {values[0]: number for values, number in after.items() if number} == expected
    assert grown() == {}  # the relay's numbers are the relay's
