"""Feedback reports (RFC 5965): somebody pressed "this is spam" on a mailing of ours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from daemon.mail import addresses, fields
from daemon.mail.charsets import whole
from daemon.mail.fields import Fields
from daemon.mail.message import Message, Part
from daemon.mail.patterns import pattern

COMPLAINTS: Final = frozenset(("abuse", "fraud", "virus", "other", "opt-out", "opt-out-list"))
_HOTMAIL_SUBJECT = pattern(r"^\s{0,3}complaint about message from")
_REPORT_SUBJECT = pattern(r"^\s{0,3}(?:report domain:|\[?(?:dmarc|tls)[ -]?(?:aggregate )?report)")


@dataclass(frozen=True, slots=True)
class Report:
    """One feedback report, read. `original`: the enclosed message or its fields, if shown."""

    feedback_type: str
    recipients: tuple[str, ...]
    original: Part | None


def read(message: Message) -> Report | None:
    """The feedback report in a message; None if there is none."""
    part = message.root.first("message/feedback-report")
    if part is None:
        return _by_amazon(message) or _hotmail(message)
    report, _, _ = fields.split(part.octets().lstrip(b"\r\n") + b"\r\n")
    kind = report.get("feedback-type").strip().lower()
    original = message.enclosed()
    return Report(kind, _recipients(kind, report, original), original)


@dataclass(frozen=True, slots=True)
class Notification:
    """What Amazon SES tells through its notification service. `kind`: bounce, complaint, delivery.

    `recipients`: (address, action, status, diagnostic code); the last three are "" except for a bounce.
    """

    kind: str
    recipients: tuple[tuple[str, str, str, str], ...]
    original: Part | None


def amazon(message: Message, writer: str) -> Notification | None:
    """The notification of Amazon SES in a message; None if it is none. Only from Amazon: people paste such things."""
    if not writer.lower().endswith(("@sns.amazonaws.com", ".amazonaws.com", ".amazonses.com")):
        return None
    part = message.root.first("text/plain")
    told = _json(part.text()) if part is not None else None
    if told is not None and isinstance(told.get("Message"), str):
        told = _json(told["Message"])
    if told is None:
        return None
    kind = str(told.get("notificationType") or told.get("eventType") or "").lower()
    about = told.get(kind)
    if kind not in ("bounce", "complaint", "delivery") or not isinstance(about, dict):
        return None
    return Notification(kind, _told_recipients(kind, about), _told_original(told.get("mail")))


def _json(text: str) -> dict[str, Any] | None:
    """The object that a text begins with; relays fold its long lines ("!" and a line break)."""
    text = text[:262_144].lstrip().replace("!\n ", "")
    if not text.startswith("{"):
        return None
    try:
        value, _ = json.JSONDecoder(strict=False).raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _told_recipients(kind: str, about: dict[str, Any]) -> tuple[tuple[str, str, str, str], ...]:
    people = about.get({"bounce": "bouncedRecipients", "complaint": "complainedRecipients"}.get(kind, "recipients"))
    passing = str(about.get("bounceType", "")).lower() == "transient"
    out = []
    for person in people[:100] if isinstance(people, list) else []:
        told = person if isinstance(person, dict) else {"emailAddress": person}
        given, action, status, said = (
            whole(str(told.get(name, ""))) for name in ("emailAddress", "action", "status", "diagnosticCode")
        )
        action = "delayed" if passing else action.lower() or "failed"
        out += [(address, action, status, said) for address in addresses.specs(given)]
    return tuple(out)


def _told_original(mail: object) -> Part | None:
    """The sender of the message it is about, as the returned original."""
    source = mail.get("source") if isinstance(mail, dict) else None
    if not isinstance(source, str) or not source:
        return None
    inner, _, _ = fields.split(f"From: {' '.join(source.split())[:320]}\n\n".encode("utf-8", "replace"))
    return Part(inner, "text/plain", {}, b"")


def _by_amazon(message: Message) -> Report | None:
    authors = addresses.specs(message.fields.get("from"))
    told = amazon(message, authors[0]) if len(authors) == 1 else None
    if told is None or told.kind != "complaint":
        return None
    return Report("abuse", tuple(dict.fromkeys(address for address, *_ in told.recipients)), told.original)


def _hotmail(message: Message) -> Report | None:
    """Microsoft's Junk Mail Reporting Program: no report part, only the message with a field of its own."""
    original = message.enclosed()
    if original is None or "x-hmxmroriginalrecipient" not in original.fields:
        return None
    if not _HOTMAIL_SUBJECT.match(fields.words(message.fields.get("subject"))):
        return None
    return Report("abuse", _specs(original.fields.all("x-hmxmroriginalrecipient")), original)


def is_domain_report(message: Message, subject: str) -> bool:
    """A DMARC or TLS aggregate report (RFC 7489 section 7.2.1.1, RFC 8460 section 5.3)."""
    if _REPORT_SUBJECT.match(subject) or message.root.parameters.get("report-type", "").lower() == "tlsrpt":
        return True
    return "tls-report-domain" in message.fields or "tls-required-report" in message.fields


def _recipients(kind: str, report: Fields, original: Part | None) -> tuple[str, ...]:
    if kind.startswith("opt-out") and (removal := _specs(report.all("removal-recipient"))):
        return removal
    if told := _specs(report.all("original-rcpt-to")):
        return told
    if original is None or report.all("original-rcpt-to"):
        return ()  # redacted: RFC 6590
    for name in ("x-hmxmroriginalrecipient", "delivered-to", "x-original-to", "to"):
        if found := _specs(original.fields.all(name)):
            return found
    return ()


def _specs(values: list[str]) -> tuple[str, ...]:
    found = (a for value in values[:100] for a in addresses.specs(value.removeprefix("rfc822;")))
    return tuple(dict.fromkeys(a for a in found if not _redacted(a)))


def _redacted(address: str) -> bool:
    local = address.rpartition("@")[0].lower()
    return (
        local in ("redacted", "redacted-address", "removed", "xxx", "undisclosed", "undisclosed-recipients")
        or "*" in local
        or "redacted" in local
    )
