"""Bounces that are only text: is it one, and whom does it name? Our own patterns first, flufl.bounce as a fallback."""

from __future__ import annotations

import logging
from typing import Final

from daemon.config import House
from daemon.mail import addresses, fields
from daemon.mail.message import Part
from daemon.mail.patterns import pattern

_SUBJECT = pattern(
    r"undeliver|undelivered|returned mail|mail delivery (?:fail|problem|error|status|report)|delivery (?:status "
    r"notification|failure|report|has failed|notification|problem|problems|error|attempt)|failure notice|mail "
    r"(?:system )?error|message (?:delivery|undeliver|status)|non[- ]?deliver|"
    r"unzustellbar|unzustell|rückläufer|nicht zugestellt|non remis|échec de la remise|non distribu|no se (?:ha "
    r")?pu(?:do|ede) entregar|no entregado|devuelto|impossibile recapitare|mancato recapito|niet bezorgd|"
    r"onbestelbaar|rejected message|returned to sender|mail failure|warning: (?:could not send|message)|"
    r"delivery unsuccessful|could not be delivered|couldn't be delivered|not delivered|bounce|mailbox unavailable|"
    r"user unknown|notification d'état|delayed|配信できません|エラー|退信|mdaemon|nondeliverable|failed to deliver|nondelivery|"
    r"mail returned|\bdsn\b|returned due to|permanent delivery"
)
_BODY = pattern(
    r"(?:could ?n[o']t|cannot|can ?not|can't|was not|wasn't|not|unable to|failed to|failure to) (?:be |"
    r"deliver)\w{0,12}|undeliverable|undelivered|delivery (?:to [^\n]{0,80})?(?:has )?(?:failed|fail|failure)|"
    r"permanent (?:fatal )?error|fatal errors|user unknown|unknown user|no such user|mailbox (?:is )?(?:full|"
    r"unavailable|not found)|returned (?:mail|message|below|to sender)"
    r"|bounced? (?:message|mail|back)|following (?:recipient|address)|rejected (?:your|the|by)|failed recipient|"
    r"delivery status|wasn't able to deliver|has not been delivered|not been able to deliver|recipient(?:'s)? "
    r"(?:unknown|not found|rejected|address)|could not be (?:sent|delivered|reached)|mail could not|message could "
    r"not|transcript of session|unzustellbar|nicht zugestellt|konnte nicht|non remis|n'a pas (?:pu )?(?:être|etre)|"
    r"no se (?:ha )?pud|sono stati|non (?:è|e') stat"
    r"|does not exist|doesn't exist|dead letter|over quota|invalid recipient|not known|host unknown|smtp error|"
    r"\b5\d\d[ -]\d\.\d\.\d|\b55[0-9] |送信できません|配送できません|配信できません|返送|届けられません|could not deliver"
)
_WARNING = pattern(
    r"warning: (?:could not send|message[^\n]{0,60}(?:delayed|not sent))|this is a warning message only|you do not "
    r"need to resend|delivery (?:has been |is |temporarily )?(?:delayed|suspended)|has been delayed|not yet been "
    r"delivered|will (?:continue to be )?(?:retry|keep trying|be retried|be attempted)|still being attempted|"
    r"delivery delay|\(delay\)|delayed mail|temporarily deferred|attempts will continue"
)
_GIVEN_UP = pattern(r"giv(?:en|ing) up|permanent|final(?:ly)?|no longer|expired|too old|returned")
_COPY = pattern(
    r"^[\s>*]{0,10}(?:-{0,3}\s?below this line is a copy|-{2,30}\s{0,3}(?:this is a copy|returned message|original message|"
    r"unsent message|message header|beginning of|start of returned|included is|undelivered message|the header)|"
    r"original message (?:follows|headers)|this is a copy of (?:the|your) message|a copy of the (?:original "
    r")?message|your (?:original )?message (?:follows|was|is|reads)"
    r"|included (?:below )?is (?:a copy|the)|here is (?:a copy|your)|the (?:original )?message (?:follows|was "
    r"received|headers|header)|message header(?:s)? follow|returned message follows|headers of (?:the|your)|message "
    r"text follows|unsent message below|received: (?:from|by|\(|via)|return-path: ?<|message contents follow|"
    r"\|-{5,30}|begin(?:ning)? of original|reporting-mta|urspr(?:ü|ue)ngliche nachricht|"
    r"message d'origine|mensaje original|対象メール|元のメッセージ|----- ?(?:original|returned|copy))"
)
_RCPT = pattern(
    r"(?:rcpt to|recipient|empf(?:ä|ae)nger|destinataire|destinatario|user|address(?:ee)?|mailbox|to|for|an|à|para|宛先)\W{1,6}[^\n@]{0,40}$"
)
_NOT_A_RECIPIENT = pattern(
    r"^[\s>*-]{0,8}(?:from|message-id|references|in-reply-to|return-path|reply-to|sender|received|x-[a-z-]{1,40}|cc|"
    r"date|subject|content-[a-z-]{1,30}|errors-to|mime-version|dkim-[a-z]{1,20}|arrival-date|reporting-mta|"
    r"list-[a-z-]{1,20}|mail from|contact|postmaster|authentication-results|feedback-id|>>> mail)\s{0,3}[:<]"
    r"|mail from:|contact (?:the|your|us)|postmaster@|mailer-daemon@|please (?:contact|send|forward|e-?mail)|further "
    r"assistance|for (?:help|assistance|more)|\bfrom:? ?<|helpdesk|abuse@|message-id|sender[: ]|sent by|originat|"
    r"envelope-from|verantwort|return path"
)
_ALONE = pattern(
    r"^[\s>*\-\"'`([{|.:]{0,12}(?:(?:to|rcpt to|recipient|final-recipient|failed recipient|empf(?:ä|ae)nger|destinataire|"
    r"destinatario|e-?mail(?: address)?|"
    r"address)\s?:\s?)?(?:rfc822;\s?)?[<\"'(\[]{0,2}[^\s<>@]{1,80}@[^\s<>@]{1,255}?[>\"')\]]{0,2}[\s.,;:]{0,5}(?:$|"
    r"\(|\.\.\.|:|-|\s[-–(:]|\s{2,})"
)
_FAILS = pattern(
    r"unknown|not (?:exist|found|known|be|deliver|valid|listed)|full|quota|reject|fail|denied|disabled|invalid|"
    r"inactive|no such|refused|error|unavailable|undeliver|5\d\d|[45]\.\d{1,3}\.\d|bounce|blocked|no longer|exceed|"
    r"doesn't|does not|couldn't|could not|can't|cannot|unbekannt|inconnu|desconocid|expired|time"
)
_AROUND: Final = " <>\"'([{*-|.:\t"  # what may stand around an address that has a line to itself
_NO_DOMAIN_TAIL: Final = (".png", ".jpg", ".gif", ".htm", ".html", ".php")


def says_so(subject: str) -> bool:
    """Does a subject call the message a bounce?"""
    return bool(_SUBJECT.search(subject[:1000]))


def is_bounce(subject: str, said: str, *, daemon: bool) -> bool:
    """Does it read like a bounce? Only from a mail server's sender: people write such sentences too."""
    return daemon and (says_so(subject) or bool(_BODY.search(said[:8000])))


def is_warning(subject: str, said: str) -> bool:
    """A warning that delivery takes longer, not a failure."""
    return bool(_WARNING.search(subject[:500]) or _WARNING.search(said[:4000])) and not _GIVEN_UP.search(said[:3000])


def split(text: str) -> tuple[str, Part | None]:
    """The text before the returned copy, and the header fields of that copy if they are shown."""
    lines = text[:100_000].split("\n")
    for n, line in enumerate(lines):
        if n and _COPY.match(line[:300]):
            rest = "\n".join(lines[n if ":" in line[:14] else n + 1 :]).lstrip("\n >-")
            return "\n".join(lines[:n]), _copied(rest)
    return "\n".join(lines), None


def _copied(text: str) -> Part | None:
    for block in text[:40_000].split("\n\n")[:6]:
        inner, _, _ = fields.split((block.lstrip("\n") + "\n").encode("utf-8", "replace"))
        if "from" in inner and ("subject" in inner or "to" in inner or "message-id" in inner):
            return Part(inner, "text/plain", {}, b"")
    return None


def recipients(said: str, house: House, writer: str, original: Part | None) -> list[tuple[str, str]]:
    """[(failed recipient, what is said about it)] from the text of a bounce, at most 100."""
    out: dict[str, tuple[str, str]] = {}
    lines = [line[:1000] for line in said.split("\n")[:600]]
    senders = {writer.lower()} | (_senders(original) if original else set())
    for tier in (_stands_alone, _fails_in_line, _anywhere):
        for n, line in enumerate(lines):
            if "@" not in line or _NOT_A_RECIPIENT.search(line):
                continue
            for start, end, address in addresses.in_text(line):
                if not _excluded(address, house, senders) and tier(line, start, end):
                    out.setdefault(
                        address.lower(),
                        (
                            address,
                            " ".join([line[end:], *lines[n + 1 : n + 8]]) if tier is not _anywhere else said[:3000],
                        ),
                    )
        if out:
            break
    if not out and original is not None:
        to = [a for a in addresses.specs(original.fields.get("to")) if not _excluded(a, house, set())]
        out = {to[0].lower(): (to[0], said[:3000])} if len(to) == 1 else {}
    return list(out.values())[:100]


def _senders(original: Part) -> set[str]:
    values = [v for name in ("from", "sender", "return-path", "reply-to") for v in original.fields.all(name)]
    return {a.lower() for v in values for a in addresses.specs(v)} - {
        a.lower() for a in addresses.specs(original.fields.get("to"))
    }


def _excluded(address: str, house: House, senders: set[str]) -> bool:
    local = address.lower().rpartition("@")[0]
    return (
        address.lower() in senders
        or house.is_ours(address)
        or local in ("mailer-daemon", "postmaster", "abuse")
        or address.lower().endswith(_NO_DOMAIN_TAIL)
    )


def _stands_alone(line: str, start: int, end: int) -> bool:
    return bool(_ALONE.match(line)) and " " not in line[:start].strip(_AROUND)


def _fails_in_line(line: str, start: int, end: int) -> bool:
    return bool(_FAILS.search(line)) or bool(_RCPT.search(line[:start]))


def _anywhere(line: str, start: int, end: int) -> bool:
    return True


def by_flufl(raw: bytes) -> list[str]:
    """What flufl.bounce makes of a message nobody else could read: the fallback for odd formats."""
    from email import message_from_bytes

    from flufl.bounce import all_failures  # a tenth of a second, for the few messages that come so far

    logger = logging.getLogger("flufl.bounce")
    disabled, logger.disabled = logger.disabled, True  # this room does not log
    try:
        temporary, permanent = all_failures(message_from_bytes(raw[:32_768]))
    except Exception:  # noqa: BLE001 - third-party detectors over hostile input: whatever they raise means "not read"
        return []
    finally:
        logger.disabled = disabled
    found = (addresses.spec(a.decode("utf-8", "replace")) for a in sorted(temporary | permanent))
    return [a for a in found if a is not None][:100]
