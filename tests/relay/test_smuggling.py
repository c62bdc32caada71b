"""Nothing that a client writes becomes a second envelope, a command or a header field of its own further on.

In front of an upstream that takes `\\n.\\n` and its like for the end of a message (lenient.py): what a mail may hold to be
taken for two is known from SEC Consult's SMTP smuggling (2023), what may stand behind STARTTLS from CVE-2011-0411.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from email import message_from_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daemon.mail.headers import list_id_value
from daemon.mail.links import Links
from daemon.relay.access import Credentials, Policy
from daemon.relay.body import Body
from daemon.relay.protocol import Door
from daemon.relay.server import Listening
from daemon.relay.stamping import Stamping
from daemon.relay.tls import server_context
from tests.ledgers import Books
from tests.relay.desk import BODY, Desk, relay, reply
from tests.relay.faulty import ENVELOPE, HELLO, connected, play, until
from tests.relay.lenient import Lenient, lenient
from tests.relay.listeners import Pair, make_pair

pytestmark = pytest.mark.usefixtures("nothing_unexpected")

ENDS = [
    *(b"\n.\n", b"\n.\r\n", b"\n.\r", b"\r.\r", b"\r.\r\n", b"\r.\n", b"\r\n.\n", b"\r\n.\r"),
    *(b"\r\r\n.\n", b"\r\n\r.\r\n", b"\n\n.\n\n", b"\n..\n", b"\n...\n", b"\r\n.\n.\n", b"\r\n.\r.\r", b"\n.\n.\r\n"),
    *(b"\n\0.\n", b"\r\n.\0\n", b"\r\0\n.\r\n", b"\r\n.\r\0\n", b"\n.\r\0\n"),
]
DECENT = [b"\r\n..\r\n", b"\r\n...\r\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n .\r\n", b"\r\n. \r\n", b"\r\n.\t\r\n"]
SECOND = b"MAIL FROM:<evil@evil.example>\r\nRCPT TO:<ceo@example.com>\r\nDATA\r\nSubject: pay\r\n\r\nnow\r\n.\r\n"
PLAIN = Policy("refuse", None, "marketing", (), "")


@pytest.fixture
async def naive() -> AsyncIterator[Lenient]:
    async with lenient() as made:
        yield made


# ------------------------------------------------------------------ two messages in one


async def send(desk: Desk, pieces: Iterable[bytes]) -> str:
    """The reply to a message that comes in TCP segments of exactly these octets."""
    async with connected(desk) as client:
        await play(client, HELLO + ENVELOPE + "C: DATA\nS: 354")
        (there,) = desk.server._clients
        for piece in pieces:
            there.data_received(piece)  # by a socket, several might come as one
            await asyncio.sleep(0)
        return await reply(client[0])


def octets(text: bytes) -> list[bytes]:
    return [text[n : n + 1] for n in range(len(text))]


SEGMENTS: dict[str, Callable[[bytes], list[bytes]]] = {
    "one segment": lambda end: [b"Subject: a\r\n\r\nfirst" + end + SECOND],
    "one segment an octet": lambda end: [b"Subject: a\r\n\r\nfirst", *octets(end), *octets(SECOND)],
    "behind an overlong line": lambda end: [b"Subject: a\r\n\r\n" + b"y" * 70_000 + end, SECOND],
    "in the header": lambda end: [b"Subject: a" + end, SECOND],
    "as the first line": lambda end: [re.sub(rb"\A[\r\n]+(\.\r\n)?", b".\n", end) + SECOND],  # a dot there is an end
}


@pytest.mark.parametrize("mode", ["refuse", "normalise"])
@pytest.mark.parametrize("segments", SEGMENTS)
async def test_a_message_stays_one(ledger: Books, naive: Lenient, segments: str, mode: str) -> None:
    async with relay(ledger, naive, bare_newline=mode) as desk:
        for end in ENDS:
            naive.envelopes.clear()
            pieces = SEGMENTS[segments](end)
            said = await send(desk, pieces)
            if mode == "refuse" and re.search(rb"\r(?!\n)|(?<!\r)\n", b"".join(pieces)):
                assert said.startswith("550 5.6.11"), end
                assert naive.envelopes == []
            else:
                assert said.startswith("250 "), end
                assert [(x.mail, x.rcpts) for x in naive.envelopes] == [("<n@x.example>", ("<bob@example.com>",))], end
                assert b"<evil@evil.example>" in naive.envelopes[0].data
    assert not [c for c in naive.commands if "evil" in c]


@pytest.mark.parametrize("mode", ["refuse", "normalise"])
async def test_what_only_looks_like_an_end_passes_octet_for_octet(ledger: Books, naive: Lenient, mode: str) -> None:
    """A NUL before the dot as well: only a server that drops NULs before it looks for the dot would be taken in."""
    async with relay(ledger, naive, bare_newline=mode) as desk:
        for end in DECENT:
            naive.envelopes.clear()
            body = b"Subject: a\r\n\r\nfirst" + end + SECOND
            assert (await send(desk, octets(body))).startswith("250 ")
            (envelope,) = naive.envelopes
            assert envelope.data.endswith(body.removesuffix(b"\r\n.\r\n"))


@pytest.mark.parametrize("mode", ["refuse", "normalise"])
@pytest.mark.parametrize("end", ENDS)
async def test_all_in_one_segment_with_data(ledger: Books, naive: Lenient, end: bytes, mode: str) -> None:
    """Octets that came before our 354 are the message's like those that came after it."""
    async with relay(ledger, naive, bare_newline=mode) as desk, connected(desk) as client:
        await play(client, HELLO + ENVELOPE)
        client[1].write(b"DATA\r\nSubject: a\r\n\r\nfirst" + end + SECOND + b"NOOP\r\n")
        said = [(await reply(client[0]))[:3] for _ in range(3)]
    assert said == (["354", "550", "250"] if mode == "refuse" else ["354", "250", "250"])
    assert len(naive.envelopes) == (mode == "normalise")
    assert not [c for c in naive.commands if "evil" in c]


async def test_chunks_are_not_taken_for_messages(ledger: Books, naive: Lenient) -> None:
    """BDAT is not offered. Whoever sends it all the same has its octets read as commands, and none of them is a message."""
    async with relay(ledger, naive) as desk:
        await desk.talk(
            HELLO
            + ENVELOPE
            + """
            C: BDAT 47 LAST
            C: Subject: x
            C: MAIL FROM:<evil@evil.example>
            C: .
            S: 502 5.5.1
            S: 500 5.5.2
            S: 503 5.5.1 nested MAIL
            S: 500 5.5.2
            C: BDAT 0 LAST
            S: 502 5.5.1
            C: RSET
            S: 250
            """
        )
    assert naive.envelopes == []


# ------------------------------------------------------------------ the same without sockets, in every cut

MATTER = st.lists(
    st.sampled_from([b"\r", b"\n", b".", b"..", b"\r\n", b"\r\n.", b"\n.", b"\r.", b"x", b"\0", b"\r\n\r\n"])
).map(b"".join)
ANY_END = re.compile(rb"\r\n|\r|\n")


def through(pieces: list[bytes], *, normalise: bool) -> tuple[bytes, bool]:
    """What comes out of a body, and whether it is to be refused."""
    waiting = iter(pieces)

    async def read() -> bytes:
        return next(waiting)

    async def collect() -> bytes:
        found = b""
        while (piece := await body.piece()) is not None:
            found += piece
        return found

    body = Body(read, lambda rest: None, normalise=normalise)
    run = collect()
    try:
        run.send(None)
    except StopIteration as done:
        return done.value, body.bare
    raise AssertionError("it waits for somebody")


def normalised(body: bytes) -> bytes:
    """A body by lines, as it should come out: CRLF for every end; a dot that only this makes a line's first is stuffed."""
    lines, ends = ANY_END.split(body), [b"\r\n", *ANY_END.findall(body)]
    found = []
    for number, (before, line) in enumerate(zip(ends, lines, strict=True)):
        alone = line == b"." and number + 1 < len(lines)
        found.append(b"." + line if line.startswith(b".") and (before != b"\r\n" or alone) else line)
    return b"\r\n".join(found)


@settings(max_examples=500)
@given(MATTER, st.lists(st.integers(1, 5), min_size=1, max_size=6))
@example(b"a\n.", [2, 1])
@example(b"a\r\n.\nb", [9])
def test_normalising_does_not_depend_on_the_segments(matter: bytes, cuts: list[int]) -> None:
    stream = matter + b"\r\n.\r\n"
    body = stream[: (b"\r\n" + stream).index(b"\r\n.\r\n")]
    sizes = itertools.accumulate(itertools.cycle(cuts))
    at = [0, *itertools.takewhile(lambda size: size < len(stream), sizes), len(stream)]
    out, bare = through([stream[a:b] for a, b in itertools.pairwise(at)], normalise=True)
    assert not bare
    assert out == normalised(body)
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", out)
    assert b"\r\n.\r\n" not in b"\r\n" + out


@pytest.mark.parametrize("end", ENDS)
def test_every_cut_in_two_and_in_three(end: bytes) -> None:
    stream = b"a" + end + b"MAIL\r\n.\r\n"
    whole = through([stream], normalise=True)
    for a, b in itertools.combinations_with_replacement(range(len(stream) + 1), 2):
        pieces = [piece for piece in (stream[:a], stream[a:b], stream[b:]) if piece]
        assert through(pieces, normalise=True) == whole
        assert through(pieces, normalise=False)[1]


# ------------------------------------------------------------------ commands in clear behind STARTTLS


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """(certificate, key)."""
    return make_pair(tmp_path_factory.mktemp("tls"))


INJECTED = [
    "MAIL FROM:<evil@evil.example>\r\nRCPT TO:<ceo@example.com>\r\n",
    "EHLO evil.example\r\nMAIL FROM:<evil@evil.example>\r\nRCPT TO:<ceo@example.com>\r\nDATA\r\n",
    "EHLO evil.example\r\nAUTH PLAIN AGNybQBzZWNyZXQ=\r\n",
    "QUIT\r\n",
    "RSE",  # to be completed by the first command under TLS
    "NOOP\r\n" * 1000,
]


@pytest.mark.parametrize("injected", INJECTED)
async def test_what_came_in_clear_behind_starttls_is_forgotten(
    ledger: Books, naive: Lenient, pair: Pair, injected: str
) -> None:
    door = Door(PLAIN, server_context(*pair), credentials=Credentials({"crm": ("secret", PLAIN)}))
    async with relay(ledger, naive, listening=[Listening("127.0.0.1:0", door)]) as desk, connected(desk) as client:
        reader, writer = client
        writer.write(b"STARTTLS\r\n" + injected.encode())
        assert (await reply(reader)).startswith("220 2.0.0")
        await writer.start_tls(ssl.create_default_context(cafile=str(pair[0])), server_hostname="localhost")
        await play(client, "C: NOOP\nS: 250 2.0.0\nC: MAIL FROM:<n@x.example>\nS: 503 5.5.1 send EHLO")
        await play(client, HELLO + ENVELOPE + "C: DATA\nS: 354\nC: ...\nS: 250 2.0.0 taken\nC: QUIT\nS: 221")
    assert [x.rcpts for x in naive.envelopes] == [("<bob@example.com>",)]
    assert b"with ESMTPS\r\n" in naive.envelopes[0].data


async def test_an_envelope_begun_in_clear_is_not_gone_on_with(ledger: Books, naive: Lenient, pair: Pair) -> None:
    door = Door(PLAIN, server_context(*pair))
    async with relay(ledger, naive, listening=[Listening("127.0.0.1:0", door)]) as desk, connected(desk) as client:
        await play(client, HELLO + ENVELOPE + "C: STARTTLS\nS: 220")
        await client[1].start_tls(ssl.create_default_context(cafile=str(pair[0])), server_hostname="localhost")
        await play(client, "C: DATA\nS: 503 5.5.1\nC: RCPT TO:<bob@example.com>\nS: 503 5.5.1")
        await play(client, HELLO + "C: DATA\nS: 503 5.5.1")
    assert naive.envelopes == []


@pytest.mark.parametrize("instead", [b"", b"EHLO x\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 100, b"\r\n" * 10_000])
async def test_who_speaks_no_tls_after_starttls_is_cut(
    ledger: Books, naive: Lenient, pair: Pair, instead: bytes
) -> None:
    door = Door(PLAIN, server_context(*pair))
    async with relay(ledger, naive, listening=[Listening("127.0.0.1:0", door)]) as desk:
        async with connected(desk) as client:
            await play(client, "C: STARTTLS\nS: 220")
            client[1].write(instead)
            client[1].write_eof()
            async with asyncio.timeout(5):
                while line := await client[0].readline():
                    assert line[:1] == b"\x15"  # an alert of TLS, no SMTP
        await until(lambda: not desk.server._clients)


# ------------------------------------------------------------------ commands of ours, with text of theirs in them

NASTY = ["\rRSET", "\r\0", "\0", "\x0bRSET", "\x0c", "\x1cRSET", "\x85RSET", "\u2028RSET", "\xa0X=1", "\udcff", "\x7f"]
WITH_TEXT = [
    "MAIL FROM:<n{}@x.example>",
    "MAIL FROM:<n@x.example{}>",
    'MAIL FROM:<"n{}"@x.example>',
    "MAIL FROM:<n@x.example> ENVID=a{}b",
    "MAIL FROM:<n@x.example> RET=HDRS{}",
    "MAIL FROM:<n@x.example> SIZE=10{}",
    "MAIL FROM:<n@x.example> BODY=8BITMIME{}",
    "MAIL FROM:<n@x.example> SMTPUTF8{}",
    "MAIL FROM:<n@x.example> AUTH={}",
    "MAIL FROM:<@a{}.example:n@x.example>",
    "RCPT TO:<ann{}@example.com>",
    'RCPT TO:<"ann{}"@example.com>',
    'RCPT TO:<"ann\\{}"@example.com>',
    "RCPT TO:<ann@example.com{}>",
    "RCPT TO:<ann@[127.0.0.1{}]>",
    "RCPT TO:<ann@example.com> ORCPT=rfc822;a{}b",
    "RCPT TO:<ann@example.com> ORCPT=rfc822{};ab",
    "RCPT TO:<ann@example.com> NOTIFY=NEVER{}",
    "EHLO x{}",
    "HELO {}",
]


@pytest.mark.parametrize("utf8", ["", " SMTPUTF8"])
@pytest.mark.parametrize("line", WITH_TEXT)
async def test_no_text_of_a_command_becomes_a_command(ledger: Books, naive: Lenient, line: str, utf8: str) -> None:
    """Whatever is answered to it: what upstream hears are whole commands that we know, each with one line end."""
    async with relay(ledger, naive) as desk, connected(desk) as (reader, writer):
        for nasty in NASTY:
            first = [] if line.startswith(("MAIL", "EHLO", "HELO")) else [f"MAIL FROM:<n@x.example>{utf8}"]
            last = "RCPT TO:<bob@example.com>"
            for command in ("RSET", "EHLO x", *first, line.format(nasty), last, last):
                writer.write(command.encode("utf-8", "surrogateescape") + b"\r\n")
                answer = await reply(reader)
                assert re.match(r"[2-5][0-9]{2} ", answer)
                assert answer.isprintable()
    sent = bytes(naive.octets)
    assert sent.count(b"\n") == sent.count(b"\r") == sent.count(b"\r\n")
    assert not re.search(rb"[\0-\t\x0b\x0c\x0e-\x1f\x7f]", sent)
    assert {c.partition(" ")[0] for c in naive.commands} <= {"EHLO", "MAIL", "RCPT", "RSET", "QUIT"}
    assert not [c for c in naive.commands if c.startswith("RSET ")]


async def test_an_orcpt_in_xtext_stays_in_xtext(ledger: Books, naive: Lenient) -> None:
    orcpt = "RCPT TO:<ann@example.com> ORCPT=rfc822;a+0D+0ARSET+0D+0A@example.com"
    async with relay(ledger, naive) as desk:
        await desk.talk(HELLO + "C: MAIL FROM:<n@x.example>\nS: 250\nC: " + orcpt + "\nS: 250")
    assert orcpt in naive.commands


# ------------------------------------------------------------------ header fields of ours, with text of theirs in them


def fields(envelope: Lenient) -> list[str]:
    """The names of the fields of the only message, as a mail program finds them."""
    (only,) = envelope.envelopes
    return message_from_bytes(only.data).keys()


@pytest.mark.parametrize(
    "name", ["x\tBcc:", "(", "x) (", "[127.0.0.1]\\", 'x"', "a;b", "<a@b.example>", "=?utf-8?q?x=0D=0A?=", "x" * 255]
)
@pytest.mark.parametrize("verb", ["EHLO", "HELO"])
async def test_the_name_in_a_greeting_stays_in_its_place(ledger: Books, naive: Lenient, verb: str, name: str) -> None:
    async with relay(ledger, naive) as desk, connected(desk) as (reader, writer):
        writer.write(f"{verb} {name}\r\n".encode())
        answer = await reply(reader)
        assert answer[:3] in ("250", "501")
        if answer.startswith("250"):
            await play((reader, writer), ENVELOPE + "C: DATA\nS: 354\nC: ...\nS: 250")
            assert fields(naive) == ["Received", "Subject", "From"]
            line = naive.envelopes[0].data.partition(b"\r\n")[0]
            assert re.fullmatch(rb"Received: from [A-Za-z0-9.:_\[\]?-]+ \(\[127\.0\.0\.1\]\)", line)


@pytest.mark.parametrize(
    "title", ["x\r\nBcc: evil@evil.example", "x\n\n<html>", "<other.example>", "\0\r", "=?x?q?=0A?="]
)
@pytest.mark.parametrize("username", ["crm", "crm\r\nBcc: evil@evil.example", "a:b:c", "jörg", "\u2028", "c" * 2000])
async def test_titles_and_user_names_of_the_config_make_no_field_of_their_own(
    ledger: Books, naive: Lenient, title: str, username: str
) -> None:
    policy = Policy("refuse", "newsletter", "marketing", (), username)
    list_ids = {"newsletter": list_id_value(title, "newsletter.quillpdf.example")}
    links = Links("support@quillpdf.example", False, "https://quillpdf.example")
    stamping = Stamping(links, ledger.ledger.site_key, ledger.numbers, list_ids, "quillpdf")
    async with relay(ledger, naive, listening=[Listening("127.0.0.1:0", Door(policy))]) as desk:
        desk.server.context.stamping = stamping
        await desk.talk(HELLO + ENVELOPE + "C: DATA\nS: 354\nC: ...\nS: 250", BODY)
    ours = ["Received", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Id", "Feedback-ID"]
    assert fields(naive) == [*ours, "Subject", "From"]
    found = message_from_bytes(naive.envelopes[0].data)
    assert found["List-Id"].endswith("<newsletter.quillpdf.example>")
    assert len(found["Feedback-ID"].split(":")) == 4
    assert max(map(len, naive.envelopes[0].data.split(b"\r\n"))) <= 998
