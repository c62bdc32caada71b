"""What clients should not say (malformed.txt): each is refused or harmless, and the next client is served as ever."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from daemon.relay.access import Credentials, Policy
from daemon.relay.protocol import Door
from daemon.relay.server import Listening
from daemon.relay.tls import server_context
from tests.ledgers import Books
from tests.relay.desk import Desk, relay, reply
from tests.relay.faulty import ENVELOPE, HELLO, MAIL, connected, play, until
from tests.relay.lenient import Lenient, lenient
from tests.relay.listeners import Pair, make_pair

pytestmark = pytest.mark.usefixtures("nothing_unexpected")

BEFORE: Final = {
    "nothing": "",
    "helo": "C: HELO x\nS: 250\n",
    "hello": HELLO,
    "mail": HELLO + MAIL,
    "rcpt": HELLO + ENVELOPE,
    "data": HELLO + ENVELOPE + "C: DATA\nS: 354\n",
}
NORMAL: Final = (
    HELLO + "C: MAIL FROM:<normal@x.example>\nS: 250\nC: RCPT TO:<bob@example.com>\nS: 250\nC: DATA\nS: 354\n"
)
ESCAPE: Final = re.compile(rb"\\(x[0-9a-f]{2}|[rnt0c\\])|\{([0-9]+) ((?:\\.|[^}])+)\}")
NEXT: Final = re.compile(rb" //(?= |\Z)")
OCTET: Final = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}


@dataclass(frozen=True)
class Dialogue:
    """A line of malformed.txt: where it stands, what was said before, what is sent, the codes to come."""

    number: int
    section: str
    sent: bytes
    codes: list[str]
    messages: int
    left_open: bool  # the last line has no end: the client hangs up in the middle of it


def octets(written: bytes) -> bytes:
    """Escapes and repetitions undone."""

    def meant(found: re.Match[bytes]) -> bytes:
        if found[2]:
            return int(found[2]) * octets(found[3])
        return bytes.fromhex(found[1][1:].decode()) if found[1].startswith(b"x") else OCTET[found[1]]

    return ESCAPE.sub(meant, written)


def dialogues() -> Iterator[Dialogue]:
    """All of the file."""
    section = ""
    for number, line in enumerate(Path(__file__).with_name("malformed.txt").read_text("utf-8").splitlines(), 1):
        if line.startswith("#") or not line:
            continue
        said, arrow, heard = line.rpartition("->")
        if not arrow:
            section = line.strip("[]")
            continue
        *codes, last = heard.split() or [""]
        messages = int(last) if last.startswith("+") else 0
        left_open = said.rstrip().endswith("\\c")
        first, *more = NEXT.split(octets(said.rstrip().removesuffix("\\c").encode()))
        sent = b"\r\n".join([first, *(line.removeprefix(b" ") for line in more)]) + (b"" if left_open else b"\r\n")
        yield Dialogue(number, section, sent, codes if messages or not last else [*codes, last], messages, left_open)


ALL: Final = list(dialogues())
SECTIONS: Final = list(dict.fromkeys(dialogue.section for dialogue in ALL))


def test_there_are_enough_of_them() -> None:
    """And none is twice the same."""
    assert len(ALL) >= 200
    assert len({(d.section, d.sent) for d in ALL}) == len(ALL)


# ------------------------------------------------------------------ playing them


@pytest.fixture
async def naive() -> AsyncIterator[Lenient]:
    async with lenient() as made:
        yield made


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """(certificate, key)."""
    return make_pair(tmp_path_factory.mktemp("tls"))


def door(section: str, pair: Pair) -> Door:
    """The listener of a section."""
    policy, kind = Policy("refuse", None, "marketing", (), ""), section.partition(", ")[2]
    known = Credentials({"crm": ("secret", Policy("refuse", None, "marketing", (), "crm"))})
    return Door(
        policy,
        server_context(*pair) if kind == "tls" else None,
        kind == "required",
        known if kind in ("auth", "required", "remote") else Credentials({}),
        kind != "remote",
    )


async def heard(reader: asyncio.StreamReader) -> str:
    """The code of the next reply; `closed`. Within a second."""
    try:
        async with asyncio.timeout(1):
            answer = await reply(reader)
    except ConnectionError:  # reset, since we sent what it did not read any more
        return "closed"
    assert answer.isprintable()
    return answer[:3] or "closed"


async def converse(desk: Desk, dialogue: Dialogue, pieces: list[bytes]) -> None:
    """Say it, hear the replies, and part."""
    async with connected(desk) as (reader, writer):
        await play((reader, writer), BEFORE[dialogue.section.partition(",")[0]])
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        for code in dialogue.codes:
            answer = await heard(reader)
            if answer == "closed" and "closed" in dialogue.codes:
                break
            assert answer == code, f"malformed.txt:{dialogue.number}: {dialogue.sent[:99]!r}"
        if not dialogue.left_open and "closed" not in dialogue.codes:
            writer.write(b"QUIT\r\n")
            assert [await heard(reader), await heard(reader)] == ["221", "closed"], f"malformed.txt:{dialogue.number}"


@pytest.mark.parametrize("in_pieces", [False, True], ids=["at once", "by line"])
@pytest.mark.parametrize("section", SECTIONS)
async def test_each_is_refused_or_harmless(
    ledger: Books, naive: Lenient, pair: Pair, section: str, in_pieces: bool
) -> None:
    async with relay(ledger, naive, listening=[Listening("127.0.0.1:0", door(section, pair))]) as desk:
        for dialogue in (d for d in ALL if d.section == section):
            naive.envelopes.clear()
            pieces = dialogue.sent.splitlines(keepends=True) if in_pieces else [dialogue.sent]
            await converse(desk, dialogue, pieces)
            await until(lambda: not desk.server._clients, 1)
            assert len(naive.envelopes) == dialogue.messages, f"malformed.txt:{dialogue.number}"
            assert {x.mail for x in naive.envelopes} <= {"<n@x.example>"}
        await the_next_is_served(desk, naive)
    sent = bytes(naive.octets)
    commands = "\n".join(naive.commands)
    assert not re.search(r"[\0-\t\x0b-\x1f\x7f]", commands)
    assert set(re.findall(r"^\S+", commands, re.MULTILINE)) <= {"EHLO", "MAIL", "RCPT", "DATA", "RSET", "QUIT"}
    assert sent.count(b"\n") == sent.count(b"\r\n") == sent.count(b"\r")


async def the_next_is_served(desk: Desk, naive: Lenient) -> None:
    """A normal message on a connection of its own."""
    naive.envelopes.clear()
    script = NORMAL + "C: ...\nS: 250 2.0.0 taken\nC: QUIT\nS: 221"
    if desk.server.listening[0].door.required:
        script = script.replace("C: MAIL", "C: AUTH PLAIN AGNybQBzZWNyZXQ=\nS: 235\nC: MAIL", 1)
    async with connected(desk) as client:
        await play(client, script)
    assert [(x.mail, x.rcpts) for x in naive.envelopes] == [("<normal@x.example>", ("<bob@example.com>",))]
