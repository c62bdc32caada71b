"""The mail to the operators: when one goes out, and what it says. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.config import House
from daemon.duty import letters
from daemon.duty.letters import Envelope, Letter
from daemon.mail import triage
from daemon.mail.reading import AutoReply, Ordinary
from storage.address import SiteKey
from storage.alarms import Noted
from tests.duty.support import DAY, HOUR, MINUTE, NOW, SECOND

SILENT = Noted(
    "mailbox-silent",
    "support",
    "",
    "parts.mailboxes",
    NOW - 20 * MINUTE,
    NOW,
    "Mailbox support has been silent for 20 minutes (login: refused)",
    "Run `optoutd doctor`.",
)
DISK = replace(SILENT, kind="disk-low", about="database", text="3 MB are left on the disk", since=NOW - HOUR)
TOLD = replace(SILENT, told=NOW - HOUR)
OVER = replace(TOLD, ended=NOW)
ENVELOPE = Envelope("Quill PDF", "support@quillpdf.example", "ops@quillpdf.example")


@pytest.mark.parametrize(
    ("alarms", "last", "new", "over"),
    [
        ([], None, None, None),
        ([SILENT], None, 1, 0),
        ([SILENT, DISK], None, 2, 0),
        ([SILENT], NOW - 15 * MINUTE + SECOND, None, None),
        ([SILENT], NOW - 15 * MINUTE, 1, 0),
        ([TOLD], NOW - HOUR, None, None),
        ([TOLD, DISK], NOW - HOUR, 1, 0),
        ([replace(TOLD, told=NOW - DAY + SECOND)], NOW - DAY, None, None),
        ([replace(TOLD, told=NOW - DAY)], NOW - DAY, 0, 0),
        ([OVER], NOW - HOUR, 0, 1),
        ([replace(OVER, closed=NOW)], NOW - HOUR, None, None),
        ([replace(SILENT, ended=NOW)], None, 0, 1),
        ([SILENT], NOW + 300 * DAY, 1, 0),
        ([replace(TOLD, told=NOW + 300 * DAY)], NOW + 300 * DAY, 0, 0),
    ],
)
def test_when_a_mail_goes_out(alarms: list[Noted], last: datetime | None, new: int | None, over: int | None) -> None:
    """At once, then none for 15 minutes; again after a day; the end, too; and a clock set back keeps nothing."""
    letter = letters.due(alarms, NOW, last)
    assert (letter and len(letter.new), letter and len(letter.over)) == (new, over)


def test_subjects() -> None:
    assert (
        letters.subject(Letter((SILENT,), (), ())) == "[optoutd] alarm: mailbox support has been silent for 20 minutes"
    )
    assert letters.subject(Letter((SILENT, DISK), (), ())).startswith("[optoutd] 2 alarms: mailbox support has been")
    assert letters.subject(Letter((), (OVER,), ())).startswith("[optoutd] over: mailbox support")
    assert letters.subject(Letter((), (), (TOLD,))).startswith("[optoutd] still: mailbox support")
    assert len(letters.subject(Letter((replace(SILENT, text="x" * 999),), (), ()))) == 78


def test_the_mail_says_what_since_when_and_what_to_do() -> None:
    text = letters.body(Letter((SILENT,), (OVER,), (replace(DISK, told=NOW),)), NOW)
    assert (
        "Mailbox support has been silent for 20 minutes (login: refused).\n  Since 2026-05-04 11:40 UTC, 20 minutes."
        in text
    )
    assert "Run `optoutd doctor`." in text
    assert text.index("silent") < text.index("Still so:") < text.index("3 MB are left") < text.index("Over:")
    assert "From 2026-05-04 11:40 UTC to 2026-05-04 12:00 UTC, 20 minutes." in text


def composed(envelope: Envelope = ENVELOPE, about: str = "x", text: str = "y\n") -> EmailMessage:
    raw = letters.compose(envelope, about, text, NOW, "alarm")
    assert b"\n" not in raw.replace(b"\r\n", b"")
    message = message_from_bytes(raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def test_no_machine_is_to_answer_it() -> None:
    message = composed()
    assert message["Auto-Submitted"] == "auto-generated"  # RFC 3834 5.1
    assert (message["From"], message["To"]) == (
        "optoutd at Quill PDF <support@quillpdf.example>",
        "ops@quillpdf.example",
    )
    assert message["Message-ID"] == "<optoutd.alarm.1777896000@quillpdf.example>"
    assert message["Date"].datetime == NOW


@pytest.mark.parametrize(
    ("to", "told"),
    [("jörg@example.com", False), ('"a b"@example.com', False), ("ops@quillpdf.example", True)],
)
def test_whatever_the_operators_address_is(to: str, told: bool) -> None:
    raw = letters.compose(replace(ENVELOPE, to=to), "x", "y\n", NOW, "alarm").decode()
    assert (f"To: {to}\r\n" in raw, "To: undisclosed-recipients:;\r\n" in raw) == (told, not told)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200), st.text(min_size=1, max_size=40))
def test_no_text_breaks_the_header(about: str, house: str) -> None:
    raw = letters.compose(replace(ENVELOPE, house=house), about, "y\n", NOW, "alarm")
    head = raw.partition(b"\r\n\r\n")[0]
    assert head.count(b"\r\nAuto-Submitted: auto-generated") == 1


@pytest.mark.parametrize("letter", [Letter((SILENT, DISK), (OVER,), ()), Letter((), (OVER,), ())])
def test_our_own_mail_in_a_mailbox_that_we_watch_is_no_request(letter: Letter) -> None:
    """It may be sent to an address people write to, come back by a forward, or be answered by a machine."""
    message = composed(about=letters.subject(letter), text=letters.body(letter, NOW) + "to unsubscribe, opt out\n")
    house = House(name="Quill PDF", domains=("quillpdf.example",), addresses=("support@quillpdf.example",))
    reading = triage.read(message.as_bytes(), house, SiteKey((bytes(32),)))
    assert isinstance(reading, AutoReply | Ordinary)


def test_the_operators_are_never_suppressed() -> None:
    house = House(name="Quill", operators_mail="Ops@quillpdf.example")
    assert house.never_suppresses("ops@quillpdf.example")
    assert not house.never_suppresses("ann@example.com")
    assert not House(name="Quill").never_suppresses("")
