"""The whole text: what is asked, all sentences taken together (specification, section 2). First rule that fits wins."""

from __future__ import annotations

from typing import Final

from daemon.mail import evidence
from daemon.mail.evidence import BRIEF
from daemon.mail.found import Found
from daemon.mail.judging import is_conditional
from daemon.mail.phrases import Clause
from daemon.mail.sentences import Sentence
from daemon.mail.wishes import Kind

_SHORT: Final = 60  # words: longer texts have other business

# Words that make an object plainly one of ours, in the languages whose rules are open (evidence.py).
_OURS: Final = (
    *("your", "newsletter", "market", "advert", "promo", "mailing", "subscri", "unsub", "list", "spam", "ur"),
    *("ihr", "eure", "euer", "werb", "reklame", "verteil", "abmeld", "rundbrief", "rundmail"),
    *("vos", "votre", "pub", "lettre", "abonne", "desabonn", "desinscri", "liste", "diffusion"),
    *("su", "sus", "vuestr", "boletin", "lista", "baja", "publici", "comercial"),
)

Decision = tuple[Kind, str, set[int]]  # what is asked, by which rule, in which sentences


def decide(said: list[Sentence], found: Found, size: int, *, is_answer: bool) -> Decision:
    """First rule that fits wins: (kind, rule, the sentences that decide)."""
    asks = found["ask"] | found["threat"]
    if found["machine"] and (asks or found["maybe"] or found["join"] or size < 80):
        return "review", "2-review-h-machine-text", found["machine"]
    if found["join"]:
        return _join(said, found, asks)
    if asks:
        return _asked(said, found, asks, is_answer=is_answer)
    for doubt, rule in (
        ("hypothetical", "2-review-d-conditional"),
        ("pause", "2-review-d-pause"),
        ("renewal", "2-review-g-renewal"),
        ("weak", "2-review-a-unclear"),
    ):
        if found[doubt]:
            return "review", rule, found[doubt]
    if found["domain"] & found["them"]:
        return "review", "2-review-f-domain", found["domain"]
    if found["offer"] and size > BRIEF:
        return "ordinary", "0.4-offers-opt-out", found["offer"]
    if found["bare"]:
        return _one_word(said, found, size, is_answer=is_answer)
    return _not_asked(said, found, size, is_answer=is_answer)


def _join(said: list[Sentence], found: Found, asks: set[int]) -> Decision:
    both = {n for n in asks - found["join"] if not any("{left}" in hit.template for _, hit in said[n].says("ask"))}
    if any(said[n].has("theirs") and not any(_has_i(c) for c in said[n].clauses) for n in found["join"]):
        return "ordinary", "2-other-matter", found["join"]
    if both:
        return "review", "2-review-contradiction", both | found["join"]
    if any(is_conditional(said[n]) for n in found["join"] if not any(m != n for m in found["join"])):
        return "review", "2-review-d-conditional", found["join"]
    if found["move"]:
        return "review", "2-review-e-address-change", found["move"]
    return "resubscribe", "2-resubscribe", found["join"]


def _has_i(clause: Clause) -> bool:
    return "i_want" in clause.found or "me" in clause.found


def _asked(said: list[Sentence], found: Found, asks: set[int], *, is_answer: bool) -> Decision:
    """There is a plain request; is there anything beside it that makes it doubtful?"""
    for doubt, rule in (
        ("agent", "2-review-f-another"),
        ("move", "2-review-e-address-change"),
        ("hypothetical", "2-review-d-conditional"),
        ("pause", "2-review-d-pause"),
        ("doubt", "2-review-d-conditional"),
    ):
        if found[doubt]:
            return "review", rule, found[doubt] | asks
    if not is_answer and _may_mean_the_product(said, asks):
        return "review", "2-review-a-unclear", asks
    if found["privacy"] and not any(evidence.is_about_mail(said[n]) or said[n].has("mail_verb") for n in asks):
        return "review", "2-review-b-privacy", found["privacy"] | asks
    if found["offer"] and not any(_is_first_person(said[n]) for n in asks):
        return "ordinary", "0.4-offers-opt-out", found["offer"] | asks
    if any(n in found["domain"] for n in asks):
        return "review", "2-review-f-domain", asks
    if found["keep"] and not _keeps_lists(said, found, asks):
        return "review", "2-review-contradiction", found["keep"] | asks
    if any(n in found["fewer"] for n in asks) or (found["fewer"] and not asks - found["fewer"]):
        return "review", "2-review-d-fewer", found["fewer"]
    if (
        found["courtesy"]
        and not any(said[n].says("byhand") for n in range(len(said)))
        and all(_is_report(said[n]) for n in asks)
    ):
        return "ordinary", "2-wants-to-stay", found["courtesy"]
    return "opt-out", "2-opt-out", asks


def _may_mean_the_product(said: list[Sentence], asks: set[int]) -> bool:
    """ "Server mails me every job report. Please stop these mails": the request only points, at something of the product."""
    others = [s for n, s in enumerate(said) if n not in asks and (s.subject or n < max(asks) + 2)]
    return all(_only_points(said[n]) for n in asks) and any(s.has("product") or s.has("transactional") for s in others)


def _only_points(sentence: Sentence) -> bool:
    """Does it name what is to end by "these", "them", "the mails" alone?"""
    if any("named" in clause.found or "purposes" in clause.found for clause in sentence.clauses):
        return False
    return not any(word.startswith(_OURS) for clause in sentence.clauses for word in clause.words)


def _is_first_person(sentence: Sentence) -> bool:
    return any(sentence.has(name) for name in ("first", "me", "i_want", "want", "leave_me", "remove_me", "not_want"))


def _is_report(sentence: Sentence) -> bool:
    return bool(sentence.says("broken"))


def _keeps_lists(said: list[Sentence], found: Found, asks: set[int]) -> bool:
    """ "keep the release notes coming" beside a request: its scope, not a contradiction."""
    return all(any("keep_word" in c.found for c in said[n].clauses) for n in found["keep"]) and bool(asks)


def _one_word(said: list[Sentence], found: Found, size: int, *, is_answer: bool) -> Decision:
    body = [n for n, s in enumerate(said) if not s.subject]
    others = [n for n in body if n not in found["bare"] and _is_said(said[n])]
    if found["keep"] or found["their"]:
        return "ordinary", "2-wants-to-stay" if found["keep"] else "2-other-matter", found["keep"] | found["their"]
    if found["privacy"]:
        return "review", "2-review-b-privacy", found["privacy"]
    if found["doubt"] or any(said[n].is_question for n in found["bare"]):
        return "review", "2-review-a-unclear", found["bare"] | found["doubt"]
    if not others:
        return "opt-out", "2-one-word", found["bare"]
    if all(_is_displeasure(said[n]) for n in others):
        return "opt-out", "2-one-word", found["bare"]
    return "review", "2-review-a-unclear", found["bare"]


def _is_displeasure(sentence: Sentence) -> bool:
    """Displeasure only: what stands around a one-word request and does not make it doubtful."""
    return bool(sentence.says("angry") or sentence.says("byhand")) and not sentence.has("product")


def _is_said(sentence: Sentence) -> bool:
    """More than a greeting, a thank-you or a name?"""
    return any(len(c.words) > len(evidence.filled(c)) + 2 for c in sentence.clauses)


def _not_asked(said: list[Sentence], found: Found, size: int, *, is_answer: bool) -> Decision:
    """No request: which doubt is left, if any?"""
    if found["broken"] and found["byhand"] and not found["courtesy"] and not found["keep"]:
        attempt = found["broken"] | found["byhand"]
        own = any(_is_first_person(said[n]) for n in attempt) and not any(
            s.has("theirs") for n, s in enumerate(said) if n not in attempt
        )
        return ("opt-out", "2-failed-attempt", attempt) if own else ("review", "2-review-a-unclear", attempt)
    if any(_keeps_only(said[n]) for n in found["keep"]):
        return "review", "2-review-a-unclear", found["keep"]
    if found["keep"] or (found["courtesy"] and found["broken"]):
        return "ordinary", "2-wants-to-stay", found["keep"] | found["courtesy"]
    if found["their"] and not found["privacy"]:
        return "ordinary", "2-other-matter", found["their"]
    for doubt, rule in (
        ("elsewhere", "2-review-g-not-ours"),
        ("them", "2-review-f-another"),
        ("privacy", "2-review-b-privacy"),
        ("broken", "2-review-a-unclear"),
    ):
        if found[doubt]:
            return "review", rule, found[doubt]
    if found["product"] or found["channel"]:
        return "ordinary", "2-other-matter", found["product"] | found["channel"]
    return _vague(said, found, size, is_answer=is_answer)


def _keeps_only(sentence: Sentence) -> bool:
    """ "I only want to keep that one": then the others shall end."""
    return any(("only" in c.found or "except" in c.found) and "keep_word" in c.found for c in sentence.clauses)


def _vague(said: list[Sentence], found: Found, size: int, *, is_answer: bool) -> Decision:
    """Words about mail in a text that asks nothing plainly."""
    about_mail = {n for n, s in enumerate(said) if s.has("mail") or s.has("list")}
    if found["move"] and about_mail:
        return "review", "2-review-e-address-change", found["move"]
    if found["maybe"]:
        return "review", "2-review-a-unclear", found["maybe"]
    if (found["fewer"] & about_mail) and not any(said[n].has("product") for n in found["fewer"]):
        return "review", "2-review-d-fewer", found["fewer"]
    pause = {n for n in found["later"] & about_mail if not said[n].has("product") and not said[n].says("away")}
    if pause:
        return "review", "2-review-d-pause", pause
    if rest := _suspicious(said, size, is_answer=is_answer):
        return "review", "2-review-a-unclear", rest
    angry = {n for n in found["angry"] if not said[n].has("product")}
    if angry and (is_answer or size <= 40) and not any(s.has("product") for s in said):
        return "review", "2-review-c-displeasure", angry
    return "ordinary", "2-ordinary", set()


def _suspicious(said: list[Sentence], size: int, *, is_answer: bool) -> set[int]:
    """A short text that speaks of ending or removal and of mailings, in words that no phrase covers."""
    if size > _SHORT or any(s.has(name) for s in said for name in ("product", "theirs", "channel", "report")):
        return set()
    ends = {n for n, s in enumerate(said) if any(s.has(x) for x in ("stop", "remove", "leave", "dont", "not_want"))}
    mails = {n for n, s in enumerate(said) if evidence.is_about_mail(s)}
    ends |= {n for n in mails if said[n].has("nots")}  # a class of the languages of which we know few words
    return ends if is_answer and size <= BRIEF else ends & mails


def has_other_business(said: list[Sentence], deciding: set[int]) -> bool:
    """Is there a support matter beside the request?"""
    rest = [s for n, s in enumerate(said) if n not in deciding and not s.subject and _is_said(s)]
    return any((s.is_question and len(s.words) > 4) or (s.has("product") and len(s.words) > 5) for s in rest)
