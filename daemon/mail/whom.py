"""Whose address a request is about (specification, section 3). Never one of our own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from daemon.config import House
from daemon.mail import addresses
from daemon.mail.phrases import Clause
from daemon.mail.quoting import Copy
from daemon.mail.sentences import Sentence
from daemon.mail.wishes import Wish
from storage.address import PUBLIC_PROVIDERS

_HIMSELF: Final = frozenset("me myself mich moi m me".split())
_FAVOUR: Final = frozenset("for fur pour".split())  # "take that one off for me"
# What is called "my" in front of an address that is not the writer's own: "my officer dpo@...".
_NO_ADDRESS: Final = frozenset(
    "officer colleague colleagues successor boss manager assistant secretary lawyer wife husband partner friend kollege"
    " kollegin nachfolger nachfolgerin chef chefin frau mann anwalt collegue collegues successeur avocat companero companera"
    " jefe jefa sucesor questions question fragen ruckfragen preguntas still wants gets keeps".split()
)
# RFC 2606 domains are everybody's, like those of a freemail provider.
_EVERYBODYS: Final = frozenset(("example.com", "example.org", "example.net"))
_MANY: Final = 4  # named addresses: from here on it is a pasted list of people


@dataclass(frozen=True, slots=True)
class Whom:
    """The addresses a request is about, and the rule; `doubt`: a person must look, the addresses are hints."""

    addresses: tuple[str, ...]
    rule: str
    doubt: bool = False


def whom(wish: Wish, writer: str, house: House, copies: list[Copy], *, reply: bool, forward: bool) -> Whom:
    """Resolve the addresses of a request written from `writer`."""
    named = list(dict.fromkeys(a for a in wish.addresses if not _ours(a, house)))
    if any(a.lower() != writer.lower() for a in named) and _only_himself(wish):
        named = [a for a in named if _is_asked_for(wish, a)]
    others = [a for a in named if a.lower() != writer.lower()]
    if len(others) >= _MANY:
        return Whom(tuple(named), "2-review-f-many", doubt=True)
    if not others:
        if wish.about_others and not _from_here(wish):
            return Whom((), "2-review-f-another", doubt=True)
        return _writer(writer, house, copies, reply=reply, forward=forward)
    return _named(wish, writer, others)


def _only_himself(wish: Wish) -> bool:
    """ "Please unsubscribe me. Questions go to it@...": does he say outright that it is he who wants to leave?"""
    return any(
        word in _HIMSELF and clause.words[max(0, at - 1)] not in _FAVOUR
        for n in wish.deciding
        for clause in _asking(wish, n)
        for at, word in enumerate(clause.words)
    )


def _asking(wish: Wish, n: int) -> list[Clause]:
    sentence = wish.sentences[n]
    asking = [sentence.clauses[c] for c, _ in sentence.says("ask")]
    return asking or sentence.clauses


def _is_asked_for(wish: Wish, address: str) -> bool:
    """Does the address stand where it is asked, or in a sentence that calls it the writer's own ("also", "both")?"""
    marks = {f"@@{n}" for n, a in enumerate(wish.addresses) if a.lower() == address.lower()}
    asked = any(marks & set(clause.words) for n in wish.deciding for clause in _asking(wish, n))
    own = any(
        _owned(clause, marks) and "not_own" not in clause.found and not _NO_ADDRESS & set(clause.words)
        for sentence in wish.sentences
        for clause in sentence.clauses
        if marks & set(clause.words)
    )
    return asked or own or any(s.has("both") for s in wish.sentences)


def are_colleagues(wish: Wish, writer: str, house: House) -> bool:
    """Is everybody who is named in the writer's own organisation (specification 3.3)?"""
    named = {a.lower() for a in wish.addresses if not _ours(a, house)} - {writer.lower()}
    return 0 < len(named) < _MANY and all(same_organisation(a, writer) for a in named)


def same_organisation(one: str, other: str) -> bool:
    """Are both addresses in one domain that is not everybody's?"""
    domain, second = _domain(one), _domain(other)
    return domain == second and domain not in PUBLIC_PROVIDERS and domain not in _EVERYBODYS


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()


def _ours(address: str, house: House) -> bool:
    return (
        house.is_ours(address)
        or house.owns(_domain(address))
        or any(x.sender.lower() == address.lower() for x in house.lists if x.sender)
    )


def _writer(writer: str, house: House, copies: list[Copy], *, reply: bool, forward: bool) -> Whom:
    """No address in the request: From; and whom the quoted copy of our mailing was sent to."""
    for copy in copies:
        if not copy.to or not _is_our_mailing(copy, house):
            continue
        to = [a for a in addresses.specs(copy.to) if a.lower() != writer.lower() and not _ours(a, house)]
        if len(to) != 1:
            continue
        if forward or copy.forwarded:
            if same_organisation(to[0], writer):
                return Whom((writer, to[0]), "3.5-forwarded")
        elif reply:
            return Whom((writer, to[0]), "3.5-alias")
    return Whom((writer,), "3.1-writer")


def _is_our_mailing(copy: Copy, house: House) -> bool:
    return any(_ours(a, house) for _, _, a in addresses.in_text(copy.author))


def _named(wish: Wish, writer: str, others: list[str]) -> Whom:
    both = _both(wish, writer)
    rules = {_claim(wish, address, writer) for address in others}
    if "3.4-another-domain" in rules:
        return Whom(tuple(others), "3.4-another-domain", doubt=True)
    rule = "3.2-named-own" if "3.2-named-own" in rules else "3.3-same-domain"
    return Whom((writer, *others) if both else tuple(others), rule)


def _claim(wish: Wish, address: str, writer: str) -> str:
    """Does the writer call the address his own, is it in his domain, or somebody else's?"""
    marks = {f"@@{n}" for n, a in enumerate(wish.addresses) if a.lower() == address.lower()}
    near = [(s, c) for s in wish.sentences for c in s.clauses if marks & set(c.words)]
    around = [s for s in wish.sentences if any(marks & set(c.words) for c in s.clauses)]
    strangers = any("not_own" in c.found for s in around for c in s.clauses) or wish.about_others
    mine = [s for s in wish.sentences if s.has("is_mine")]
    strangers = strangers or any(s.has("not_own") for s in mine)
    own = (
        any(_owned(c, marks) for _, c in near)
        or any("own_address" in c.found for s in around for c in s.clauses)
        or bool(mine)
    )
    if own and not strangers:
        return "3.2-named-own"
    return "3.3-same-domain" if same_organisation(address, writer) else "3.4-another-domain"


def _owned(clause: Clause, marks: set[str]) -> bool:
    at = next((n for n, w in enumerate(clause.words) if w in marks), 0)
    return clause.has("own_address", max(0, at - 8), at + 6)


def _both(wish: Wish, writer: str) -> bool:
    """Does he want the address he writes from to go as well?"""
    if any(a.lower() == writer.lower() for a in wish.addresses):
        return True
    return any(s.has("both") for s in wish.sentences if _speaks_of_addresses(s, wish))


def _speaks_of_addresses(sentence: Sentence, wish: Wish) -> bool:
    return any(w.startswith("@@") for w in sentence.words) or bool(sentence.says("ask") or sentence.says("maybe"))


def _from_here(wish: Wish) -> bool:
    """ "my dad's account", "this address": a relative who writes from the mailbox concerned."""
    return any(w in ("this", "diese", "dieser", "cette", "ce", "esta", "este") and n + 1 < len(c.words) and c.words[n + 1] in _MAILBOXES
               for s in wish.sentences for c in s.clauses for n, w in enumerate(c.words))  # fmt: skip


_MAILBOXES: Final = frozenset(
    "address email mailbox account adresse postfach konto mail compte boite direccion correo cuenta buzon emailadresse mailadresse".split()
)
