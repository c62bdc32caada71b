"""Signed tokens: what is made is read, anything else is refused."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config import House
from daemon.mail import tokens, triage
from daemon.mail.reading import Bounce
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
    [("jo@other.example", "token"), ("", "token"), ("al@other.example", "none"), ("@other.example", "none")],
)
def test_a_bounce_is_proven_by_the_id_of_our_received(house: House, about: str, proof: str) -> None:
    form = about and KEY.address_key(str(parse(about)))
    raw = DSN.format(token=tokens.make(KEY, "received", form or tokens.NOBODY, 0)).encode()
    reading = triage.read(raw, house, KEY)
    assert isinstance(reading, Bounce)
    assert (reading.recipients, reading.hard, reading.proof) == (("Jo+x@other.example",), True, proof)
    assert isinstance(triage.read(raw, house), Bounce)
