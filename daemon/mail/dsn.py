"""Delivery reports: RFC 3464 with all recipient blocks, and bounces that are only text.

Addresses are those we mailed: Original-Recipient, else Final-Recipient, else X-Failed-Recipients, else the text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from daemon.config import House
from daemon.mail import addresses, bounce_text, fields
from daemon.mail.diagnosis import Diagnosis, diagnose
from daemon.mail.fields import Fields
from daemon.mail.message import Message, Part
from daemon.mail.patterns import pattern
from daemon.mail.rewritten import undone, verp

_DAEMON = pattern(r"daemon|postmaster|bounce")
_XTEXT = pattern(r"\+([0-9a-f]{2})")
_EXPANDED = pattern(
    r"(?:expanded from|generated from|original "
    r"address)\s{0,3}:?\s{0,3}<?([^\s<>():]{1,64}@[^\s<>()]{1,255}?)>?(?:[\s),]|$)"
)
_DONE: Final = frozenset(("delivered", "relayed", "expanded", "deliverable"))
_DAEMONS: Final = (
    "mailer-daemon",
    "postmaster",
    "mail-daemon",
    "mailerdaemon",
    "mdaemon",
    "mailer",
    "mail.daemon",
    "bounce",
    "mta",
    "mailsystem",
    "maildelivery",
)


@dataclass(slots=True)
class Failure:
    """One recipient of a report."""

    address: str
    action: str
    diagnosis: Diagnosis
    text: str


@dataclass(slots=True)
class Report:
    """A delivery report: what failed or was delayed, whether anything was delivered, and the returned original."""

    failures: list[Failure] = field(default_factory=list)
    delivered: bool = False
    original: Part | None = None
    machine_readable: bool = False


def read(message: Message, house: House, writer: str) -> Report | None:
    """The delivery report in a message; None if it is none. `writer`: the From address, "" if there is none."""
    part = message.root.first("message/delivery-status", "message/global-delivery-status")
    if part is not None and _is_report(message, writer):
        report = _machine_readable(part, message)
        if not report.failures and not report.delivered:
            _by_return_path(report, message, house, _only_block(part))
        if report.failures or report.delivered:
            return report
    return _text(message, house, writer)


def _by_return_path(report: Report, message: Message, house: House, said: tuple[str, str, str]) -> None:
    """Nobody is named: a VERP return path of ours, to which the report came, names one recipient."""
    action, status, diagnostic = said
    for name in ("delivered-to", "x-original-to", "envelope-to", "to"):
        for address in addresses.specs(message.fields.get(name)):
            recipient = verp(address, house)
            if recipient is not None:
                diagnosis = diagnose(action, status, _said(diagnostic))
                report.failures.append(Failure(recipient, action, diagnosis, diagnostic[:500]))
                return


def _is_report(message: Message, writer: str) -> bool:
    """Or did a person forward one?"""
    kind = message.root.parameters.get("report-type", "").lower()
    return (message.root.content_type == "multipart/report" and kind in ("", "delivery-status")) or from_daemon(
        message, writer
    )


def from_daemon(message: Message, writer: str) -> bool:
    """Empty return path, or a sender as mail servers use."""
    if "return-path" in message.fields and message.fields.get("return-path").strip() in ("<>", ""):
        return True
    return _is_daemon(message, writer)


def _is_daemon(message: Message, writer: str) -> bool:
    local = writer.rpartition("@")[0].lower() or fields.words(message.fields.get("from")).lower()
    return (
        any(local.startswith(name) for name in _DAEMONS)
        or "x-failed-recipients" in message.fields
        or "mailer-daemon" in fields.words(message.fields.get("from")).lower()
    )


def _machine_readable(part: Part, message: Message) -> Report:
    report = Report(original=message.enclosed(), machine_readable=True)
    text = _readable(message)
    expanded = {b: a for a, b in _expansions(text)}
    for block in _blocks(part.octets()):
        address = _recipient(block, expanded)
        action = block.get("action").split()[0].strip(";,").lower() if block.get("action").split() else ""
        if action in _DONE:
            report.delivered = True
            continue
        if address is None or any(f.address.lower() == address.lower() for f in report.failures):
            continue
        diagnostic = fields.words(block.get("diagnostic-code")) or _near(text, address)
        report.failures.append(
            Failure(address, action, diagnose(action, block.get("status"), _said(diagnostic)), diagnostic[:500])
        )
    if not report.failures and not report.delivered:
        _failed_recipients(report, message, text)
    return report


def _failed_recipients(report: Report, message: Message, text: str) -> None:
    for address in addresses.specs(", ".join(message.fields.all("x-failed-recipients"))):
        near = _near(text, address)
        report.failures.append(Failure(address, "failed", diagnose("failed", "", near), near[:500]))


def _blocks(octets: bytes) -> list[Fields]:
    """The per-recipient groups of fields (RFC 3464 section 2.1); at most as many as a message may have recipients."""
    out = []
    for block in octets.replace(b"\r\n", b"\n").split(b"\n\n")[:2000]:
        group, _, _ = fields.split(block.lstrip(b"\n") + b"\n")
        if "final-recipient" in group or "original-recipient" in group or "x-actual-recipient" in group:
            out.append(group)
    return out


def _only_block(part: Part) -> tuple[str, str, str]:
    """(action, status, diagnostic code) of a delivery-status part whose recipient cannot be read."""
    for block in part.octets().replace(b"\r\n", b"\n").split(b"\n\n")[:20]:
        group, _, _ = fields.split(block.lstrip(b"\n") + b"\n")
        if "action" in group or "status" in group:
            action = group.get("action").strip().lower() or "failed"
            return action, group.get("status"), fields.words(group.get("diagnostic-code"))
    return "failed", "", ""


def _recipient(block: Fields, expanded: dict[str, str]) -> str | None:
    for name in ("original-recipient", "final-recipient", "x-actual-recipient"):
        for value in block.all(name):
            kind, semicolon, rest = value.partition(";")
            text = rest if semicolon else kind
            found = _EXPANDED.search(text)
            if found and (spec := addresses.spec(found[1])):
                return spec
            spec = _address(_unxtext(text) if name == "original-recipient" else text)
            if spec is not None:
                return expanded.get(spec.lower(), spec) if name != "original-recipient" else spec
    return None


def _address(text: str) -> str | None:
    found = addresses.specs(text)
    return undone(found[0]) if found else None


def _unxtext(text: str) -> str:
    """RFC 3461 section 4: "+2B" is "+"; a plus that is no xtext is left as it stands."""
    return _XTEXT.sub(lambda m: chr(int(m[1], 16)) if 33 <= int(m[1], 16) < 127 else m[0], text)


def _expansions(text: str) -> list[tuple[str, str]]:
    """(address we mailed, address it was expanded to), as sendmail and Postfix say in words."""
    out = []
    lines = text.split("\n")
    for n, line in enumerate(lines[:400]):
        found = _EXPANDED.search(line[:1000])
        original = addresses.spec(found[1]) if found else None
        if original:
            for before in (line[: found.start()] if found else "", lines[n - 1] if n else ""):
                near = [a for _, _, a in addresses.in_text(before[-1000:]) if a.lower() != original.lower()]
                if near:
                    out.append((original, near[-1].lower()))
                    break
    return out


def _said(diagnostic: str) -> str:
    return (
        diagnostic.partition(";")[2] or diagnostic
        if diagnostic.lower().lstrip().startswith(("smtp", "x-"))
        else diagnostic
    )


def _readable(message: Message) -> str:
    part = message.root.first("text/plain") or message.root.first("text/html")
    return part.text()[:60_000] if part is not None and not part.is_attachment else ""


def _near(text: str, address: str) -> str:
    """What the readable part says after the address."""
    at = text.lower().find(address.lower())
    return text[at + len(address) : at + len(address) + 600] if at >= 0 else text[:1500]


def _text(message: Message, house: House, writer: str) -> Report | None:
    """A bounce without a usable delivery-status part."""
    if not from_daemon(message, writer) and not bounce_text.says_so(fields.words(message.fields.get("subject"))):
        return None
    if _is_answer(message, writer):
        return None
    text = _readable_all(message)
    said, copy = bounce_text.split(text)
    subject = fields.words(message.fields.get("subject"))
    if not bounce_text.is_bounce(subject, said, daemon=from_daemon(message, writer)):
        return None
    report = Report(original=message.enclosed() or copy)
    _failed_recipients(report, message, said)
    if not report.failures:
        for address, near in bounce_text.recipients(said, house, writer, report.original):
            action = "delayed" if bounce_text.is_warning(subject, said) else "failed"
            report.failures.append(Failure(address, action, diagnose(action, "", near), near[:500]))
    if not report.failures:
        _by_return_path(report, message, house, ("failed", "", said[:3000]))
    if not report.failures:
        for address in bounce_text.by_flufl(message.raw):
            report.failures.append(Failure(address, "failed", diagnose("failed", "", said), said[:500]))
    if not report.failures and not _is_daemon(message, writer):
        return None  # an empty return path alone: automatic answers have it too
    if bounce_text.is_warning(subject, said):
        for failure in report.failures:
            failure.diagnosis = Diagnosis(False, "mailbox", failure.diagnosis.status)
    return report


def _is_answer(message: Message, writer: str) -> bool:
    """An automatic answer (RFC 3834) has an empty return path too; "this mailbox is closed" is no failure to deliver."""
    submitted = message.fields.get("auto-submitted").strip().lower()
    subject = fields.words(message.fields.get("subject"))
    return submitted.startswith("auto-replied") and not _DAEMON.search(writer) and not bounce_text.says_so(subject)


def _readable_all(message: Message) -> str:
    from daemon.mail.markup import to_text

    out = []
    for part in message.root.walk():
        if part.content_type in ("text/plain", "text/html", "text/enriched") and not part.parts:
            text = part.text()[:100_000]
            out.append(
                to_text(text) if part.content_type == "text/html" or text.lstrip()[:6].lower() == "<html>" else text
            )
        if sum(map(len, out)) > 100_000:
            break
    return "\n".join(out)
