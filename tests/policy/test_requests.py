"""Reading a request, and whom its recipient means."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.postfix import NotARequest, Request, read
from storage.address import Address, NotAnAddress, parse
from storage.routes import meant as addresses
from tests.policy.desk import ANN, GOOD, OPTED_OUT, SPELLINGS, Desk, action, rcpt, serving, written

# ------------------------------------------------------------------ reading a request

_names = st.text(st.characters(codec="utf-8", exclude_characters="=\n"), min_size=1, max_size=20)
_values = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=60)


@given(st.dictionaries(_names, _values, max_size=20), _values, _values, _values)
def test_what_postfix_says_is_read_whatever_else_it_says(
    others: dict[str, str], recipient: str, user: str, context: str
) -> None:
    ours = {"protocol_state": "RCPT", "recipient": recipient, "sasl_username": user, "policy_context": context}
    lines = {**others, **ours, "request": "smtpd_access_policy"}
    block = "\n".join(f"{name}={value}" for name, value in sorted(lines.items())).encode()
    assert read(block) == Request("RCPT", recipient, user, context)


@given(st.binary(max_size=200), st.booleans())
def test_any_octets_are_a_request_or_not(octets: bytes, begun: bool) -> None:
    with contextlib.suppress(NotARequest):
        read((b"request=smtpd_access_policy\n" if begun else b"") + octets.replace(b"\n\n", b"\n"))


BAD = {
    "no attributes": b"\n\n",
    "a line without =": b"request=smtpd_access_policy\nrecipient\n\n",
    "another request": b"request=smtpd_something\n\n",
    "no request": b"protocol_state=RCPT\nrecipient=bob@customer.example\n\n",
    "smtp": b"EHLO x\r\nMAIL FROM:<a@b.example>\r\n\n\n",
    "a long line": GOOD[:-1] + b"x=" + b"y" * 4095 + b"\n\n",
    "many attributes": GOOD[:-1] + b"x=y\n" * 90 + b"\n",
    "a large request": GOOD[:-1] + (b"x=" + b"y" * 4000 + b"\n") * 17 + b"\n",
    "a line without an end": b"x=" + b"y" * 200_000,
    "the largest of all": (b"x=y\n" * 50_000) + b"\n",
}


@pytest.mark.parametrize("octets", BAD.values(), ids=BAD)
async def test_what_does_not_keep_to_the_protocol_is_hung_up_on(desk: Desk, octets: bytes, said: list[Any]) -> None:
    async with serving(desk.context()) as service:
        waiting = asyncio.create_task(service.ask(GOOD, b"request=smtpd_acc"))  # somebody else, half way
        answers = await service.ask(GOOD + octets + GOOD)
        assert answers in (b"action=DUNNO\n\n", b"")  # a reset may take the first one with it
        assert [event for event, _ in said] == ["policy_hung_up"]
        assert await waiting == b"action=DUNNO\n\n"
        assert await service.ask(GOOD) == b"action=DUNNO\n\n"


async def test_the_largest_that_is_allowed_is_answered(desk: Desk) -> None:
    line = b"x=" + b"y" * 4094 + b"\n"
    async with serving(desk.context()) as service:
        assert await service.ask(GOOD[:-1] + line * 15 + b"\n", GOOD[:-1] + b"x=y\n" * 89 + b"\n") == (
            b"action=DUNNO\n\naction=DUNNO\n\n"
        )


@pytest.mark.parametrize("step", [1, 7, 100, 1000, 100_000])
async def test_requests_come_in_any_pieces_and_are_answered_in_turn(desk: Desk, step: int) -> None:
    ref = desk.books.suppress(ANN).evidence
    octets = (written(rcpt()) + GOOD) * 60  # more than are answered in one go
    async with serving(desk.context()) as service:
        octets = octets[: len(octets) // (20 if step == 1 else 1) // 2 * 2]
        answers = await service.ask(*(octets[i : i + step] for i in range(0, len(octets), step)))
    whole = octets.count(b"\n\n")
    expected = [f"action={OPTED_OUT}{ref})\n\n".encode(), b"action=DUNNO\n\n"] * 60
    assert whole >= 5
    assert answers == b"".join(expected[:whole])


# ------------------------------------------------------------------ whom a recipient means

_local = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).map(
    lambda t: parse('"' + re.sub(r'(["\\])', r"\\\1", t) + '"@customer.example').local
)


@given(_local, st.sampled_from(["customer.example", "xn--bcher-kva.example", "[192.0.2.1]"]))
def test_the_unquoted_form_is_read_as_the_address_it_stands_for(local: str, domain: str) -> None:
    assert addresses(f"{local}@{domain}")[0] == Address(local, domain)


@given(st.text(st.sampled_from('ab@%!."\\ \x00\udcff'), max_size=60))
def test_any_text_means_somebody_or_cannot_be_read(text: str) -> None:
    with contextlib.suppress(NotAnAddress):
        assert addresses(text)


@pytest.mark.parametrize("asked", sorted(set(SPELLINGS.values())))
def test_another_spelling_of_hers_is_refused(desk: Desk, asked: str) -> None:
    ref = desk.books.suppress(ANN).evidence
    assert action(desk.context(), rcpt(asked)) == f"550 5.7.1 <{asked}> has opted out (ref {ref})"


@pytest.mark.parametrize("recipient", ["bob!@customer.example", "50%off@customer.example", "a%b!c@customer.example"])
def test_a_sign_in_a_local_part_is_not_always_a_route(desk: Desk, recipient: str) -> None:
    desk.books.suppress(ANN)
    assert action(desk.context(), rcpt(recipient)) == "DUNNO"
    ref = desk.books.suppress(recipient).evidence
    assert action(desk.context(), rcpt(recipient)) == f"550 5.7.1 <{recipient}> has opted out (ref {ref})"


@pytest.mark.parametrize(
    "recipient",
    ["", "ann", "@customer.example", "ann@", "ann@customer..example", "an\x00n@customer.example", "@", "ann%", "!ann",
     "j\udcfcrgen@customer.example", "bob%customer.example@customer..example",
     "x" * 300 + "@customer.example", "%".join("abcdefghijklmnopqrstuvwxyz")],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(desk: Desk, recipient: str, said: list[Any]) -> None:
    assert action(desk.context(), rcpt(recipient)).startswith("550 5.1.3 ")
    assert [event for event, _ in said] == ["policy_unreadable"]
    assert desk.counted == [("refused", None, "", 0, 1)]


@pytest.mark.parametrize("state", ["RCPT", "DATA", "END-OF-MESSAGE"])
def test_the_postmaster_needs_no_domain(desk: Desk, state: str) -> None:
    assert action(desk.context(), rcpt("Postmaster", state=state)) == "DUNNO"


def test_an_address_that_is_not_ascii_is_asked_about_and_not_named(desk: Desk) -> None:
    ref = desk.books.suppress("jürgen@bücher.example").evidence
    for spelling in ("jürgen@bücher.example", "JÜRGEN@xn--bcher-kva.example", "ju\u0308rgen@BÜCHER。example"):
        assert action(desk.context(), rcpt(spelling)) == f"550 5.7.1 has opted out (ref {ref})"
