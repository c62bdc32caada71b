"""Tokens as links."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config import House, Mailbox
from daemon.mail.headers import unsubscribe_value
from daemon.mail.links import Links, links_of, undo_link

TOKEN = "a234567" * 6 + "abcdef"
assert len(TOKEN) == 48
PLAIN = Links("support@quillpdf.example", subaddress=False, public_url="")


def test_by_mail_only() -> None:
    assert PLAIN.one_click(TOKEN) is None
    assert PLAIN.mailto(TOKEN) == f"mailto:support@quillpdf.example?subject=unsubscribe%20{TOKEN}"
    assert PLAIN.mailto(None) == "mailto:support@quillpdf.example?subject=unsubscribe"
    assert PLAIN.undo(TOKEN) == f"mailto:support@quillpdf.example?subject=undo%20{TOKEN}"


def test_the_links_of_a_house() -> None:
    house = House(name="Quill", domains=("quillpdf.example",), addresses=("support@quillpdf.example", "b@x.example"))
    assert links_of(house, (), "") == PLAIN
    box = Mailbox(name="m", host="h.example", username="u", password_file="p", subaddress="+")
    assert links_of(house, (box,), "https://m.example") == Links("support@quillpdf.example", True, "https://m.example")
    assert links_of(House(name="Quill"), (), "") == Links("", False, "")


def test_with_a_web_door() -> None:
    links = Links("support@quillpdf.example", subaddress=False, public_url="https://m.quillpdf.example")
    assert links.one_click(TOKEN) == f"https://m.quillpdf.example/u/{TOKEN}"
    assert links.undo(TOKEN) == f"https://m.quillpdf.example/undo/{TOKEN}"
    assert links.mailto(TOKEN) == PLAIN.mailto(TOKEN)
    assert undo_link(links.public_url, links.address, TOKEN) == links.undo(TOKEN)
    assert undo_link("", links.address, TOKEN) == PLAIN.undo(TOKEN)


def test_without_an_address() -> None:
    links = Links("", subaddress=True, public_url="")
    assert (links.one_click(TOKEN), links.mailto(TOKEN), links.mailto(None), links.undo(TOKEN)) == (None,) * 4


def test_a_subaddress_where_it_arrives_and_fits() -> None:
    links = Links("support@quillpdf.example", subaddress=True, public_url="")
    assert links.mailto(TOKEN) == f"mailto:support+u-{TOKEN}@quillpdf.example"
    assert links.mailto(None) == PLAIN.mailto(None)


@pytest.mark.parametrize(("local", "fits"), [("x" * 13, True), ("x" * 14, False), ("é" * 6, True), ("é" * 7, False)])
def test_a_local_part_has_room_for_64_octets(local: str, *, fits: bool) -> None:
    link = Links(f"{local}@x.example", subaddress=True, public_url="").mailto(TOKEN)
    assert link is not None
    assert ("+u-" in link) == fits
    assert ("?subject=" in link) != fits


@pytest.mark.parametrize(
    ("address", "written"),
    [
        ("a+b@x.example", "a+b@x.example"),
        ("50%@x.example", "50%25@x.example"),
        ("who?@x.example", "who%3F@x.example"),
        ("q&a=b@x.example", "q%26a%3Db@x.example"),
        ("a/b#c@x.example", "a%2Fb%23c@x.example"),
        ('"a b>"@x.example', "%22a%20b%3E%22@x.example"),
        ('"a@b"@x.example', "%22a%40b%22@x.example"),
        ("o'neil@x.example", "o%27neil@x.example"),
        ("a@[192.0.2.1]", "a@%5B192.0.2.1%5D"),
        ("grüße@x.example", "gr%C3%BC%C3%9Fe@x.example"),
    ],
)
def test_odd_addresses_are_written_as_a_uri_wants_them(address: str, written: str) -> None:
    links = Links(address, subaddress=False, public_url="")
    assert links.mailto(TOKEN) == f"mailto:{written}?subject=unsubscribe%20{TOKEN}"
    assert links.undo(TOKEN) == f"mailto:{written}?subject=undo%20{TOKEN}"


def test_nothing_is_put_behind_a_closing_quote() -> None:
    link = Links('"a b"@x.example', subaddress=True, public_url="").mailto(TOKEN)
    assert link == f"mailto:%22a%20b%22@x.example?subject=unsubscribe%20{TOKEN}"


@given(local=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10), subaddress=st.booleans())
def test_a_mail_program_reads_the_address_and_the_token(local: str, *, subaddress: bool) -> None:
    link = Links(f"{local}@x.example", subaddress, "").mailto(TOKEN)
    assert link is not None
    uri = urlsplit(link)
    to, subject = unquote(uri.path), parse_qs(uri.query).get("subject", [])
    assert (to, subject) in (
        (f"{local}@x.example", [f"unsubscribe {TOKEN}"]),
        (f"{local}+u-{TOKEN}@x.example", []),
    )
    assert unsubscribe_value(None, link) == f"<{link}>".encode()
