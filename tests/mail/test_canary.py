"""The canary is read as a request in every house, and nobody else can make one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config import House
from daemon.mail import canary, tokens
from daemon.mail.canary import CHANCE_OCTETS, compose, token_of
from daemon.mail.reading import OptOut
from daemon.mail.triage import read
from daemon.options import MailingList
from storage.address import SiteKey

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
KEY = SiteKey((NEW, OLD))
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOUSE = House(name="Quill PDF", domains=("quillpdf.example",), addresses=("support@quillpdf.example",))
LISTS = (
    MailingList(id="newsletter", title="The Quill Letter", names=("Quill-Brief",), sender="l@news.quillpdf.example"),
)


@pytest.mark.parametrize("authserv_id", ["", "mx.quillpdf.example"])
@pytest.mark.parametrize("lists", [(), LISTS, (*LISTS, MailingList(id="mailing", title="Mailing list"))])
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_house_reads_it_as_a_request_of_its_writer_about_everything(
    authserv_id: str, lists: tuple[MailingList, ...], language: str
) -> None:
    house = HOUSE.model_copy(update={"authserv_id": authserv_id, "lists": lists, "language": language})
    made = compose(KEY, house, NOW, bytes(range(CHANCE_OCTETS)))
    reading = read(made.raw, house, KEY)
    assert isinstance(reading, OptOut)
    assert (reading.addresses, reading.scope, reading.stays) == ((made.address,), ("all",), False)


def test_a_house_without_an_address_has_one_too() -> None:
    house = House(name="Quill PDF")
    assert isinstance(read(compose(KEY, house, NOW, bytes(CHANCE_OCTETS)).raw, house, KEY), OptOut)


_FROM, _TO = datetime(1970, 1, 2), datetime(2100, 1, 1)  # noqa: DTZ001 - hypothesis wants its bounds naive


@given(st.binary(min_size=CHANCE_OCTETS, max_size=CHANCE_OCTETS), st.datetimes(_FROM, _TO))
def test_its_token_is_known(chance: bytes, moment: datetime) -> None:
    made = compose(KEY, HOUSE, moment.replace(tzinfo=UTC), chance)
    assert token_of(made.raw, KEY) == made.token
    assert token_of(made.raw, SiteKey((bytes(32), NEW, OLD))) == made.token  # a new key in front
    assert token_of(made.raw, SiteKey((OLD,))) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"From: optoutd self-test <", b"From: Ann <ann@example.com>, <"),
        (b"@optoutd.invalid>\r\nTo", b"@optoutd.invalid.example>\r\nTo"),
        (b"<canary-a", b"<canary-b"),
        (b"X-Optoutd-Canary: ", b"X-Optoutd-Canary: a"),
        (b"X-Optoutd-Canary: ", b"Subject: "),
    ],
)
def test_what_is_changed_is_none(old: bytes, new: bytes) -> None:
    raw = compose(KEY, HOUSE, NOW, bytes(CHANCE_OCTETS)).raw
    assert raw.count(old) == 1 or old.startswith(b"<canary")
    assert token_of(raw.replace(old, new), KEY) == ""


def test_each_is_another_and_each_day_too() -> None:
    made = [compose(KEY, HOUSE, NOW, bytes([n] * CHANCE_OCTETS)) for n in range(3)]
    made.append(compose(KEY, HOUSE, NOW + timedelta(days=1), bytes(CHANCE_OCTETS)))
    assert len({m.token for m in made}) == 4
    assert len({m.address for m in made}) == len({m.message_id for m in made}) == 3


def test_the_tokens_of_links_are_no_canaries() -> None:
    made = compose(KEY, HOUSE, NOW, bytes(CHANCE_OCTETS))
    key = canary._key(KEY, made.address)
    for purpose, day in (("link", 0), ("received", 0), ("undo", 20_000)):
        other = tokens.make(KEY, purpose, key, 0, day=day)  # type: ignore[arg-type]  # one of those words
        assert token_of(made.raw.replace(made.token.encode(), other.encode()), KEY) == ""
        assert tokens.read(KEY, purpose, made.token) is None  # type: ignore[arg-type]  # as above


@given(st.binary(max_size=300))
def test_any_octets_are_none(raw: bytes) -> None:
    assert token_of(b"X-Optoutd-Canary: " + raw, KEY) == ""
