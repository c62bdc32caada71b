"""What a message says: `read`, the specification's rules as a straight list (docs/triage.md; slugs in rules.py).

Pure: octets in, a reading out; no clock, no logs. Never raises, whatever the octets are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from daemon.config import House
from daemon.mail import addresses, arf, automatic, dsn, fields, lists, message, own, returned, tokens, trust, wording
from daemon.mail import whom as whose
from daemon.mail.message import Message
from daemon.mail.own import Own
from daemon.mail.patterns import pattern
from daemon.mail.reading import (
    ALL,
    AutoReply,
    Bounce,
    Cause,
    Complaint,
    Failed,
    OptOut,
    Ordinary,
    Proof,
    Reading,
    Resubscribe,
    Review,
)
from daemon.mail.tokens import Token
from daemon.mail.wishes import Wish
from storage.address import SiteKey

_UNDO = pattern(r"undo\s{1,3}[a-z2-7]{52}\Z")


@dataclass(slots=True)
class _Case:
    """A message and what has been found out about it so far."""

    message: Message
    house: House
    site_key: SiteKey | None
    authors: list[tuple[str, str]]  # of all From fields: (display name, address or "")

    @property
    def writer(self) -> str:
        """The From address; "" if there is none, or several (specification 4)."""
        return self.authors[0][1] if len(self.authors) == 1 else ""

    @property
    def subject(self) -> str:
        return fields.words(self.message.fields.get("subject"))[:2000]

    @property
    def dmarc(self) -> trust.Verdict:
        return trust.dmarc(self.message.fields, self.house, self.writer.rpartition("@")[2])


def read(raw: bytes, house: House, site_key: SiteKey | None = None) -> Reading:
    """The reading of a message, at most its first MiB. `site_key`: to know our own tokens in what comes back.

    The first rule that fits wins.
    """
    taken = message.take_apart(raw)
    authors = [author for value in taken.fields.all("from")[:5] for author in addresses.read(value)]
    case = _Case(taken, house, site_key, authors)
    for rule in _RULES:
        reading = rule(case)
        if reading is not None:
            return reading
    return _persons_words(case)


# ------------------------------------------------------------------ 0. machine mail


def _unsound(case: _Case) -> Reading | None:
    if not case.message.unsound:
        return None
    return Review((), ALL, case.writer or None, "", ("h-unsound",), case.message.unsound)


def _delivery_report(case: _Case) -> Reading | None:
    report = dsn.read(case.message, case.house, case.writer)
    if report is None:
        return None
    if report.original is not None and not returned.is_ours(report.original, case.house):
        return Ordinary(("0.1-backscatter",))
    if not report.failures:
        return AutoReply(("0.1-delivered",)) if report.delivered else _nobody_named(case)
    recipients = tuple(dict.fromkeys(failure.address for failure in report.failures))
    first = report.failures[0]
    return Bounce(
        recipients,
        all(f.diagnosis.hard for f in report.failures),
        _one_cause(report),
        first.diagnosis.status,
        first.text[:500],
        returned.proof(report.original, recipients, case.site_key),
        ("0.1-delivery-report" if report.machine_readable else "0.1-text-bounce",),
        each=_each(report),
        host=first.host,
    )


def _each(report: dsn.Report) -> tuple[Failed, ...]:
    """What is said of each recipient, where they differ."""
    found = tuple(
        Failed(f.address, f.diagnosis.hard, f.diagnosis.cause, f.diagnosis.status, f.host) for f in report.failures
    )
    return found if len({(f.hard, f.cause, f.status, f.host) for f in found}) > 1 else ()


def _nobody_named(case: _Case) -> Reading:
    return Ordinary(("0.1-no-recipient",))


def _one_cause(report: dsn.Report) -> Cause:
    causes = [f.diagnosis.cause for f in report.failures if not f.diagnosis.hard] or [
        report.failures[0].diagnosis.cause
    ]
    return causes[0]


def _feedback_report(case: _Case) -> Reading | None:
    report = arf.read(case.message)
    if report is None:
        return Ordinary(("0.2-no-complaint",)) if arf.is_domain_report(case.message, case.subject) else None
    if report.feedback_type not in arf.COMPLAINTS:
        return Ordinary(("0.2-no-complaint",))
    if report.original is not None and not returned.is_ours(report.original, case.house):
        return Ordinary(("0.2-not-ours",))
    proof = returned.proof(report.original, report.recipients, case.site_key)
    rules: tuple[str, ...] = ("0.2-feedback-report",)
    whose_it_was = None if report.recipients else returned.person(report.original, case.site_key)
    if whose_it_was is not None:
        rules = (*rules, "3.7-returned-token")
    return Complaint(report.recipients, report.feedback_type, proof, rules, token=whose_it_was)


def _token(case: _Case) -> Reading | None:
    """A link of ours in the address or the subject names the address, whatever From says (specification 3).

    Not where our own staff answers somebody under such a subject.
    """
    if case.site_key is None or case.house.owns(case.writer.rpartition("@")[2]):
        return None
    for place in (case.subject, *automatic.tagged(case.message, case.house)):
        for token in tokens.find(case.site_key, ("link", "undo"), place):
            if token.address_key != tokens.NOBODY:
                return _undo(case, token) if token.day else _by_token(case, token)
    return None


def _undo(case: _Case, token: Token) -> Reading | None:
    """What gives back must be the very mail that our link opens, sent by a person who says nothing else in it."""
    if not _UNDO.match(case.subject.strip()) or automatic.by_header(case.message, case.subject):
        return None
    text = own.read(case.message, case.house, _author(case), case.writer)
    said = wording.understand("", text.body.text, [], is_answer=True, names=lists.names(case.house))
    if said.kind in ("opt-out", "review"):
        return None
    return _by_token(case, token)


def _by_token(case: _Case, token: Token) -> Reading:
    assert case.site_key is not None
    writer = case.writer or None
    people = (case.writer,) if writer and returned.is_about(token, case.writer, case.site_key) else ()
    rules = ("0.3-token", "3.7-token", "5-token")
    if token.day:
        return Resubscribe(people, ALL, writer, "token", "", rules, case.subject[:200], token)
    return OptOut(people, ALL, (), writer, "token", False, "", rules, case.subject[:200], token)


def _unsubscribe_address(case: _Case) -> Reading | None:
    tag = automatic.unsubscribe_address(case.message, case.house)
    apple = case.message.fields.get("x-apple-unsubscribe").strip().lower() == "true"
    if (tag is None and not apple) or _bulk_of_others(case) is not None:
        return None
    rules: tuple[str, ...] = ("0.3-unsubscribe-address",)
    scope = (f"list:{tag}",) if tag and tag in {x.id for x in case.house.lists} else ALL
    wish = Wish("opt-out", rules[0], words=case.subject[:200])
    return _doubt_about_author(case, wish, scope) or _opt_out(
        case, wish, whose.Whom((case.writer,), "3.1-writer"), lists.Scope(scope, (), "5-address")
    )


def _asks_removal(wish: Wish) -> bool:
    """Does an automatic text itself ask for removal? Its conditions ("if you send newsletters") are its form."""
    conditional = wish.rule in ("2-review-d-conditional", "2-review-a-unclear")
    asked = any(wish.sentences[n].says("ask") for n in wish.deciding)
    return wish.rule == "2-opt-out" or (conditional and asked and not wish.told)


def _automatic_answer(case: _Case) -> Reading | None:
    if automatic.is_own_machine(case.message, case.writer, case.house):
        return Ordinary(("0.3-own-machine",))
    if _is_form(case):
        return None
    if automatic.is_receipt(case.message):
        return AutoReply(("0.3-notification",))
    by_precedence = automatic.by_precedence(case.message, case.subject, case.house)
    by_header = automatic.by_header(case.message, case.subject)
    listed = automatic.is_listed(case.message) or (
        automatic.is_bulk(case.message) and not by_precedence and not by_header
    )
    if not (by_header or by_precedence or listed):
        return None
    text = own.read(case.message, case.house, _author(case), case.writer)
    kind, words = wording.automatic("", text.body.text)
    if listed and (kind != "ack" or "list-unsubscribe" in case.message.fields):
        return None  # bulk mail, unless it says itself that it is a desk's receipt
    wish = wording.understand("", text.body.text, [], is_answer=True, names=lists.names(case.house))
    if _asks_removal(wish) and kind != "ack":
        return Review(
            (case.writer,) if case.writer else (),
            ALL,
            case.writer or None,
            wish.language,
            ("0.3-asks-removal",),
            wish.words,
        )
    return AutoReply(("0.3-automatic",), words)


def _bulk_of_others(case: _Case) -> Reading | None:
    if not automatic.is_bulk(case.message) or case.house.owns(case.writer.rpartition("@")[2]):
        return None
    return Ordinary(("0.4-bulk",))


def _is_form(case: _Case) -> bool:
    return case.writer.lower() in (a.lower() for a in case.house.form_addresses) and bool(case.writer)


_RULES: Final[tuple[Callable[[_Case], Reading | None], ...]] = (
    _unsound,
    _delivery_report,
    _feedback_report,
    _token,
    _unsubscribe_address,
    _automatic_answer,
    _bulk_of_others,
)


# ------------------------------------------------------------------ 1 to 5. a person's words


def _author(case: _Case) -> str:
    return case.authors[0][0] if case.authors else ""


def _persons_words(case: _Case) -> Reading:
    text = own.read(case.message, case.house, _author(case), case.writer)
    if not text.subject.strip() and not text.body.text.strip():
        return _nothing_said(case, text)
    kind, words = wording.automatic(text.subject, text.body.text)
    wish = wording.understand(
        text.subject,
        text.body.text,
        text.body.answers,
        is_answer=text.to_mailing,
        names=lists.names(case.house),
        writer=" ".join(case.authors[0]) if case.authors else "",
    )
    if kind == "gone" and not text.to_mailing:
        kind = ""  # "Ben has left the company, give his seat to Sophie" is a person's mail
    if wish.rule == "2-review-d-pause":
        kind = ""  # "I am away until June, please pause the newsletter"
    if kind and not _is_form(case) and (wish.kind in ("ordinary", "review") or wish.rule == "2-one-word"):
        rule = "0.3-acknowledgement" if kind == "ack" else "0.3-out-of-office"
        return AutoReply((rule,), words)
    if wish.rule == "2-review-f-another" and whose.are_colleagues(wish, case.writer, case.house):
        return _asked(case, replace(wish, kind="opt-out", rule="2-opt-out"), text)
    match wish.kind:
        case "ordinary" if case.writer.lower().startswith("abuse@") and not text.body.copies:
            return _review(case, Wish("review", "2-review-c-displeasure", words=text.subject[:200]), text)
        case "ordinary":
            return Ordinary((wish.rule,), wish.words, wish.reasons)
        case "review":
            return _review(case, wish, text)
        case _:
            return _asked(case, wish, text)


def _nothing_said(case: _Case, text: Own) -> Reading:
    if text.unreadable or (text.to_mailing and text.attachments):
        return Review((case.writer,) if case.writer else (), ALL, case.writer or None, "", ("1-unreadable",), "")
    return Ordinary(("1-nothing-said",))


def _asked(case: _Case, wish: Wish, text: Own) -> Reading:
    """An opt-out or a wish to come back: who, which lists, and may it be trusted?"""
    scope = lists.scope(wish, case.house)
    if doubt := _doubt_about_author(case, wish, scope.lists):
        return doubt
    if text.forward and _only_foreign(text, case.house):
        return Review((case.writer,), ALL, case.writer, wish.language, (wish.rule, "2-review-g-not-ours"), wish.words)
    whom = _whom(case, wish, text)
    if whom.doubt or not whom.addresses:
        return Review(
            whom.addresses, scope.lists, case.writer or None, wish.language, (wish.rule, whom.rule), wish.words
        )
    if wish.kind == "resubscribe":
        return Resubscribe(
            whom.addresses,
            scope.lists,
            case.writer or None,
            _proof(case),
            wish.language,
            (wish.rule, whom.rule, scope.rule),
            wish.words,
            weighed=wish.reasons,
        )
    return _opt_out(case, wish, whom, scope)


def _whom(case: _Case, wish: Wish, text: Own) -> whose.Whom:
    if _is_form(case):
        found = text.form_address
        return whose.Whom((found,), "3.6-web-form") if found else whose.Whom((), "3.6-web-form", doubt=True)
    if case.house.owns(case.writer.rpartition("@")[2]):
        return whose.Whom(
            tuple(a for a in wish.addresses if not case.house.is_ours(a)), "2-review-f-another", doubt=True
        )
    return whose.whom(wish, case.writer, case.house, text.body.copies, reply=text.reply, forward=text.forward)


def _only_foreign(text: Own, house: House) -> bool:
    """Is all that was forwarded somebody else's mailing?"""
    authors = [a for copy in text.body.copies for _, _, a in addresses.in_text(copy.author)]
    return bool(authors) and not any(house.owns(a.rpartition("@")[2]) for a in authors)


def _doubt_about_author(case: _Case, wish: Wish, scope: tuple[str, ...]) -> Reading | None:
    if not case.writer or len(case.message.fields.all("from")) != 1:
        return Review((), scope, None, wish.language, (wish.rule, "4-no-sender"), wish.words)
    if case.dmarc == "fail":
        return Review((case.writer,), scope, case.writer, wish.language, (wish.rule, "4-dmarc-fail"), wish.words)
    if case.house.is_ours(case.writer) and not _is_form(case):
        return Review((), scope, case.writer, wish.language, (wish.rule, "4-our-own"), wish.words)
    return None


def _opt_out(case: _Case, wish: Wish, whom: whose.Whom, scope: lists.Scope) -> OptOut:
    rules = (wish.rule, whom.rule, scope.rule)
    return OptOut(
        whom.addresses,
        scope.lists,
        scope.keep,
        case.writer or None,
        _proof(case),
        wish.stays,
        wish.language,
        rules,
        wish.words[:200],
        weighed=wish.reasons,
    )


def _review(case: _Case, wish: Wish, text: Own) -> Review:
    scope = lists.scope(wish, case.house).lists
    named = tuple(dict.fromkeys(a for a in wish.addresses if not case.house.is_ours(a)))[:20]
    hints = named or (
        (text.form_address,) if text.form_address else (case.writer,) if case.writer and not _is_form(case) else ()
    )
    return Review(hints, scope, case.writer or None, wish.language, (wish.rule,), wish.words, wish.reasons)


def _proof(case: _Case) -> Proof:
    if not case.house.authserv_id:
        return "unchecked"
    return "dmarc" if case.dmarc == "pass" else "none"
