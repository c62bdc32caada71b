"""When are two addresses the same person?"""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.address import (
    PUBLIC_PROVIDERS,
    Address,
    NotAnAddress,
    SiteKey,
    a_label,
    forms,
    keys_of,
    parse,
    person,
)

KEY = SiteKey((bytes(range(32)),))
SETTINGS = [(), ("tag",), ("alias",), ("tag", "alias")]

# Few letters and many separators, so that different spellings of one person are drawn often.
locals_ = st.text("ab.+AB", min_size=1, max_size=7)
domains = st.sampled_from(
    ["gmail.com", "googlemail.com", "proton.me", "pm.me", "me.com", "icloud.com", "ya.ru", "hey.com", "x.example"]
)
spellings = st.builds(Address, locals_, domains)
anything = st.one_of(
    st.text(max_size=40),
    st.builds("{}@{}".format, st.text(max_size=20), st.text(max_size=20)),
    st.builds('"{}"@{}'.format, st.text(max_size=12), st.sampled_from(["x.example", "[127.0.0.1]", "bücher.example"])),
    st.builds("{}@{}".format, st.text("ab.+\"\\ \u00a0\u0344\u037e\udc80é", max_size=90), domains),
)  # fmt: skip


def same_person_as(one: Address, other: Address, same: tuple[str, ...] = ("tag", "alias")) -> bool:
    """Does an opt-out of `one` stop mail to `other`?"""
    return person(one, same) in [form for kind, form in forms(other) if kind != "domain"]


# ------------------------------------------------------------------ parsing


@given(anything)
@example("\ud800@x.example")
@example("a@\ud800")
@example('"\u00a0"@x.example')  # an unquoted no-break space is stripped: that would leave the whole domain
@example("\u0344" * 64 + "@x.example")  # twice as long once composed
@example("a\u037eb@x.example")  # NFC makes a semicolon of the Greek question mark
@example("a@" + "b." * 130 + "example")
@example("a@x。example。")
def test_parse_gives_an_address_or_says_that_it_is_none(text: str) -> None:
    try:
        found = parse(text)
    except NotAnAddress:
        return
    assert parse(str(found)) == found
    assert forms(found)
    assert keys_of(KEY, found)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("Ann@Example.COM", "Ann@example.com"),
        (" ann@example.com\t", "ann@example.com"),
        ("ann@example.com.", "ann@example.com"),
        ("a..b@docomo.ne.jp", "a..b@docomo.ne.jp"),
        ("a.@docomo.ne.jp", "a.@docomo.ne.jp"),
        (".a@docomo.ne.jp", ".a@docomo.ne.jp"),
        ('"ann"@example.com', "ann@example.com"),
        ('"a\\nn"@example.com', "ann@example.com"),
        ('"a@b"@example.com', '"a@b"@example.com'),
        ('"a b"@example.com', '"a b"@example.com'),
        ('"a\\"b\\\\c"@example.com', '"a\\"b\\\\c"@example.com'),
        ("ann@Bücher.example", "ann@xn--bcher-kva.example"),
        ("ann@xn--bcher-kva.example", "ann@xn--bcher-kva.example"),
        ("ann@ＢÜＣＨＥＲ．example", "ann@xn--bcher-kva.example"),
        ("jose\u0301@example.com", "jos\u00e9@example.com"),
        ("用户@例子.广告", "用户@xn--fsqu00a.xn--4rr70v"),
        ("ann@[192.0.2.1]", "ann@[192.0.2.1]"),
        ("ann@[IPv6:2001:DB8::1]", "ann@[ipv6:2001:db8::1]"),
        ("postmaster@localhost", "postmaster@localhost"),
        ("a=b!c%d&e'f*g/h?i^j`k{l|m}n~o#p$q@x.example", "a=b!c%d&e'f*g/h?i^j`k{l|m}n~o#p$q@x.example"),
        ("@Example.com", "@example.com"),
        ("x" * 64 + "@example.com", "x" * 64 + "@example.com"),
    ],
)
def test_what_people_have_is_taken(text: str, address: str) -> None:
    assert str(parse(text)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "ann",
        "ann@",
        "ann@.example.com",
        "ann@example..com",
        "ann@exa mple.com",
        "ann@@example.com",
        "a b@example.com",
        "a\x00b@example.com",
        "a\x85b@example.com",
        "a\r\nRCPT TO:<b@example.com>",
        '"a\nb"@example.com',
        '""@example.com',
        '"ann@example.com',
        'an"n@example.com',
        "<ann@example.com>",
        "ann,bob@example.com",
        "a\udc80@example.com",
        "ann@\udc80.example",
        "ann@[]",
        "ann@[1.2.3.4",
        "x" * 65 + "@example.com",
        "é" * 65 + "@example.com",
        "ann@" + "x" * 64 + ".com",
        "ann@" + "x.é" * 100 + ".com",
        "ann@" + "abcdefg." * 40 + "com",
    ],
)
def test_what_is_no_address_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(NotAnAddress, match=r"^(an address|the part before|the domain) "):
        parse(text)


@pytest.mark.parametrize(
    "text", ["é" * 200_000 + "@example.com", "a@" + "é" * 200_000, "a@" + "x." * 200_000, '"' * 200_000 + "@x"]
)
def test_a_hostile_length_costs_nothing(text: str) -> None:
    began = time.thread_time()
    with pytest.raises(NotAnAddress):
        parse(text)
    assert time.thread_time() - began < 0.5


def test_a_domain_by_itself_is_not_a_person() -> None:
    assert parse("@example.com").is_domain
    assert not parse("a@example.com").is_domain


@given(st.text(max_size=20))
def test_a_label_is_the_same_when_asked_twice(text: str) -> None:
    try:
        once = a_label(text)
    except NotAnAddress:
        return
    assert a_label(once) == once


# ------------------------------------------------------------------ sameness


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ann@example.com", [("exact", "ann@example.com"), ("domain", "@example.com")]),
        ("Ann+News@Example.com", [("exact", "ann+news@example.com"), ("tag", "ann@example.com"), ("domain", "@example.com")]),
        (
            "A.nn+x@GoogleMail.com",
            [
                ("exact", "a.nn+x@googlemail.com"),
                ("tag", "a.nn@googlemail.com"),
                ("alias", "ann@gmail.com"),
                ("domain", "@googlemail.com"),
            ],
        ),
        ("a.nn@me.com", [("exact", "a.nn@me.com"), ("alias", "a.nn@icloud.com"), ("domain", "@me.com")]),
        ("+x@example.com", [("exact", "+x@example.com"), ("domain", "@example.com")]),
        ("..@gmail.com", [("exact", "..@gmail.com"), ("domain", "@gmail.com")]),
        ("STRASSE@example.com", [("exact", "strasse@example.com"), ("domain", "@example.com")]),
        ("Straße@example.com", [("exact", "strasse@example.com"), ("domain", "@example.com")]),
        ("a@[192.0.2.1]", [("exact", "a@[192.0.2.1]"), ("domain", "@[192.0.2.1]")]),
        ("a@localhost", [("exact", "a@localhost"), ("domain", "@localhost")]),
        ("@mail.example.com", [("domain", "@mail.example.com"), ("domain", "@example.com")]),
    ],
)  # fmt: skip
def test_the_forms_of_an_address_from_narrow_to_wide(text: str, expected: list[tuple[str, str]]) -> None:
    assert list(forms(parse(text))) == expected


def test_parents_are_asked_for_but_never_a_top_level_domain() -> None:
    domain_forms = [form for kind, form in forms(parse("ann@a.b.example.com")) if kind == "domain"]
    assert domain_forms == ["@a.b.example.com", "@b.example.com", "@example.com"]


@given(spellings, spellings)
def test_sameness_is_symmetric(one: Address, other: Address) -> None:
    assert same_person_as(one, other) == same_person_as(other, one)


@given(spellings, spellings, spellings)
def test_sameness_is_transitive(one: Address, two: Address, three: Address) -> None:
    if same_person_as(one, two) and same_person_as(two, three):
        assert same_person_as(one, three)


@given(spellings, st.sampled_from(SETTINGS))
def test_an_opt_out_stops_at_least_the_very_address_whatever_the_setting(one: Address, same: tuple[str, ...]) -> None:
    assert same_person_as(one, one, same)


@given(st.text("ab.", min_size=1, max_size=5), domains, st.sampled_from(SETTINGS), st.text("ab+", max_size=3))
def test_a_bare_address_covers_its_tagged_forms_whatever_the_setting(
    local: str, domain: str, same: tuple[str, ...], tag: str
) -> None:
    assert same_person_as(Address(local, domain), Address(f"{local}+{tag}", domain), same)


@given(spellings, spellings, st.sampled_from(SETTINGS))
def test_a_setting_only_ever_narrows(one: Address, other: Address, same: tuple[str, ...]) -> None:
    if same_person_as(one, other, same):
        assert same_person_as(one, other)


@given(spellings)
def test_case_makes_nobody_another_person(one: Address) -> None:
    for local in (one.local.upper(), one.local.lower(), one.local.title()):
        assert person(Address(local, one.domain), ()) == person(one, ())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ann@gmail.com", "a.n.n+offers@googlemail.com", True),
        ("ann@example.com", "a.nn@example.com", False),
        ("ann@me.com", "ann@icloud.com", True),
        ("a.nn@icloud.com", "ann@icloud.com", False),
        ("ann+x@example.com", "ann+y@example.com", True),
        ("ann-x@example.com", "ann@example.com", False),
        ("Ä@example.com", "a\u0308@example.com", True),
        ("ſ@example.com", "S@example.com", True),
        ('"ann"@example.com', "ann@example.com", True),
        ("ann@example.com", "ann@mail.example.com", False),
    ],
)
def test_who_is_whom(one: str, other: str, same: bool) -> None:
    assert same_person_as(parse(one), parse(other)) is same
    assert same_person_as(parse(other), parse(one)) is same


def test_a_domain_is_written_as_itself() -> None:
    assert person(parse("@googlemail.com"), ("tag", "alias")) == "@googlemail.com"


def test_the_providers_with_aliases_are_public_ones() -> None:
    assert {"gmail.com", "googlemail.com", "hotmail.com", "web.de"} <= PUBLIC_PROVIDERS
    assert all(a_label(p) == p for p in PUBLIC_PROVIDERS)


# ------------------------------------------------------------------ keys


def test_an_address_key_is_the_keyed_digest_that_the_design_names() -> None:
    """A fixed value: if this changes, every list that was ever written is lost."""
    assert KEY.address_key("ann@example.com").hex() == "25429da17fedf36d5198bbd3a6498f31"
    assert KEY.who(parse("ann@example.com")).digest == "17e1e21bd449"


def test_who_is_known_by_the_key_alone_is_the_same_in_the_log() -> None:
    ann = parse("a.nn+x@gmail.com")
    assert (
        KEY.who_has(KEY.address_key("ann@gmail.com")).digest == KEY.who(ann).digest == KEY.who("ann@gmail.com").digest
    )


def test_another_site_gives_another_key() -> None:
    assert KEY.address_key("ann@example.com") != SiteKey((bytes(32),)).address_key("ann@example.com")


def test_after_a_rotation_the_new_key_writes_and_both_are_asked_for() -> None:
    old, new = bytes(32), bytes(range(32))
    rotated = SiteKey((new, old))
    form = "ann@example.com"
    assert rotated.address_key(form) == SiteKey((new,)).address_key(form)
    assert rotated.address_keys(form) == [SiteKey((k,)).address_key(form) for k in (new, old)]
    asked = [key for key, _ in keys_of(rotated, parse(form))]
    assert set(asked) >= {key for key, _ in keys_of(SiteKey((old,)), parse(form))}
    assert [kind for _, kind in keys_of(rotated, parse(form))] == ["exact", "exact", "domain", "domain"]


def test_what_is_derived_stays_when_a_key_is_added() -> None:
    """The audit chain, the check value and the digests in the logs must not change on that day."""
    old, new = bytes(32), bytes(range(32))
    before, after = SiteKey((old,)), SiteKey((new, old))
    assert before.derive(b"check") == after.derive(b"check")
    assert before.who("ann@example.com") == after.who("ann@example.com")
    assert after.derive(b"check", number=2) == SiteKey((new,)).derive(b"check")
    assert before.derive(b"check") != before.derive(b"audit row")


@pytest.mark.parametrize("keys", [(), (b"short",), (bytes(32), b"short"), (bytes(33),)])
def test_a_site_key_is_32_octets(keys: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="32 octets"):
        SiteKey(keys)


def test_a_key_does_not_show_itself() -> None:
    assert bytes(range(32)).hex() not in repr(KEY)
    assert repr(KEY) == "SiteKey(1 keys)"


def test_the_same_person_has_one_digest_in_the_logs_and_never_the_address() -> None:
    one, other = KEY.who(parse("A.nn+x@gmail.com")), KEY.who(parse("ann@googlemail.com"))
    assert one.digest == other.digest
    assert one.plain == "A.nn+x@gmail.com"
    assert "gmail" not in repr(one)
    assert KEY.who("not an address\udc80").digest != one.digest


@pytest.mark.parametrize("marks", ["\u0345\u0334", "\u0345" * 2 + "\u0334" * 2])
def test_a_long_row_of_accents_is_no_address_and_keeps_nobody_waiting(marks: str) -> None:
    began = time.monotonic()
    with pytest.raises(NotAnAddress, match="too long"):
        parse(f"a{marks * 50_000}@x.example")
    assert time.monotonic() - began < 0.5


def test_what_is_short_once_it_is_composed_is_an_address() -> None:
    assert parse("\u03b1\u0314\u0342\u0345" * 40 + "@x.example").local == "\u1f87" * 40
