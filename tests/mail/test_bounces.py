"""Delivery reports: whom they are about, and whether for good. Small messages of our own, in the manner of many servers."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from daemon.config import House
from daemon.mail import triage
from daemon.mail.diagnosis import diagnose
from daemon.mail.reading import AutoReply, Bounce, Complaint, Ordinary, Reading

OURS = "From: The Quill Letter <letter@news.quillpdf.example>\nTo: ann@example.net\nSubject: News\n\nHello\n"
THEIRS = "From: bob@elsewhere.example\nTo: ann@example.net\nSubject: Hi\n\nHello\n"
DAEMON = "Mail Delivery System <MAILER-DAEMON@mx.example.net>"


def text(body: str, subject: str = "failure notice", author: str = DAEMON, extra: str = "") -> bytes:
    """A bounce that is only text."""
    return f"From: {author}\nTo: letter@news.quillpdf.example\nSubject: {subject}\n{extra}\n{body}\n".encode()


def report(*blocks: str, words: str = "Sorry.", original: str = OURS, extra: str = "") -> bytes:
    """A bounce in the form of RFC 3464, with these groups of fields for the recipients."""
    status = "\n\n".join(("Reporting-MTA: dns; mx.example.net", *blocks))
    return (
        f"Return-Path: <>\nFrom: {DAEMON}\nTo: letter@news.quillpdf.example\nSubject: Undelivered Mail\n{extra}"
        "MIME-Version: 1.0\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n\n"
        f"--b\nContent-Type: text/plain\n\n{words}\n\n--b\nContent-Type: message/delivery-status\n\n{status}\n\n"
        f"--b\nContent-Type: message/rfc822\n\n{original}\n--b--\n"
    ).encode()


def block(recipient: str, status: str = "5.1.1", said: str = "550 5.1.1 User unknown", action: str = "failed") -> str:
    return f"Final-Recipient: rfc822; {recipient}\nAction: {action}\nStatus: {status}\nDiagnostic-Code: smtp; {said}"


def bounce(reading: Reading) -> Bounce:
    assert isinstance(reading, Bounce), reading
    return reading


def test_each_block_of_a_report_counts_and_what_was_delivered_does_not(house: House) -> None:
    raw = report(
        block("ann@example.net"),
        block("ben@example.net", "5.2.2", "552 5.2.2 mailbox full"),
        block("cy@example.net", "2.0.0", "250 ok", "delivered"),
        block("ANN@example.net"),
        block("Dee"),
    )
    reading = bounce(triage.read(raw, house))
    assert reading.recipients == ("ann@example.net", "ben@example.net")
    assert not reading.hard  # not all of them are gone
    assert bounce(triage.read(report(block("a@example.net"), block("b@example.net")), house)).hard


def test_original_recipient_is_whom_we_mailed(house: House) -> None:
    raw = report("Original-Recipient: rfc822;ann+2Bnews@example.net\n" + block("box17@store.example.net"))
    assert bounce(triage.read(raw, house)).recipients == ("ann+news@example.net",)
    postfix = report("Original-Recipient: rfc822;a..b@example.net\n" + block('"a..b"@example.net'))
    assert bounce(triage.read(postfix, house)).recipients == ('"a..b"@example.net',)


@pytest.mark.parametrize(
    "words",
    [
        "<box@store.example.net> (expanded from <ann@example.net>): unknown user",
        "<box@store.example.net> (expanded from\n    <ann@example.net>): unknown user",
        "  box@store.example.net\n    (ultimately generated from ann@example.net)\n    Unrouteable address",
    ],
)
def test_an_expanded_address_is_led_back(house: House, words: str) -> None:
    assert bounce(triage.read(report(block("box@store.example.net"), words=words), house)).recipients == (
        "ann@example.net",
    )
    assert bounce(triage.read(text(words), house)).recipients == ("ann@example.net",)
    named = text(words, extra="X-Failed-Recipients: box@store.example.net\n")
    assert bounce(triage.read(named, house)).recipients == ("ann@example.net",)


def test_an_address_expanded_to_a_program(house: House) -> None:
    words = '"|/usr/bin/procmail"\n    (expanded from: <ann@example.net>)'
    assert bounce(triage.read(report(block("ann@mx3.example.net"), words=words), house)).recipients == (
        "ann@example.net",
    )


def test_a_verp_return_path_names_an_unreadable_recipient(house: House) -> None:
    nobody = OURS.replace("To: ann@example.net\n", "")
    to = "Delivered-To: letter+ann=example.net@{}\n"
    ours = report(block("undisclosed"), extra=to.format("news.quillpdf.example"), original=nobody)
    reading = bounce(triage.read(ours, house))
    assert (reading.recipients, reading.hard) == (("ann@example.net",), True)
    foreign = report(block("undisclosed"), extra=to.format("elsewhere.example"), original=nobody)
    assert not isinstance(triage.read(foreign, house), Bounce)


@pytest.mark.parametrize(
    "rewritten",
    [
        "prvs=1234abcdef=ann@example.net",
        "btv1==123abc==ann@example.net",
        "SRS0=HHHH=TT=example.net=ann@forwarder.example",
        "SRS1=GGGG=forwarder.example==HHHH=TT=example.net=ann@second.example",
    ],
)
def test_batv_and_srs_are_undone(house: House, rewritten: str) -> None:
    assert bounce(triage.read(report(block(rewritten)), house)).recipients == ("ann@example.net",)


@pytest.mark.parametrize(
    ("action", "status", "said", "hard", "cause"),
    [
        ("failed", "5.1.1", "550 5.1.1 User unknown", True, "address"),
        ("failed", "5.0.0", "550 no such user here", True, "address"),
        ("failed", "5.0.0", "550 <a@b.example>: Recipient address rejected", False, "mailbox"),
        ("failed", "5.4.1", "550 5.4.1 All recipient addresses rejected : Access denied", True, "address"),
        ("failed", "5.1.1", "550 5.1.1 mailbox full", False, "mailbox"),
        ("failed", "5.2.2", "552 5.2.2 over quota", False, "mailbox"),
        ("failed", "5.3.4", "552 message too large", False, "mailbox"),
        ("failed", "4.4.1", "connection timed out", False, "mailbox"),
        ("failed", "4.1.1", "450 4.1.1 user unknown", False, "mailbox"),
        ("delayed", "5.1.1", "550 5.1.1 user unknown", False, "mailbox"),
        ("failed", "5.7.1", "554 5.7.1 denied", False, "policy"),
        ("failed", "5.1.1", "550 5.1.1 blocked using zen.spamhaus.org", False, "policy"),
        ("failed", "5.0.0", "550 rejected by our spam filter", False, "policy"),
        ("failed", "5.1.1", "550 5.1.1 unknown user policy@b.example", True, "address"),
        ("failed", "5.0.0", "550 user unknown, see https://spam.b.example/why", True, "address"),
        ("failed", "5.0.0", "DNS lookup failure: host b.example not found", True, "address"),
        ("failed", "5.4.4", "Host b.example not found, try again", False, "mailbox"),
        ("failed", "5.0.0", "554 unknown mailer error 255", False, "mailbox"),
        ("failed", "5.0.0", "unknown user: ann 554 ann... Service unavailable", True, "address"),
        ("failed", "5.0.0", "the address couldn't be found. Check for typos and try again.", True, "address"),
        ("failed", "5.0.0", "550 Unrouteable sender address", False, "mailbox"),
        ("failed", "5.0.0", "(in reply to MAIL FROM command) 550 user unknown", False, "mailbox"),
        ("failed", "", "550 This mailbox has been blocked due to inactivity", True, "address"),
        ("failed", "", "account is locked", False, "mailbox"),
    ],
)
def test_hard_or_soft(action: str, status: str, said: str, hard: bool, cause: str) -> None:
    found = diagnose(action, status, said)
    assert (found.hard, found.cause) == (hard, cause)


def test_delayed_and_delivered(house: House) -> None:
    late = bounce(triage.read(report(block("ann@example.net", "4.4.1", "timed out", "delayed")), house))
    assert not late.hard
    assert isinstance(triage.read(report(block("ann@example.net", "2.1.5", "ok", "relayed")), house), AutoReply)
    warning = (
        "THIS IS A WARNING MESSAGE ONLY.\n\nDelivery to the following recipient has been delayed:\n\n  ann@example.net"
    )
    assert not bounce(triage.read(text(warning), house)).hard


def test_a_returned_message_that_is_not_ours_is_backscatter(house: House) -> None:
    assert triage.read(report(block("ann@example.net"), original=THEIRS), house) == Ordinary(("0.1-backscatter",))
    body = f"<ann@example.net>:\n550 user unknown\n\n--- Below this line is a copy of the message.\n\n{THEIRS}"
    assert triage.read(text(body), house) == Ordinary(("0.1-backscatter",))


@pytest.mark.parametrize(
    ("author", "subject", "body"),
    [
        ("Bob <bob@firm.example>", "Fwd: Undelivered Mail", "See below\n\n> <ann@firm.example>: user unknown\n"),
        ("Bob <bob@firm.example>", "Delivery failed", ("Hi,\nyour mail bounced:\n\nDelivery to the following recipients "
         "failed.\n\n   ann@firm.example\n   550 User unknown\n")),
        ("Bob <bob@firm.example>", "Re: Undeliverable: News", "Your message could not be delivered to:\nann@firm.example"),
        ("Bob <bob@firm.example>", "undeliverable", "The following recipients have left us:\nann@firm.example"),
        ("IT <it@firm.example>", "Undeliverable mail", "Undeliverable mail keeps coming for:\nann@firm.example"),
        ("M Tanaka <mtanaka@firm.example>", "licence", "The user ann@firm.example does not exist in your shop."),
        ("Tom Bounce <bounce.tom@firm.example>", "x", "The order for ann@firm.example could not be sent."),
        ("Bob <bob@firm.example>", "AWS", ('{"notificationType":"Bounce","bounce":{"bouncedRecipients":'
         '[{"emailAddress":"ann@firm.example"}]}}')),
    ],
)  # fmt: skip
def test_a_person_who_writes_about_a_bounce_is_none(house: House, author: str, subject: str, body: str) -> None:
    assert not isinstance(triage.read(text(body, subject, author), house), Bounce)


def test_a_person_who_forwards_a_report_as_an_attachment(house: House) -> None:
    raw = (
        b"From: Bob <bob@firm.example>\nTo: support@quillpdf.example\nSubject: what is this?\nMIME-Version: 1.0\n"
        b"Content-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: text/plain\n\nWhat does this mean?\n\n"
        b"--m\nContent-Type: message/rfc822\n\n"
    ) + report(block("ann@example.net"))
    assert not isinstance(triage.read(raw + b"\n--m--\n", house), Bounce)


LISTS_THEM = [
    ("qmail", "<ann@example.net>:\nSorry, no mailbox here by that name. (#5.1.1)\n\n--- Below this line is a copy", True),
    ("sendmail", ("   ----- The following addresses had permanent fatal errors -----\n<ann@example.net>\n\n"
     "   ----- Transcript of session follows -----\n550 <ann@example.net>... User unknown"), True),
    ("exchange", ("Your message\n\n  To:  letter@news.quillpdf.example\n  Subject: News\n\ndid not reach the following "
     "recipient(s):\n\nann@example.net on Thu, 1 Jan 2026\n    The recipient name is not recognized"), True),
    ("x.400", ("did not reach the following recipient(s):\n\nc=DE;a= ;p=X;dda:SMTP=ann@example.net; on Thu\n"
     "    The recipient name is not recognized"), True),
    ("notes", "------- Failure Reasons  --------\n\nUser not listed in public Name & Address Book\nann@example.net", True),
    ("reason first", ("Could not be delivered because of\n\n550 5.1.1 User unknown\n\nThe following recipients were "
     "affected:\n    ann@example.net\n\nAdditional Information\n===\nOriginal Sender: <letter@x.example>"), True),
    ("groupwise", "The message that you sent was undeliverable to the following:\n\tann@example.net (mailbox full)", False),
    ("courier", ("The original message was received on Sat\n\n  UNDELIVERABLE MAIL\n\nYour message to the following "
     "recipients cannot be delivered:\n\n<ann@example.net>:\n<<< 550 5.1.1 User Unknown"), True),
    ("mobile", ("Error: Invalid user address\n\n550 - no such user here\n\n  MAIL FROM: letter@news.quillpdf.example\n"
     "  RCPT TO: ann@example.net\n  From: x@y.example"), True),
    ("fields in the text", ("Delivery failed.\n\nReporting-MTA: dns; mx\n\nAction: failed\nFinal-Recipient: rfc822; "
     "ann@example.net\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 unknown"), True),
    ("help desk", "<ann@example.net>: 550 user unknown\n\nFor further assistance, please contact <help@mx.example>", True),
    ("japanese", "ディレクトリのリストにありません\nann@example.net", True),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "body", "hard"), LISTS_THEM)
def test_servers_that_only_write_text(house: House, kind: str, body: str, hard: bool) -> None:
    reading = bounce(triage.read(text(body, extra="Content-Type: text/plain; charset=utf-8\n"), house))
    assert (reading.recipients, reading.hard) == (("ann@example.net",), hard), kind


@pytest.mark.parametrize(
    "author",
    [
        "<>",
        "mailer-daemon",
        "Mail.Delivery.System@mx.example",
        "post_master@mx.example",
        "Mail Delivery System <a@mx.example>",
    ],
)
def test_names_under_which_servers_write(house: House, author: str) -> None:
    reading = bounce(triage.read(text("<ann@example.net>: 550 user unknown", "Delivery Status", author), house))
    assert reading.recipients == ("ann@example.net",)


def test_a_gateway_under_a_name_of_its_own(house: House) -> None:
    body = "Your message with Subject: News\ncould not be delivered to the following recipients:\n\nann@example.net\n"
    assert not bounce(triage.read(text(body, "Delivery failure", "AV_Gateway@firm.example"), house)).hard


def amazon(kind: str, about: Mapping[str, object], source: str = "letter@news.quillpdf.example") -> bytes:
    inner = json.dumps({"notificationType": kind, kind.lower(): about, "mail": {"source": source}})
    return text(json.dumps({"Type": "Notification", "Message": inner}), "AWS", "no-reply@sns.amazonaws.com")


def test_notifications_of_amazon(house: House) -> None:
    person = {"emailAddress": "ann@example.net", "action": "failed", "status": "5.1.1", "diagnosticCode": "unknown"}
    told = {"bounceType": "Permanent", "bouncedRecipients": [person]}
    reading = bounce(triage.read(amazon("Bounce", told), house))
    assert (reading.recipients, reading.hard) == (("ann@example.net",), True)
    assert not bounce(triage.read(amazon("Bounce", told | {"bounceType": "Transient"}), house)).hard
    assert triage.read(amazon("Bounce", told, "bob@elsewhere.example"), house) == Ordinary(("0.1-backscatter",))
    assert isinstance(triage.read(amazon("Delivery", {"recipients": ["ann@example.net"]}), house), AutoReply)
    complaint = triage.read(amazon("Complaint", {"complainedRecipients": [{"emailAddress": "ann@example.net"}]}), house)
    assert isinstance(complaint, Complaint)
    assert complaint.recipients == ("ann@example.net",)


@pytest.mark.parametrize("body", ['{"Message":' * 20_000, '{"Message": "{"}', "{" * 100_000, '{"Message": 3}', "{}"])
def test_hostile_notifications(house: House, body: str) -> None:
    assert not isinstance(triage.read(text(body, "AWS", "no-reply@sns.amazonaws.com"), house), Bounce)


# ------------------------------------------------------------------ who says so


@pytest.mark.parametrize(
    ("remote", "host"),
    [
        ("Remote-MTA: dns; MX1.mail.example.org", "mx1.mail.example.org"),
        ("Remote-MTA:mx.example.org (192.0.2.7)", "mx.example.org"),
        ("Remote-MTA: dns;\n mx.example.org", "mx.example.org"),
        ("Remote-MTA: dns; [192.0.2.7]", "[192.0.2.7]"),
        ("Remote-MTA: ;", "mx.example.net"),  # the one that reports it
        ("", "mx.example.net"),
    ],
)
def test_which_server_said_no(house: House, remote: str, host: str) -> None:
    reading = bounce(triage.read(report("\n".join(filter(None, (block("ann@example.net"), remote)))), house))
    assert reading.host == host
    assert [(f.host, f.status) for f in reading.failed] == [(host, "5.1.1")]


def test_each_recipient_has_its_server_and_its_status(house: House) -> None:
    blocks = (
        f"{block('ann@example.net')}\nRemote-MTA: dns; mx.a.example",
        f"{block('ben@example.net', '5.1.2', '550 5.1.2 no such domain')}\nRemote-MTA: dns; mx.b.example",
    )
    failed = bounce(triage.read(report(*blocks), house)).failed
    assert [(f.host, f.status) for f in failed] == [("mx.a.example", "5.1.1"), ("mx.b.example", "5.1.2")]


def test_a_bounce_in_words_names_no_server(house: House) -> None:
    reading = bounce(triage.read(text("<ann@example.net>: 550 5.1.1 user unknown"), house))
    assert (reading.host, reading.failed[0].status) == ("", "5.1.1")
