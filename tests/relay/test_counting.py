"""Several who have left, and what else can happen: everybody is counted once, as what became of him."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Literal

import pytest

from daemon.gate import Unknown
from storage.terms import Reason
from tests.ledgers import Books
from tests.relay.doors import doors, sender
from tests.relay.people import (
    CLEAR,
    HERE,
    TAKEN,
    TO_LIST,
    Known,
    Mode,
    policy,
)
from tests.relay.puppet import Puppet, hang_up


async def test_several_leave_at_once_by_the_list_and_by_all(everybody: Any, upstream: Puppet) -> None:
    ledger, refs = everybody
    people = ["here@example.com", CLEAR, "complained-here@example.com", "elsewhere@example.com"]
    async with doors(ledger, upstream, policy("refuse"), policy("strip")) as relay:
        async with sender(relay.ports[0]) as client:
            said, final = await client.send([*people, "all@example.com"], TO_LIST)
            assert [s[:3] for s in said] == ["250", "250", "250", "250", "550"]
            assert final == f"{TAKEN} (2 of 4 left out: opted out of newsletter)"
            assert relay.record.totals == {"passed": 2, "stripped": 2, "refused": 1}
            (kept,) = relay.record.kept
            assert [r.others for r in kept] == [2, 2, 2]  # the register sums up one of them
            said, final = await client.send([people[0], people[2]], TO_LIST)  # nobody left: the last one is named
            ref = refs["complained-here", HERE, Reason.COMPLAINT]
            assert final == f"550 5.7.1 <complained-here@example.com> is suppressed: complaint (ref {ref})"
        async with sender(relay.ports[1]) as client:
            said, final = await client.send([*people, "all@example.com"], TO_LIST, pipelined=True)
            assert {s[:3] for s in said} == {"250"}
            assert final == f"{TAKEN} (3 of 5 recipients left out: opted out)"
            said, final = await client.send([people[0], people[2], "all@example.com"], TO_LIST)
            assert final == "250 2.0.0 nothing sent: all 3 recipients have opted out"
    assert [rcpts for rcpts, _ in upstream.messages] == [(f"<{CLEAR}>", "<elsewhere@example.com>")] * 2


MODES: Final = ["refuse", "strip", "observe"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("purpose", ["marketing", "service"])
@pytest.mark.parametrize("step", ["RCPT", "DATA", "DOT", "lost at RCPT", "lost at DATA", "lost at DOT"])
async def test_who_is_rejected_or_deferred_is_counted_as_that_alone(
    everybody: Any, upstream: Puppet, mode: Mode, purpose: Literal["marketing", "service"], step: str
) -> None:
    """Somebody whom something stands against, and who would pass, does not pass when the upstream does not take it."""
    ledger, _ = everybody
    if step.startswith("lost"):
        upstream.does[step.removeprefix("lost at ")] = hang_up
    else:
        upstream.says[step] = b"554 5.7.1 no\r\n"
    async with doors(ledger, upstream, policy(mode, HERE, purpose)) as relay:
        async with sender(relay.ports[0]) as client:
            await client.send(["here@example.com", CLEAR, "all@example.com"], TO_LIST, pipelined=True)
        totals = relay.record.totals
    instead = "deferred" if step.startswith("lost") else "rejected"
    outcome = {"refuse": "refused", "strip": "stripped", "observe": "would-refuse"}[mode]
    passing = 3 if purpose == "service" or mode == "observe" else 1
    duplicate = {"duplicate": 1} if step == "lost at DOT" else {}
    assert totals == {instead: passing, **({outcome: 3 - passing} if passing == 1 else {}), **duplicate}


@pytest.mark.parametrize("mode", MODES)
async def test_an_upstream_that_takes_some_of_them(everybody: Any, upstream: Puppet, mode: Mode) -> None:
    ledger, _ = everybody
    upstream.says["RCPT TO:<all@example.com>"] = b"550 5.1.1 no such user\r\n"
    async with doors(ledger, upstream, policy(mode)) as relay:
        async with sender(relay.ports[0]) as client:
            await client.send(["all@example.com", CLEAR, "bounced@example.com"], TO_LIST)
        assert (
            relay.record.totals
            == {
                "refuse": {"passed": 1, "refused": 2},
                "strip": {"passed": 1, "stripped": 2},
                "observe": {"passed": 1, "rejected": 1, "would-refuse": 1},
            }[mode]
        )


async def test_a_worse_answer_at_the_replay_defers_who_was_left(everybody: Any, upstream: Puppet) -> None:
    ledger, _ = everybody
    async with doors(ledger, upstream, policy("strip")) as relay, sender(relay.ports[0]) as client:
        await client.say("MAIL FROM:<news@quillpdf.example>", f"RCPT TO:<{CLEAR}>", "RCPT TO:<here@example.com>")
        upstream.says[f"RCPT TO:<{CLEAR}>"] = b"450 4.2.0 not now\r\n"
        await client.say("DATA")
        client.write(TO_LIST + b".\r\n")
        assert (await client.heard()).startswith("451 4.5.0")
        assert relay.record.totals == {"deferred": 1, "stripped": 1}


@pytest.mark.parametrize("known", ["credential", "List-Id"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("purpose", ["marketing", "service"])
async def test_an_opt_out_before_the_dot_is_told_in_the_record(
    ledger: Books,
    upstream: Puppet,
    told: list[tuple[str, str, str, int, str | None]],
    mode: Mode,
    purpose: Literal["marketing", "service"],
    known: Known,
) -> None:
    """451 in every mode that refuses. Who only observes, or sends service mail, is told of it."""
    async with doors(ledger, upstream, policy(mode, HERE if known == "credential" else None, purpose)) as relay:
        async with sender(relay.ports[0]) as client:
            await client.say(
                "MAIL FROM:<news@quillpdf.example>", f"RCPT TO:<{CLEAR}>", "RCPT TO:<late@example.com>", "DATA"
            )
            client.write(TO_LIST + b"x" * 100_000 + b"\r\n")
            while len(upstream.commands) < 5 or "DATA" not in upstream.commands:
                await client_turn()
            ref = ledger.suppress("late@example.com", HERE).evidence
            client.write(b".\r\n")
            final = await client.heard()
        totals, kept = relay.record.totals, relay.record.kept
    if mode != "observe" and purpose == "marketing":
        assert final == "451 4.7.1 a recipient has just opted out, try again later"
        assert totals == {"withdrawn": 1, "deferred": 1}
        assert upstream.messages == []
    else:
        assert final == TAKEN
        assert totals == {"passed": 1, "service" if purpose == "service" else "would-refuse": 1}
    ((late,),) = kept
    assert (late.message_id, late.evidence, late.address) == (
        "<spring@crm.quillpdf.example>",
        ref,
        "late@example.com",
    )
    assert [line[3:] for line in told] == [(ref, HERE)]


async def client_turn() -> None:
    """Let the relay go on."""
    await asyncio.sleep(0.002)


@pytest.mark.parametrize("mode", MODES)
async def test_doubt_at_the_last_question_defers_everybody_but_only_an_observer(
    ledger: Books, upstream: Puppet, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.suppress("all@example.com")
    unknown = Unknown("test")
    async with doors(ledger, upstream, policy(mode, HERE)) as relay, sender(relay.ports[0]) as client:
        await client.say("MAIL FROM:<n@quillpdf.example>", f"RCPT TO:<{CLEAR}>", "RCPT TO:<all@example.com>", "DATA")
        monkeypatch.setattr(relay.gate, "may", lambda *_: unknown)
        monkeypatch.setattr(relay.gate, "may_all", lambda asked, *_: [unknown] * len(asked))
        client.write(TO_LIST + b".\r\n")
        observed = mode == "observe"
        assert await client.heard() == ("250 2.0.0 taken by puppet" if observed else unknown.reply)
        assert (
            relay.record.totals
            == {
                "refuse": {"refused": 1, "deferred": 1},
                "strip": {"stripped": 1, "deferred": 1},
                "observe": {"passed": 1, "would-refuse": 1},
            }[mode]
        )
    assert len(upstream.messages) == observed


async def test_an_observer_lets_pass_whom_nobody_can_tell_of(
    ledger: Books, upstream: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What refuses nobody must not defer anybody either."""
    async with doors(ledger, upstream, policy("observe", HERE)) as relay, sender(relay.ports[0]) as client:
        monkeypatch.setattr(relay.gate, "may", lambda *_: Unknown("test"))
        await client.say("MAIL FROM:<n@quillpdf.example>", f"RCPT TO:<{CLEAR}>", "DATA")
        client.write(TO_LIST + b".\r\n")
        assert (await client.heard()).startswith("250")
        assert relay.record.totals == {"passed": 1}


@pytest.mark.parametrize(
    ("header", "message_id"),
    [
        (b"Message-ID: <a@b>\r\n", "<a@b>"),
        (b"MESSAGE-ID:<a@b>\r\n", "<a@b>"),
        (b"Message-ID:\r\n <a@b>\r\n", "<a@b>"),
        (b"Message-ID:\r\nX-Other: <not@this>\r\n", ""),
        (b"Message-ID: \r\nX-Other: <not@this>\r\n", ""),
        (b"X-Message-ID: <not@this>\r\n", ""),
        (b"Subject: x\r\n Message-ID: <not@this>\r\n", ""),
        (b"Message-ID: \xff<a@b>\r\n", "\ufffd<a@b>"),
        (b"Message-ID: " + b"x" * 900 + b"\r\n", "x" * 300),
    ],
)
async def test_whose_refusals_they_are(ledger: Books, upstream: Puppet, header: bytes, message_id: str) -> None:
    """The record names the message, whether somebody was refused before it was read or after."""
    ledger.suppress("all@example.com")
    ledger.suppress("here@example.com", HERE)
    message = header + b"List-Id: <newsletter.quillpdf.example>\r\n\r\nMessage-ID: <nor@this>\r\n"
    async with doors(ledger, upstream, policy("refuse")) as relay, sender(relay.ports[0]) as client:
        await client.send(["all@example.com", CLEAR], message)
        await client.send(["here@example.com"], message)
        assert [r.message_id for (r,) in relay.record.kept] == [message_id] * 2


async def test_a_client_that_resets_leaves_its_refusals_and_nothing_else(everybody: Any, upstream: Puppet) -> None:
    ledger, _ = everybody
    async with doors(ledger, upstream, policy("refuse", HERE)) as relay, sender(relay.ports[0]) as client:
        await client.say("MAIL FROM:<n@quillpdf.example>", "RCPT TO:<all@example.com>", f"RCPT TO:<{CLEAR}>", "RSET")
        await client.say("RSET", "NOOP")
        assert relay.record.totals == {"refused": 1}
        ((kept,),) = relay.record.kept
        assert (kept.others, kept.list_number, kept.message_id) == (0, ledger.numbers[HERE], "")


async def test_who_lost_his_place_at_the_upstream_was_deferred(everybody: Any, upstream: Puppet) -> None:
    """A client that says nothing for half a minute while another waits for the only connection."""
    ledger, _ = everybody
    async with doors(ledger, upstream, policy("observe"), connections=1) as relay:
        async with sender(relay.ports[0]) as silent, sender(relay.ports[0]) as waiting:
            await silent.say("MAIL FROM:<n@x.example>", f"RCPT TO:<{CLEAR}>", "RCPT TO:<all@example.com>")
            sending = asyncio.create_task(waiting.send([CLEAR], TO_LIST))
            while not relay.server.pool.waiting:
                await client_turn()
            for client in list(relay.server._clients):
                client._linger(31)
            assert (await sending)[1] == TAKEN
            assert (await silent.say("RCPT TO:<nothing@example.com>", "DATA", "RSET"))[1].startswith("451 4.3.2")
        assert relay.record.totals == {"passed": 1, "deferred": 3}


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (b"Subject: x\r\n\r\nbare\nline\r\n", "550 5.6.11"),
        (b"Received: x\r\n" * 51 + b"\r\nx\r\n", "554 5.4.6"),
        (b"Subject: x\r\n\r\n" + b"y" * 200_000 + b"\nbare\r\n", "550 5.6.11"),
    ],
)
async def test_whose_message_we_refuse_ourselves_is_rejected(
    ledger: Books, upstream: Puppet, message: bytes, answer: str
) -> None:
    ledger.suppress("all@example.com")
    async with doors(ledger, upstream, policy("refuse", HERE)) as relay, sender(relay.ports[0]) as client:
        _, final = await client.send([CLEAR, "all@example.com", "other@example.com"], message)
        assert final.startswith(answer)
        assert relay.record.totals == {"refused": 1, "rejected": 2}
    assert upstream.messages == []
