"""A support mailbox on a real Dovecot, a watcher on it, and short words for what people do there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.config import House, Mailbox
from daemon.gate import Answer, Gate
from daemon.intake import Intake
from daemon.mail.reading import Reading
from daemon.mail.triage import read
from daemon.mailbox.canary import DAILY, Rhythm
from daemon.mailbox.folders import SWEEP_SECONDS
from daemon.mailbox.means import Means
from daemon.mailbox.session import Session, connect
from daemon.mailbox.watcher import Watcher
from daemon.opening import lookup_of
from storage import incoming, suppressions
from storage.address import Address, parse
from storage.terms import ALL
from tests.ledgers import Books
from tests.servers import Dovecot

HOUSE = House(name="Quill PDF", domains=("quillpdf.example",), addresses=("support@quillpdf.example",))
PATIENCE = 20.0
PLEASE = "Please remove me from your mailing list."
QUESTION = "How do I merge two files?"


def mail(sender: str, text: str, *, subject: str = "hello", message_id: str | None = None) -> bytes:
    """A plain message to support; its Message-ID is made from its sender unless given ("" = none)."""
    identity = f"<{sender}>" if message_id is None else message_id
    lines = [f"From: {sender}", "To: support@quillpdf.example", f"Subject: {subject}"]
    lines += [f"Message-ID: {identity}"] if identity else []
    return "\r\n".join([*lines, "", text, ""]).encode()


@dataclass
class Support:
    """The mailbox, the ledger, and a watcher that can be started, stopped and started again."""

    dovecot: Dovecot
    books: Books
    directory: Path
    options: dict[str, Any] = field(default_factory=dict)
    reader: Callable[[bytes], Reading] = lambda raw: read(raw, HOUSE)
    means_of: Callable[[Means], Means] = lambda means: means
    rhythm: Rhythm = DAILY
    sweep_seconds: float = SWEEP_SECONDS
    watcher: Watcher | None = None

    @property
    def settings(self) -> Mailbox:
        """The [[mailbox]] section."""
        told: dict[str, Any] = {
            "name": "support",
            "host": "127.0.0.1",
            "port": self.dovecot.imaps_port,
            "username": "support",
            "password_file": "unused",
            "poll_seconds": 1,
        }
        return Mailbox.model_validate(told | self.options)

    @contextlib.contextmanager
    def watching(self) -> Iterator[Watcher]:
        """A watcher for a while."""
        settings = self.settings
        password = f"secret-{settings.username}"
        intake = Intake(self.books.ledger, HOUSE, self.books.numbers)

        def log_in() -> Session:
            return connect(settings, password, Path(self.dovecot.ca_file))

        means = self.means_of(Means(log_in, self.reader, intake, lambda: datetime.now(UTC), self.ask))
        watcher = self.watcher = Watcher(settings, means, self.rhythm, self.sweep_seconds)
        watcher.start()
        try:
            yield watcher
        finally:
            watcher.stop()

    def ask(self, address: Address) -> Answer:
        """The gate."""
        lookup = lookup_of(self.books.ledger)
        try:
            return Gate(lookup, self.books.numbers).may(address)
        finally:
            lookup.close()

    # ---- looking

    def until(self, true: Callable[[], object], what: str = "it did not happen") -> None:
        """Wait for something."""
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, what
            time.sleep(0.02)

    def suppressed(self, address: str) -> bool:
        """Is there an opt-out of this address from everything?"""
        with self.books.ledger.reading() as db:
            return any(r[1] == ALL for r in suppressions.standing(db, self.books.ledger.site_key, parse(address)))

    def read_count(self) -> int:
        """How many messages have been read to the end."""
        with self.books.ledger.reading() as db:
            return int(db.exec_driver_sql("SELECT count(*) FROM incoming WHERE state <> 'reading'").scalar_one())

    def suppressed_rows(self) -> int:
        """How many audit rows say that somebody was suppressed."""
        with self.books.ledger.reading() as db:
            return int(db.exec_driver_sql("SELECT count(*) FROM audit WHERE event = 'suppressed'").scalar_one())

    def reviews(self) -> list[incoming.Item]:
        """The open queue."""
        with self.books.ledger.reading() as db:
            return incoming.reviews(db)

    def subjects(self, folder: str = "INBOX") -> list[str]:
        """The Subject of every message in a folder."""
        return [s for s, _, _ in self.messages(folder)]

    def messages(self, folder: str = "INBOX") -> list[tuple[str, set[bytes], datetime]]:
        """(subject, flags, INTERNALDATE) of every message in a folder."""
        with self.dovecot.connect("support") as client:
            if not client.folder_exists(folder):
                return []
            client.normalise_times = False
            client.select_folder(folder, readonly=True)
            uids = client.search()
            found = client.fetch(uids, ["FLAGS", "INTERNALDATE", "BODY.PEEK[HEADER.FIELDS (SUBJECT)]"]) if uids else {}
            return [
                (
                    f[b"BODY[HEADER.FIELDS (SUBJECT)]"].decode().partition(":")[2].strip(),
                    set(f[b"FLAGS"]) - {b"\\Recent"},
                    f[b"INTERNALDATE"],
                )
                for f in (found[u] for u in sorted(found))
            ]

    # ---- what people do

    def move(self, subject: str, source: str, target: str) -> None:
        """A person drags a message."""
        with self.dovecot.connect("support") as client:
            client.select_folder(source)
            uids = client.search(["SUBJECT", subject])
            assert uids, f"no {subject!r} in {source}"
            client.move(uids, target)
