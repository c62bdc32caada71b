"""Does a text name a person? As people and machines write addresses, and only that person."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.address import parse, person, spellings
from storage.mentions import Mentions, named, named_in_id, strings

WHO = Mentions(parse("zelda.quux@example.com"))
WIDEST = ("tag", "alias")


@pytest.mark.parametrize(
    "text",
    [
        "zelda.quux@example.com",
        "write to <Zelda.Quux@EXAMPLE.COM>, please",
        "mailto:zelda.quux+shop@example.com?subject=x",
        "to=<zelda.quux@example.com>, to=zelda.quux@example.com",
        "it is zelda.quux@example.com.",
        '"zelda.quux"@example.com',
        "https://quill.example/u?a=zelda.quux%40example.com",
        "?a%3Dzelda.quux%40example.com",
        "bounce-7-zelda.quux=example.com-x@lists.example.org",
        "line\nzelda.quux@example.com\nline",
    ],
)
def test_an_address_is_found_however_it_is_written(text: str) -> None:
    assert WHO.names(text)
    assert "quux" not in WHO.masked(text, "*").lower()
    assert WHO.word in text.lower()


@pytest.mark.parametrize(
    "text",
    [
        "azelda.quux@example.com",
        "x.zelda.quux@example.com",
        "x-zelda.quux@example.com",
        "zelda.quux@example.com.au",
        "zelda.quux@example.company",
        "zelda.quux@mail.example.com",
        "zelda-quux@example.com",
        "zelda.quux at example.com",
        "other+zelda.quux@example.com",
        "",
    ],
)
def test_other_people_are_not(text: str) -> None:
    assert not WHO.names(text)
    assert WHO.masked(text, "*") == text


def test_a_message_id_is_looked_at_more_closely() -> None:
    assert WHO.is_in("<7.zelda.quux@example.com>")
    assert not WHO.is_in("<zelda.quux.7@mail.example.org>")
    assert WHO.hints("<zelda.quux.7@mail.example.org>")
    assert not WHO.hints("<grizelda.quux@mail.example.org>")
    assert not Mentions(parse("x@example.com")).hints("<x.7@mail.example.org>")  # one letter is in every identity


def test_what_a_provider_takes_for_one_mailbox_is_one_person() -> None:
    who = Mentions(parse("z.elda@googlemail.com"))
    assert who.names("ZEL.DA+x@gmail.com")
    assert not who.names("zeldb@gmail.com")
    assert who.word == "zelda"
    assert spellings(parse("z.elda+x@googlemail.com")) == ("zelda", True, ("gmail.com", "googlemail.com"))


def test_domains_are_known_in_both_spellings() -> None:
    who = Mentions(parse("zelda@bücher.example"))
    assert who.names("zelda@bücher.example")
    assert who.names("zelda@XN--bcher-kva.example")


def test_of_a_text_only_the_others_can_be_masked() -> None:
    text = "Zelda.Quux+a@example.com and bob@example.org, carla@example.net."
    assert WHO.others_masked(text, "*") == "Zelda.Quux+a@example.com and *, *"


LOCAL = st.from_regex(r"[a-z0-9]{1,8}([._-][a-z0-9]{1,8}){0,2}", fullmatch=True)
DOMAIN = st.sampled_from(["example.com", "gmail.com", "googlemail.com", "icloud.com", "hey.com", "mail.example.org"])


@given(
    LOCAL,
    DOMAIN,
    LOCAL,
    DOMAIN,
    st.sampled_from(["{}", "<{}>", "x {}, y", "({})", "to=<{}>", "a\n{}\nb", "“{}”", "我的{}を"]),
)
def test_a_person_is_found_exactly_where_the_lookup_would_hit(
    local: str, domain: str, other: str, at: str, around: str
) -> None:
    who, text = Mentions(parse(f"{local}@{domain}")), f"{other}+tag@{at}"
    same = person(parse(f"{local}@{domain}"), WIDEST) == person(parse(text), WIDEST)
    assert who.names(around.format(text)) == same == who.same(text)
    assert parse(text) in named(around.format(text))


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_text_is_too_strange(text: str, other: str) -> None:
    WHO.names(text)
    WHO.hints(text)
    WHO.others_masked(WHO.masked(text, other), other)
    assert len(named(text)) + len(named_in_id(text)) <= 3 * (len(text) + 1)
    assert list(strings({"a": [text, {"b": other}], "c": 1, "d": None})) == [text, other]


@pytest.mark.parametrize("piece", ["zelda.quux", "a", "a.", "zelda.quux+", "a@", "a=", "=40", '"', "@a."])
def test_a_hostile_text_takes_no_time(piece: str) -> None:
    text = piece * (65_536 // len(piece))
    began = time.monotonic()
    for look in (WHO.names, WHO.hints, named, named_in_id, Mentions(parse("zelda@gmail.com")).names):
        look(text)
    WHO.others_masked(text, "*")
    assert time.monotonic() - began < 2
