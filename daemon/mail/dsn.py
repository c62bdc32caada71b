"""Delivery reports: RFC 3464 with all recipient blocks, and bounces that are only text.

Addresses are those we mailed: Original-Recipient, else Final-Recipient, else X-Failed-Recipients, else the text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from daemon.config import House
from daemon.mail import addresses, arf, bounce_text, fields
from daemon.mail.diagnosis import Diagnosis, diagnose, says_nothing
from daemon.mail.fields import Fields
from daemon.mail.message import Message, Part
from daemon.mail.patterns import pattern
from daemon.mail.rewritten import undone, verp

# Local parts and names that mail servers write under. "mta" and "bounce" only as whole words: there is a Mr M. Tanaka.
_DAEMON_LOCAL = pattern(
    r"(?:mailer|mail|mailing|m)[ ._-]?daemon|post[ ._-]?master|mail[ ._-]?deliver|"
    r"(?:delivery|mail)[ ._-]?(?:sub)?system(?![a-z])|(?:mailer|mta|bounces?)(?:[=+_0-9-]|\Z)"
)
_DAEMON_NAME = pattern(
    r"mailer[ _-]?daemon|^\W{0,3}(?:internet )?mail deliver[a-z]{0,2} (?:sub)?system|^\W{0,3}post ?master\W{0,3}$|"
    r"^\W{0,3}mail (?:sub)?system\W{0,3}$"
)
_NO_PATH = pattern(r"<?(?:mailer-daemon(?:@[^\s>]{1,255})?)?>?$")
_NOBODY = pattern(r"[^<>@]{0,80}<\s{0,3}>$")
_STATUS_FIELD = pattern(r"(?:reporting-mta|final-recipient|original-recipient|action|arrival-date):")
_XTEXT = pattern(r"\+([0-9a-f]{2})")
_EXPANDED = pattern(
    r"(?:expanded from|generated from|original "
    r"address|forwarded from|alias(?:ed)? from)\s{0,3}:?\s{0,3}<?([^\s<>():]{1,64}@[^\s<>()]{1,255}?)>?(?:[\s),]|$)"
)
_DONE: Final = frozenset(("delivered", "relayed", "expanded", "deliverable"))


@dataclass(slots=True)
class Failure:
    """One recipient of a report. `host`: the server that said no, else the one that reports it."""

    address: str
    action: str
    diagnosis: Diagnosis
    text: str
    host: str = ""


@dataclass(slots=True)
class Report:
    """A delivery report: what failed or was delayed, whether anything was delivered, and the returned original."""

    failures: list[Failure] = field(default_factory=list)
    delivered: bool = False
    original: Part | None = None
    machine_readable: bool = False


def read(message: Message, house: House, writer: str) -> Report | None:
    """The delivery report in a message; None if it is none. `writer`: the From address, "" if there is none."""
    told = arf.amazon(message, writer)
    if told is not None:
        return _by_amazon(told)
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
    if "return-path" in message.fields and _NO_PATH.match(message.fields.get("return-path").strip()):
        return True
    return _is_daemon(message, writer)


def _is_daemon(message: Message, writer: str) -> bool:
    author = message.fields.get("from").strip()
    name = fields.words(author)[:500]
    return bool(
        _DAEMON_LOCAL.match(writer.rpartition("@")[0] or name.lstrip("\"'< "))
        or "x-failed-recipients" in message.fields
        or _DAEMON_NAME.search(name.partition("<")[0])
        or _NOBODY.match(author[:200])  # "From: <>", as gateways write it
    )


def _by_amazon(told: arf.Notification) -> Report | None:
    """Amazon SES tells of bounces in JSON, through its notification service."""
    if told.kind not in ("bounce", "delivery"):
        return None
    report = Report(delivered=told.kind == "delivery", original=told.original, machine_readable=True)
    if told.kind == "bounce":
        for address, action, status, diagnostic in told.recipients:
            report.failures.append(
                Failure(address, action, diagnose(action, status, _said(diagnostic)), diagnostic[:500])
            )
    return report if report.failures or report.delivered else None


def _machine_readable(part: Part, message: Message) -> Report:
    report = Report(original=message.enclosed(), machine_readable=True)
    text = _readable(message)
    _by_blocks(report, _blocks(part.octets()), text, _host(_first_block(part).get("reporting-mta")))
    if not report.failures and not report.delivered:
        _failed_recipients(report, message, text)
    return report


def _by_blocks(report: Report, blocks: list[Fields], text: str, reporting: str = "") -> None:
    """The failures that groups of status fields tell of; `text`: what the report says for people to read.

    `reporting`: the server that reports them.
    """
    expanded = {b: a for a, b in _expansions(text)}
    to_program = _expanded_to_program(text) if len(blocks) == 1 and not expanded else None
    seen = set[str]()
    for block in blocks:
        address = (to_program if "original-recipient" not in block else None) or _recipient(block, expanded)
        action = block.get("action").split()[0].strip(";,").lower() if block.get("action").split() else ""
        if action in _DONE:
            report.delivered = True
            continue
        if address is None or address.lower() in seen:
            continue
        seen.add(address.lower())
        diagnostic = _decoded(fields.words(block.get("diagnostic-code")))
        if not diagnostic or (len(blocks) == 1 and says_nothing(block.get("status") + " " + diagnostic)):
            diagnostic = f"{diagnostic} {_near(text, address)}".strip()
        diagnosis = diagnose(action, block.get("status"), _said(diagnostic))
        host = _host(block.get("remote-mta")) or reporting
        report.failures.append(Failure(address, action, diagnosis, diagnostic[:500], host))


def _host(mta: str) -> str:
    """The name of a server in Remote-MTA or Reporting-MTA (RFC 3464 section 2.1.2): `dns; mx.example.net`."""
    kind, semicolon, name = mta[:400].partition(";")
    words = (name if semicolon else kind).split()
    return words[0].lower() if words else ""


def _first_block(part: Part) -> Fields:
    """The fields about the message as a whole."""
    group, _, _ = fields.split(
        part.octets().replace(b"\r\n", b"\n").lstrip(b"\n").partition(b"\n\n")[0][:65_536] + b"\n"
    )
    return group


def _decoded(diagnostic: str) -> str:
    """Japanese servers write ISO-2022-JP into the fields as it is."""
    if "\x1b$" not in diagnostic:
        return diagnostic
    return diagnostic[:2000].encode("ascii", "ignore").decode("iso2022_jp", "replace")


def _failed_recipients(report: Report, message: Message, text: str) -> None:
    expanded = {b: a for a, b in _expansions(text)}
    for address in addresses.specs(", ".join(message.fields.all("x-failed-recipients"))):
        near = _near(text, address)
        mailed = expanded.get(address.lower(), address)
        report.failures.append(Failure(mailed, "failed", diagnose("failed", "", near), near[:500]))


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
                return expanded.get(spec.lower(), spec) if name != "original-recipient" else _quoted(spec, block)
    return None


def _quoted(original: str, block: Fields) -> str:
    """Postfix takes the quotes off in Original-Recipient; where it left them in Final-Recipient, they belong there."""
    final = _address(block.get("final-recipient").partition(";")[2])
    return final if final and final.startswith('"') and final.replace('"', "") == original else original


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
    for n, first in enumerate(lines[:400]):
        folded = first.rstrip()[-5:].lower() == " from" and n + 1 < len(lines)  # by Postfix
        line = f"{first.rstrip()} {lines[n + 1].strip()}" if folded else first
        found = _EXPANDED.search(line[:1000])
        original = addresses.spec(found[1]) if found else None
        if original:
            for before in (line[: found.start()] if found else "", lines[n - 1] if n else ""):
                near = [a for _, _, a in addresses.in_text(before[-1000:]) if a.lower() != original.lower()]
                if near:
                    out.append((original, near[-1].lower()))
                    break
    return out


def _expanded_to_program(text: str) -> str | None:
    """The one address that was expanded to a program or a local name, which Final-Recipient dresses up as an address."""
    found = [found[1] for line in text.split("\n")[:400] if (found := _EXPANDED.search(line[:1000]))]
    return addresses.spec(found[0]) if len(found) == 1 else None


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
    """What the readable part says after the address; all of it where that says nothing."""
    at = text.lower().find(address.lower())
    near = text[at + len(address) : at + len(address) + 600] if at >= 0 else text[:1500]
    return text[:1500] if says_nothing(near) else near


def _text(message: Message, house: House, writer: str) -> Report | None:
    """A bounce without a usable delivery-status part."""
    subject = fields.words(message.fields.get("subject"))
    daemon = from_daemon(message, writer)
    if (not daemon and not bounce_text.says_so(subject) and not _is_list_server(message)) or _is_answer(
        message, writer
    ):
        return None
    text = _readable_all(message)
    said, copy = bounce_text.split(text)
    servers = bounce_text.reads_like_a_servers(subject, said) or _is_refused_post(message, subject, said)
    if not servers and not bounce_text.is_bounce(subject, said, daemon=daemon):
        return None
    report = Report(original=message.enclosed() or copy)
    _by_blocks(report, _embedded(text), said)
    if report.delivered and not report.failures:
        return report
    for find in (_failed_recipients_of_text, _named_in_text, _by_flufl):
        if not report.failures:
            find(report, message, house, writer, subject, said)
    if not report.failures and not _is_daemon(message, writer):
        return None  # an empty return path alone: automatic answers have it too
    if bounce_text.is_warning(subject, said):
        for failure in report.failures:
            failure.diagnosis = Diagnosis(False, "mailbox", failure.diagnosis.status)
    return report


def _embedded(text: str) -> list[Fields]:
    """Groups of status fields in the text of a report whose MIME structure is broken or was never there."""
    lines = text.split("\n")
    start = next((n for n, line in enumerate(lines[:2000]) if _STATUS_FIELD.match(line)), None)
    if start is None:
        return []
    blocks = _blocks("\n".join(lines[start : start + 200]).encode("utf-8", "replace"))
    return [block for block in blocks if "action" in block or "status" in block]


def _failed_recipients_of_text(
    report: Report, message: Message, house: House, writer: str, subject: str, said: str
) -> None:
    _failed_recipients(report, message, said)


def _named_in_text(report: Report, message: Message, house: House, writer: str, subject: str, said: str) -> None:
    expanded = {b: a for a, b in _expansions(said)}
    returned_to = {a.lower() for a in addresses.specs(message.fields.get("to"))}
    action = "delayed" if bounce_text.is_warning(subject, said) else "failed"
    for address, near in bounce_text.recipients(said, house, writer, returned_to, report.original):
        if address.lower() in expanded.values():
            continue
        told = f"{near} {said[:3000]}" if says_nothing(near) else near
        mailed = expanded.get(address.lower(), address)
        report.failures.append(Failure(mailed, action, diagnose(action, "", told), near[:500]))


def _by_flufl(report: Report, message: Message, house: House, writer: str, subject: str, said: str) -> None:
    """The last resorts: our own return path, and a library that knows many odd formats."""
    _by_return_path(report, message, house, ("failed", "", said[:3000]))
    if not report.failures:
        for address in bounce_text.by_flufl(message.raw):
            report.failures.append(Failure(address, "failed", diagnose("failed", "", said), said[:500]))


def _is_answer(message: Message, writer: str) -> bool:
    """An automatic answer (RFC 3834) has an empty return path too; "this mailbox is closed" is no failure to deliver."""
    submitted = message.fields.get("auto-submitted").strip().lower()
    subject = fields.words(message.fields.get("subject"))
    return submitted.startswith("auto-replied") and not _is_daemon(message, writer) and not bounce_text.says_so(subject)


def _is_list_server(message: Message) -> bool:
    return "x-mlserver" in message.fields


def _is_refused_post(message: Message, subject: str, said: str) -> bool:
    """A list server (fml) that does not take a post: it writes as the list's administrator, not as a daemon."""
    return _is_list_server(message) and bounce_text.is_refused_post(subject, said)


def _readable_all(message: Message) -> str:
    from daemon.mail.markup import to_text

    out = []
    for part in message.root.walk():
        if part.content_type.startswith(("text/plain", "text/html", "text/enriched")) and not part.parts:
            text = part.text()[:100_000]
            out.append(
                to_text(text) if part.content_type == "text/html" or text.lstrip()[:6].lower() == "<html>" else text
            )
        if sum(map(len, out)) > 100_000:
            break
    return "\n".join(out)
