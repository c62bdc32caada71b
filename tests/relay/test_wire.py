"""The wire, by property: bodies in any chunks, and commands in any order, against models small enough to be believed."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from daemon import events
from daemon.relay.body import Body
from tests.ledgers import Books
from tests.relay.desk import Desk, relay, reply
from tests.relay.puppet import Puppet, puppet

# Octets of which ends of a body, and what looks like them, are made.
MATTER = st.lists(
    st.sampled_from(
        [b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"\r\n..", b"x", b"\x00", b"\xff", b"List-Id: ", b"\r\n\r\n"]
    )
).map(b"".join)
DECENT = st.lists(st.binary(max_size=12).map(lambda x: re.sub(rb"[\r\n]", b"", x)), max_size=8).map(
    lambda lines: b"".join((b"." + x if x.startswith(b".") else x) + b"\r\n" for x in lines)
)


def chunks(octets: bytes, cuts: list[int]) -> Iterator[bytes]:
    """The octets in pieces of these sizes, used in turn."""
    at, n = 0, 0
    while at < len(octets):
        yield octets[at : at + cuts[n % len(cuts)]]
        at, n = at + cuts[n % len(cuts)], n + 1


CUTS = st.lists(st.integers(1, 9), min_size=1, max_size=6)


# ------------------------------------------------------------------ a body


@dataclass
class Read:
    """A Body, fed by hand."""

    pieces: Iterator[bytes]
    rest: list[bytes] = field(default_factory=list)

    async def read(self) -> bytes:
        return next(self.pieces)

    def body(self) -> Body:
        return Body(self.read, self.rest.append)


def run(step: Coroutine[None, None, bytes]) -> bytes:
    """Run what never really waits."""
    try:
        step.send(None)
    except StopIteration as done:
        return bytes(done.value)
    raise AssertionError("it waits for somebody")


async def collect(body: Body, limit: int) -> bytes:
    found = await body.head(limit)
    while (piece := await body.piece()) is not None:
        found += piece
    return found


@settings(max_examples=500)
@given(MATTER, MATTER, CUTS, st.sampled_from([0, 5, 1000]))
@example(b"", b"", [1], 1000)
@example(b"\r\n", b"\r\n.\r\n", [2], 1000)
@example(b"x\r", b"", [2], 1000)
@example(b".", b"\n.\r\n", [3], 1000)
def test_a_body_is_what_stands_before_the_first_dot_however_it_is_cut(
    matter: bytes, behind: bytes, cuts: list[int], limit: int
) -> None:
    stream = matter + b"\r\n.\r\n" + behind
    end = (b"\r\n" + stream).index(b"\r\n.\r\n")
    told = Read(chunks(stream, cuts))
    body = told.body()
    assert run(collect(body, limit)) == stream[:end]
    assert body.octets == end
    assert body.bare == bool(re.search(rb"(?<!\r)\n|\r(?!\n)", b"\r\n" + stream[:end]))
    assert b"".join([*told.rest, *told.pieces]) == stream[end + 3 :]


@settings(max_examples=300)
@given(MATTER, CUTS)
def test_no_piece_ends_inside_a_line_end_and_none_is_handed_out_before_its_bare_octets_are_known(
    matter: bytes, cuts: list[int]
) -> None:
    async def look(body: Body) -> bytes:
        while (piece := await body.piece()) is not None:
            assert body.bare or not re.search(rb"(?<!\r)\n|\r(?!\n)", piece)
        return b""

    run(look(Read(chunks(matter + b"\r\n.\r\n", cuts)).body()))


@given(DECENT, DECENT, CUTS)
def test_the_head_holds_the_whole_header_block(header: bytes, text: bytes, cuts: list[int]) -> None:
    async def look(body: Body) -> bytes:
        return await body.head(100_000)

    stream = header + b"\r\n" + text + b".\r\n"
    head = run(look(Read(chunks(stream, cuts)).body()))
    whole = stream[:-3]
    assert whole.startswith(head)
    end = 2 if whole.startswith(b"\r\n") else whole.find(b"\r\n\r\n") + 4
    assert len(head) >= end


# ------------------------------------------------------------------ through the relay


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What reached the outermost loop of the door."""
    found: list[object] = []
    monkeypatch.setattr(events, "failed", lambda where, error: found.append(error))
    return found


by_the_way = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@by_the_way
@given(MATTER | DECENT, CUTS)
@example(b"." * 3, [1])
def test_a_body_passes_octet_for_octet_or_is_refused(
    ledger: Books, errors: list[object], matter: bytes, cuts: list[int]
) -> None:
    stream = matter + b"\r\n.\r\n"
    end = (b"\r\n" + stream).index(b"\r\n.\r\n")
    body = stream[:end]
    bare = bool(re.search(rb"(?<!\r)\n|\r(?!\n)", body))

    async def go(desk: Desk, upstream: Puppet) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", desk.port)
        writer.write(b"EHLO x\r\nMAIL FROM:<n@x.example>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n")
        assert [(await reply(reader))[:3] for _ in range(5)] == ["220", "250", "250", "250", "354"]
        for piece in chunks(body + b".\r\n", cuts):
            writer.write(piece)
            await asyncio.sleep(0)
        answer = await reply(reader)
        writer.close()
        await writer.wait_closed()
        if bare:
            assert answer.startswith("550 5.6.11")
            assert upstream.messages == []
        else:
            assert answer == "250 2.0.0 taken by puppet"
            ((_, data),) = upstream.messages
            assert re.sub(rb"\AReceived: .*\r\n\t.*\r\n\t.*\r\n\t.*\r\n", b"", data) == body

    in_front_of_a_puppet(ledger, go)
    assert errors == []


def in_front_of_a_puppet(ledger: Books, go: Callable[[Desk, Puppet], Awaitable[None]], **options: object) -> None:
    """Run `go(desk, puppet)` in a loop of its own, with whatever asyncio complains of as an error."""

    async def outer() -> None:
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with puppet() as upstream, relay(ledger, upstream, **options) as desk:  # type: ignore[arg-type]
            await go(desk, upstream)
        assert complaints == []

    asyncio.run(outer())


# ------------------------------------------------------------------ a model of the session

BODY = b"Subject: x\r\n\r\nhello\r\n.\r\n"
LISTED = b"List-Id: <newsletter.quillpdf.example>\r\n" + BODY
BARE = b"Subject: x\n\r\n.\r\n"
BIG = b"Subject: x\r\n\r\n" + b"x" * 3000 + b"\r\n.\r\n"

# ann has opted out, nora of the newsletter; upstream does not know nobody@, and refuses mail from bad@.
RCPTS = ["ann", "bob", "carl", "nora", "nobody", "dora"]
MAIL = "MAIL FROM:<n@x.example>"
COMMANDS = [
    *("EHLO x", "HELO x", "HELO", "RSET", "NOOP", "VRFY x", "WHAT", "BDAT 3", ""),
    *(MAIL, MAIL, "MAIL FROM:<bad@x.example>", "MAIL FROM:<", "MAIL FROM:<n@x.example> SIZE=9999"),
    *(f"RCPT TO:<{name}@example.com>" for name in RCPTS * 2),
    *("RCPT TO:<>", "DATA x"),
]
SESSION = st.lists(st.sampled_from(COMMANDS) | st.sampled_from([BODY, LISTED, BARE, BIG]), max_size=25)


@dataclass
class Model:
    """What we promise of a session, with at most 3 recipients and 2048 octets a message."""

    strip: bool
    hello: bool = False
    sender: str | None = None
    asked: bool = False
    taken: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    delivered: list[tuple[str, ...]] = field(default_factory=list)

    def forget(self) -> None:
        self.sender, self.asked, self.taken, self.left_out = None, False, [], []

    def obey(self, line: str) -> str:
        """The code of the reply."""
        verb, _, argument = line.partition(" ")
        match verb:
            case "EHLO" | "HELO" if argument:
                self.hello = True
                self.forget()
                return "250"
            case "RSET":
                self.forget()
                return "250"
            case "MAIL":
                return self.mail(argument)
            case "RCPT":
                return self.rcpt(argument[4:-1])
            case "DATA":
                return "503" if self.sender is None else "501"
        return {"NOOP": "250", "VRFY": "252", "BDAT": "502", "HELO": "501"}.get(verb, "500")

    def mail(self, argument: str) -> str:
        if not self.hello or self.sender is not None:
            return "503"
        if not argument.endswith(">"):
            return "552" if "SIZE" in argument else "501"
        self.sender = argument
        return "250"

    def rcpt(self, address: str) -> str:
        if self.sender is None:
            return "503"
        self.asked = True
        if len(self.taken) + len(self.left_out) == 3:
            return "452"
        if not address:
            return "501"
        if address == "ann@example.com":
            if self.strip:
                self.left_out.append(address)
            return "250" if self.strip else "550"
        if "bad@" in self.sender or "nobody@" in address:
            return "550"
        self.taken.append(address)
        return "250"

    def data(self) -> str:
        """The reply to DATA."""
        if self.sender is None:
            return "503"
        if self.taken or self.left_out:
            return "354"
        return "554" if self.asked else "503"

    def message(self, body: bytes) -> str:
        """The reply to the dot."""
        listed = [a for a in self.taken if body == LISTED and a.startswith("nora")]
        stay = [a for a in self.taken if a not in listed]
        self.forget()
        if body in (BARE, BIG):
            return "550" if body == BARE else "552"
        if stay:
            self.delivered.append(tuple(f"<{a}>" for a in stay))
        return "250" if stay or self.strip else "550"


def play(session: list[str | bytes], model: Model) -> list[tuple[bytes, list[str]]]:
    """What to send, and the codes to come for it: in parts, since a client has to wait for the answer to DATA."""
    parts: list[tuple[bytes, list[str]]] = [(b"", [])]
    for step in session:
        sent, codes = parts.pop()
        if isinstance(step, str):
            parts.append((sent + step.encode() + b"\r\n", [*codes, model.obey(step)]))
            continue
        codes = [*codes, model.data()]
        parts += [(sent + b"DATA\r\n", codes), (step, [model.message(step)]) if codes[-1] == "354" else (b"", [])]
    return parts


@settings(by_the_way, max_examples=120)
@given(SESSION, CUTS | st.just([100_000]), st.booleans())
@example(["EHLO x", MAIL, "RCPT TO:<nora@example.com>", LISTED, MAIL, "RCPT TO:<nora@example.com>", BODY], [7], False)
@example(["EHLO x", MAIL, "RCPT TO:<nora@example.com>", "RCPT TO:<bob@example.com>", LISTED], [9], True)
@example(
    [
        "EHLO x",
        "MAIL FROM:<bad@x.example>",
        "RCPT TO:<bob@example.com>",
        "RSET",
        MAIL,
        "RCPT TO:<bob@example.com>",
        BODY,
    ],
    [99],
    True,
)
def test_any_pipelined_session_goes_as_the_model_says(
    ledger: Books, errors: list[object], session: list[str | bytes], cuts: list[int], strip: bool
) -> None:
    """Exactly one reply a command, in order; and exactly the messages that the replies spoke of."""
    ledger.suppress("ann@example.com")
    ledger.suppress("nora@example.com", "newsletter")
    model = Model(strip)
    parts = play(session, model)

    async def go(desk: Desk, upstream: Puppet) -> None:
        upstream.says["MAIL FROM:<bad@x.example>"] = b"550 5.1.8 not you\r\n"
        upstream.says["RCPT TO:<nobody@example.com>"] = b"550 5.1.1 no such user\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", desk.port)
        assert (await reply(reader))[:3] == "220"
        for sent, codes in parts:
            for piece in chunks(sent, cuts):
                writer.write(piece)
                await asyncio.sleep(0)
            assert [(await reply(reader))[:3] for _ in codes] == codes
        writer.write(b"QUIT\r\n")
        assert [(await reply(reader))[:3] for _ in range(2)] == ["221", ""]
        writer.close()
        await writer.wait_closed()
        assert [rcpts for rcpts, _ in upstream.messages] == model.delivered

    in_front_of_a_puppet(ledger, go, mode="strip" if strip else "refuse", max_recipients=3, max_size=2048)
    assert errors == []


# ------------------------------------------------------------------ the promise

NAMES = ("ann", "bob", "carl")
STEP = st.one_of(
    st.sampled_from([("RCPT", name) for name in NAMES] * 2 + [("RSET", ""), ("EHLO", ""), ("upstream goes", "")]),
    st.tuples(st.sampled_from(["opts out", "leaves the list"]), st.sampled_from(NAMES)),
    st.tuples(st.just("message"), st.sampled_from(["", "ann", "bob", "carl"])),  # who opts out before its dot
    st.tuples(st.just("message of the list"), st.sampled_from(["", "ann", "bob", "carl"])),
)


@dataclass
class Story:
    """A client that waits for every reply, people who opt out meanwhile, and what upstream got in the end."""

    ledger: Books
    upstream: Puppet
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    domain: str
    gone: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)
    accepted: set[str] = field(default_factory=set)  # for the message under way

    async def ask(self, line: str) -> str:
        self.writer.write(line.encode() + b"\r\n")
        return await reply(self.reader)

    def opts_out(self, name: str, list_id: str | None = None) -> None:
        (self.left if list_id else self.gone).add(name)
        self.ledger.suppress(f"{name}@{self.domain}", list_id)

    async def step(self, what: str, name: str) -> None:
        match what:
            case "RCPT":
                await self.ask("MAIL FROM:<n@x.example>")  # 503 if there is one
                if (await self.ask(f"RCPT TO:<{name}@{self.domain}>")).startswith("250"):
                    self.accepted.add(name)
            case "opts out":
                self.opts_out(name)
            case "leaves the list":
                self.opts_out(name, "newsletter")
            case "upstream goes":
                for connection in list(self.upstream.open):
                    connection.transport.abort()
                await asyncio.sleep(0.002)
            case "message" | "message of the list":
                await self.message(LISTED if "list" in what else BODY, name)
            case _:
                await self.ask(f"{what} x")
                self.accepted.clear()

    async def message(self, body: bytes, late: str) -> None:
        before = len(self.upstream.messages)
        if not (await self.ask("DATA")).startswith("354"):
            return
        self.writer.write(body[:-3])
        if late:
            await asyncio.sleep(0.002)
            self.opts_out(late)
        self.writer.write(body[-3:])
        answer = await reply(self.reader)
        sent = self.upstream.messages[before:]
        assert len(sent) == (answer.startswith("250") and "nothing sent" not in answer)
        refused = self.gone | (self.left if body == LISTED else set())
        for rcpts, _ in sent:
            assert {rcpt[1:].partition("@")[0] for rcpt in rcpts} == self.accepted - refused != set()
        self.accepted.clear()


@settings(by_the_way, max_examples=80)
@given(st.lists(STEP, max_size=12), st.booleans())
@example([("RCPT", "ann"), ("upstream goes", ""), ("RCPT", "bob"), ("RCPT", "carl"), ("message", "")], False)
@example(
    [("RCPT", "ann"), ("upstream goes", ""), ("RCPT", "bob"), ("opts out", "ann"), ("RCPT", "carl"), ("message", "")],
    True,
)
@example([("RCPT", "ann"), ("RCPT", "bob"), ("leaves the list", "ann"), ("message of the list", "bob")], False)
@example(
    [
        ("RCPT", "ann"),
        ("RCPT", "bob"),
        ("leaves the list", "ann"),
        ("message of the list", ""),
        ("RCPT", "ann"),
        ("message", ""),
    ],
    False,
)
def test_who_opted_out_before_the_dot_does_not_get_the_message_and_all_others_accepted_do(
    ledger: Books, errors: list[object], steps: list[tuple[str, str]], strip: bool
) -> None:
    """Whatever is said in between; and 250 is heard exactly for what upstream took."""
    domain = f"{next(NUMBERS)}.example.com"

    async def go(desk: Desk, upstream: Puppet) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", desk.port)
        await reply(reader)
        story = Story(ledger, upstream, reader, writer, domain)
        await story.ask("EHLO x")
        for what, name in steps:
            await story.step(what, name)
        writer.close()
        await writer.wait_closed()

    in_front_of_a_puppet(ledger, go, mode="strip" if strip else "refuse")
    assert errors == []


NUMBERS = itertools.count()
