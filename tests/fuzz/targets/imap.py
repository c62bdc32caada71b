"""A hostile IMAP server: the session fails by name or goes on, and never touches a message that it was not told of."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from daemon.config import Mailbox
from daemon.mailbox.session import FETCH_OCTETS, Failed, Session, connect
from tests.fuzz.driving import One
from tests.fuzz.talking import PAUSE, Scripted, running, watched
from tests.scripted import listening

_TAG: Final = b"<<tag>>"
_OK: Final = _TAG + b" OK done\r\n"
_MAIL: Final = b"From: ann@customer.example\r\nSubject: x\r\n\r\nPlease remove me.\r\n"
_FETCHED: Final = (
    b'* 1 FETCH (UID 7 INTERNALDATE "01-Jan-2024 00:00:00 +0000" RFC822.SIZE %d BODY[]<0> {%d}\r\n%b)\r\n'
    % (len(_MAIL), len(_MAIL), _MAIL)
) + _OK
_SELECTED: Final = b"* 5 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n* OK [UIDNEXT 8] x\r\n" + _TAG + b" OK [READ-WRITE] s\r\n"
_WHOLE: Final = (
    b"* OK [CAPABILITY IMAP4rev1 IDLE MOVE UIDPLUS] hello\r\n",
    _OK,
    b"* CAPABILITY IMAP4rev1 IDLE MOVE UIDPLUS\r\n" + _OK,
    _SELECTED,
    b"* SEARCH 6 7\r\n" + _OK,
    _FETCHED.replace(b"UID 7", b"UID 6"),
    _FETCHED,
    b'* LIST (\\HasNoChildren) "/" Opt-outs\r\n' + _OK,
    b"* OK [COPYUID 1 7 1] x\r\n* 1 EXPUNGE\r\n" + _OK,
    b"+ idling\r\n* 6 EXISTS\r\n",
    _OK,
    b"* BYE\r\n" + _OK,
)
BASES: Final = (
    PAUSE.join(_WHOLE),
    PAUSE.join((*_WHOLE[:2], b"* CAPABILITY IMAP4rev1 UIDPLUS\r\n" + _OK, *_WHOLE[3:])),
    PAUSE.join((*_WHOLE[:4], b'* ESEARCH (TAG "x") UID ALL 1:3\r\n' + _OK, *_WHOLE[5:])),
    PAUSE.join((b"* PREAUTH hello\r\n", *_WHOLE[1:])),
    PAUSE.join((_WHOLE[0], _TAG + b" NO [AUTHENTICATIONFAILED] no\r\n")),
    PAUSE.join((*_WHOLE[:3], _TAG + b" NO [NONEXISTENT] gone\r\n")),
)
WORDS: Final = (
    PAUSE,
    _TAG,
    _OK,
    _TAG + b" NO [TRYCREATE] no\r\n",
    _TAG + b" BAD what?\r\n",
    b"* BYE closing\r\n",
    b"* SEARCH 1 2 3 4294967295 4294967296 0\r\n",
    b"* 9 FETCH (UID 9 FLAGS (\\Deleted))\r\n",
    b"UID 7",
    b"UID 99",
    b"UID NIL",
    b"RFC822.SIZE x",
    b"RFC822.SIZE NIL",
    b"BODY[]<0> NIL",
    b'BODY[] ""',
    b'INTERNALDATE "99-Xyz-0000 99:99:99 +9999"',
    b"[UIDVALIDITY x]",
    b"[UIDVALIDITY 99999999999999999999]",
    b"[UIDNEXT ]",
    b"{5}\r\n",
    b"{99999999}\r\n",
    b"{-1}\r\n",
    b"(" * 200,
    b")",
    b'"',
    b"NIL",
    b"* ",
    b"+ ",
    b"* OK Still here\r\n",
    b"[READ-ONLY]",
)
_TOUCHES: Final = re.compile(
    rb"\S+ (?:UID )?(MOVE|COPY|STORE|EXPUNGE|DELETE|RENAME|APPEND)\b(?: (\S+))?", re.IGNORECASE
)
_LARGEST: Final = 2**32 - 1  # of what RFC 9051 calls a number


@dataclass
class _Server(Scripted):
    """`<<tag>>` in a piece is the tag of the command that it answers."""

    def answer(self, line: bytes, piece: bytes) -> bytes:
        """With the tag of this command."""
        return piece.replace(_TAG, line.partition(b" ")[0] or b"*")


@asynccontextmanager
async def _serving() -> AsyncIterator[_Server]:
    async with listening(_Server()) as server:
        yield server


def _look_after(session: Session) -> set[int]:
    """As the watcher does; returns the UIDs of the messages that were told to be moved."""
    moved: set[int] = set()
    folder = session.enter("INBOX")
    assert 0 < folder.uidvalidity <= _LARGEST
    assert 0 <= folder.uidnext <= _LARGEST + 1
    uids = session.uids_from(5)
    assert all(5 <= uid <= _LARGEST for uid in uids), uids
    for uid in uids[:2]:
        found = session.fetch(uid)
        if found is not None:
            assert found.place.uid == uid
            assert len(found.raw) <= FETCH_OCTETS
            assert 0 <= found.size <= _LARGEST
            assert datetime(1970, 1, 1, tzinfo=UTC) <= found.internaldate < datetime(9999, 12, 31, tzinfo=UTC)
    session.ensure("Opt-outs")
    for uid in uids[-1:]:
        moved.add(uid)
        session.file_away(uid, "Opt-outs")
    session.wait(0.05)
    return moved


@contextmanager
def ready() -> Iterator[One]:
    """A server that says what the input is."""
    with watched() as failed, running(_serving(), failed) as (server, _):
        told = {
            "name": "x",
            "host": "127.0.0.1",
            "port": server.port,
            "tls": "none",
            "username": "u",
            "password_file": "p",
        }
        settings = Mailbox.model_validate(told)

        def one(octets: bytes) -> None:
            server.pieces = octets.split(PAUSE)[:40]
            server.heard.clear()
            with contextlib.suppress(Failed):
                session = connect(settings, "secret", None)
                try:
                    _look_after(session)
                finally:
                    session.close()
            failed.check()
            for line in server.heard:
                if touches := _TOUCHES.match(line):
                    assert touches[1].upper() in (b"MOVE", b"COPY", b"STORE") or b"UID EXPUNGE" in line.upper(), line
                    assert touches[2] is not None
                    assert touches[2].isdigit(), line

        yield one
