"""What lands in the support mailbox: letters of the corpus under other names, and reports about mail of ours."""

from __future__ import annotations

import csv
import random
import re
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from daemon.mail.triage import read
from tests.mailbox.support import HOUSE

CORPUS: Final = Path(__file__).parents[1] / "corpus"
_IDENTITY: Final = re.compile(rb"^Message-ID:.*\r\n(?:[ \t].*\r\n)*", re.MULTILINE | re.IGNORECASE)
_SOMEBODY: Final = "p1234567@d1.example"


@dataclass(frozen=True)
class Letter:
    """A letter of the corpus: by whom it is written ("": that does not matter)."""

    raw: bytes
    writer: str

    def by(self, person: str, name: str) -> bytes:
        """Written by somebody else, and with a name of its own in the field X-Chaos."""
        raw = self.raw.replace(self.writer.encode(), person.encode()) if self.writer else self.raw
        return f"X-Chaos: {name}\r\nMessage-ID: <{name}@chaos.example>\r\n".encode() + _IDENTITY.sub(b"", raw, count=1)


@dataclass(frozen=True)
class Letters:
    """All that can be written. Each letter that asks does so for its writer, and for everything."""

    asking: tuple[Letter, ...]
    ordinary: tuple[Letter, ...]
    doubtful: tuple[Letter, ...]


def letters() -> Letters:
    """Those of the corpus that can bear another name: the load is prepared with our own reader, the verdict is not."""
    found: dict[str, list[Letter]] = {"opt-out": [], "ordinary": [], "review": []}
    with (CORPUS / "truth.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            raw = b"\r\n".join((CORPUS / "mail" / row["file"]).read_bytes().splitlines()) + b"\r\n"
            asks = row["label"] == "opt-out"
            if row["label"] not in found or (asks and (row["scope"] != "all" or ";" in row["addresses"])):
                continue
            letter = Letter(raw, row["addresses"] if asks else "")
            if _reads_as(letter, row["label"]):
                found[row["label"]].append(letter)
    return Letters(*(tuple(found[label]) for label in ("opt-out", "ordinary", "review")))


def _reads_as(letter: Letter, label: str) -> bool:
    """Of those that ask, only those that do not name any address: what is named is honoured up to an hourly limit."""
    reading = read(letter.by(_SOMEBODY, "x"), HOUSE)
    kind = type(reading).__name__.lower().replace("optout", "opt-out")
    if label != "opt-out":
        return kind == label
    return kind == label and getattr(reading, "addresses", ()) == (_SOMEBODY,) and "3.1-writer" in reading.rules


class Composer:
    """Makes mails, each with a name of its own."""

    def __init__(self, dice: random.Random):
        self._letters, self._dice, self._numbers = letters(), dice, count(1)

    def _name(self, what: str) -> str:
        return f"{what}-{next(self._numbers)}-{self._dice.getrandbits(32):08x}"

    def asking(self, person: str) -> tuple[str, bytes]:
        """(name, octets) of a request."""
        name = self._name("opt-out")
        return name, self._dice.choice(self._letters.asking).by(person, name)

    def ordinary(self) -> tuple[str, bytes]:
        """Somebody has a question."""
        name = self._name("ordinary")
        return name, self._dice.choice(self._letters.ordinary).by("", name)

    def doubtful(self) -> tuple[str, bytes]:
        """A person has to read it."""
        name = self._name("review")
        return name, self._dice.choice(self._letters.doubtful).by("", name)

    def bounce(self, person: str, head: str) -> tuple[str, bytes]:
        """Their mail server says that there is no such mailbox."""
        name = self._name("bounce")
        domain = person.partition("@")[2]
        parts = (
            "Content-Type: text/plain\r\n\r\nI could not deliver your message.\r\n",
            (
                f"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.{domain}\r\n\r\n"
                f"Final-Recipient: rfc822; {person}\r\nAction: failed\r\nStatus: 5.1.1\r\n"
                "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n"
            ),
            f"Content-Type: text/rfc822-headers\r\n\r\n{head}",
        )
        return name, _report(name, f"MAILER-DAEMON@mx.{domain}", "delivery-status", "Undelivered Mail", parts)

    def complaint(self, person: str, head: str) -> tuple[str, bytes]:
        """They have pressed the button in their mail program."""
        name = self._name("complaint")
        parts = (
            "Content-Type: text/plain\r\n\r\nThis is an abuse report.\r\n",
            (
                "Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nUser-Agent: Loop/1.0\r\n"
                f"Version: 1\r\nOriginal-Rcpt-To: {person}\r\n"
            ),
            f"Content-Type: message/rfc822\r\n\r\n{head}\r\nBuy a pen.\r\n",
        )
        writer = f"abuse@fbl.{person.partition('@')[2]}"
        return name, _report(name, writer, "feedback-report", "complaint", parts)


def _report(name: str, writer: str, kind: str, subject: str, parts: tuple[str, ...]) -> bytes:
    fields = (
        f"X-Chaos: {name}\r\nMessage-ID: <{name}@chaos.example>\r\nFrom: {writer}\r\nTo: support@quillpdf.example\r\n"
        f"Subject: {subject}\r\nMIME-Version: 1.0\r\n"
        f'Content-Type: multipart/report; report-type={kind}; boundary="chaos"\r\n\r\n'
    )
    return (fields + "".join(f"--chaos\r\n{part}\r\n" for part in parts) + "--chaos--\r\n").encode("latin-1")
