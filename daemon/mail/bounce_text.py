"""Bounces that are only text: is it one, and whom does it name? Our own patterns first, flufl.bounce as a fallback."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, NamedTuple

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
    r"mail returned|\bdsn\b|returned due to|permanent delivery|(?:automatically )?rejected mail|mail (?:sending |delivery )?failed|"
    r"error (?:sending|delivering) your|error during delivery|delivery status|undelivrable|deliver(?:y|ies) fail|"
    r"配信エラー|配送エラー|送信エラー|不達|送信できません|配送できません"
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
    r")?message|your (?:original )?message (?:follows|reads|(?:was|is)(?::| below| attached| included| enclosed))"
    r"|included (?:below )?is (?:a copy|the)|here is (?:a copy|your)|the (?:original )?message (?:follows|"
    r"headers|header)|message header(?:s)? follow|returned message follows|headers of (?:the|your)|message "
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
    r"|mail from:|contact (?:the|your|us|<)|mailer-daemon@|please (?:contact|send|forward|e-?mail)|further "
    r"assistance|for (?:help|assistance|more)|(?<!expanded )(?<!generated )\bfrom:? ?<|helpdesk|abuse@|message-id|sender[: ]|sent by|originat|"
    r"envelope-from|verantwort|return path"
)
_HELP = pattern(
    r"further assistance|please (?:contact|send)|contact (?:the|your|us|<)|for (?:help|assistance)|helpdesk"
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
# After such a line stand the recipients.
_LISTED = pattern(
    r"(?:the|these|following|each of the|all|to) (?:following )?(?:e-?mail |mail |failed )?(?:recipient|address|destinat|user|people|"
    r"person|mailbox)[a-z]{0,6}(?:\([a-z]{1,3}\))?[^\n@]{0,60}(?:reach|deliver|fail|error|problem|affected|receive|rejected|abort|"
    r"listed below)|(?:following|these) (?:e-?mail |failed )?(?:recipient|address(?! book)|destinat|user|people|person)|"
    r"failed (?:recipient|address)|undeliverable to|not (?:be )?(?:deliver|reach|sen)[a-z]{0,5} to\W{0,3}$|"
    r"unable to deliver[^\n@]{0,30} to\W{0,3}$|failure reasons|recipients? (?:were|was) affected|"
    r"the following:?$|addressed to:?$|以下の(?:メール)?アドレス|次の(?:宛先|受信者)|"
    r"(?:delivre|livr[ée]|remis|distribu)[a-z\u00e0-\u00ff]{0,4} [aà]\W{0,3}$|folgende[nr]? (?:empf|adress)|"
    r"member of (?:this|the) (?:mailing )?list"
)
_LABEL = pattern(
    r"^[\s>*-]{0,12}(?:to|smtp|rfc822|recipient|e-?mail|user|address)\s?[:;=]\W{0,4}$|(?:smtp|rfc-?822)[:=]\W{0,3}$"
)
_LIST_ENDS = pattern(
    r"transcript of|^\W{0,40}(?:technical (?:details|report)|additional information|original (?:message|sender)|message details|"
    r"(?:this|the|your) (?:original )?(?:message|mail)|for (?:help|further|more)|reporting-mta)"
)
# How a server begins that does not write under a server's name: whole sentences, as people do not word them.
_OPENING = pattern(
    r"(?:(?:your|this|the(?: following)?|a) (?:e-?mail|message|mail)\b[^\n]{0,160}(?:could not|cannot|can not|was not|has not) "
    r"(?:be |been )?(?:delivered|sent) to(?: the following (?:recipient|address)[a-z]{0,2}(?:\([a-z]{1,3}\))?)?\W|"
    r"could not deliver (?:your |the |this )?message to the following|failed (?:recipient|address)[a-z]{0,2}(?:\([a-z]{1,3}\))?\W|"
    r"(?:this is an|an) automatic[a-z]{0,4} generated (?:delivery|message)|delivery to the following (?:recipient|address)|"
    r"this (?:e-?mail|message) (?:was|has been) (?:created|generated) automatically by|the following recipient[a-z]?(?:\([a-z]\))? "
    r"(?:could not|cannot|did not)|an error (?:has )?occurred while (?:attempting|trying) to deliver|"
    r"votre message n'a p(?:as|u) [^\n]{0,60}[àa]\W|ihre (?:nachricht|e-?mail|mail)\b[^\n]{0,120}nicht zugestellt werden)"
)
_SENT_TO = pattern(r"(?:delivered|sent) to:?\s{0,3}<?[^\s<>@]{1,64}@")
_PERSON = pattern(
    r"\b(?:thanks|thank you|regards|cheers|i am|i have|i got|i get|i've|i tried|can you|could you|do you|any idea|what does|"
    r"my (?:mail|e-?mail|account|colleague|customer|message)|gru(?:ß|ss)|merci|danke|grazie|gracias|cordialement)\b"
)
_ANSWERS = pattern(r"\W{0,3}(?:re|aw|antw|sv|vs|fw|fwd|wg|tr|rv|i|enc|doorst)\s{0,2}:\s{0,3}")
_REFUSED_POST = pattern(r"not (?:a )?member|only members|post(?:ing)? (?:is )?(?:restricted|rejected|denied)")
_RULES: Final = " \t*-=#_~|+"  # what servers draw lines and boxes with
_AROUND: Final = " <>\"'([{*-|.:\t"  # what may stand around an address that has a line to itself
_NO_DOMAIN_TAIL: Final = (".png", ".jpg", ".gif", ".htm", ".html", ".php")


def says_so(subject: str) -> bool:
    """Does a subject call the message a bounce?"""
    return bool(_SUBJECT.search(subject[:1000]))


def is_bounce(subject: str, said: str, *, daemon: bool) -> bool:
    """Does it read like a bounce? Only from a mail server's sender: people write such sentences too."""
    return daemon and (says_so(subject) or bool(_BODY.search(said[:8000])))


def reads_like_a_servers(subject: str, said: str) -> bool:
    """Does a message under no server's name read as only servers write?

    Its subject says so and is no answer's; it begins with a server's sentence, lists whom it is about, and has not a
    word that a person would add who pastes such a text.
    """
    answer = _ANSWERS.match(subject[:100])
    if answer and _SUBJECT.match(subject[answer.end() : 1000]):
        return False
    lines = [line.strip(_RULES) for line in said[:4000].split("\n") if any(c.isalnum() for c in line)]
    if not says_so(subject) or not _OPENING.match(" ".join(lines[:3])[:600]) or _PERSON.search(said[:4000]):
        return False
    return any(_ALONE.match(line) or _SENT_TO.search(line[:1000]) for line in lines[:20]) and not any(
        line.startswith(">") for line in lines[:40]
    )


def is_refused_post(subject: str, said: str) -> bool:
    """Does a list server say that it does not take a post?"""
    return bool(_REFUSED_POST.search(subject[:500]) and _REFUSED_POST.search(said[:1000]))


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


def recipients(
    said: str, house: House, writer: str, returned_to: set[str], original: Part | None
) -> list[tuple[str, str]]:
    """[(failed recipient, what is said about it)] from the text of a bounce, at most 100.

    First those a server lists as such, then those that stand alone or beside words of failure. `returned_to`, who got
    the bounce, and who wrote the original are no failed recipients where anybody else is.
    """
    lines = [line[:1000] for line in said.split("\n")[:600]]
    senders = {writer.lower()} | (_senders(original) if original else set())
    named = [_Named(n, *found) for n, line in enumerate(lines) if "@" in line for found in addresses.in_text(line)[:20]]
    help_lines = {n for n in {x.line for x in named} if _HELP.search(lines[n])}
    contacts = {x.address.lower() for x in named if x.line in help_lines}
    apart = {n for n in {x.line for x in named} if _NOT_A_RECIPIENT.search(lines[n])}
    named = [x for x in named if x.line not in apart][:2000]
    for excluded in (returned_to, set[str]()):
        if out := _found(named, lines, house, excluded, _listed(lines)):
            return out
    for tier in (_stands_alone, _fails_in_line, _anywhere):
        if out := _found(named, lines, house, senders | returned_to | contacts | {"postmaster", "abuse"}, tier):
            return [(a, said[:3000]) for a, _ in out] if tier is _anywhere else out
    to = addresses.specs(original.fields.get("to")) if original is not None else []
    if len(to) == 1 and not _excluded(to[0], house, set()):
        return [(to[0], said[:3000])]
    theirs = {writer.lower()} | contacts
    return _found(named, lines, house, theirs, _stands_alone) or _found(named, lines, house, theirs, _fails_in_line)


class _Named(NamedTuple):
    """An address and where it stands."""

    line: int
    start: int
    end: int
    address: str


_Tier = Callable[[int, str, int], bool]


def _found(
    named: list[_Named], lines: list[str], house: House, excluded: set[str], tier: _Tier
) -> list[tuple[str, str]]:
    """[(address, what is said about it)] of those that `tier` takes, each with the words up to the next address."""
    hits = [x for x in named if not _excluded(x.address, house, excluded) and tier(x.line, lines[x.line], x.start)]
    out: dict[str, tuple[str, str]] = {}
    for at, (n, start, end, address) in enumerate(hits[:400]):
        others = (x.line for x in hits[at + 1 : at + 20] if x.address.lower() != address.lower() and x.line > n)
        until = min(next(others, n + 8), n + 8)
        near = " ".join([lines[n][:start], lines[n][end:], *lines[n + 1 : until]])
        out.setdefault(address.lower(), (address, near))
    return list(out.values())[:100]


def _listed(lines: list[str]) -> _Tier:
    """Takes the lines that begin with an address, from a line that announces the failed recipients to the list's end."""
    begins: dict[int, int] = {}  # line -> where on it the address may begin
    taken = False
    for n, line in enumerate(lines):
        if begins and taken and _LIST_ENDS.search(line):
            break
        if begins:
            begins[n] = 0
            taken = taken or "@" in line
        elif found := _LISTED.search(line):
            begins[n] = found.end()
            taken = "@" in line[found.end() :]
    return lambda n, line, start: n in begins and start >= begins[n] and _is_label(line[begins[n] : start])


def _is_label(before: str) -> bool:
    """What stands between the beginning of a line and an address in a list of recipients: nothing, or "smtp:"."""
    return not before.strip(_AROUND) or bool(_LABEL.search(before))


def _senders(original: Part) -> set[str]:
    values = [v for name in ("from", "sender", "return-path", "reply-to") for v in original.fields.all(name)]
    return {a.lower() for v in values for a in addresses.specs(v)} - {
        a.lower() for a in addresses.specs(original.fields.get("to"))
    }


def _excluded(address: str, house: House, excluded: set[str]) -> bool:
    """`excluded`: addresses, and local parts that are no recipients."""
    local = address.lower().rpartition("@")[0]
    return (
        address.lower() in excluded
        or local in excluded
        or house.is_ours(address)
        or local == "mailer-daemon"
        or address.lower().endswith(_NO_DOMAIN_TAIL)
    )


def _stands_alone(n: int, line: str, start: int) -> bool:
    return bool(_ALONE.match(line)) and " " not in line[:start].strip(_AROUND)


def _fails_in_line(n: int, line: str, start: int) -> bool:
    return bool(_FAILS.search(line)) or bool(_RCPT.search(line[:start]))


def _anywhere(n: int, line: str, start: int) -> bool:
    return True


def by_flufl(raw: bytes) -> list[str]:
    """What flufl.bounce makes of a message nobody else could read: the fallback for odd formats."""
    from email import message_from_bytes

    from flufl.bounce import all_failures  # a tenth of a second, for the few messages that come so far

    logger = logging.getLogger("flufl.bounce")
    disabled, logger.disabled = logger.disabled, True  # this room does not log
    try:
        temporary, permanent = all_failures(message_from_bytes(raw[:32_768]))
    except Exception:  # noqa: BLE001 - third-party detectors over hostile input: they raise many kinds, and all mean "not read"
        return []
    finally:
        logger.disabled = disabled
    found = (addresses.spec(a.decode("utf-8", "replace")) for a in sorted(temporary | permanent))
    return [a for a in found if a is not None][:100]
