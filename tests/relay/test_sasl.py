"""The AUTH exchange, line by line; what real clients send is asked of smtplib."""

from __future__ import annotations

import base64
import smtplib
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daemon.relay.sasl import INVALID, MAX_LINE, Challenge, Exchange, Failed, Proof, Step

CANCELLED = "501 5.5.2 authentication cancelled"
NOT_BASE64 = "501 5.5.2 cannot decode the base64 of the response"
MALFORMED = "501 5.5.2 malformed response for this mechanism"
SYNTAX = "501 5.5.4 syntax: AUTH mechanism [initial-response]"
UNKNOWN = "504 5.5.4 unknown authentication mechanism"
TOO_LONG = "500 5.5.6 authentication exchange line is too long"

WITHOUT_NUL = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
NAME = WITHOUT_NUL.filter(bool)


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def talk(argument: str, *lines: bytes) -> Step:
    """The last step of an exchange; all before it must have been challenges."""
    exchange = Exchange()
    step = exchange.begin(argument)
    for line in lines:
        assert isinstance(step, Challenge), step
        step = exchange.more(line)
    return step


# ------------------------------------------------------------------ the good ways


@pytest.mark.parametrize("initial", [True, False])
@pytest.mark.parametrize("mechanism", ["PLAIN", "plain", "Login"])
@given(username=NAME, password=WITHOUT_NUL)
@example(username="crm", password="")
@example(username="jörg@bücher.example", password="päss wörd = *")
def test_a_claim_comes_out_as_it_was_made(mechanism: str, initial: bool, username: str, password: str) -> None:
    words = [b64(f"\0{username}\0{password}")] if mechanism.upper() == "PLAIN" else [b64(username), b64(password)]
    argument = f"{mechanism} {words.pop(0)}" if initial else mechanism
    assert talk(argument, *(word.encode() + b"\r\n" for word in words)) == Proof(username, password)


def test_the_challenges_are_those_that_clients_wait_for() -> None:
    assert talk("PLAIN") == Challenge("")
    assert talk("LOGIN") == Challenge(b64("Username:"))
    assert talk("LOGIN", b64("crm").encode()) == Challenge(b64("Password:"))
    assert talk(f"LOGIN {b64('crm')}") == Challenge(b64("Password:"))


def test_spaces_more_than_needed_do_no_harm() -> None:
    assert talk(f" PLAIN   {b64(chr(0) + 'crm' + chr(0) + 'x')} ") == Proof("crm", "x")


class Client(smtplib.SMTP):
    """smtplib with an Exchange in the place of a server."""

    def __init__(self, username: str, password: str):
        super().__init__(local_hostname="client.example")
        self.user, self.password = username, password
        self.exchange = Exchange()
        self.steps: list[Step] = []

    def docmd(self, cmd: str, args: str = "") -> tuple[int, bytes]:
        """What would go over the wire."""
        step = self.exchange.begin(args) if cmd == "AUTH" else self.exchange.more(cmd.encode())
        self.steps.append(step)
        match step:
            case Challenge(text):
                return 334, text.encode()
            case Proof():
                return 235, b"2.7.0 ok"
            case Failed(reply):
                return int(reply[:3]), reply[4:].encode()


ASCII = st.text(st.characters(min_codepoint=1, max_codepoint=126), max_size=200)  # smtplib can send no more


@pytest.mark.parametrize("initial", [True, False])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@given(username=ASCII.filter(bool), password=ASCII)
def test_what_smtplib_sends_is_understood(mechanism: str, initial: bool, username: str, password: str) -> None:
    client = Client(username, password)
    how = client.auth_plain if mechanism == "PLAIN" else client.auth_login
    client.auth(mechanism, how, initial_response_ok=initial)
    assert client.steps[-1] == Proof(username, password)
    assert len(client.steps) == (1 if mechanism == "PLAIN" else 2) + (not initial)


# ------------------------------------------------------------------ on whose behalf (RFC 4616)


def test_to_act_for_oneself_is_allowed() -> None:
    assert talk(f"PLAIN {b64('crm-login' + chr(0) + 'crm-login' + chr(0) + 'x')}") == Proof("crm-login", "x")


@given(authzid=NAME, username=NAME, password=WITHOUT_NUL)
@example(authzid="CRM", username="crm", password="x")
@example(authzid="crm ", username="crm", password="x")
def test_to_act_for_somebody_else_is_answered_like_a_wrong_password(authzid: str, username: str, password: str) -> None:
    step = talk(f"PLAIN {b64(chr(0).join((authzid, username, password)))}")
    assert step == (Proof(username, password) if authzid == username else Failed(INVALID))


# ------------------------------------------------------------------ the bad ways


@pytest.mark.parametrize(
    ("argument", "reply"),
    [
        ("", SYNTAX),
        (" ", SYNTAX),
        ("XOAUTH2", UNKNOWN),
        ("CRAM-MD5", UNKNOWN),
        ("PLAINER", UNKNOWN),
        ("PLAIN\t", UNKNOWN),
        ("LOGıN", UNKNOWN),  # its upper case is LOGIN
        ("ſ", UNKNOWN),
        ("PLAIN *", NOT_BASE64),
        ("PLAIN AGNybQB4 AGNybQB4", NOT_BASE64),
        ("PLAIN ===", NOT_BASE64),
        ("PLAIN é", NOT_BASE64),
        ("PLAIN \udcff", NOT_BASE64),
        ("PLAIN =", MALFORMED),
        ("LOGIN =", MALFORMED),
        (f"PLAIN {b64('crm')}", MALFORMED),
        (f"PLAIN {b64('crm' + chr(0) + 'x')}", MALFORMED),
        (f"PLAIN {b64(chr(0) + 'crm' + chr(0) + 'x' + chr(0))}", MALFORMED),
        (f"PLAIN {b64(chr(0) + chr(0) + 'x')}", MALFORMED),
        (f"PLAIN {b64('crm' + chr(0) + chr(0) + 'x')}", MALFORMED),
        (f"PLAIN {b64(bytes((0, 0xFF, 0, 0x41)))}", MALFORMED),
        (f"LOGIN {b64('cr' + chr(0) + 'm')}", MALFORMED),
        (f"LOGIN {b64(bytes((0xC0, 0x80)))}", MALFORMED),  # an overlong NUL
        (f"PLAIN {'A' * MAX_LINE}", TOO_LONG),
    ],
)
def test_a_beginning_that_cannot_be_taken(argument: str, reply: str) -> None:
    assert talk(argument) == Failed(reply)


@pytest.mark.parametrize(
    ("lines", "reply"),
    [
        ([b"*"], CANCELLED),
        ([b64("crm").encode(), b"*"], CANCELLED),
        ([b"Y3J"], NOT_BASE64),
        ([b"Y3Jt Y3Jt"], NOT_BASE64),
        ([b"Y3Jt\r\nY3Jt"], NOT_BASE64),
        ([b"Y3Jt-_"], NOT_BASE64),
        ([b"\xff"], NOT_BASE64),
        ([b"**"], NOT_BASE64),
        ([b""], MALFORMED),
        ([b"Y3Jt", b64("x\0y").encode()], MALFORMED),
        ([b"Y3Jt", b"/w=="], MALFORMED),
        ([b"Y3Jt", b"="], NOT_BASE64),  # means empty only behind AUTH itself
        ([b"A" * (MAX_LINE + 1)], TOO_LONG),
        ([b"Y3Jt", b"A" * (MAX_LINE + 1) + b"\r\n"], TOO_LONG),
    ],
)
def test_a_line_that_cannot_be_taken(lines: Sequence[bytes], reply: str) -> None:
    assert talk("LOGIN", *lines) == Failed(reply)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_line_end_may_be_there_or_not(end: bytes) -> None:
    assert talk("LOGIN", b"Y3Jt" + end, b"eA==" + end) == Proof("crm", "x")
    assert talk("LOGIN", b"*" + end) == Failed(CANCELLED)


def test_the_longest_line_is_taken() -> None:
    password = "x" * (MAX_LINE // 4 * 3)
    line = b64(password).encode() + b"\r\n"
    assert len(line) == MAX_LINE + 2
    assert talk("LOGIN", b"Y3Jt", line) == Proof("crm", password)


def test_an_exchange_that_is_over_keeps_nothing_of_it() -> None:
    exchange = Exchange()
    exchange.begin(f"LOGIN {b64('the-name')}")
    exchange.more(b"*")
    with pytest.raises(AssertionError, match="no exchange"):
        exchange.more(b64("the-password").encode())
    assert exchange.begin(f"LOGIN {b64('another')}") == Challenge(b64("Password:"))
    assert exchange.more(b64("x").encode()) == Proof("another", "x")


def test_nobody_reads_a_password_in_a_log() -> None:
    step = talk("LOGIN", b64("ann@example.com").encode(), b64("hunter2").encode())
    assert step == Proof("ann@example.com", "hunter2")
    assert repr(step) == "Proof()"


# ------------------------------------------------------------------ whatever is sent

LINES = st.lists(
    st.one_of(
        st.binary(max_size=60),
        st.binary(max_size=60).map(base64.b64encode),
        WITHOUT_NUL.map(lambda text: base64.b64encode(text.encode())),
        st.sampled_from([b"*", b"", b"="]),
    ),
    max_size=3,
)
ARGUMENTS = st.one_of(
    st.text(max_size=40),
    st.builds("{} {}".format, st.sampled_from(["PLAIN", "LOGIN"]), st.binary(max_size=60).map(b64)),
    st.sampled_from(["PLAIN", "LOGIN", "PLAIN =", "LOGIN ="]),
)


@given(ARGUMENTS, LINES)
def test_whatever_is_sent_is_understood_or_refused(argument: str, lines: list[bytes]) -> None:
    exchange = Exchange()
    step = exchange.begin(argument)
    asked = 1
    for line in lines:
        if not isinstance(step, Challenge):
            break
        step = exchange.more(line)
        asked += 1
    match step:
        case Challenge(text):
            assert asked <= 2  # two lines after AUTH are the most that any mechanism of ours asks for
            base64.b64decode(text, validate=True)
        case Proof(username, password):
            assert username
            assert "\0" not in username + password
        case Failed(reply):
            assert reply in (CANCELLED, NOT_BASE64, MALFORMED, SYNTAX, UNKNOWN, INVALID)
