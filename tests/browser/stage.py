"""A ledger with a story: what an operator finds after some busy weeks. Invented people, fixed days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from daemon.vitals import AlarmVitals, DutyVitals, MailboxVitals, Vitals
from storage import incoming, refusals, suppressions
from storage.address import parse, person
from storage.incoming import Place
from storage.refusals import Refusal, Tally
from storage.terms import ALL, Reason, seconds
from storage.write import Write, write
from tests.ledgers import Books

# Why is this address refused? The question of docs/console.md.
GRETA: Final = "greta@nordwind.example"
_WORDS: Final = "please take me off your list, I have asked twice"
HOSTILE: Final = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202egnp.exe {{7*7}}"


def play(books: Books, now: datetime | None = None) -> None:
    """Fill the ledger."""
    today = (now or datetime.now(UTC)).replace(microsecond=0)
    for day in range(28, 0, -1):
        with write(books.ledger, today - timedelta(days=day), "mailbox support") as w:
            for number in range(1 + day * 7 % 5):
                _asked_by_mail(w, books, f"reader{day}.{number}@post.example", day * 10 + number)
    with write(books.ledger, today - timedelta(days=9), "mailbox support") as w:
        _asked_by_mail(w, books, GRETA, 7001)
    _campaigns(books, today)
    with write(books.ledger, today - timedelta(minutes=25), "job note_head") as w:
        w.job_ran("note_head")
    with write(books.ledger, today - timedelta(hours=50), "mailbox support") as w:
        _doubtful(w, today - timedelta(hours=50), "chef@bistro.example", "Nous ne voulons plus rien", 1)
    with write(books.ledger, today - timedelta(hours=3), "mailbox support") as w:
        _doubtful(w, today - timedelta(hours=3), "mallory@evil.example", HOSTILE, 2)
        _doubtful(w, today - timedelta(hours=2), "kim@kiosk.example", "Could my colleague be left out?", 3)


def vitals(now: datetime) -> Vitals:
    """A daemon that does what it should, and has held up the bounces of one cause."""
    what = "bounces:outlook.com/5.1.1"
    held = AlarmVitals(
        "brake-pulled",
        what,
        now - timedelta(hours=1),
        "The brake on bounces of outlook.com with 5.1.1 was pulled by itself: 201 people would have been suppressed in one hour",
        f"Look: `optoutd review list --cause {what}`, and decide: `optoutd review accept --cause {what} --dry-run` (or"
        f' reject). When it is over: `optoutd brake --release {what} --because "..."`.',
    )
    return Vitals(
        now - timedelta(days=12, hours=3),
        {"relay": ("127.0.0.1:2525",), "web": ("127.0.0.1:8025",)},
        (MailboxVitals("support", ours=True, connected=True, last_success=now - timedelta(seconds=20)),),
        upstream="",
        duties=("jobs", "notices"),
        duty=DutyVitals((held,)),
    )


def _asked_by_mail(w: Write, books: Books, address: str, uid: int) -> None:
    detail = {
        "mailbox": "support",
        "folder": "INBOX",
        "uid": uid,
        "message_id": f"<{uid}@mail.example>",
        "words": _WORDS,
        "rules": ["ask-stop"],
        "proof": "dmarc",
    }
    scope = books.numbers["offers"] if uid % 3 == 0 else ALL
    suppressions.add(w, parse(address), scope, Reason.OPT_OUT, "mail", detail)


def _campaigns(books: Books, today: datetime) -> None:
    ledger, list_number = books.ledger, books.numbers["newsletter"]
    with ledger.connect() as db:
        row = suppressions.standing(db, ledger.site_key, parse(GRETA))[0]
    key = ledger.site_key.address_key(person(parse(GRETA), ledger.same_person))
    for day in (7, 4, 1):
        at = today - timedelta(days=day)
        refused = Refusal(at, "refused", key, list_number, row[2], "crm", f"<letter{day}@quillpdf.example>", row[4])
        hour = seconds(at) // 3600
        counts = {
            Tally(hour, list_number, "crm", "passed", 0): 4_000 + 300 * day,
            Tally(hour, list_number, "crm", "refused", int(Reason.OPT_OUT)): 40 + day,
        }
        with write(ledger, at, "relay") as w:
            refusals.record(w, [refused], counts)


def _doubtful(w: Write, at: datetime, sender: str, words: str, uid: int) -> None:
    place = Place("support", "INBOX", 1, uid)
    number = incoming.record(
        w,
        place,
        digest=bytes([uid]) * 32,
        size=900,
        message_id=f"<doubt{uid}@mail.example>",
        internaldate=at,
        label="review",
        state="done",
        sender=sender,
    )
    incoming.open_review(
        w,
        number,
        received=at,
        sender=sender,
        addresses=[sender],
        scope="all",
        rules=["7.5-unproven"],
        words=words,
        wish="opt-out",
        language="en",
        excerpt=f"Hello,\n\n{words}\n\n-- \nsent from my telephone\n",
    )
