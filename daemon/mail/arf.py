"""Feedback reports (RFC 5965): somebody pressed "this is spam" on a mailing of ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from daemon.mail import addresses, fields
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
        return _hotmail(message)
    report, _, _ = fields.split(part.octets().lstrip(b"\r\n") + b"\r\n")
    kind = report.get("feedback-type").strip().lower()
    original = message.enclosed()
    return Report(kind, _recipients(kind, report, original), original)


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
