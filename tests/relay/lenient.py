"""An upstream that takes nearly anything for a line's end, as some servers do: what smuggling is aimed at.

A CR or LF alone ends a command, and a dot between two ends of any kind ends a message. So whatever the relay lets
through that could be a second envelope is one here, and stands in `envelopes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from tests.scripted import listening

# A CR that is the last octet so far may yet become a CRLF.
_LINE: Final = re.compile(rb"([^\r\n]*)(?:\r\n|\n|\r(?=[^\n]))")
_END: Final = re.compile(rb"(?:\r\n|\r|\n)\.(?:\r\n|\n|\r(?=[^\n]))")
_REPLIES: Final = {
    "EHLO": b"250-lenient.example\r\n250-PIPELINING\r\n250-SIZE 36700160\r\n250-DSN\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n",
    "MAIL": b"250 2.1.0 ok\r\n",
    "RCPT": b"250 2.1.5 ok\r\n",
    "DATA": b"354 go ahead\r\n",
    "RSET": b"250 2.0.0 ok\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
}


@dataclass(frozen=True)
class Envelope:
    """One message as this server understood it: the arguments of its commands, and the octets before its end."""

    mail: str
    rcpts: tuple[str, ...]
    data: bytes


@dataclass
class Lenient:
    """The server, and what it believes to have been sent."""

    port: int = 0
    envelopes: list[Envelope] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    octets: bytearray = field(default_factory=bytearray)  # all that came, of all connections
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task
        self.tasks.add(task)
        writer.write(b"220 lenient.example ESMTP\r\n")
        inbox, mail, rcpts, in_data = bytearray(), "", list[str](), False
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while octets := await reader.read(65_536):
                self.octets += octets
                inbox += octets
                while found := (_END if in_data else _LINE).search(inbox):
                    if in_data:
                        self.envelopes.append(Envelope(mail, tuple(rcpts), bytes(inbox[2 : found.start()])))
                        in_data, rcpts = False, []
                        writer.write(b"250 2.0.0 taken\r\n")
                    else:
                        verb, argument = self._command(found[1])
                        mail = argument if verb == "MAIL" else mail
                        rcpts = [*rcpts, argument] if verb == "RCPT" else [] if verb in ("MAIL", "RSET") else rcpts
                        in_data = verb == "DATA"
                        writer.write(_REPLIES.get(verb, b"500 5.5.1 what?\r\n"))
                    del inbox[: found.end()]
                    if in_data:
                        inbox[:0] = b"\r\n"
        self.tasks.discard(task)
        writer.close()

    def _command(self, line: bytes) -> tuple[str, str]:
        text = line.decode("utf-8", "surrogateescape")
        self.commands.append(text)
        verb, _, argument = text.partition(" ")
        return verb.upper(), argument.partition(":")[2]


@contextlib.asynccontextmanager
async def lenient() -> AsyncIterator[Lenient]:
    """A running one."""
    async with listening(Lenient()) as made:
        yield made
