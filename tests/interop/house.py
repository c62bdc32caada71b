"""What the tests of interoperability share: a message that shows every change, and a daemon that stamps nothing on it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tests.scenarios.process import Daemon, config
from tests.sink import Transaction

ANN, BOB, CARLA = "ann@example.com", "bob@example.org", "carla@example.net"  # bob has opted out
DORA = "dora@example.net"  # has opted out of the newsletter only
OPTED_OUT: Final = re.compile(r"<bob@example\.org> has opted out \(ref \d+\)")

# What a printed config leaves to the operator.
HOUSE: Final = '[house]\nname = "Quill PDF"\ndomains = ["quillpdf.example"]\naddresses = ["support@quillpdf.example"]\n'

# Dots at line beginnings, blanks at line ends, folds, eight bits: what a careless hop would alter.
MESSAGE: Final = (
    b"From: The Quill Letter <letter@news.quillpdf.example>\r\nTo: undisclosed-recipients:;\r\n"
    b"Subject: =?utf-8?q?Spring=E2=80=94new_inks?=\r\nMessage-ID: <spring@news.quillpdf.example>\r\n"
    b"Date: Sun, 22 Nov 2026 09:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\nX-Odd:   spaces  kept\r\n\tand folds\r\n\r\n"
    b"Dear reader,\r\n.\r\n..two dots\r\n\r\ntrailing blanks   \r\n8-bit: \xc3\xa9\r\n"
)


def house(directory: Path, upstream_port: int, *, mode: str = "refuse", relay: str = "") -> Daemon:
    """A daemon, not yet started. `relay`: more lines for its [relay]."""
    return Daemon(directory, config(upstream_port, relay=f'mode = "{mode}"\nstamp = false\n{relay}'))


def recipients(message: Transaction) -> set[str]:
    """Whom it was for: the addresses without brackets and parameters."""
    return {path.split()[0].strip("<>") for path in message.rcpt_to}


def below_our_received(data: bytes) -> bytes:
    """What came, from the first original octet on: below our own Received, whoever wrote lines above it."""
    ours = data[data.index(b"(optoutd)") :]
    end = re.search(rb"\r\n(?![ \t])", ours)
    assert end
    return ours[end.end() :]
