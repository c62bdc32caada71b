"""Signed tokens: what is made is read, anything else is refused."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config import House
from daemon.mail import tokens, triage
from daemon.mail.reading import Bounce, Complaint, OptOut
from storage.address import SiteKey, parse

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
KEY = SiteKey((NEW, OLD))


@given(st.binary(min_size=16, max_size=16), st.integers(0, 65535), st.sampled_from(["link", "received"]))
def test_round_trip_in_any_case(address_key: bytes, number: int, purpose: tokens.Purpose) -> None:
    text = tokens.make(KEY, purpose, address_key, number)
    assert len(text) == tokens.LENGTH
    assert (
        tokens.read(KEY, purpose, text.upper()) == tokens.read(KEY, purpose, text) == tokens.Token(address_key, number)
    )
    assert tokens.read(KEY, "link" if purpose == "received" else "received", text) is None


@given(st.integers(0, 47), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567018=é"))
def test_any_flipped_character_is_refused(place: int, char: str) -> None:
    text = tokens.make(KEY, "link", bytes(16), 7)
    changed = text[:place] + char + text[place + 1 :]
    assert (tokens.read(KEY, "link", changed) is None) == (changed.lower() != text)


@given(st.binary(min_size=16, max_size=16), st.integers(0, 65535), st.integers(1, 65535))
def test_an_undo_token_carries_its_day_and_is_good_for_nothing_else(key: bytes, number: int, day: int) -> None:
    text = tokens.make(KEY, "undo", key, number, day=day)
    assert len(text) == tokens.UNDO_LENGTH
    assert tokens.read(KEY, "undo", text.upper()) == tokens.Token(key, number, day)
    assert tokens.read(KEY, "link", text) is tokens.read(KEY, "received", text[:48]) is None


@given(st.integers(0, 51), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567018=é"))
def test_any_flipped_character_of_an_undo_token_is_refused(place: int, char: str) -> None:
    """Its last character has bits to spare: only one way of writing it counts."""
    text = tokens.make(KEY, "undo", bytes(16), 7, day=20_000)
    changed = text[:place] + char + text[place + 1 :]
    assert (tokens.read(KEY, "undo", changed) is None) == (changed.lower() != text)


@given(st.binary(min_size=16, max_size=16), st.integers(0, 65535), st.binary(min_size=10, max_size=10))
def test_a_regret_token_carries_its_click_and_is_good_for_nothing_else(key: bytes, number: int, click: bytes) -> None:
    text = tokens.make(KEY, "regret", key, number, click=click)
    assert len(text) == 64
    assert tokens.read(KEY, "regret", text.upper()) == tokens.Token(key, number, click=click)
    others: tuple[tuple[tokens.Purpose, int], ...] = (("link", 48), ("received", 48), ("undo", 52))
    for purpose, length in others:
        assert tokens.read(KEY, purpose, text) is tokens.read(KEY, purpose, text[:length]) is None
    assert (
        list(tokens.find(KEY, ("link", "undo", "received", "regret"), f"undo {text}")) == []
    )  # no mail undoes a click


@given(st.integers(0, 63), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567018=é"))
def test_any_flipped_character_of_a_regret_token_is_refused(place: int, char: str) -> None:
    text = tokens.make(KEY, "regret", bytes(16), 7, click=bytes(10))
    changed = text[:place] + char + text[place + 1 :]
    assert (tokens.read(KEY, "regret", changed) is None) == (changed.lower() != text)


@pytest.mark.parametrize(("purpose", "click"), [("link", bytes(10)), ("regret", b""), ("regret", bytes(9))])
def test_a_click_belongs_to_regret_only(purpose: tokens.Purpose, click: bytes) -> None:
    with pytest.raises(ValueError, match="a token takes"):
        tokens.make(KEY, purpose, bytes(16), 1, click=click)


@pytest.mark.parametrize("purpose", ["link", "received", "undo"])
def test_a_day_belongs_to_undo_only(purpose: tokens.Purpose) -> None:
    with pytest.raises(ValueError, match="a day to undo"):
        tokens.make(KEY, purpose, bytes(16), 1, day=0 if purpose == "undo" else 1)


HOUSE = House(name="Q", domains=("quillpdf.example",), addresses=("support@quillpdf.example",))
LINK = tokens.make(KEY, "link", KEY.address_key("ann@example.com"), 3)


@pytest.mark.parametrize(
    ("to", "subject", "author"),
    [
        ("support@quillpdf.example", f"unsubscribe {LINK}", "other@example.org"),
        ("support@quillpdf.example", f"Re: unsubscribe {LINK.upper()}", "other@example.org"),
        (f"support+u-{LINK}@quillpdf.example", "", "other@example.org"),
        (f"support+u-{LINK}@quillpdf.example", "", ""),
        ("support@quillpdf.example", f"unsubscribe {LINK}", "ann@example.com"),
    ],
)
def test_a_link_of_ours_is_a_request_whatever_from_says(to: str, subject: str, author: str) -> None:
    reading = triage.read(f"From: {author}\nTo: {to}\nSubject: {subject}\n\n\n".encode(), HOUSE, KEY)
    assert isinstance(reading, OptOut)
    assert reading.token == tokens.Token(KEY.address_key("ann@example.com"), 3)
    assert (reading.proof, reading.addresses) == ("token", ("ann@example.com",) if author == "ann@example.com" else ())


@pytest.mark.parametrize(
    "subject",
    [
        "unsubscribe " + tokens.make(SiteKey((bytes(32),)), "link", bytes(16), 0),  # another site's
        "unsubscribe " + tokens.make(KEY, "received", KEY.address_key("ann@example.com"), 0),  # of a Received line
        "unsubscribe " + tokens.make(KEY, "link", tokens.NOBODY, 0),
    ],
)
def test_no_other_token_names_anybody(subject: str) -> None:
    reading = triage.read(f"From: x@example.org\nTo: a@b.example\nSubject: {subject}\n\n\n".encode(), HOUSE, KEY)
    assert getattr(reading, "token", None) is None


REDACTED = """From: fbl@isp.example
To: support@quillpdf.example
Subject: complaint
Content-Type: multipart/report; report-type=feedback-report; boundary=b

--b
Content-Type: message/feedback-report

Feedback-Type: abuse
Original-Rcpt-To: redacted@isp.example

--b
Content-Type: text/rfc822-headers

From: letter@quillpdf.example
{field}

--b--
"""


@pytest.mark.parametrize(
    "field",
    [
        "Received: from x by relay.quillpdf.example with ESMTP\n id {token}; today",
        "List-Unsubscribe: <https://u.quillpdf.example/u/{token}>",
        "CFBL-Feedback-ID: {token}",
    ],
)
def test_a_redacted_complaint_is_resolved_by_our_own_token(field: str) -> None:
    purpose: tokens.Purpose = "received" if field.startswith("Received") else "link"
    token = tokens.make(KEY, purpose, KEY.address_key("ann@example.com"), 0)
    reading = triage.read(REDACTED.format(field=field.format(token=token)).encode(), HOUSE, KEY)
    assert isinstance(reading, Complaint)
    assert reading.token is not None
    assert reading.token.address_key == KEY.address_key("ann@example.com")
    assert (reading.recipients, reading.proof) == ((), "token")


def test_tokens_outlive_a_new_key_and_die_with_theirs() -> None:
    text = tokens.make(SiteKey((OLD,)), "link", os.urandom(16), 1)
    assert tokens.read(KEY, "link", text) is not None
    assert tokens.read(SiteKey((NEW,)), "link", text) is None
    assert tokens.read(SiteKey((OLD,)), "link", tokens.make(KEY, "link", bytes(16), 1)) is None


DSN = """Return-Path: <>
From: MAILER-DAEMON@mx.example.net
To: support@quillpdf.example
Subject: Undelivered
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net

Original-Recipient: rfc822;Jo+2Bx@other.example
Final-Recipient: rfc822; jo@inside.example
Action: failed
Status: 5.1.1

--b
Content-Type: message/rfc822

Received: from x by relay.quillpdf.example with ESMTP id {token}; now
From: letter@news.quillpdf.example
To: jo@other.example

hello
--b--
"""


@pytest.mark.parametrize(
    ("about", "proof"),
    [("jo@other.example", "token"), ("", "none"), ("al@other.example", "none"), ("@other.example", "none")],
)
def test_a_bounce_is_proven_by_the_id_of_our_received(house: House, about: str, proof: str) -> None:
    form = about and KEY.address_key(str(parse(about)))
    raw = DSN.format(token=tokens.make(KEY, "received", form or tokens.NOBODY, 0)).encode()
    reading = triage.read(raw, house, KEY)
    assert isinstance(reading, Bounce)
    assert (reading.recipients, reading.hard, reading.proof) == (("Jo+x@other.example",), True, proof)
    assert isinstance(triage.read(raw, house), Bounce)


UNDO = tokens.make(KEY, "undo", KEY.address_key("ann@example.com"), 0, day=20_000)


@pytest.mark.parametrize(
    ("author", "subject", "extra", "body"),
    [
        ("ann@example.com", f"Re: undo {UNDO}", "", "Sorry, wrong click. Please unsubscribe me from everything."),
        ("ann@example.com", f"undo {UNDO}", "", "Sorry, wrong click. Please unsubscribe me from everything."),
        ("agent@quillpdf.example", f"undo {UNDO}", "", "Done for you."),
        ("ann@example.com", f"undo {UNDO}", "Auto-Submitted: auto-replied\n", ""),
        ("ann@example.com", f"Ticket 7: undo {UNDO} please explain", "", ""),
    ],
)
def test_only_the_very_mail_of_our_link_gives_back(author: str, subject: str, extra: str, body: str) -> None:
    raw = f"From: {author}\nTo: support@quillpdf.example\n{extra}Subject: {subject}\n\n{body}\n".encode()
    assert getattr(triage.read(raw, HOUSE, KEY), "token", None) is None
