"""The servers of the tests do what the tests rely on."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from imapclient import IMAPClient
from imapclient.exceptions import LoginError

from tests.servers import HOST, Dovecot, Postfix, Server, ServerError, Sink, free_port
from tests.servers import sink as new_sink

# Lines that begin with dots, a long one, 8-bit text, trailing blanks: what a careless hop would change.
MESSAGE = (
    b"From: =?utf-8?q?J=C3=BCrgen?= <juergen@example.org>\r\n"
    b"To: support@example.com\r\nSubject:  two blanks  \r\nX-Folded: a\r\n\tb\r\n"
    b"Date: Mon, 02 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n\r\n"
    b"..two dots\r\n.one dot\r\n.\r\nGr\xc3\xbc\xc3\x9fe  \r\n\r\n\r\n" + b"x" * 990 + b"\r\n\r\n"
)


# ------------------------------------------------------------------ Dovecot


@pytest.mark.dovecot
def test_what_came_by_lmtp_is_read_by_imap(dovecot: Dovecot) -> None:
    dovecot.lmtp("support", MESSAGE, sender="")
    with dovecot.connect("support") as imap:
        imap.select_folder("INBOX")
        (uid,) = imap.search()
        (found,) = imap.fetch([uid], ["BODY.PEEK[]", "FLAGS"]).values()
    assert found[b"BODY[]"].startswith(b"Return-Path: <>\r\n")
    assert found[b"BODY[]"].endswith(MESSAGE)
    assert b"\\Seen" not in found[b"FLAGS"]


@pytest.mark.dovecot
def test_append_keeps_bytes_flags_and_date(dovecot: Dovecot) -> None:
    when = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    uid = dovecot.append("alice", MESSAGE, folder="Old mail", flags=["\\Seen", "\\Flagged"], when=when)
    with dovecot.connect("alice") as imap:
        imap.select_folder("Old mail")
        (found,) = imap.fetch([uid], ["BODY.PEEK[]", "FLAGS", "INTERNALDATE"]).values()
    assert found[b"BODY[]"] == MESSAGE
    assert {b"\\Seen", b"\\Flagged"} <= set(found[b"FLAGS"])
    assert found[b"INTERNALDATE"] == when


@pytest.mark.dovecot
def test_it_has_what_optoutd_uses(dovecot: Dovecot) -> None:
    with dovecot.connect("bob") as imap:
        assert {b"IDLE", b"MOVE", b"UIDPLUS"} <= set(imap.capabilities())


@pytest.mark.dovecot
def test_every_test_begins_with_empty_mailboxes(dovecot: Dovecot) -> None:
    with dovecot.connect("support") as imap:
        assert imap.select_folder("INBOX")[b"EXISTS"] == 0


@pytest.mark.dovecot
def test_imaps_shows_a_certificate_for_localhost(dovecot: Dovecot) -> None:
    trust = ssl.create_default_context(cafile=str(dovecot.ca_file))
    with IMAPClient("localhost", dovecot.imaps_port, ssl_context=trust, timeout=10) as imap:
        imap.login("bob", dovecot.users["bob"])
        assert imap.noop()


@pytest.mark.dovecot
def test_a_wrong_password_is_refused_at_once(dovecot: Dovecot) -> None:
    started = datetime.now(UTC)
    with IMAPClient(HOST, dovecot.imap_port, ssl=False, timeout=10) as imap:
        for _ in range(3):
            with pytest.raises(LoginError):
                imap.login("bob", "wrong")
    assert (datetime.now(UTC) - started).total_seconds() < 3


@pytest.mark.dovecot
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_mail_is_there_after_a_restart(dovecot: Dovecot, end: str) -> None:
    dovecot.append("support", MESSAGE)
    getattr(dovecot, end)()
    with pytest.raises(OSError, match="refused"):
        dovecot.connect("support")
    dovecot.start()
    with dovecot.connect("support") as imap:
        assert imap.select_folder("INBOX")[b"EXISTS"] == 1


# ------------------------------------------------------------------ Postfix


@pytest.mark.postfix
def test_postfix_relays_byte_for_byte(postfix: Postfix, sink: Sink) -> None:
    with smtplib.SMTP(HOST, postfix.port) as client:
        client.sendmail("a@example.org", ["b@example.com", "c@example.com"], MESSAGE, ["BODY=8BITMIME"])
    sink.wait_for(lambda: bool(sink.messages))
    (message,) = sink.messages
    assert message.mail_from.startswith("<a@example.org>")
    assert [rcpt.partition(" ")[0] for rcpt in message.rcpt_to] == ["<b@example.com>", "<c@example.com>"]
    received, _, rest = message.data.partition(b"From: ")
    assert received.startswith(b"Received: from ")
    assert b"From: " + rest == MESSAGE


@pytest.mark.postfix
def test_postfix_keeps_what_the_next_hop_does_not_take(postfix: Postfix, sink: Sink) -> None:
    sink.stop()
    with smtplib.SMTP(HOST, postfix.port) as client:
        client.sendmail("a@example.org", ["b@example.com"], MESSAGE)
    postfix.stop()
    sink.start()
    postfix.start()
    sink.wait_for(lambda: bool(sink.messages))


# ------------------------------------------------------------------ the sink


@contextlib.contextmanager
def dialogue(sink: Sink) -> Iterator[smtplib.SMTP]:
    """A greeted client that may be cut off at any time."""
    client = smtplib.SMTP(HOST, sink.port, timeout=10)
    try:
        client.ehlo()
        yield client
    finally:
        client.close()


def test_the_sink_records_parameters_and_bytes(sink: Sink) -> None:
    with dialogue(sink) as client:
        client.sendmail(
            "a@example.org", ["b@example.com"], MESSAGE, ["BODY=8BITMIME", "RET=HDRS"], ["ORCPT=rfc822;B@example.com"]
        )
    (message,) = sink.messages
    assert message.mail_from.split() == ["<a@example.org>", f"size={len(MESSAGE)}", "BODY=8BITMIME", "RET=HDRS"]
    assert message.rcpt_to == ("<b@example.com> ORCPT=rfc822;B@example.com",)
    assert message.data == MESSAGE


@pytest.mark.parametrize("data", [b"", b".\r\n", b"\r\n", b"\r\n.\r\n", b"..\r\n..\r\n"])
def test_the_sink_understands_dots(sink: Sink, data: bytes) -> None:
    stuffed = (b"\r\n" + data).replace(b"\r\n.", b"\r\n..")[2:]
    with dialogue(sink) as client:
        for line in (b"MAIL FROM:<>\r\n", b"RCPT TO:<b@example.com>\r\n", b"DATA\r\n"):
            client.send(line)
            client.getreply()
        client.send(stuffed + b".\r\nNOOP\r\n")
        assert [client.getreply()[0], client.getreply()[0]] == [250, 250]
    assert sink.messages[0].data == data


def test_the_sink_plays_its_script(sink: Sink) -> None:
    sink.replies = {
        "RCPT <bad@x.example>": "550 5.1.1 no such user",
        "RCPT": "250-one\r\n250 two",
        "DOT": "451 4.3.0 not now",
    }
    with dialogue(sink) as client:
        client.mail("a@example.org")
        assert client.rcpt("bad@x.example") == (550, b"5.1.1 no such user")
        assert client.rcpt("good@x.example") == (250, b"one\ntwo")
        assert client.data(b"x\r\n") == (451, b"4.3.0 not now")
        client.rset()
    assert sink.transactions[0].rcpt_to == ("<good@x.example>",)
    assert not sink.messages
    assert (sink.connections, sink.resets) == (1, 1)


def test_the_sink_is_slow_when_told(sink: Sink) -> None:
    sink.delays["NOOP"] = 1
    with dialogue(sink) as client:
        assert client.sock
        client.sock.settimeout(0.3)
        with pytest.raises(smtplib.SMTPServerDisconnected, match="timed out"):
            client.noop()


@pytest.mark.parametrize("verb", ["MAIL", "RCPT <b@example.com>", "DATA", "DOT"])
def test_the_sink_vanishes_where_told(sink: Sink, verb: str) -> None:
    sink.drop_at = verb
    with dialogue(sink) as client, pytest.raises(smtplib.SMTPServerDisconnected):
        client.sendmail("a@example.org", ["b@example.com"], MESSAGE)
    assert not sink.transactions


def test_the_sink_takes_a_message_and_vanishes_before_it_says_so(sink: Sink) -> None:
    sink.lose_after = "DOT"
    with dialogue(sink) as client, pytest.raises(smtplib.SMTPServerDisconnected):
        client.sendmail("a@example.org", ["b@example.com"], MESSAGE)
    assert len(sink.messages) == 1


def test_the_sink_answers_and_then_vanishes(sink: Sink) -> None:
    sink.drop_after = "RCPT"
    with dialogue(sink) as client:
        client.mail("a@example.org")
        assert client.rcpt("b@example.com")[0] == 250
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.noop()


def test_the_sink_counts_messages_without_a_dot(sink: Sink) -> None:
    with dialogue(sink) as client:
        client.mail("a@example.org")
        client.rcpt("b@example.com")
        client.docmd("DATA")
        client.send(b"Subject: half of\r\n")
    sink.wait_for(lambda: sink.half_messages == 1)
    assert not sink.transactions


def test_the_sink_comes_back_on_its_port(sink: Sink) -> None:
    with dialogue(sink) as client:
        sink.stop()
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.noop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, sink.port))
    sink.start()
    with dialogue(sink) as client:
        assert client.noop()[0] == 250


def test_the_sink_offers_what_it_is_told() -> None:
    with new_sink(keywords=("8BITMIME",)) as other, dialogue(other) as client:
        assert list(client.esmtp_features) == ["8bitmime"]


# ------------------------------------------------------------------ when one does not come up


class Broken(Server):
    """Says why it cannot start, and ends."""

    @property
    def command(self) -> list[str]:
        return ["sh", "-c", "echo the disk is on fire; exit 3"]

    @property
    def ports(self) -> tuple[int, ...]:
        return (free_port(),)


def test_a_server_that_ends_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"(?s)it has ended.*the disk is on fire"):
        Broken(tmp_path).start()
