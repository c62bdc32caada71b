"""Does a text name a person? For erasing somebody from texts that are about others as well. Pure.

An address is found as people and machines write it: in any case, with any tag, with dots where a provider ignores them,
in quotes, as `ann%40example.com` of a link and as `ann=example.com` of a return path (VERP).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import idna

from storage.address import Address, NotAnAddress, parse, person, spellings

_WIDEST: Final = ("tag", "alias")
_SHORT: Final = 3  # letters of a local part that is not looked for by itself: it would be found everywhere
_MOST: Final = 100  # addresses that are taken from one text
_LONGEST: Final = 100_000  # characters of a text that are looked at: what we store is far shorter
_ADDRESS: Final = re.compile(r'[^\s<>"(),;:\[\]\\@]{1,64}@[\w.-]{1,253}|"[^"\r\n]{1,64}"@[\w.-]{1,253}')
_PLAIN: Final = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,253}"
)  # “ann@example.com”, or 我的ann@...
_WITHIN: Final = re.compile(r"([\w.+-]{1,64})(?:=40|=|%40|@)([\w-]{1,63}(?:\.[A-Za-z0-9]{1,63}){1,5})")


class Mentions:
    """How one person is recognised in a text.

    `word`: letters and digits, in lower case, that every such text has in it if its dots are left out, for a database to
    look for; "" if there are none to go by.
    """

    def __init__(self, address: Address):
        bare, dotless, domains = spellings(address)
        self._same = person(address, _WIDEST)
        local = r"\.?".join(map(re.escape, bare)) if dotless else re.escape(bare)
        domain = "|".join(re.escape(d) for name in domains for d in dict.fromkeys((name, _u_label(name))))
        tagged = rf'{local}(?:\+[^\s@=<>"]{{0,64}})?"?'
        letter = "A-Za-z0-9" if bare.isascii() else r"\w"  # beside one of ours no other script belongs to the address
        end = r"(?![A-Za-z0-9]|\.[A-Za-z0-9])"
        plain = rf"(?<![{letter}_.+-]){tagged}@(?:{domain})(?![A-Za-z0-9_-]|\.[A-Za-z0-9])"
        encoded = rf"(?:(?<![{letter}])|(?<=%[0-9A-F][0-9A-F])){tagged}(?:=40|=|%40)(?:{domain}){end}"
        self._whole = re.compile(f"{plain}|{encoded}", re.IGNORECASE)
        within = rf"(?<![{letter}]){tagged}(?:@|=40|=|%40)(?:{domain}){end}"
        self._within = re.compile(f"{plain}|{encoded}|{within}", re.IGNORECASE)
        self._local = (
            re.compile(rf"(?<![{letter}]){local}(?![{letter}])", re.IGNORECASE) if len(bare) >= _SHORT else self._within
        )
        runs = re.findall(r"[a-z0-9]+", bare) if bare.isascii() else []
        self.word: str = max(runs, key=len, default="")

    def same(self, text: str) -> bool:
        """Is this text an address of the person?"""
        try:
            return person(parse(text), _WIDEST) == self._same
        except NotAnAddress:
            return False

    def names(self, text: str) -> bool:
        """Does a text hold an address of the person?"""
        return bool(self._whole.search(unicodedata.normalize("NFC", text[:_LONGEST])))

    def is_in(self, identity: str) -> bool:
        """Does a Message-ID hold an address of the person, whatever stands before it (`<7.ann@example.com>`)?"""
        return bool(self._within.search(unicodedata.normalize("NFC", identity[:_LONGEST])))

    def hints(self, identity: str) -> bool:
        """Does it hold as much as the name before the @, as a word? For messages that are the person's anyway."""
        return self.is_in(identity) or bool(self._local.search(unicodedata.normalize("NFC", identity[:_LONGEST])))

    def masked(self, text: str, mask: str) -> str:
        """The text with every address of the person replaced."""
        return self._whole.sub(lambda _: mask, unicodedata.normalize("NFC", text))

    def others_masked(self, text: str, mask: str) -> str:
        """The text with every address replaced that is not the person's."""
        return _ADDRESS.sub(lambda m: m[0] if self.same(m[0].strip(".'")) or self.names(m[0]) else mask, text)


def _u_label(domain: str) -> str:
    try:
        return idna.decode(domain) if "xn--" in domain else domain
    except (idna.IDNAError, UnicodeError):
        return domain


def named(text: str) -> list[Address]:
    """Every address in a text, at most some hundred."""
    found = []
    for pattern in (_ADDRESS, _PLAIN):
        for m in islice(pattern.finditer(text[:_LONGEST]), _MOST):
            spec = m[0].strip(".-")
            found += [_parsed(spec), _parsed(spec.strip("'")), _parsed(spec.rpartition("=")[2])]  # `to=ann@example.com`
    return list(dict.fromkeys(a for a in found if a is not None and not a.is_domain))


def named_in_id(identity: str) -> list[Address]:
    """Every address that may be in a Message-ID: in `<bounce-7-ann=example.com@lists.example>` nobody knows where Ann begins."""
    found = []
    for m in islice(_WITHIN.finditer(identity[:_LONGEST]), _MOST):
        starts = [0, *(s.end() for s in re.finditer(r"[+_.=-]", m[1]))][:16]
        found += [_parsed(f"{m[1][start:]}@{m[2]}") for start in starts]
    return list(dict.fromkeys(a for a in found if a is not None and not a.is_domain))


def _parsed(text: str) -> Address | None:
    try:
        return parse(text)
    except NotAnAddress:
        return None


def strings(value: Any) -> Iterator[str]:
    """Every string in a value as JSON has it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for v in value.values():
            yield from strings(v)
    elif isinstance(value, list | tuple):
        for v in value:
            yield from strings(v)


def loaded(text: str | None) -> dict[str, Any]:
    """The particulars of an evidence; {} for none."""
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}
