"""Readings, the messages around them, and short words for what came of it in the ledger."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from daemon.config import House, MailingList
from daemon.intake import Envelope, Intake, Shelf
from daemon.mail.reading import (
    Bounce,
    Cause,
    Complaint,
    OptOut,
    Proof,
    Resubscribe,
)
from daemon.mail.tokens import Token
from storage import incoming, outbox, suppressions
from storage.address import parse
from storage.incoming import Item, Place
from storage.terms import Reason, seconds

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
LATE = NOW + timedelta(days=80)  # days count by when the bounce came, not by when we got to read it
ANN, BOB = "ann@example.com", "bob@example.com"
DAY = seconds(NOW) // 86_400
TARGETS: dict[Shelf, str] = {"processed": "Opt-outs", "machine": "Machines"}
HOUSE = House(
    name="Quill",
    domains=("quillpdf.example",),
    addresses=("support@quillpdf.example",),
    form_addresses=("forms@quillpdf.example",),
    lists=(MailingList(id="newsletter", sender="letter@news.quillpdf.example"), MailingList(id="offers")),
)


def envelope(
    uid: int = 1, *, mailbox: str = "support", message_id: str = "", sender: str = ANN, date: datetime = NOW
) -> Envelope:
    return Envelope(
        place=Place(mailbox, "INBOX", 1, uid),
        digest=b"%d" % uid,
        size=100,
        message_id=message_id or f"<{uid}@example.com>",
        internaldate=date,
        sender=sender,
        excerpt="Subject: stop",
        targets=TARGETS,
    )  # fmt: skip


def opt_out(
    *addresses: str, proof: Proof = "dmarc", writer: str | None = ANN, scope: tuple[str, ...] = ("all",), stays: bool = False
) -> OptOut:  # fmt: skip
    return OptOut(addresses or (ANN,), scope, (), writer, proof, stays, "en", ("3-stop",), "please stop")


def bounce(*recipients: str, hard: bool = True, cause: Cause = "address", proof: Proof = "token") -> Bounce:
    return Bounce(recipients or (ANN,), hard, cause, "5.1.1", "550 unknown", proof, ("1-dsn",))


def complaint(*recipients: str, proof: Proof = "token") -> Complaint:
    return Complaint(recipients, "abuse", proof, ("2-arf",))


def rows(desk: Intake, address: str = ANN) -> list[tuple[int, Reason]]:
    with desk.ledger.connect() as db:
        return [(r[1], Reason(r[2])) for r in suppressions.standing(db, desk.ledger.site_key, parse(address))]


def queue(desk: Intake, state: str | None = "open") -> list[Item]:
    with desk.ledger.connect() as db:
        return incoming.reviews(db, state)


def owed(desk: Intake, mailbox: str = "support") -> list[tuple[int, str]]:
    with desk.ledger.connect() as db:
        return [(s.place.uid, s.target) for s in incoming.owed(db, mailbox)]


def count(desk: Intake, table: str) -> int:
    with desk.ledger.connect() as db:
        return int(db.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


def key(desk: Intake, address: str) -> bytes:
    return desk.ledger.site_key.address_key(address)


def by_token(desk: Intake, address: str, number: int = 0, *, writer: str = ANN, named: bool = False) -> OptOut:
    token = Token(key(desk, address), number)
    return OptOut((address,) if named else (), ("all",), (), writer, "token", False, "", ("0.3-token",), "", token)


def comeback(proof: Proof = "dmarc", scope: tuple[str, ...] = ("all",)) -> Resubscribe:
    return Resubscribe((ANN,), scope, ANN, proof, "de", ("2-resubscribe",), "wieder aufnehmen")


def undoing(desk: Intake, number: int = 0, day: int = DAY) -> Resubscribe:
    return Resubscribe((), ("all",), ANN, "token", "", ("0.3-token",), "", Token(key(desk, ANN), number, day))


def notices(desk: Intake) -> list[outbox.Notice]:
    with desk.ledger.connect() as db:
        return outbox.due(db, NOW + timedelta(days=400))
