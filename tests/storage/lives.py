"""What may happen to a person in a ledger, as short words; and looking for that person in every table and in the raw files."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from daemon.config import Intake as Allowance
from daemon.gate import Refused
from daemon.intake import Envelope, Intake, Outdated
from daemon.mail.reading import Bounce, Complaint, OptOut, Ordinary, Reading, Resubscribe
from daemon.mail.tokens import Token
from storage import audit, incoming, outbox, people, refusals, suppressions
from storage.address import parse, person
from storage.incoming import Place
from storage.people import Erased
from storage.refusals import Refusal
from storage.terms import ALL, Reason, seconds
from storage.write import write
from tests.intake.support import HOUSE
from tests.ledgers import Books, books, bring

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
ZELDA, ZELDAS_SHOP, BOB = "zelda.quux@example.com", "Zelda.Quux+shop@example.com", "bob@example.org"
WORDS = "I am zelda.quux, and Zelda.Quux@example.com is not to be mailed any more"


@dataclass
class Life:
    """A ledger in which things happen, a minute apart."""

    it: Books
    now: datetime = NOW
    uid: int = 0
    desk: Intake = field(init=False)

    def __post_init__(self) -> None:
        few = Allowance(unproven_per_hour=10_000)
        self.desk = Intake(self.it.ledger, HOUSE, self.it.numbers, allowance=few, notices=True)

    # ---- mail

    def _act(self, reading: Reading, sender: str = ZELDA, message_id: str | None = None) -> None:
        self.uid += 1
        self.now += timedelta(minutes=1)
        place = Place("support", "INBOX", 1, self.uid)
        identity = f"<{self.uid}.{sender}>" if message_id is None else message_id
        digest = hashlib.blake2b(b"%d" % self.uid, digest_size=16).digest()
        excerpt = f"Subject: zelda.quux\n\nplease\n{sender} writes: {WORDS}"
        self.desk.act(reading, Envelope(place, digest, 9, identity, self.now, sender, excerpt, {}), self.now)

    def asks(self) -> None:
        self._act(
            OptOut((ZELDAS_SHOP,), ("all",), (), ZELDAS_SHOP, "dmarc", False, "en", ("3-stop",), WORDS), ZELDAS_SHOP
        )

    def asks_of_a_list(self) -> None:
        self._act(OptOut((ZELDA,), ("list:offers",), (), ZELDA, "dmarc", False, "en", ("3-stop",), WORDS))

    def is_named_with_bob(self) -> None:
        self._act(OptOut((BOB, ZELDA), ("all",), (), BOB, "dmarc", False, "en", ("3-stop",), WORDS), BOB)

    def is_doubtful(self) -> None:
        self._act(OptOut((ZELDA,), ("all",), (), None, "none", False, "en", ("3-stop",), WORDS), ZELDAS_SHOP)
        self._act(Resubscribe((ZELDA,), ("all",), ZELDA, "none", "en", ("2-back",), WORDS))

    def wants_back(self) -> None:
        self._act(Resubscribe((ZELDA,), ("all",), ZELDA, "dmarc", "en", ("2-back",), WORDS))

    def clicks(self) -> None:
        self._act(OptOut((), ("all",), (), ZELDA, "token", False, "", ("0.3-token",), WORDS, Token(self.key, 0)))

    def bounces(self) -> None:
        text = f"<{ZELDA}>: 550 5.1.1 no such user zelda.quux"
        self._act(Bounce((ZELDA,), True, "address", "5.1.1", text, "token", ("1-dsn",)), "mailer-daemon@example.net")
        self._act(Bounce((ZELDA,), False, "mailbox", "4.2.2", text, "token", ("1-dsn",)), "mailer-daemon@example.net")

    def complains(self) -> None:
        self._act(Complaint((ZELDA,), "abuse", "token", ("2-arf",), WORDS), "fbl@example.net")

    def asks_support(self) -> None:
        self._act(Ordinary(()), message_id=f"<zelda.quux.{self.uid}@mail.example.com>")
        self._act(Ordinary(()), message_id=f"<{self.uid}-zelda.quux=example.com@lists.example.org>")

    def is_decided(self, accepted: bool = True) -> None:
        with self.it.ledger.reading() as db:
            items = incoming.reviews(db)
        for item in items:
            self.now += timedelta(minutes=1)
            try:
                self.desk.decide(item, accepted, f"{ZELDA} phoned", self.now, "cli root")
            except Outdated:
                self.desk.decide(item, False, f"{ZELDA} phoned", self.now, "cli root")

    def is_turned_down(self) -> None:
        self.is_decided(False)

    # ---- everything else

    def is_imported(self) -> None:
        keys = [self.key_of(a) for a in (ZELDA, BOB)]
        rows = sorted((key, ALL, int(Reason.OPERATOR), seconds(self.now)) for key in keys)
        with write(self.it.ledger, self.now, "cli root") as w:
            bring(w, rows, "import", {"file": "old.csv"}, list(zip(keys, (ZELDA, BOB), strict=True)))

    def is_imported_by_digest(self) -> None:
        key = hashlib.md5(ZELDA.encode(), usedforsecurity=False).digest()
        with write(self.it.ledger, self.now, "cli root") as w:
            bring(w, [(key, ALL, int(Reason.OPT_OUT), seconds(self.now))], "import", {"file": "old.md5"})

    def is_refused(self) -> None:
        self.now += timedelta(minutes=1)
        mine = Refusal(
            self.now, "refused", self.key, 0, Reason.OPT_OUT, "crm", f"<zelda.quux=example.com.{self.uid}@crm.example>", 1, 0, ZELDA
        )  # fmt: skip
        bobs = mine._replace(key=self.key_of(BOB), address=BOB, message_id=f"<7.{ZELDA}>")
        with write(self.it.ledger, self.now, "relay") as w:
            refusals.record(w, [mine, bobs._replace(message_id="<7@crm.example>") if self.erased_once else bobs], {})

    def is_lifted(self) -> None:
        self.now += timedelta(minutes=1)
        with write(self.it.ledger, self.now, "cli root") as w:
            suppressions.lift(w, parse(ZELDA), ALL, f"{ZELDA} wrote that she wants it back")

    def is_noted(self) -> None:
        self.now += timedelta(minutes=1)
        with write(self.it.ledger, self.now, "cli root") as w:
            suppressions.add(w, parse(ZELDAS_SHOP), ALL, Reason.OPERATOR, "phone", {"note": f"{ZELDA} on the phone"})

    def is_told(self) -> None:
        with self.it.ledger.reading() as db:
            due = outbox.due(db, self.now + timedelta(days=1))
        with write(self.it.ledger, self.now, "notices") as w:
            for notice in due:
                outbox.settle(w, notice, "sent")

    erased_once: bool = False

    def is_erased(self, address: str = ZELDA) -> Erased:
        self.now += timedelta(minutes=1)
        self.erased_once = True
        return people.erase_everywhere(self.it.ledger, parse(address), self.now, "cli root")

    # ---- looking

    @property
    def key(self) -> bytes:
        return self.key_of(ZELDA)

    def key_of(self, address: str) -> bytes:
        return self.it.ledger.site_key.address_key(person(parse(address), ("tag", "alias")))

    def refuses(self, address: str = ZELDA) -> bool:
        return isinstance(self.it.gate().may(parse(address)), Refused)

    def verify(self) -> audit.Head:
        with self.it.ledger.reading() as db:
            return audit.verify(db, self.it.ledger.site_key)

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table."""
        with self.it.ledger.reading() as db:
            names = db.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars().all()
            return {name: [tuple(r) for r in db.exec_driver_sql(f'SELECT * FROM "{name}"')] for name in names}

    def found(self, needle: str = "zelda.quux") -> list[tuple[str, Any]]:
        """(table, value) of every text and blob of the database that holds this."""
        cells = [(name, cell) for name, rows in self.tables().items() for row in rows for cell in row]
        return [(name, cell) for name, cell in cells if needle in _text(cell)]

    def files(self, needle: str = "zelda.quux") -> list[str]:
        """The files beside the database that hold this, wherever in them."""
        octets = needle.encode()
        beside = self.it.ledger.path.parent.iterdir()
        return sorted(path.name for path in beside if octets in path.read_bytes().lower())


def _text(cell: Any) -> str:
    if isinstance(cell, bytes):
        return cell.decode("latin-1").lower()
    return str(cell).lower()


def fresh(template: Path, directory: Path) -> Life:
    """A copy of an empty ledger: making one runs every migration."""
    shutil.copytree(template, directory)
    return Life(books(directory))
