"""What real clients do when a recipient is refused, left out, or cannot be told about: docs/deploy.md repeats the table."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from tests.interop.clients import CLIENTS, Job, Line, Said, missing
from tests.interop.documents import DEPLOY
from tests.interop.house import ANN, BOB, CARLA, DORA, MESSAGE, OPTED_OUT, below_our_received, recipients
from tests.scenarios.process import Daemon
from tests.servers import Sink


@dataclass(frozen=True)
class Seen:
    """What one client was seen to do; numbers are its exit codes (1 for an exception, a promise that is rejected)."""

    refused: int  # its only recipient was refused
    goes_on: bool  # one of three was refused: do the other two get the message?
    partly: int  # and how does it end then?
    later: int  # 451
    tells: bool = True  # in strip mode: does it show the reply that counts who was left out?


SEEN = {
    #                                    refused  goes_on  partly  later
    "swaks": Seen(24, True, 0, 24),
    "curl": Seen(55, False, 55, 55),
    "curl --mail-rcpt-allowfails": Seen(55, True, 0, 55),
    "msmtp": Seen(65, False, 65, 69, tells=False),
    "smtplib": Seen(1, True, 0, 1, tells=False),
    "nodemailer": Seen(1, True, 0, 1),
}


@pytest.fixture(params=SEEN)
def client(request: pytest.FixtureRequest) -> str:
    """One after the other; skipped where it is not installed."""
    name: str = request.param
    if reason := missing(name):
        pytest.skip(reason)
    return name


def send(client: str, daemon: Daemon, *to: str, message: bytes = MESSAGE) -> Said:
    return CLIENTS[client](Line(daemon.relay_port), Job(to, message))


def test_whoever_may_be_mailed_gets_every_octet(client: str, refusing: Daemon, sink: Sink) -> None:
    said = send(client, refusing, ANN)
    assert said.code == 0, said
    assert [recipients(m) for m in sink.messages] == [{ANN}]
    assert below_our_received(sink.messages[0].data) == MESSAGE
    assert sink.messages[0].data.startswith(b"Received: from ")


def test_whoever_opted_out_is_refused_and_the_client_says_why(client: str, refusing: Daemon, sink: Sink) -> None:
    said = send(client, refusing, BOB)
    assert said.code == SEEN[client].refused, said
    assert "550" in said.text
    assert OPTED_OUT.search(said.text), said
    assert sink.transactions == []


def test_one_of_three_is_refused(client: str, refusing: Daemon, sink: Sink) -> None:
    said = send(client, refusing, ANN, BOB, CARLA)
    assert said.code == SEEN[client].partly, said
    assert OPTED_OUT.search(said.text), said
    assert [recipients(m) for m in sink.messages] == ([{ANN, CARLA}] if SEEN[client].goes_on else [])
    assert sink.half_messages == 0


LETTER = b"List-Id: <newsletter.quillpdf.example>\r\n" + MESSAGE


def test_the_list_is_known_only_from_the_message(client: str, refusing: Daemon, sink: Sink) -> None:
    """RCPT is over by then: whoever left that list is left out even in refuse mode, and no client gives the rest up."""
    said = send(client, refusing, ANN, DORA, message=LETTER)
    assert said.code == 0, said
    assert [recipients(m) for m in sink.messages] == [{ANN}]
    assert below_our_received(sink.messages[0].data) == LETTER
    assert ("(1 of 2 left out: opted out of newsletter)" in said.text) is SEEN[client].tells


def test_the_list_is_known_only_from_the_message_and_nobody_is_left(client: str, refusing: Daemon, sink: Sink) -> None:
    said = send(client, refusing, DORA, message=LETTER)
    assert said.code != 0
    assert "<dora@example.net> has opted out of newsletter" in said.text
    assert sink.transactions == []
    assert send(client, refusing, DORA).code == 0  # of another list she gets mail


def test_strip_mode_delivers_to_the_others_whatever_the_client(client: str, stripping: Daemon, sink: Sink) -> None:
    said = send(client, stripping, ANN, BOB, CARLA)
    assert said.code == 0, said
    assert [recipients(m) for m in sink.messages] == [{ANN, CARLA}]
    assert below_our_received(sink.messages[0].data) == MESSAGE
    assert ("(1 of 3 recipients left out: opted out)" in said.text) is SEEN[client].tells


def test_strip_mode_with_nobody_left(client: str, stripping: Daemon, sink: Sink) -> None:
    said = send(client, stripping, BOB)
    assert said.code == 0, said
    assert ("nothing sent: all 1 recipients have opted out" in said.text) is SEEN[client].tells
    assert sink.transactions == []


def test_upstream_is_down(client: str, refusing: Daemon, sink: Sink) -> None:
    """The client ends with an error and has no queue: trying again is up to whoever called it."""
    sink.stop()
    said = send(client, refusing, ANN)
    assert said.code == SEEN[client].later, said
    assert "451" in said.text
    assert "4.4.1 the next mail server cannot be reached" in said.text
    sink.start()
    assert send(client, refusing, ANN).code == 0
    assert len(sink.messages) == 1


def test_the_document_tells_what_was_seen() -> None:
    rows = re.findall(r"^\| `([^`|]+)` \| (\d+) \| ([a-z ]+), (\d+) \| (\d+) \|$", DEPLOY, re.MULTILINE)
    said = {name: (int(r), goes == "get it", int(p), int(later)) for name, r, goes, p, later in rows}
    assert said == {name: (s.refused, s.goes_on, s.partly, s.later) for name, s in SEEN.items()}
