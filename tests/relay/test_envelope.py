"""Properties of envelope.py: whatever a client sends, the answer is a reading or a Syntax, and soon."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daemon.relay import envelope
from daemon.relay.envelope import Syntax

ALL = {"SIZE": "1000000", "8BITMIME": "", "SMTPUTF8": "", "DSN": ""}
OFFERS = st.sets(st.sampled_from(sorted(ALL))).map(lambda have: {k: ALL[k] for k in have})

# Text as the protocol hands it over: any octets, decoded as UTF-8 with surrogates for what is none.
OCTETS = st.binary(max_size=80).map(lambda octets: octets.decode("utf-8", "surrogateescape"))
ATOM = st.text("abcXYZ019.+_-=&'*!#$%/?^`{|}~", min_size=1, max_size=64)
QUOTED = st.lists(st.sampled_from(["a", "B", " ", "@", "<", ">", ",", r"\"", r"\\", r"\a", "é"]), min_size=1).map(
    lambda parts: f'"{"".join(parts)}"'
)
UNICODE = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
DOMAIN = st.sampled_from(
    ["example.com", "EXAMPLE.Com", "example.com.", "[192.0.2.1]", "[IPv6:2001:db8::1]", "bücher.example"]
)
PATH = st.builds("{}@{}".format, ATOM | QUOTED | UNICODE, DOMAIN)
PARAMETERS = [
    "SIZE=5",
    "size=x",
    "BODY=8bitmime",
    "SMTPUTF8",
    "SMTPUTF8=1",
    "RET=FULL",
    "ENVID=a+2Bb",
    "NOTIFY=NEVER",
    "X",
    "X=\x00",
]
PARAMETERS += [
    "NOTIFY=SUCCESS,DELAY",
    "ORCPT=rfc822;Ann@x",
    "ORCPT=utf-8;jörg@x",
    "ſIZE=5",
    "ENVıD=x",
    "NOTIFY=ſUCCESS",
    "BODY=8BıTMıME",
]
LINE = st.builds(
    "{}{}{}<{}>{}".format,
    st.sampled_from(["FROM:", "TO:", "from:", "TO", ""]),
    st.sampled_from(["", " ", "\t", "\x1c", "\u2028"]),
    st.sampled_from(["", "<", '"']),
    PATH | OCTETS,
    st.lists(st.sampled_from(PARAMETERS) | OCTETS, max_size=3).map(lambda words: "".join(f" {w}" for w in words)),
)


def read(argument: str, offered: dict[str, str], smtputf8: bool) -> list[bytes]:
    """The commands that would go upstream for an argument, read as MAIL and as RCPT."""
    commands = []
    try:
        commands.append(envelope.mail(argument, offered, 10_000).command(0, offered))
    except Syntax as problem:
        assert_is_a_reply(str(problem))
    try:
        commands.append(envelope.rcpt(argument, offered, smtputf8).command)
    except Syntax as problem:
        assert_is_a_reply(str(problem))
    return commands


def assert_is_a_reply(reply: str) -> None:
    assert reply[0] in "45"
    assert reply[3] == " "
    assert reply[4] == reply[0]
    assert reply.isascii()
    assert reply.isprintable()
    assert len(reply) < 500


@given(OCTETS | LINE, OFFERS, st.booleans())
@example("FROM:<a@b.c> SIZE=" + "9" * 5000, ALL, False)
@example("FROM:<a@b.c> SIZE=²", ALL, False)
@example('TO:<"\r\nDATA\r\n"@example.com>', ALL, True)
@example("TO:<a\x85b@example.com>", ALL, True)
@example("TO:<@a,@b:>", ALL, True)
@example("TO:<a@xn--\udc80>", ALL, True)
def test_any_argument_is_read_or_refused_in_one_line(argument: str, offered: dict[str, str], smtputf8: bool) -> None:
    read(argument, offered, smtputf8)


@given(OCTETS | LINE, OFFERS, st.booleans())
@example('TO:<"\r\nDATA\r\n"@example.com>', ALL, True)
@example("TO:<ann@example.com> ORCPT=rfc822;a\rDATA", ALL, True)
@example("TO:<ann@example.com> ORCPT=rfc822;a\x85b", ALL, True)
def test_what_goes_upstream_is_one_line_without_control_characters(
    argument: str, offered: dict[str, str], smtputf8: bool
) -> None:
    for command in read(argument, offered, smtputf8):
        assert command.endswith(b"\r\n")
        assert all(c >= 0x20 and c != 0x7F for c in command[:-2])
        command.decode()  # no octets that were no UTF-8


@given(OCTETS | LINE, OFFERS)
@example("FROM:<a@b.c> ſIZE=5", ALL)
@example("FROM:<a@b.c> BODY=8BıTMıME", ALL)
@example("TO:<a@b.c> NOTIFY=ſUCCESS", ALL)
@example("TO:<a@b.c> NOTıFY=NEVER", ALL)
@example("TO:<a@b.c> ORCPT=utf-8;jörg@x", ALL)
def test_without_smtputf8_only_ascii_goes_upstream(argument: str, offered: dict[str, str]) -> None:
    for command in read(argument, offered, False):
        assert command.isascii() or b" SMTPUTF8\r\n" in command


@given(PATH)
def test_the_path_passes_octet_for_octet(path: str) -> None:
    sent = envelope.rcpt(f"TO:<{path}> NOTIFY=never ORCPT=rfc822;A+2B", ALL, True).command
    assert sent == f"RCPT TO:<{path}> NOTIFY=never ORCPT=rfc822;A+2B\r\n".encode()
    sent = envelope.mail(f"FROM:<{path}> SMTPUTF8 RET=hdrs", ALL, 1).command(0, ALL)
    assert sent.startswith(f"MAIL FROM:<{path}> RET=hdrs".encode())


@given(PATH, st.booleans())
def test_what_goes_upstream_would_be_read_the_same(path: str, route: bool) -> None:
    first = envelope.rcpt(f"TO:{'<@a.example,@b.example:' if route else '<'}{path}>", ALL, True)
    again = envelope.rcpt(first.command.decode()[len("RCPT ") : -2], ALL, True)
    assert again == first


@given(PATH | OCTETS | st.builds("{}@{}".format, ATOM, st.text("aZ9-_.[", min_size=1, max_size=70)))
@example("a@" + ".".join(["x" * 63] * 4))
@example("a" * 65 + "@example.com")
def test_the_quick_way_reads_as_the_long_one(path: str) -> None:
    """A space before the path takes the long one."""

    def either(argument: str) -> object:
        try:
            return envelope.rcpt(argument, ALL, True)
        except Syntax as problem:
            return str(problem)

    assert either(f"TO:<{path}>") == either(f"TO: <{path}>")


@given(st.sets(st.sampled_from(["SIZE=5", "BODY=8BITMIME", "SMTPUTF8", "RET=FULL", "ENVID=x"])), OFFERS)
def test_nothing_is_asked_of_upstream_that_it_does_not_have(words: set[str], offered: dict[str, str]) -> None:
    try:
        mail = envelope.mail(f"FROM:<a@b.example> {' '.join(words)}", offered, 10)
    except Syntax:
        return
    asked = {
        {"BODY": "8BITMIME", "RET": "DSN", "ENVID": "DSN"}.get(w.partition("=")[0], w.partition("=")[0]) for w in words
    }
    assert asked <= offered.keys() | {"SIZE"}
    assert mail.needs <= offered.keys()


@pytest.mark.parametrize(
    "argument",
    [
        "<" * 4096,
        "TO:" + " " * 4096,
        "TO:" + " \t" * 2048 + "<",
        "TO:<" + '"' * 4096,
        "TO:<" + '""' * 2048 + ">",
        "TO:<" + '"\\' * 2048,
        'TO:<"' + "\\\\" * 2048,
        'TO:<"' + "\\" * 4095,
        'TO:<"' + 'a"b"' * 1024 + ">",
        "TO:<" + "a" * 4096,
        "TO:" + "a" * 4096 + '"',
        "TO:<" + "@a," * 1365 + ">",
        "TO:<" + "@a:" * 1365 + "a@b.example>",
        "TO:<a@" + "b." * 2048 + ">",
        "TO:<a@" + "-" * 4096 + ">",
        "TO:<a@" + "ü." * 1365 + "de>",
        "TO:<" + "ü" * 2048 + "@ü.de>",
        "TO:<a@" + "ü" * 2048 + ">",
        "TO:<a@b.example>" + " " * 4096 + "X",
        "TO:<a@b.example> " + "NOTIFY=NEVER " * 300,
        "TO:<a@b.example> NOTIFY=" + "SUCCESS," * 500,
        "FROM:<a@b.example> ENVID=" + "+2B" * 1300 + "+",
        "FROM:<a@b.example> SIZE=" + "9" * 4000,
        "FROM:<a@b.example> " + "SIZE=1 " * 580,
    ],
)
def test_the_longest_line_costs_little(argument: str) -> None:
    """Linear, that is: a quadratic reading of 4096 octets takes a second."""
    for _ in range(2):  # the first fills caches, e.g. of idna
        began = time.thread_time()
        read(argument, ALL, True)
        read(argument.replace("TO:", "FROM:"), ALL, True)
        took = time.thread_time() - began
    assert took < 0.02
