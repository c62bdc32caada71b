"""One sentence: does it ask, and if so, about what (specification, section 2)?

A phrase that asks is judged within its clause and sentence: negated, conditional, about a product, another channel,
the customer's own mailings or another person? What is none of these must still show its evidence (evidence.py).
"""

from __future__ import annotations

from typing import Final

from daemon.mail import evidence
from daemon.mail.evidence import Context
from daemon.mail.found import Found
from daemon.mail.phrases import Clause, Hit
from daemon.mail.sentences import Sentence

# Words of templates that say "not" themselves, in any language.
_NOT: Final = frozenset(
    "{no} {dont} {not_want} {no_more} {cannot} {negation} not no nothing never nicht nichts nie kein keine keinen "
    "keinem ohne ne n pas plus rien non ikke inte"
    " geen niet niets nao no nunca nie ne neposilejte nechci не ala en ei لا לא אל without despite still refrain trotz malgre".split()
)


def judge(context: Context, n: int, found: Found) -> None:
    """Say of one sentence what it is: adds its number under one or more names."""
    sentence = context.said[n]
    for kind in (
        "machine",
        "join",
        "move",
        "fewer",
        "later",
        "angry",
        "privacy",
        "courtesy",
        "broken",
        "byhand",
        "them",
        "agent",
        "domain",
        "doubt",
        "away",
        "gone",
        "ack",
    ):
        if sentence.says(kind) or (kind in ("agent", "domain") and sentence.has(kind)):
            found.add(kind, n)
    if _offers(context, sentence):
        found.add("offer", n)
    if sentence.says("keep"):
        found.add("keep", n)
    asks = [(sentence.clauses[c], hit) for c, hit in sentence.says("ask")]
    verdicts = set()
    for clause, hit in asks:
        verdict, lacking = _ask(context, n, clause, hit)
        verdicts.add(verdict)
        if lacking:
            found.add(f"lacks {lacking}", n)
    if n in found["join"] and not any(_joins(context, sentence, c, hit, asks) for c, hit in sentence.says("join")):
        found["join"].discard(n)
    if "ask" in verdicts and not verdicts & {"keep"}:
        found.add(_circumstance(context, sentence), n)
    elif verdicts:
        found.add(
            next(
                v
                for v in ("keep", "renewal", "their", "channel", "product", "elsewhere", "other", "weak", "ask")
                if v in verdicts
            ),
            n,
        )
    elif maybes := [(sentence.clauses[c], hit) for c, hit in sentence.says("maybe")]:
        found.add(_maybe(sentence, maybes), n)


def _joins(context: Context, sentence: Sentence, c: int, hit: Hit, asks: list[tuple[Clause, Hit]]) -> bool:
    """ "I wish to receive ..." is no wish to join behind a "no longer", or inside a phrase that asks to stop; and
    "reinstate the order" is about something else."""
    personal = any(name in hit.template for name in ("{me}", "{list}", "{mail}", "{leave}", "{left}"))
    if not evidence.is_about_mail(sentence) and (sentence.has("product") or not (personal or context.is_brief)):
        return False
    if not evidence.is_about_mail(sentence) and any(s.has("product") for s in context.said):
        return False
    clause = sentence.clauses[c]
    inside = any(other is clause and ask.start <= hit.end and hit.start <= ask.end for other, ask in asks)
    by_mistake = "{leave}" in hit.template or "{left}" in hit.template
    before = clause.words[max(0, hit.start - 2) : hit.start]
    by_another = before[-1:] in (["who"], ["they"], ["whoever"], ["somebody"], ["someone"]) or before == ["you"]
    return (by_mistake or not inside) and not by_another and not _is_negated(clause, hit)


def _circumstance(context: Context, sentence: Sentence) -> str:
    """An ask is plain unless something in its sentence makes it conditional, somebody else's, or advertising."""
    if _offers(context, sentence):
        return "offer"
    if is_conditional(sentence):
        return "threat" if sentence.has("threat") else "hypothetical"
    if sentence.says("later"):
        return "pause"
    if sentence.has("renewal") and not sentence.has("list"):
        return "renewal"
    return "ask"


def _offers(context: Context, sentence: Sentence) -> bool:
    """ "Click here to unsubscribe": advertising; but "unsubscribe here" alone, or "I clicked", is a person's."""
    if len(sentence.words) + context.size <= 4 or sentence.says("broken"):
        return False
    if sentence.is_question and sentence.has("how") and sentence.says("ask"):
        return False
    return sentence.has("offer") or bool(sentence.says("offer"))


def is_conditional(sentence: Sentence) -> bool:
    """Is what the sentence asks bound to a condition?"""
    for clause in sentence.clauses:
        polite = [(at, max(ends)) for at, ends in clause.found.get("polite", {}).items()]
        fine = [(hit.start, hit.end) for _, hit in sentence.hits if hit.kind == "ask" and sentence.clauses[_] is clause]
        for at in clause.found.get("condition", {}):
            if not any(a <= at < b for a, b in polite) and not any(a <= at < b for a, b in fine):
                return True
    return False


def _ask(context: Context, n: int, clause: Clause, hit: Hit) -> tuple[str, str]:
    """("ask", ""), or what keeps this phrase from being one; "weak" if evidence is missing, and which."""
    against = _against(context, n, clause, hit)
    if against:
        return against, ""
    lacking = evidence.lacking(context, n, clause, hit)
    if not lacking:
        return "ask", ""
    sentence = context.said[n]
    matter = any(sentence.has(name) for name in ("product", "transactional", "channel"))
    return ("product" if matter and not evidence.is_about_mail(sentence) else "weak"), lacking


def _against(context: Context, n: int, clause: Clause, hit: Hit) -> str:
    """What in its clause and sentence keeps a phrase from being a request; "" if nothing does."""
    sentence = context.said[n]
    if _is_negated(clause, hit) or _is_negated_inside(clause, hit):
        return (
            "keep"
            if any(name in hit.template for name in ("{leave}", "{remove}", "{stop}", "{leave_me}", "{remove_me}"))
            else "other"
        )
    demanded = clause.words[hit.start] in ("should", "must", "shall", "may")
    if clause.has("report", 0, hit.end) and not demanded and not clause.has("i_want", 0, hit.start + 1):
        return "other"  # "I get no mails from you any more": a complaint, the other way round
    spans = _spans(clause, ("list", "mail", "me"), hit.start)
    if _free(clause, "theirs", spans, 0) or (
        sentence.has("theirs") and any(_free(c, "theirs", [], 0) for c in sentence.clauses) and not _has_me(clause, hit)
    ):
        return "their"
    if _free(clause, "renewal", [], hit.start, hit.end + 7):
        return "renewal"
    if _free(clause, "product", spans, hit.start, hit.end) or _is_inside_product(clause, hit):
        return "product"
    if _free(clause, "transactional", spans, hit.start, hit.end + 7):
        return "product"
    strong = any(hit.start <= a < hit.end + 8 for a, _ in _spans(clause, ("list", "mail"), hit.start))
    if (
        _free(clause, "channel", spans, max(0, hit.start - 3))
        and not sentence.has("threat")
        and not any(c.has("channel_mail") for c in sentence.clauses)
    ):
        return "channel"
    if _free(clause, "product", spans, hit.start, hit.end + 8) and not strong:
        return "product"
    return "" if _object_known(clause, hit) else "elsewhere"


def _is_negated(clause: Clause, hit: Hit) -> bool:
    """Is there a "not" within the four words before, that is not part of the phrase itself?"""
    for at, ends in clause.found.get("negation", {}).items():
        if at < hit.start and hit.start - 4 <= max(ends) <= hit.start and not clause.has("cannot", at, hit.start):
            return True
    return False


def _is_negated_inside(clause: Clause, hit: Hit) -> bool:
    """ "Melden Sie mich nicht ab": a "not" in a gap of a template that has none of its own."""
    if "_" not in hit.template or any(word in _NOT for word in hit.template.split()):
        return False
    return any(hit.start < at and max(ends) <= hit.end for at, ends in clause.found.get("negation", {}).items())


def _is_inside_product(clause: Clause, hit: Hit) -> bool:
    """ "no advertising in the program": where it shows, not how it comes."""
    products = clause.found.get("product", {})
    return any(
        at + n in products for at in clause.found.get("inside", {}) if hit.end <= at < hit.end + 3 for n in (1, 2)
    )


def _has_me(clause: Clause, hit: Hit) -> bool:
    return clause.has("me", hit.start, hit.end) or clause.has("i", 0, hit.end)


def _spans(clause: Clause, names: tuple[str, ...], start: int) -> list[tuple[int, int]]:
    return [(at, max(ends)) for name in names for at, ends in clause.found.get(name, {}).items() if at >= start]


def _free(clause: Clause, name: str, spans: list[tuple[int, int]], start: int, end: int = 999) -> bool:
    """Is there a phrase of this class from `start` on that is not part of a longer one in `spans`?"""
    return any(
        start <= at < end and not any(a <= at and max(ends) <= b and (b - a) > 0 for a, b in spans)
        for at, ends in clause.found.get(name, {}).items()
    )


def _object_known(clause: Clause, hit: Hit) -> bool:
    """`unsubscribe me from X`: is X something of ours? A request about an unknown X is not one for us to act on."""
    rest = clause.words[hit.end :]
    if not rest:
        return True
    if hit.end in clause.found.get("off2", {}):
        near = range(hit.end, hit.end + 8)
        return any(at in clause.found.get(name, {}) for name in ("list", "mail", "everything", "these") for at in near)
    return True


def _maybe(sentence: Sentence, maybes: list[tuple[Clause, Hit]]) -> str:
    """Unclear what is meant: "cancel my subscription", a mention of unsubscribing."""
    if any(_is_negated(clause, hit) for clause, hit in maybes):
        return (
            "keep" if any("{leave}" in hit.template or "unsubscribe" in hit.template for _, hit in maybes) else "other"
        )
    if sentence.has("theirs"):
        return "their"
    if any(
        _free(clause, "product", _spans(clause, ("list",), 0), 0) or _free(clause, "transactional", [], 0)
        for clause, _ in maybes
    ):
        return "product"
    if sentence.has("renewal"):
        return "product"
    if sentence.has("channel") and not any(c.has("channel_mail") for c in sentence.clauses):
        return "channel"
    if sentence.has("offer"):
        return "offer"
    return "maybe"
