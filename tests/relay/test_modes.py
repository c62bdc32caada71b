"""Whom the relay lets a message reach, what it says, and what it writes down: every mode, purpose and kind of row.

The oracle below is written from DESIGN 1 and 7.2 and CONTRACT 4 alone. It knows the rows of each person, and nothing of
the gate, the lookup or the relay.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, Literal

import pytest

from daemon import events
from daemon.gate import Unknown
from daemon.relay.access import Policy
from storage.address import Who, parse, person
from storage.terms import Reason
from tests.ledgers import Books, books
from tests.relay.doors import Recording, doors, sender
from tests.relay.puppet import Puppet, hang_up

Mode = Literal["refuse", "strip", "observe"]
Known = Literal["credential", "List-Id", "unknown"]
HERE: Final = "newsletter"  # the list that is sent to, where one is
OTHER: Final = "offers"
CREDENTIAL: Final = "crm"
TAKEN: Final = "250 2.0.0 taken by puppet"
CLEAR: Final = "clear@example.com"

# Who: the rows that stand against them, as (list or None for all, reason). The address of each is NAME@example.com.
PEOPLE: Final[dict[str, list[tuple[str | None, Reason]]]] = {
    "nothing": [],
    "all": [(None, Reason.OPT_OUT)],
    "here": [(HERE, Reason.OPT_OUT)],
    "elsewhere": [(OTHER, Reason.OPT_OUT)],
    "bounced": [(None, Reason.HARD_BOUNCE)],
    "soft": [(None, Reason.SOFT_BOUNCE)],
    "complained": [(None, Reason.COMPLAINT)],
    "complained-here": [(HERE, Reason.COMPLAINT)],
    "by-hand": [(None, Reason.OPERATOR)],
    "wants-here": [(None, Reason.OPT_OUT), (HERE, Reason.WANTED)],
    "wants-elsewhere": [(None, Reason.OPT_OUT), (OTHER, Reason.WANTED)],
    "complained-wants-here": [(None, Reason.COMPLAINT), (None, Reason.OPT_OUT), (HERE, Reason.WANTED)],
    "bounced-and-out": [(None, Reason.HARD_BOUNCE), (None, Reason.OPT_OUT)],
    "bounced-and-out-here": [(None, Reason.HARD_BOUNCE), (HERE, Reason.OPT_OUT)],
}
DOMAIN: Final = "someone@closed.example"  # of whose whole domain the operator wants no mail sent to
STRENGTH: Final = [
    Reason.COMPLAINT,
    Reason.OPT_OUT,
    Reason.OPERATOR,
    Reason.HARD_BOUNCE,
    Reason.SOFT_BOUNCE,
]  # DESIGN 5


@dataclass(frozen=True)
class Against:
    """What stands against somebody: the words of CONTRACT 4, and the row to explain it by."""

    words: str
    reason: Reason
    scope: str | None


@dataclass(frozen=True)
class Case:
    """A client, and how it comes to be known which list it sends to."""

    mode: Mode
    purpose: Literal["marketing", "service"]
    known: Known

    @property
    def policy(self) -> Policy:
        return Policy(self.mode, HERE if self.known == "credential" else None, self.purpose, (), CREDENTIAL)

    @property
    def message(self) -> bytes:
        field = b"List-Id: The Quill Letter <newsletter.quillpdf.example>\r\n" if self.known == "List-Id" else b""
        return field + b"Subject: spring\r\nMessage-ID: <spring@crm.quillpdf.example>\r\n\r\nhello\r\n"

    def against(self, name: str, list_: str | None, *, marketing: bool = False) -> Against | None:
        """The oracle: what stops mail of this list (None: not known) to somebody."""
        if name == "domain":
            return Against("is suppressed: domain", Reason.OPERATOR, None) if self._marketing or marketing else None
        rows = PEOPLE[name]
        if not (self._marketing or marketing):  # service mail is stopped by hard bounces, and by nothing else
            rows = [r for r in rows if r[1] is Reason.HARD_BOUNCE]
        wanted = list_ is not None and (list_, Reason.WANTED) in rows
        rows = [
            (scope, reason)
            for scope, reason in rows
            if reason is not Reason.WANTED
            and (scope is None or scope == list_)
            and not (wanted and reason is Reason.OPT_OUT and scope is None)
        ]
        if not rows:
            return None
        scope, reason = min(rows, key=lambda r: STRENGTH.index(r[1]))
        words = f"is suppressed: {reason.word}"
        if reason is Reason.OPT_OUT:
            words = f"has opted out of {scope}" if scope else "has opted out"
        return Against(words, reason, scope)

    @property
    def _marketing(self) -> bool:
        return self.purpose == "marketing"


CASES: Final = [Case(*c) for c in product(("refuse", "strip", "observe"), ("marketing", "service"), ("credential", "List-Id", "unknown"))]  # type: ignore[arg-type]  # fmt: skip


@dataclass
class Expected:
    """What a message to one person, and perhaps to somebody whom nothing stands against, comes to."""

    rcpt: str
    final: str
    got: list[str]
    outcome: str | None = None  # of the person; None: passed, or nothing to tell
    against: Against | None = None
    event: str | None = None
    read: bool = True  # the message was read, so its list and Message-ID are known


def expected(case: Case, name: str, address: str, ref: Callable[[Against], int], *, company: bool) -> Expected:
    """From DESIGN 4.2 and 7.2 and CONTRACT 4."""
    at_rcpt = case.against(name, HERE if case.known == "credential" else None)
    at_data = case.against(name, None if case.known == "unknown" else HERE)
    others = [CLEAR] if company else []
    both = [address, *others]
    n = len(both)
    ok = "250 2.1.5"

    def reply(against: Against) -> str:
        return f"550 5.7.1 <{address}> {against.words} (ref {ref(against)})"

    if case.mode == "observe" and (against := at_rcpt or at_data):
        return Expected(ok, TAKEN, both, "would-refuse", against, "would_refuse")
    if at_rcpt and case.mode == "refuse":
        final = TAKEN if company else "554 5.5.1 no valid recipients"
        return Expected(reply(at_rcpt), final, others, "refused", at_rcpt, "rcpt_refused", read=company)
    if (at_rcpt or at_data) and case.mode == "strip":
        nothing = f"250 2.0.0 nothing sent: all {n} recipients have opted out"
        final = f"{TAKEN} (1 of {n} recipients left out: opted out)" if company else nothing
        return Expected(ok, final, others, "stripped", at_rcpt or at_data, "rcpt_stripped")
    if at_data:
        if not company:
            return Expected(ok, reply(at_data), [], "refused", at_data, "rcpt_refused")
        final = f"{TAKEN} (1 of {n} left out: opted out of {HERE})"
        return Expected(ok, final, others, "stripped", at_data, "rcpt_stripped")
    despite = case.against(name, HERE if case.known == "credential" else None, marketing=True) or case.against(
        name, None if case.known == "unknown" else HERE, marketing=True
    )
    if case.purpose == "service" and despite:
        return Expected(ok, TAKEN, both, "service", despite, "service_mail_passed")
    return Expected(ok, TAKEN, both)


# ------------------------------------------------------------------ the table


@pytest.fixture(scope="module")
def everybody(tmp_path_factory: pytest.TempPathFactory) -> tuple[Books, dict[tuple[str, str | None, Reason], int]]:
    """A ledger with all the people, and the ref of each row."""
    ledger = books(tmp_path_factory.mktemp("modes") / "state")
    refs = {
        (name, scope, reason): ledger.suppress(f"{name}@example.com", scope, reason).evidence
        for name, rows in PEOPLE.items()
        for scope, reason in rows
    }
    refs["domain", None, Reason.OPERATOR] = ledger.suppress("@closed.example", None, Reason.OPERATOR).evidence
    return ledger, refs


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str, int, str | None]]:
    """Events about a recipient: (event, who, why, ref, list)."""
    found: list[tuple[str, str, str, int, str | None]] = []

    class Log:
        def info(self, event: str, **facts: Any) -> None:
            if "rcpt" in facts:
                found.append((event, facts["rcpt"], facts["reason"], facts["ref"], facts["list"]))

        warning = info
        error = info

    monkeypatch.setattr(events, "_log", Log())
    return found


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


# ------------------------------------------------------------------ several who have left, and what else can happen


def policy(mode: Mode, list_: str | None = None, purpose: Literal["marketing", "service"] = "marketing") -> Policy:
    return Policy(mode, list_, purpose, (), CREDENTIAL)


TO_LIST = Case("refuse", "marketing", "List-Id").message


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
    """DESIGN 7.1: 451 in every mode that refuses. Who only observes, or sends service mail, is told of it."""
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
