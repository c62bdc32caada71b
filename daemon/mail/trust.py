"""Is the author who he says he is? Authentication-Results (RFC 8601), as far as our own mail server wrote them."""

from __future__ import annotations

from typing import Literal

from daemon.config import House
from daemon.mail.fields import Fields
from daemon.mail.patterns import pattern

Verdict = Literal["pass", "fail", "none"]

_BY = pattern(r"(?:^|\s)by\s{1,3}([^\s;()]{1,255})")
_DMARC = pattern(r"(?:^|;)\s{0,20}dmarc\s{0,3}=\s{0,3}([a-z]{1,20})")
_QUOTED = pattern(r"\"(?:[^\"\\]|\\.)*\"?")
_HEADER_FROM = pattern(r"header\.from\s{0,3}=\s{0,3}([^\s;()]{1,255})")


def dmarc(fields: Fields, house: House, author_domain: str) -> Verdict:
    """What our own server says of the author's domain: the first field of ours, read from the top, decides.

    A field only counts above the first Received whose `by` is neither our server nor in our domains: what stands
    below that was written by somebody else, whatever it calls itself (RFC 8601 section 5).
    """
    ours = house.authserv_id.lower()
    if not ours:
        return "none"
    for name, value in fields.items:
        if name == "received" and not _received_by_us(value, house):
            break
        if name == "authentication-results" and authserv_id(value) == ours:
            return _result(value, author_domain)
    return "none"


def _received_by_us(value: str, house: House) -> bool:
    found = _BY.search(value[:4000])
    return found is not None and (found[1].lower() == house.authserv_id.lower() or house.owns(found[1]))


def authserv_id(value: str) -> str:
    """Who wrote this Authentication-Results field, in small letters; "" if it does not say."""
    head = _without_comments(value[:8000]).partition(";")[0].split()
    return head[0].strip('"').lower() if head else ""


def _result(value: str, author_domain: str) -> Verdict:
    # What a sender chose (smtp.mailfrom="...", reason="...") stands in quotes: it must not pass for a result.
    bare = _without_comments(_QUOTED.sub('""', value[:8000]))
    found = _DMARC.search(bare)
    if not found:
        return "none"
    about = _HEADER_FROM.search(bare, found.end())
    if about and author_domain and about[1].lower().rstrip(".").rpartition("@")[2] != author_domain:
        return "none"  # a result about another author
    match found[1].lower():
        case "pass" | "bestguesspass":
            return "pass" if found[1].lower() == "pass" else "none"
        case "fail" | "permerror":
            return "fail" if found[1].lower() == "fail" else "none"
        case _:
            return "none"


def _without_comments(value: str) -> str:
    out: list[str] = []
    depth = 0
    for char in value:
        depth += char == "("
        if not depth:
            out.append(char)
        depth -= char == ")" and depth > 0
    return "".join(out)
