"""Every fault at every step, in every mode: what the client is told, who gets the message, and what is left afterwards.

Two tables, each with one function that says what is to come of any cell: an upstream in trouble, and a client that
leaves or changes its mind. No cell is left out. In all of them a 250 to the dot means that the upstream has the message
(or that strip mode had nobody left, and says so); nobody gets it twice, save when the upstream is lost after its dot; each
recipient is counted once; nothing of it remains; and the next message passes, on the same connection and on a new one.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import pytest

from tests.ledgers import Books
from tests.relay.desk import Desk, relay, reply
from tests.relay.faulty import AGAIN, HELLO, connected, play, reset_on_close, until
from tests.relay.trouble import REPLAY, STEPS, TROUBLES, WORDS, Tally, Troubled, nothing_is_left, unfinished
from tests.scripted import listening

pytestmark = pytest.mark.usefixtures("nothing_unexpected")

SECONDS: Final = 0.3  # that the relay waits for a reply
HEAD: Final = b"List-Id: <newsletter.quillpdf.example>\r\nSubject: offer\r\n\r\n"
TAKEN: Final = "250 2.0.0 taken by puppet"
NOT_REACHED: Final = "451 4.4.1"
LOST: Final = "451 4.4.2"
CHANGED_ITS_MIND: Final = "451 4.5.0"

# ann has opted out of everything, leo of the newsletter: that he gets it is known from its header only.
WHERE: Final = {
    "bob": "<bob@example.com>",
    "ann": "<ann@example.com>",
    "carl": "<carl@example.com>",
    "leo": "<leo@example.com>",
}


# ------------------------------------------------------------------ an upstream in trouble


@dataclass(frozen=True)
class Cell:
    """One message to an upstream that does `trouble` at `step`."""

    trouble: str
    step: str
    mode: str
    together: bool  # the client pipelines its envelope
    pipelining: bool  # the upstream offers it

    @property
    def people(self) -> tuple[str, ...]:
        """The recipients, in their order."""
        return ("bob", "ann", "carl", "leo") if self.step in REPLAY else ("bob", "ann", "carl")


@dataclass
class Outcome:
    """What is to come of a cell: beginnings of replies, who gets the message, and what is counted."""

    rcpt: dict[str, str]
    data: str = "354"
    dot: str = ""  # "": there is none
    sent_to: tuple[str, ...] = ()
    counts: Counter[str] = field(default_factory=Counter)


def expected(cell: Cell) -> Outcome:
    """What must come of it."""
    trouble = (
        None if cell.trouble.startswith("answers") or (cell.step in REPLAY and cell.mode == "observe") else cell.trouble
    )
    refused = WORDS[trouble] if trouble in ("refuses 4xx", "refuses 5xx") else None
    offered = [p for p in cell.people if p != "ann" or cell.mode == "observe"]
    out = Outcome(dict.fromkeys(cell.people, "250"))
    if cell.mode == "refuse":
        out.rcpt["ann"] = "550 5.7.1"
    lost_them = False  # the upstream has gone, and recipients that it had taken with it
    if trouble and cell.step in ("connect", "EHLO"):
        out.rcpt |= dict.fromkeys(offered, NOT_REACHED)
    elif trouble and cell.step == "MAIL":
        out.rcpt |= dict.fromkeys(offered, refused or LOST)
    elif trouble and cell.step in ("RCPT 1", "RCPT 2"):
        culprit = {"RCPT 1": "bob", "RCPT 2": "carl"}[cell.step]
        before = offered[: offered.index(culprit)]
        out.rcpt[culprit] = refused or LOST
        if not refused and cell.together:
            # All go in one write with MAIL: the replies are heard all or none. To one that does not pipeline, one by one.
            out.rcpt |= dict.fromkeys(offered if cell.pipelining else offered[len(before) :], LOST)
        lost_them = not refused and bool(before) and not (cell.together and cell.pipelining)
    taken = [p for p in offered if out.rcpt[p] == "250"]
    left_out = [p for p in cell.people if out.rcpt[p] == "250" and p not in taken]
    if lost_them or not taken + left_out:
        out.data = LOST if lost_them else "554 5.5.1"
    elif not taken:
        out.dot = "250 2.0.0 nothing sent: all 1 recipients have opted out"
    else:
        out.dot = _dot(cell.step, trouble, refused)
        if out.dot == TAKEN or trouble == "takes it and drops":
            out.sent_to = tuple(p for p in taken if p != "leo" or cell.mode == "observe")
    out.counts = _counts(cell, out, taken)
    if (cell.step == "dot" and trouble and trouble != "421" and not refused) or (cell.step, trouble) == (
        "body",
        "hangs",
    ):
        out.counts["duplicate"] = 1
    return out


def _dot(step: str, trouble: str | None, refused: str | None) -> str:
    """The reply to the dot of a message that the upstream has recipients of."""
    if trouble is None or step not in ("DATA", "body", "dot", *REPLAY):
        return TAKEN
    if refused and step in ("DATA", "dot"):
        return refused
    return CHANGED_ITS_MIND if refused and step in ("MAIL again", "RCPT again") else LOST


def _counts(cell: Cell, out: Outcome, taken: list[str]) -> Counter[str]:
    """Each recipient once, by the last word on it."""
    counts = Counter[str]()
    for person in cell.people:
        word = next(
            w for w in (out.dot, out.data, out.rcpt[person]) if w and (person in taken or w is out.rcpt[person])
        )
        if person in ("ann", "leo") and cell.mode != "observe" and (person == "ann" or taken):
            counts["refused" if cell.mode == "refuse" and person == "ann" else "stripped"] += 1
        elif word.startswith("451"):
            counts["deferred"] += 1
        elif not word.startswith("250"):
            counts["rejected"] += 1
        else:
            counts["would-refuse" if person in ("ann", "leo") else "passed"] += 1
    return counts


WAYS: Final = [  # mode, does the client pipeline, does the upstream
    *itertools.product(["refuse"], [False, True], [False, True]),
    *itertools.product(["strip", "observe"], [False, True], [True]),
]


@pytest.fixture
def books(ledger: Books) -> Books:
    """With ann and leo in it."""
    ledger.suppress("ann@example.com")
    ledger.suppress("leo@example.com", "newsletter")
    return ledger


@pytest.mark.parametrize(("mode", "together", "pipelining"), WAYS)
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_an_upstream_in_trouble(
    books: Books,
    trouble: str,
    mode: str,
    together: bool,
    pipelining: bool,
    logged: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daemon.delivery.DOT_SECONDS", SECONDS)
    cells = [Cell(trouble, step, mode, together, pipelining) for step in STEPS]
    await _all_at_once(books, cells, logged)


@pytest.mark.parametrize(("mode", "together", "pipelining"), WAYS)
async def test_an_upstream_that_takes_a_message_and_does_not_say_so(
    books: Books, mode: str, together: bool, pipelining: bool, logged: list[str]
) -> None:
    """The one way to a message that comes twice."""
    await _all_at_once(books, [Cell("takes it and drops", "dot", mode, together, pipelining)], logged)


async def _all_at_once(books: Books, cells: list[Cell], logged: list[str]) -> None:
    async with asyncio.TaskGroup() as all_of_them:
        for cell in cells:
            all_of_them.create_task(_told(books, cell))
    assert logged.count("possibly_duplicated") == sum(expected(cell).counts["duplicate"] for cell in cells)
    assert unfinished() == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def _told(books: Books, cell: Cell) -> None:
    try:
        await _come_true(books, cell)
    except BaseException as error:
        error.add_note(str(cell))
        raise


async def _come_true(books: Books, cell: Cell) -> None:
    wanted, tally = expected(cell), Tally()
    async with (
        listening(Troubled(step=cell.step, trouble=cell.trouble, pipelining=cell.pipelining)) as upstream,
        relay(books, upstream, timeout=SECONDS, mode=cell.mode) as desk,
        connected(desk) as client,
    ):
        desk.server.context.record = tally
        for idle in desk.server.pool.hops[0].idle:  # of the probe: this message's is greeted anew
            idle.quit()
        await play(client, HELLO)
        heard = await _send(client, upstream, cell)
        assert heard == (wanted.rcpt, wanted.data, wanted.dot) or _begins(heard, wanted), f"{heard}, wanted {wanted}"
        sent = [tuple(WHERE[p] for p in wanted.sent_to)] if wanted.sent_to else []
        assert [rcpts for rcpts, _ in upstream.messages] == sent
        await play(client, "C: RSET\nS: 250")  # behind it all is written down
        assert tally.counts == wanted.counts
        upstream.recover()
        await play(client, AGAIN)
        await desk.talk(HELLO + AGAIN + "\nC: QUIT\nS: 221")
        assert [rcpts for rcpts, _ in upstream.messages] == [*sent, (WHERE["bob"],), (WHERE["bob"],)]
        client[1].close()
        await nothing_is_left(desk, upstream)


Heard = tuple[dict[str, str], str, str]


def _begins(heard: Heard, wanted: Outcome) -> bool:
    """Does every reply begin as it should, and is there none too many?"""
    pairs = [(heard[0][p], wanted.rcpt[p]) for p in wanted.rcpt] + [(heard[1], wanted.data), (heard[2], wanted.dot)]
    return all(said.startswith(begins) and bool(said) == bool(begins) for said, begins in pairs)


async def _send(client: tuple[asyncio.StreamReader, asyncio.StreamWriter], upstream: Troubled, cell: Cell) -> Heard:
    """One message to all people: the replies to the recipients, to DATA and to the dot."""
    reader, writer = client
    commands = ["MAIL FROM:<n@x.example>", *(f"RCPT TO:{WHERE[p]}" for p in cell.people), "DATA"]
    said = []
    if cell.together:
        writer.write("".join(f"{c}\r\n" for c in commands).encode())
        said = [await reply(reader) for _ in commands]
    else:
        for command in commands:
            writer.write(f"{command}\r\n".encode())
            said.append(await reply(reader))
    assert said[0].startswith("250 2.1.0")
    dot = ""
    if said[-1].startswith("354"):
        head = HEAD if cell.step in REPLAY else b"Subject: offer\r\n\r\n"
        if cell.step == "body":  # a piece is passed on when the next one has come
            writer.write(head + b"hel")  # of what could be the beginning of the end, the last CR LF is held back
            await until(lambda: "DATA" in upstream.commands)
            writer.write(b"lo\r\n")
            await upstream.struck.wait()
            await asyncio.sleep(0.02)  # for the relay to hear of it
            head = b""
        writer.write(head + b"..dot\r\n.\r\n")
        dot = await reply(reader)
    return dict(zip(cell.people, said[1:-1], strict=True)), said[-1], dot


# ------------------------------------------------------------------ a client that leaves or changes its mind

ENVELOPE: Final = b"MAIL FROM:<n@x.example>\r\n", b"RCPT TO:<bob@example.com>\r\n", b"DATA\r\n"
BODY: Final = b"Subject: x\r\n\r\nhel", b"lo\r\n..\r\n"
# What the client sends up to each step, and where the upstream then stands if it is slow.
SENT: Final = {
    "greeting": b"",
    "EHLO": b"EHLO x\r\n",
    "MAIL": ENVELOPE[0],
    "RCPT": ENVELOPE[1],
    "DATA": ENVELOPE[2],
    "body": BODY[0],
    "dot": BODY[1] + b".\r\n",
    "after": b"",
}
AT: Final = {"RCPT": "RCPT 1", "body": "DATA", "dot": "dot"}
PLACES: Final = list(SENT)


def copies(way: str, step: str) -> int:
    """How often the upstream gets the message of a client that does `way` when it has come to `step`."""
    match way:
        case "closes" | "resets" | "half-closes":
            return int(step in ("dot", "after"))  # past its dot it is too late to have second thoughts
        case "RSETs":
            return int(step in ("DATA", "body", "dot", "after"))  # in a body it is a line of text
        case _:  # "goes on": the next message is sent before the replies to this one are read
            return 2


@pytest.mark.parametrize("slow", [False, True], ids=["prompt upstream", "slow upstream"])
@pytest.mark.parametrize("together", [False, True], ids=["one by one", "pipelined"])
@pytest.mark.parametrize("way", ["closes", "resets", "half-closes", "RSETs", "goes on"])
async def test_a_client_that_leaves_or_changes_its_mind(ledger: Books, way: str, together: bool, slow: bool) -> None:
    for step in SENT:
        tally = Tally()
        trouble = "answers late" if slow and step in AT else ""
        async with (
            listening(Troubled(step=AT.get(step, ""), trouble=trouble)) as upstream,
            relay(ledger, upstream, connections=2) as desk,
        ):
            desk.server.context.record = tally
            async with asyncio.timeout(10):
                await _leave(desk, upstream, way, step, together)
            await until(lambda: not desk.server._clients)
            assert [rcpts for rcpts, _ in upstream.messages] == [(WHERE["bob"],)] * copies(way, step), step
            whole = BODY[0] + (b"RSET\r\n" if (way, step) == ("RSETs", "body") else b"") + BODY[1]
            assert all(data.endswith(whole) for _, data in upstream.messages), step
            assert tally.counts == Counter(passed=copies(way, step)), step
            upstream.recover()
            await desk.talk(HELLO + AGAIN)
            await nothing_is_left(desk, upstream, 2)
        assert unfinished() == []
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def _leave(desk: Desk, upstream: Troubled, way: str, step: str, together: bool) -> None:
    """Come to the step, one by one or in as few writes as RFC 2920 allows; then do it."""
    async with connected(desk) as (reader, writer):
        sent = [PLACES[n] for n in range(PLACES.index(step) + 1)]
        thinks = bool(upstream.trouble)
        heard = await _come_to(reader, writer, sent, together, wait_for_last=not thinks)
        if thinks:
            await upstream.struck.wait()
        elif step == "body" or (step == "dot" and way != "goes on"):
            await asyncio.sleep(0.02)
        match way:
            case "closes":
                writer.close()
            case "resets":
                reset_on_close(writer)
            case "half-closes":
                writer.write_eof()
                codes = [line[:3] async for line in reader if line[3:4] == b" "]
                assert heard + codes == _codes(sent), step
            case "RSETs":
                rest = [PLACES[n] for n in range(PLACES.index(step) + 1, len(PLACES))] if copies(way, step) else []
                writer.write(b"RSET\r\n" + b"".join(SENT[s] for s in rest) + b"DATA\r\nQUIT\r\n")
                codes = [line[:3] async for line in reader if line[3:4] == b" "]
                assert codes[-2:] == [b"503", b"221"], codes  # nothing of a message is left behind a RSET
            case "goes on":
                await _go_on(reader, writer, PLACES[PLACES.index(step) + 1 :], step)
    # "closes" and "resets" end here; what the server does with them is looked at outside


async def _come_to(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, steps: list[str], together: bool, *, wait_for_last: bool
) -> list[bytes]:
    """Send what belongs to these steps; the codes of the replies. The last one may be slow: it is then not waited for."""
    codes = []
    owed = 0
    for n, step in enumerate(steps):
        writer.write(SENT[step])
        owed += step in ("EHLO", "MAIL", "RCPT", "DATA", "dot")
        last = n == len(steps) - 1
        if (last and wait_for_last) or (not last and (not together or step in ("EHLO", "DATA", "dot"))):
            codes += [(await reply(reader))[:3].encode() for _ in range(owed)]
            owed = 0
    return codes


def _codes(steps: list[str]) -> list[bytes]:
    """The replies to all that was sent."""
    said = {"EHLO": b"250", "MAIL": b"250", "RCPT": b"250", "DATA": b"354", "dot": b"250"}
    return [said[step] for step in steps if step in said]


async def _go_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rest: list[str], step: str) -> None:
    """The rest of this message, and the next one, each in as few writes as there can be; the dots are pipelined across."""
    before = b"".join(SENT[s] for s in rest if s in ("EHLO", "MAIL", "RCPT", "DATA"))
    body = b"".join(SENT[s] for s in rest if s in ("body", "dot"))
    writer.write(before)
    if before:
        await until_said(reader, b"354")
    writer.write(body + b"".join(ENVELOPE))
    await until_said(reader, b"354")
    writer.write(b"".join(BODY) + b".\r\nQUIT\r\n")
    codes = [line[:3] async for line in reader if line[3:4] == b" "]
    assert codes == [b"250", b"221"], step


async def until_said(reader: asyncio.StreamReader, code: bytes) -> None:
    """Read replies up to one with this code."""
    while not (line := await reader.readline()).startswith(code):
        assert line, "the relay has hung up"
