"""What is asked (specification, section 2): opt-out, resubscribe, one of the doubts for review, or nothing of the kind.

A text is looked at in each language it may be written in. A phrase that asks is judged within its clause and sentence:
negated, conditional, about a product, another channel, the customer's own mailings or another person? The kinds a
phrase file may use in [say]: `ask bare maybe privacy angry later fewer keep join move machine product courtesy broken
byhand them away gone ack`. Whatever is doubtful goes to review; a false opt-out is the worst error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from daemon.mail import sentences
from daemon.mail.phrases import Clause, Hit
from daemon.mail.sentences import Sentence, Text
from daemon.mail.wishes import Kind, Wish

_BRIEF: Final = 14  # words: up to here a text has room for nothing but its request
_EXCERPT: Final = 200

# Words of templates that say "not" themselves, in any language.
_NOT: Final = frozenset(
    "{no} {dont} {not_want} {no_more} {cannot} {negation} not no nothing never nicht nichts nie kein keine keinen "
    "keinem ohne ne n pas plus rien non ikke inte"
    " geen niet niets nao no nunca nie ne neposilejte nechci не ala en ei لا לא אל without despite still refrain trotz malgre".split()
)

Decision = tuple[Kind, str, set[int]]  # what is asked, by which rule, in which sentences


@dataclass(slots=True)
class _Found:
    """Sentences by what was made of them, for one language."""

    by: dict[str, set[int]] = field(default_factory=dict)

    def add(self, what: str, n: int) -> None:
        self.by.setdefault(what, set()).add(n)

    def __getitem__(self, what: str) -> set[int]:
        return self.by.get(what, set())


def understand(
    subject: str, body: str, answers: list[tuple[str, str]], *, is_answer: bool, names: list[list[str]] | None = None
) -> Wish:
    """What the writer's own words ask for.

    `subject`: the subject if it is own words, else "". `answers`: (quoted lines, the line written below them).
    `is_answer`: does the message answer a mailing of ours?
    """
    text = sentences.read(subject, body, names)
    wishes = [_in_language(text, language, is_answer=is_answer) for language in text.languages()]
    wish = _strongest(wishes)
    if wish.kind != "opt-out" or wish.rule == "2-one-word":
        for language in text.languages()[:3]:
            if yes := _yes(answers, language):
                if wish.kind == "ordinary" or wish.rule in ("2-review-c-displeasure", "2-one-word"):
                    wish = Wish("opt-out", "2-answer-to-quoted", language, yes, wish.sentences, set(), text.addresses)
                break
    wish.addresses = text.addresses
    return wish


def _strongest(wishes: list[Wish]) -> Wish:
    """Of the readings in several languages the one that says most; doubt in the likeliest language beats a request in
    a less likely one."""
    if not wishes:
        return Wish("ordinary", "1-nothing-said")
    for wish in wishes:
        if wish.rule in ("2-wants-to-stay", "2-review-h-machine-text"):
            return wish
    for kind in ("opt-out", "resubscribe", "review"):
        for n, wish in enumerate(wishes):
            if wish.kind == kind and not (
                kind == "opt-out"
                and any(
                    w.kind == "review"
                    and w.rule != "2-review-a-unclear"
                    and w.rule != "2-review-c-displeasure"
                    and w.language != "en"
                    for w in wishes[:n]
                )
            ):
                return wish
    return wishes[0]


def _in_language(text: Text, language: str, *, is_answer: bool) -> Wish:
    said = text.annotate(language)
    found = _Found()
    for n, sentence in enumerate(said):
        _judge(sentence, n, found)
        if _is_bare(sentence):
            found.add("bare", n)
    kind, rule, deciding = _decide(said, found, text.size, is_answer=is_answer)
    wish = Wish(kind, rule, language, "", said, deciding)
    wish.words = " ".join(said[n].text for n in sorted(deciding))[:_EXCERPT]
    wish.about_others = bool(found["them"])
    wish.stays = kind == "opt-out" and _has_other_business(said, deciding)
    return wish


def _is_bare(sentence: Sentence) -> bool:
    """One of the words that are a request by themselves, and nothing else in the sentence."""
    return len(sentence.clauses) == 1 and any(
        hit.kind == "bare" and _covers(hit, sentence.clauses[0]) for _, hit in sentence.hits
    )


def _covers(hit: Hit, clause: Clause) -> bool:
    filler = clause.found.get("filler", {})
    before = all(any(at <= n < max(filler[at]) for at in filler) for n in range(hit.start))
    after = all(any(at <= n < max(filler[at]) for at in filler) for n in range(hit.end, len(clause.words)))
    return before and after


# ------------------------------------------------------------------ one sentence


def _judge(sentence: Sentence, n: int, found: _Found) -> None:
    """Say of one sentence what it is: adds its number under one or more names."""
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
        "offer",
        "them",
        "agent",
        "domain",
        "away",
        "gone",
        "ack",
    ):
        if sentence.says(kind) or (kind in ("offer", "agent", "domain") and sentence.has(kind)):
            found.add(kind, n)
    if sentence.says("keep"):
        found.add("keep", n)
    asks = [(sentence.clauses[c], hit) for c, hit in sentence.says("ask")]
    verdicts = {_ask(sentence, clause, hit) for clause, hit in asks}
    if n in found["join"] and not any(_joins(sentence, c, hit, asks) for c, hit in sentence.says("join")):
        found["join"].discard(n)
    if "ask" in verdicts and not verdicts & {"keep"}:
        found.add(_circumstance(sentence), n)
    elif verdicts:
        found.add(
            next(
                v
                for v in ("keep", "renewal", "their", "channel", "product", "elsewhere", "other", "ask")
                if v in verdicts
            ),
            n,
        )
    elif maybes := [(sentence.clauses[c], hit) for c, hit in sentence.says("maybe")]:
        found.add(_maybe(sentence, maybes), n)


def _joins(sentence: Sentence, c: int, hit: Hit, asks: list[tuple[Clause, Hit]]) -> bool:
    """ "I wish to receive ..." is no wish to join behind a "no longer", or inside a phrase that asks to stop."""
    clause = sentence.clauses[c]
    inside = any(other is clause and ask.start <= hit.end and hit.start <= ask.end for other, ask in asks)
    by_mistake = "{leave}" in hit.template or "{left}" in hit.template
    return (by_mistake or not inside) and not _is_negated(clause, hit)


def _circumstance(sentence: Sentence) -> str:
    """An ask is plain unless something in its sentence makes it conditional, somebody else's, or advertising."""
    if sentence.has("offer"):
        return "offer"
    if _is_conditional(sentence):
        return "threat" if sentence.has("threat") else "hypothetical"
    if sentence.says("later"):
        return "pause"
    if sentence.has("renewal") and not sentence.has("list"):
        return "renewal"
    return "ask"


def _is_conditional(sentence: Sentence) -> bool:
    for clause in sentence.clauses:
        polite = [(at, max(ends)) for at, ends in clause.found.get("polite", {}).items()]
        fine = [(hit.start, hit.end) for _, hit in sentence.hits if hit.kind == "ask" and sentence.clauses[_] is clause]
        for at in clause.found.get("condition", {}):
            if not any(a <= at < b for a, b in polite) and not any(a <= at < b for a, b in fine):
                return True
    return False


def _ask(sentence: Sentence, clause: Clause, hit: Hit) -> str:
    """ "ask", or what keeps this phrase from being one."""
    if _is_negated(clause, hit) or _is_negated_inside(clause, hit):
        return (
            "keep"
            if any(name in hit.template for name in ("{leave}", "{remove}", "{stop}", "{leave_me}", "{remove_me}"))
            else "other"
        )
    if clause.has("report", 0, hit.end) and not clause.has("i_want", 0, hit.start + 1):
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
    return "ask" if _object_known(clause, hit) else "elsewhere"


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
    ends_in_leave = hit.template.endswith(("{leave}", "{leave} $")) and not hit.template.startswith("{tried}")
    if ends_in_leave and hit.end not in clause.found.get("filler", {}):
        return rest[0] in (
            "and",
            "or",
            "url",
            "anymore",
            "any",
            "here",
            "because",
            "from",
            "on",
            "with",
            "but",
            "und",
            "et",
            "y",
            "at",
            "by",
            "via",
            "for",
            "without",
            "in",
            "as",
            "when",
            "myself",
            "quotation",
        )
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


# ------------------------------------------------------------------ the whole text


def _decide(said: list[Sentence], found: _Found, size: int, *, is_answer: bool) -> Decision:
    """First rule that fits wins: (kind, rule, the sentences that decide)."""
    asks = found["ask"] | found["threat"]
    if found["machine"] and (asks or found["maybe"] or found["join"] or size < 80):
        return "review", "2-review-h-machine-text", found["machine"]
    if found["join"]:
        return _join(said, found, asks)
    if asks:
        return _asked(said, found, asks)
    for doubt, rule in (
        ("hypothetical", "2-review-d-conditional"),
        ("pause", "2-review-d-pause"),
        ("renewal", "2-review-g-renewal"),
    ):
        if found[doubt]:
            return "review", rule, found[doubt]
    if found["domain"] & found["them"]:
        return "review", "2-review-f-domain", found["domain"]
    if found["offer"] and size > _BRIEF:
        return "ordinary", "0.4-offers-opt-out", found["offer"]
    if found["bare"]:
        return _one_word(said, found, size, is_answer=is_answer)
    return _not_asked(said, found, size, is_answer=is_answer)


def _join(said: list[Sentence], found: _Found, asks: set[int]) -> Decision:
    both = {n for n in asks - found["join"] if not any("{left}" in hit.template for _, hit in said[n].says("ask"))}
    if any(said[n].has("theirs") and not any(_has_i(c) for c in said[n].clauses) for n in found["join"]):
        return "ordinary", "2-other-matter", found["join"]
    if both:
        return "review", "2-review-contradiction", both | found["join"]
    if any(_is_conditional(said[n]) for n in found["join"] if not any(m != n for m in found["join"])):
        return "review", "2-review-d-conditional", found["join"]
    if found["move"]:
        return "review", "2-review-e-address-change", found["move"]
    return "resubscribe", "2-resubscribe", found["join"]


def _has_i(clause: Clause) -> bool:
    return "i_want" in clause.found or "me" in clause.found


def _asked(said: list[Sentence], found: _Found, asks: set[int]) -> Decision:
    """There is a plain request; is there anything beside it that makes it doubtful?"""
    for doubt, rule in (
        ("agent", "2-review-f-another"),
        ("move", "2-review-e-address-change"),
        ("hypothetical", "2-review-d-conditional"),
        ("pause", "2-review-d-pause"),
    ):
        if found[doubt]:
            return "review", rule, found[doubt] | asks
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


def _is_report(sentence: Sentence) -> bool:
    return bool(sentence.says("broken"))


def _keeps_lists(said: list[Sentence], found: _Found, asks: set[int]) -> bool:
    """ "keep the release notes coming" beside a request: its scope, not a contradiction."""
    return all(any("keep_word" in c.found for c in said[n].clauses) for n in found["keep"]) and bool(asks)


def _one_word(said: list[Sentence], found: _Found, size: int, *, is_answer: bool) -> Decision:
    body = [n for n, s in enumerate(said) if not s.subject]
    others = [n for n in body if n not in found["bare"] and _is_said(said[n])]
    if found["keep"] or found["their"]:
        return "ordinary", "2-wants-to-stay" if found["keep"] else "2-other-matter", found["keep"] | found["their"]
    if found["privacy"]:
        return "review", "2-review-b-privacy", found["privacy"]
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
    return any(len(c.words) > len(_filled(c)) + 2 for c in sentence.clauses)


def _filled(clause: Clause) -> set[int]:
    return {n for at, ends in clause.found.get("filler", {}).items() for n in range(at, max(ends))}


def _not_asked(said: list[Sentence], found: _Found, size: int, *, is_answer: bool) -> Decision:
    """No request: which doubt is left, if any?"""
    if found["broken"] and found["byhand"] and not found["courtesy"] and not found["keep"]:
        return "opt-out", "2-failed-attempt", found["broken"] | found["byhand"]
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
    about_mail = {n for n, s in enumerate(said) if s.has("mail") or s.has("list")}
    if found["move"] and about_mail:
        return "review", "2-review-e-address-change", found["move"]
    if found["maybe"]:
        return "review", "2-review-a-unclear", found["maybe"]
    if (found["fewer"] & about_mail) and not any(said[n].has("product") for n in found["fewer"]):
        return "review", "2-review-d-fewer", found["fewer"]
    angry = {n for n in found["angry"] if not said[n].has("product")}
    if angry and (is_answer or size <= 40) and not any(s.has("product") for s in said):
        return "review", "2-review-c-displeasure", angry
    return "ordinary", "2-ordinary", set()


def _has_other_business(said: list[Sentence], deciding: set[int]) -> bool:
    rest = [s for n, s in enumerate(said) if n not in deciding and not s.subject and _is_said(s)]
    return any((s.is_question and len(s.words) > 4) or (s.has("product") and len(s.words) > 5) for s in rest)


def _yes(answers: list[tuple[str, str]], language: str) -> str:
    """A short yes below a quoted unsubscribe line takes its meaning from that line."""
    for quoted, line in answers:
        last = [x for x in quoted.split("\n") if x.strip(" >|")][-2:]
        asked = any(
            s.has("leave") or s.has("quote_word")
            for s in sentences.read("", "\n".join(x.lstrip(" >|") for x in last)).annotate(language)
        )
        own = sentences.read("", line).annotate(language)
        if asked and len(own) == 1 and len(own[0].words) <= 9 and all(_only_yes(c) for c in own[0].clauses):
            return line.strip()[:_EXCERPT]
    return ""


def _only_yes(clause: Clause) -> bool:
    known = {
        n
        for name in ("yes", "filler", "me")
        for at, ends in clause.found.get(name, {}).items()
        for n in range(at, max(ends))
    }
    return "yes" in clause.found and all(
        n in known or clause.words[n] in ("for", "me") for n in range(len(clause.words))
    )


def automatic(subject: str, body: str) -> tuple[str, str]:
    """Out-of-office and acknowledgement wording: ("away" | "gone" | "ack" | "", the words)."""
    text = sentences.read(subject, body)
    for language in text.languages():
        for sentence in text.annotate(language):
            for kind in ("away", "gone", "ack"):
                if sentence.says(kind):
                    return kind, sentence.text[:_EXCERPT]
    return "", ""
