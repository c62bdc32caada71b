"""Postfix behind optoutd, in front of it, and on both sides, with the configurations that docs/deploy.md prints."""

from __future__ import annotations

import contextlib
import smtplib
import time
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import pytest

from daemon.config import House
from daemon.mail.reading import Bounce
from daemon.mail.triage import read
from tests.interop.documents import filled
from tests.interop.house import ANN, BOB, CARLA, HOUSE, MESSAGE, OPTED_OUT, below_our_received, house, recipients
from tests.interop.mta import Mta, mta
from tests.loopback import HOST, free_port
from tests.scenarios.process import PATIENCE, Daemon
from tests.servers import Sink

pytestmark = [pytest.mark.postfix, pytest.mark.timeout(180)]

LOG = '[log]\nformat = "json"\n'
# As Debian has it: mail for the machine itself is taken, for users that there are.
OURSELVES = "mydestination = localhost, $myhostname\nlocal_recipient_maps = inline:{ postmaster=ok }\n"
SENDER = "bounces@news.quillpdf.example"


def send(port: int, *to: str, sender: str = SENDER) -> dict[str, tuple[int, bytes]]:
    """Send MESSAGE as a tool would; returns the refused recipients. Raises what smtplib raises."""
    with smtplib.SMTP(HOST, port, timeout=PATIENCE) as client:
        return client.sendmail(sender, to, MESSAGE)


def suppress(daemon: Daemon, address: str) -> None:
    daemon.cli("suppress", address, "--reason", "opt-out")


def refusal(daemon: Daemon, address: str) -> str:
    """Send MESSAGE to one person who is refused with 550; returns the text."""
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        send(daemon.relay_port, address)
    code, text = refused.value.recipients[address]
    assert code == 550
    return text.decode()


def bounce(sink: Sink) -> bytes:
    """The one message with a null sender that the sink has got, for SENDER."""
    found = [m for m in sink.messages if m.mail_from.startswith("<>")]
    assert [recipients(m) for m in found] == [{SENDER}]
    return found[0].data


# ------------------------------------------------------------------ behind


@contextlib.contextmanager
def behind(home: Path, sink: Sink, *, settings: bool = True) -> Iterator[tuple[Daemon, Mta]]:
    """docs/deploy.md 1: optoutd, then Postfix, then the sink. `settings`: with the printed main.cf?"""
    door, milter = free_port(), free_port()
    master = filled("behind/master.cf", p10025=door, p8891=milter).replace(f"inet:{HOST}:{milter}", "")  # none here
    config = filled("behind/config.toml", p2525=free_port(), p10025=door)
    config = config.replace("[relay]\n", "[relay]\nstamp = false\n")
    main = OURSELVES + (filled("behind/main.cf") if settings else "")
    daemon = Daemon(home, HOUSE + config + LOG)
    with mta(sink.port, main, master) as server, daemon.running():
        yield daemon, server


def test_behind_it_takes_what_passes(home: Path, sink: Sink) -> None:
    with behind(home, sink) as (daemon, server):
        suppress(daemon, BOB)
        refused = send(daemon.relay_port, ANN, BOB, CARLA)
        sink.wait_for(lambda: len(sink.messages) == 1)
        assert list(refused) == [BOB]
        assert recipients(sink.messages[0]) == {ANN, CARLA}
        assert below_our_received(sink.messages[0].data) == MESSAGE
        assert "postfix/behind-optoutd/smtpd" in server.log
        assert "warning: " not in server.log


def test_recipients_that_postfix_refuses_slow_nobody_down(home: Path, sink: Sink) -> None:
    """It makes a client wait a second a command after ten errors, and turns it out at twenty."""
    with behind(home, sink) as (daemon, server):
        began = time.monotonic()
        for n in range(22):
            assert refusal(daemon, f"nobody{n}@localhost").startswith("5.1.1 ")
        send(daemon.relay_port, ANN)
        assert time.monotonic() - began < 10
        sink.wait_for(lambda: len(sink.messages) == 1)
        assert "too many errors" not in server.log


def test_what_the_queue_behind_has_is_not_asked_about_again(home: Path, sink: Sink) -> None:
    """The limit of the promise, and why the queue behind must be short."""
    with behind(home, sink) as (daemon, server):
        sink.stop()
        send(daemon.relay_port, ANN)
        daemon.until(lambda: "status=deferred" in server.log)
        suppress(daemon, ANN)
        sink.start()
        sink.wait_for(lambda: len(sink.messages) == 1)
        assert recipients(sink.messages[0]) == {ANN}


HIDDEN = [
    "ann%example.com@localhost",
    "example.com!ann@localhost",
    '"ann@example.com"@localhost',
    "ann%example.com@[127.0.0.1]",
]


def test_routing_hidden_in_a_local_part_is_asked_about_as_what_postfix_makes_of_it(home: Path, sink: Sink) -> None:
    """If the first half fails, Postfix has become safer, and the document may say so."""
    with behind(home, sink, settings=False) as (daemon, _):
        for address in HIDDEN:
            send(daemon.relay_port, address)
        sink.wait_for(lambda: len(sink.messages) == len(HIDDEN))
        assert [recipients(m) for m in sink.messages] == [{ANN}] * len(HIDDEN)
        suppress(daemon, ANN)
        assert all("has opted out" in refusal(daemon, address) for address in HIDDEN)


def test_with_these_settings_it_reaches_nobody_at_all(home: Path, sink: Sink) -> None:
    with behind(home, sink) as (daemon, _):
        assert {refusal(daemon, address)[:6] for address in HIDDEN} == {"5.1.1 "}
        send(daemon.relay_port, CARLA)
        sink.wait_for(lambda: len(sink.messages) == 1)
        assert recipients(sink.messages[0]) == {CARLA}


# ------------------------------------------------------------------ in front


@contextlib.contextmanager
def front(
    home: Path, sink: Sink, block: str = "front/main.cf", *, mode: str = "refuse"
) -> Iterator[tuple[Daemon, Mta]]:
    """docs/deploy.md 2: Postfix with a queue, then optoutd, then the sink."""
    daemon = house(home, sink.port, mode=mode)
    with daemon.running(), mta(sink.port, filled(block, p2525=daemon.relay_port)) as server:
        yield daemon, server


def test_in_front_every_octet_arrives(home: Path, sink: Sink) -> None:
    with front(home, sink) as (_, server):
        send(server.port, ANN, CARLA)
        sink.wait_for(lambda: len(sink.messages) == 1)
        assert recipients(sink.messages[0]) == {ANN, CARLA}
        assert sink.messages[0].data.endswith(MESSAGE)
        assert below_our_received(sink.messages[0].data).startswith(b"Received: ")  # Postfix's own


def test_in_front_a_refusal_becomes_a_bounce_and_the_others_get_it(home: Path, sink: Sink) -> None:
    with front(home, sink) as (daemon, server):
        suppress(daemon, BOB)
        send(server.port, ANN, BOB, CARLA)
        sink.wait_for(lambda: len(sink.messages) == 2)
        returned = bounce(sink)
        others = [m for m in sink.messages if not m.mail_from.startswith("<>")]
        assert [recipients(m) for m in others] == [{ANN, CARLA}]
        assert b"Status: 5.7.1" in returned
        assert OPTED_OUT.search(" ".join(returned.decode().split()))
        # Should it come to a mailbox of ours: it is no word about the address, so nothing follows from it.
        reading = read(returned, House(name="Quill PDF", domains=("quillpdf.example",)))
        assert isinstance(reading, Bounce)
        assert (reading.cause, reading.hard) == ("policy", False)


def test_in_front_strip_mode_is_silent(home: Path, sink: Sink) -> None:
    with front(home, sink, mode="strip") as (daemon, server):
        suppress(daemon, BOB)
        send(server.port, BOB)
        daemon.until(lambda: "nothing sent: all 1 recipients have opted out" in server.log)
        assert "status=sent" in server.log
        assert sink.transactions == []


def test_in_front_every_attempt_is_asked_about(home: Path, sink: Sink) -> None:
    """Upstream is down, both mails wait; one of the two opts out; upstream comes back."""
    with front(home, sink) as (daemon, server):
        sink.stop()
        send(server.port, ANN)
        send(server.port, CARLA)
        daemon.until(lambda: server.log.count("451 4.4.1 the next mail server cannot be reached") >= 2)
        daemon.until(lambda: server.queue == 2)
        suppress(daemon, ANN)
        sink.start()
        sink.wait_for(lambda: len(sink.messages) == 2)
        assert b"has opted out" in b" ".join(bounce(sink).split())
        assert {CARLA} in [recipients(m) for m in sink.messages]
        assert {ANN} not in [recipients(m) for m in sink.messages]
        daemon.until(lambda: server.queue == 0)


def test_in_front_only_the_marketing_sender_goes_through(home: Path, sink: Sink) -> None:
    with front(home, sink, "front/marketing-only.cf") as (_, server):
        send(server.port, ANN)
        send(server.port, CARLA, sender="billing@quillpdf.example")
        sink.wait_for(lambda: len(sink.messages) == 2)
        through = {next(iter(recipients(m))): b"(optoutd)" in m.data for m in sink.messages}
        assert through == {ANN: True, CARLA: False}


# ------------------------------------------------------------------ on both sides


@contextlib.contextmanager
def both(home: Path, sink: Sink) -> Iterator[tuple[Daemon, Mta, int]]:
    """One Postfix on both sides; gives also the port where the tool sends."""
    submission, relay, door = free_port(), free_port(), free_port()
    config = filled("behind/config.toml", p2525=relay, p10025=door).replace("[relay]\n", "[relay]\nstamp = false\n")
    master = filled("both/master.cf", p2587=submission, p2525=relay, p10025=door)
    daemon = Daemon(home, HOUSE + config + LOG)
    with mta(sink.port, filled("behind/main.cf"), master) as server, daemon.running():
        yield daemon, server, submission


def test_on_both_sides(home: Path, sink: Sink) -> None:
    with both(home, sink) as (daemon, server, submission):
        suppress(daemon, BOB)
        send(submission, ANN, BOB)
        sink.wait_for(lambda: len(sink.messages) == 2)
        assert b"has opted out" in b" ".join(bounce(sink).split())
        assert b"(optoutd)" not in bounce(sink)
        (mail,) = (m for m in sink.messages if not m.mail_from.startswith("<>"))
        assert recipients(mail) == {ANN}
        assert mail.data.count(b"(optoutd)") == 1
        assert mail.data.endswith(MESSAGE)
        assert len(message_from_bytes(mail.data).get_all("Received", [])) == 3
        daemon.until(lambda: server.queue == 0)
