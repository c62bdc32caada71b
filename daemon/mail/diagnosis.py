"""Is a failed delivery about the address for good? Status codes (RFC 3463) and what servers say in words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from re import Match
from typing import Final

from daemon.mail.patterns import pattern
from daemon.mail.reading import Cause

_CODE = pattern(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.]*\d)")
_REPLY = pattern(r"(?<![\d.:-])([45]\d\d)[ -]")
_FULL = pattern(
    r"mailbox (?:is |was )?(?:full|quota|size)|mailbox exceeded|over ?quota|quota (?:exceeded|is exceeded|full)|"
    r"exceed\w{0,3} (?:\w{1,12} ){0,4}quota|quota violation|out of storage|insufficient (?:system )?storage|mailbox "
    r"limit|mailfolder is full"
    r"|(?:box|inbox|account) is full|storage (?:limit|quota)|disk (?:quota|full)|no space left|not enough (?:disk "
    r")?space|too much mail|user is over|over the (?:maximum )?(?:allowed )?quota|mailbox has exceeded|boîte aux "
    r"lettres pleine|postfach (?:ist )?voll|buz[oó]n lleno|boite pleine|容量超過|いっぱい"
    r"|mailbox size limit|mailbox too large|exceeded storage|over its (?:disk )?quota|exceeded the limit|space "
    r"allocation"
)
_SIZE = pattern(
    r"(?:message|mail|file|attachment|size) (?:is |was )?(?:too (?:large|big|long)|exceeds|size exceeds|length "
    r"exceeds)|size limit|maximum (?:message |allowed )?size|max(?:imum)? message size|message exceeds|exceeds "
    r"(?:the )?(?:maximum|max)|exceeded max message|too large a message|message file too big|larger than"
)
_POLICY = pattern(
    r"\bspam\b|\bspam[a-z]{0,12}\b|black ?list|block ?list|blocked(?! (?:due to|because of|for) inactivity)|"
    r"\bdnsbl\b|\brbl\b|spamhaus|spamcop|barracuda|"
    r"reputation|\bpolicy\b|policies|\bdmarc\b|\bspf\b|\bdkim\b|unauthenticated|not authenticated|authentication|"
    r"virus|malware|content (?:rejected|filter)|rejected by (?:content|filter)"
    r"|relay(?:ing)? (?:denied|not permitted|access)|relay access|unable to relay|not permitted to relay|relaying|"
    r"not allowed to (?:relay|send)|access denied(?! \[)|banned|prohibited|unsolicited|junk|poor reputation|too many (?:invalid |bad |unknown )?"
    r"(?:connections|recipients|messages|emails)|rate limit|ratelimit|throttl|greylist|graylist|deferred due"
    r"|not accepting mail from|denied by|refused by|ip (?:address )?(?:is |has been )?(?:listed|blocked)|no ptr|"
    r"reverse dns|\bptr\b|\bhelo\b|sender (?:address )?(?:rejected|denied|verify)|domain of sender|require[sd]? tls|"
    r"tls required|starttls|security (?:issue|policy|reasons)|suspicious|phish|unacceptable content|message content|"
    r"bulk mail|not in my (?:white|allow)"
    r"|mail from (?:your )?ip|bad sender|delivery not authorized|not authorized|dissatisfied|pour des raisons|"
    r"\bOU-\d{3}|\bAS\d{6,8}|5\.7\.\d"
)
_LATER = pattern(
    r"try again|temporar|dns (?:error|failure|lookup)|(?<!from )name server|nameserver|lookup (?:failed|failure|timed)|"
    r"servfail|timed ?out|time-?out|connection (?:refused|reset|lost|dropped|timed)|could not connect|unable to "
    r"connect|connect(?:ion)? failed|host (?:is )?(?:unreachable|down)|network is unreachable|no route to host|retry "
    r"time|retry timeout"
    r"|loop|too many hops|hop count|deferred|delayed|will be retried|resources temporarily|server (?:is )?(?:busy|"
    r"unavailable)|service (?:is )?(?:not |un)available|system error|local error|internal error|configuration error|"
    r"read error|i/o error|mail system full"
)
_GONE = pattern(
    r"user[ _-]?unknown|unknown (?:user|recipient|local|address|mailbox|account)|unknown or illegal|no such (?:user|"
    r"mailbox|recipient|account|address|person|name|local|email)|no (?:mailbox|account|user)\b[^\n]{0,30}(?:here|"
    r"found|by that|exist)|(?:user|recipient|mailbox|account|address|addressee|alias|email)(?: \S{1,80})? (?:does "
    r"not|doesn'?t|do not) exist|doesn'?t have an? [^\n]{0,40}account"
    r"|does not exist|doesn'?t exist|(?:user|recipient|mailbox|address|account|addressee) (?:is |was )?(?:not found|"
    r"unknown|invalid|disabled|inactive|suspended|closed|deactivated|terminated|not known|not listed|unavailable|not "
    r"available|no longer)|not a (?:valid|known) (?:user|recipient|mailbox|address)|invalid (?:recipient|mailbox|"
    r"user|address|destination)"
    r"|bad (?:destination )?(?:mailbox|address|recipient)|recipient (?:address )?(?:not exist|unknown|"
    r"invalid|is not)|(?:account|mailbox) (?:has been |is |is currently )?(?:disabled|inactive|suspended|closed|"
    r"deactivated|discontinued|expired|blocked by user)|mailbox unavailable|mailbox not|no longer "
    r"(?:available|active|valid|exists|with|in use|on server|works)|address (?:unknown|not known|not found|inconnue)"
    r"|inactive (?:user|account|recipient|mailbox)|disabled (?:user|account|recipient|mailbox)|not our customer|"
    r"unrouteable|unroutable|domain (?:name )?(?:not found|does not exist|unknown|invalid)|no such domain|unknown "
    r"(?:host|domain)|host unknown|host(?: or domain name)? (?:was )?not found|domain isn'?t in my list|nxdomain|"
    r"non-?existent|no mx|not listed in|can'?t be found|could not be found|cannot be found|couldn'?t be found|"
    r"wasn'?t found|no existe|n'existe pas|inconnu|desconocid|existiert nicht|unbekannt|nicht gefunden|konnte nicht "
    r"gefunden"
    r"|is not a known user|not a known|not known at|addressee unknown|this user doesn|account (?:does|that you "
    r"tried)|unknown to|destination unknown|name (?:is )?not recogni|user reject|undeliverable address|invalid "
    r"address|mailbox for [^\n]{1,80} (?:does|not)|no recipient|user not|recipient not|宛先|ユーザ|存在しない|見つかりません|not "
    r"active|(?<!an )unknown\b(?! (?:mailer )?error)|not listed|(?:check|verify) (?:if |that |whether )?(?:the )?(?:recipient(?:'s)? |e-?mail )?"
    r"address is correct|"
    r"invalid (?:final )?(?:delivery )?(?:user ?id|receiver)|user(?:s|\(s\))? account is (?:disabled|suspended)|存在しません|ありません|"
    r"not (?:a )?valid (?:recipient|address|user|mailbox)|inactivity|"
    r"(?:user|account|mailbox|recipient)(?: \S{1,80})? (?:has been |is |was )(?:disabled|suspended|deactivated|closed|terminated)|"
    r"recipient\w? (?:are|is) not valid|no valid recipient"
)
# Said to the person who reads it, not of the server: "check for typos and try again".
_ADVICE = pattern(
    r"(?:check|verify|correct|typos|typing)[^.\n]{0,90}(?:try (?:again|to|re|sending)|re-?send)[^.\n]{0,20}|\b2\d\d deferred"
)
# What sendmail appends to whatever its mailer said; beside a plain "unknown user" it means nothing.
_GENERIC = pattern(r"service unavailable|system error|local error|configuration error|internal error")
# What an address or a link is called says nothing: "policy@", "spamcheck.example/why".
_NAMES = pattern(r"(?<![^\s<(\"':])[^\s@<>()\"']{1,64}@[a-z0-9.-]{1,255}")
_LINKS = pattern(r"https?://[^\s>]{1,500}")
_NOT_NOW = pattern(r"not found[,;]? try again")
_NO_HOST = pattern(
    r"host [^\s:]{1,255} (?:was )?not found|host (?:was )?(?:unknown|not found)|unknown host|nxdomain|"
    r"domain (?:name )?(?:does not exist|not found)|no such domain"
)
_LOOKUP = pattern(
    r"(?:dns|name|host|domain) (?:server )?(?:lookup|look-up) (?:failed|failure|error)|dns (?:lookup )?(?:error|failure)|name server"
)
_PLAINLY_GONE = pattern(
    r"user[ _-]?unknown|unknown (?:user|recipient|mailbox)|no such (?:user|mailbox|recipient|account)|"
    r"recipient not found|(?:user|mailbox|account|recipient) (?:does not|doesn't) exist"
)
# The server did not like us, whatever it says of whom: the recipient had not been named yet.
_SENDERS_FAULT = pattern(
    r"(?:after|in reply to|response to|following) (?:sending |pipelined |the )?mail from|unrout(?:e)?able sender|"
    r"sender (?:unknown|does not exist|domain)|unknown sender|(?:return|envelope) address"
)
_ACCESS_DENIED = pattern(r"recipient address(?:es)? rejected ?: access denied")

_ADDRESS_CODES: Final = frozenset(("1.1", "1.2", "1.3", "1.6", "1.10", "4.4"))


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`hard`: permanent and about the address itself; `status`: the code that counted ("" if none)."""

    hard: bool
    cause: Cause
    status: str


@lru_cache(maxsize=256)  # a report to thousands says the same of each
def diagnose(action: str, status: str, text: str) -> Diagnosis:
    """`action` and `status` of a report's recipient, `text` what the remote server said (Diagnostic-Code, or a bounce's text).

    Words about a full mailbox, size, policy or blocklists beat any code: servers give 5.1.1 for all of them. A code in
    the remote's text beats the Status that the reporting server made up.
    """
    text = text[:6000]
    remote = _CODE.search(text)
    stated = _CODE.search(status)
    code = _specific(remote) or _specific(stated) or _any(remote) or _any(stated)
    reply = _REPLY.search(text)
    temporary = (
        action in ("delayed", "delay")
        or code.startswith("4")
        or (not remote and reply is not None and reply[1].startswith("4"))
    )
    tail = code.partition(".")[2]
    cause = _cause(text, tail)
    if cause != "address" or temporary:
        return Diagnosis(False, cause if cause != "address" else "mailbox", code)
    if tail in _ADDRESS_CODES or (tail == "2.1" and code.startswith("5")):
        return Diagnosis(not _is_passing(text, tail), "address" if not _is_passing(text, tail) else "mailbox", code)
    if tail == "4.1" and _ACCESS_DENIED.search(text):
        return Diagnosis(True, "address", code)
    unspecific = (
        tail in ("", "0.0") or tail.startswith(("0.", "5.")) or tail in ("1.0", "3.0", "2.0", "4.0", "4.1", "9.9")
    )
    gone = bool(_GONE.search(text) or _NO_HOST.search(text))
    hard = unspecific and gone and not _is_later(text) and not _SENDERS_FAULT.search(text)
    return Diagnosis(hard, "address" if hard else "mailbox", code)


@lru_cache(maxsize=256)
def says_nothing(text: str) -> bool:
    """Does a text give neither a code nor words to go by?"""
    if _any(_CODE.search(text)).rstrip(".0") not in ("", "4", "5") or _REPLY.search(text):
        return False
    return not any(words.search(text) for words in (_GONE, _FULL, _SIZE, _POLICY, _LATER))


def _is_later(text: str) -> bool:
    text = _ADVICE.sub(" ", text)
    if _PLAINLY_GONE.search(text):
        text = _GENERIC.sub(" ", text)
    if _NO_HOST.search(text):
        text = _LOOKUP.sub(" ", text)  # it failed because there is none
    return bool(_LATER.search(text))


def _is_passing(text: str, tail: str) -> bool:
    found = _LATER.search(text)
    if _NOT_NOW.search(text):
        return True
    return bool(found) and tail in ("1.2", "4.4") and not _GONE.search(text)


def _cause(text: str, tail: str) -> Cause:
    text = _NAMES.sub("@", text)
    if _PLAINLY_GONE.search(text):
        text = _LINKS.sub("@", text)
    if tail.startswith("7.") and not _ACCESS_DENIED.search(text):
        return "policy"
    if tail in ("2.2", "3.4") or _FULL.search(text) or _SIZE.search(text):
        return "mailbox"
    if _POLICY.search(text) and not _ACCESS_DENIED.search(text):
        return "policy"
    return "address"


def _any(found: Match[str] | None) -> str:
    return f"{found[1]}.{int(found[2])}.{int(found[3])}" if found else ""


def _specific(found: Match[str] | None) -> str:
    code = _any(found)
    return "" if code.endswith(".0.0") else code
