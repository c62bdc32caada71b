"""The SMTP dialogue: replies are well-formed, the session ends, and nobody who is suppressed reaches the upstream."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from daemon.gate import Gate, Refused
from storage.address import NotAnAddress, parse
from tests.fuzz.driving import One
from tests.fuzz.talking import ANN, GONE, PAUSE, ledger, running, said, watched
from tests.ledgers import Books
from tests.relay.desk import Desk, relay
from tests.relay.lenient import Lenient, lenient

_REPLIES: Final = re.compile(rb"(?:(\d{3})-[\x20-\x7e]{0,506}\r\n(?=\1))*\d{3} [\x20-\x7e]{0,506}\r\n")
_PATH: Final = re.compile(r"<([^<>]*)>|([^\s<>]+)")
MOST_KB: Final = 300_000  # that the process may grow by over a whole run

_HELLO: Final = b"EHLO crm.example\r\n"
_MAIL: Final = b"MAIL FROM:<news@quillpdf.example> SIZE=100 BODY=8BITMIME\r\n"
_BOB: Final = b"RCPT TO:<bob@example.com> NOTIFY=NEVER\r\n"
_MESSAGE: Final = b"Subject: offer\r\nList-Id: <offers.quillpdf.example>\r\nFrom: news@quillpdf.example\r\n\r\nhello\r\n..dot\r\n.\r\n"
_RCPT_ANN: Final = f"RCPT TO:<{ANN}>\r\n".encode()
BASES: Final = (
    PAUSE + _HELLO + PAUSE + _MAIL + PAUSE + _BOB + PAUSE + b"DATA\r\n" + PAUSE + _MESSAGE + PAUSE + b"QUIT\r\n",
    _HELLO + _MAIL + _BOB + b"DATA\r\n" + PAUSE + _MESSAGE + b"QUIT\r\n",
    _HELLO
    + PAUSE
    + _MAIL
    + _RCPT_ANN
    + _BOB
    + b"DATA\r\n"
    + PAUSE
    + _MESSAGE
    + _MAIL
    + _BOB
    + b"RSET\r\nNOOP\r\nVRFY x\r\n",
    b"HELO crm\r\n" + _MAIL + f"RCPT TO:<x@sub.{GONE}>\r\n".encode() + b"DATA\r\n" + PAUSE + b"hello\r\n.\r\nQUIT\r\n",
    _HELLO + b"AUTH PLAIN AGNybQBzZWNyZXQ=\r\nSTARTTLS\r\nHELP\r\nEXPN x\r\nBDAT 3 LAST\r\nabc" + PAUSE + b"QUIT\r\n",
    _HELLO + _MAIL + "RCPT TO:<jörg@bücher.example>\r\n".encode() + b'RCPT TO:<"ann"@customer.example>\r\n' + PAUSE,
)
WORDS: Final = (
    _HELLO,
    _MAIL,
    _BOB,
    _RCPT_ANN,
    b"RCPT TO:<ANN+x@Customer.Example.>\r\n",
    b"RCPT TO:<@a.example:ann@customer.example>\r\n",
    b"RCPT TO:<ann%customer.example@quillpdf.example>\r\n",
    b'RCPT TO:<"a\\nn"@customer.example>\r\n',
    f"RCPT TO:<any@{GONE}>\r\n".encode(),
    b"DATA\r\n",
    b"RSET\r\n",
    b"QUIT\r\n",
    b"NOOP\r\n",
    b"\r\n.\r\n",
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b".\r\n",
    b"..\r\n",
    b" SMTPUTF8",
    b" SIZE=99999999999",
    b" ORCPT=rfc822;",
    b" ENVID=x",
    b"<>",
    b"\r\n\r\n",
    b"List-Id: <newsletter.quillpdf.example>\r\n",
    b"Received: x\r\n",
    PAUSE,
    PAUSE,
)


@asynccontextmanager
async def _desk(books: Books) -> Any:
    async with lenient() as upstream, relay(books, upstream, timeout=2, idle_timeout=5) as desk:
        yield upstream, desk


def _is_suppressed(gate: Gate, text: str) -> bool:
    try:
        return isinstance(gate.may(parse(text), None, "marketing"), Refused)
    except NotAnAddress:
        return False


def _look_at(gate: Gate, upstream: Lenient, answered: bytes) -> None:
    end = 0
    for reply in _REPLIES.finditer(answered):
        assert reply.start() == end, answered[end : end + 200]
        end = reply.end()
    assert end == len(answered), answered[end : end + 200]
    for command in upstream.commands:
        if command.upper().startswith("RCPT"):
            found = _PATH.search(command.partition(":")[2])
            path = (found[1] or found[2] or "") if found else ""
            assert not _is_suppressed(gate, path), command


@contextmanager
def ready() -> Iterator[One]:
    """A relay in front of an upstream that takes nearly anything."""
    with watched() as failed, ledger() as books, running(_desk(books), failed) as (made, _):
        upstream: Lenient = made[0]
        desk: Desk = made[1]
        gate = books.gate()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        def one(octets: bytes) -> None:
            upstream.commands.clear()
            upstream.envelopes.clear()
            upstream.octets.clear()
            answered = said(desk.port, octets)
            failed.check()
            _look_at(gate, upstream, answered)
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_KB

        yield one
