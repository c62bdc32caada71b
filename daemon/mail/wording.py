"""What is asked (specification, section 2): opt-out, resubscribe, one of the doubts for review, or nothing of the kind.

A text is looked at in each language it may be written in, sentence by sentence (judging.py), then as a whole
(deciding.py). The kinds a phrase file may use in [say]: `ask bare maybe privacy angry later fewer keep join move
machine product courtesy broken byhand them away gone ack offer doubt`. Whatever is doubtful goes to review; a false
opt-out is the worst error.
"""

from __future__ import annotations

from typing import Final

from daemon.mail import closed, deciding, judging, model, sentences, weighing
from daemon.mail.evidence import Context
from daemon.mail.features import clause_features, features
from daemon.mail.found import Found
from daemon.mail.phrases import Clause, Hit
from daemon.mail.sentences import Sentence, Text
from daemon.mail.wishes import Wish

_EXCERPT: Final = 200
_LINK: Final = frozenset("link lien enlace url".split())
_FAILS: Final = frozenset("won not doesn don can cannot isn pas no nicht".split())
# Kinds of sentences and classes of words without which no text is suspected, however odd its other words are.
_CAUSES: Final = frozenset(
    "ask bare maybe privacy angry later fewer keep join move machine broken them agent domain".split()
)
_TOUCHED: Final = (
    "leave left leaving remove removed list mail mail_verb stop sending not_want subscription account data consent purposes"
    " renewal channel_mail transactional"
).split()
_YIELDS_TO_YES: Final = ("2-review-c-displeasure", "2-one-word", "2-weighed-doubt")
_REPEATED: Final = 6  # words
_MANY: Final = 3  # addresses beside a word of removal: perhaps a list of people


def understand(
    subject: str,
    body: str,
    answers: list[tuple[str, str]],
    *,
    is_answer: bool,
    names: list[list[str]] | None = None,
    writer: str = "",
) -> Wish:
    """What the writer's own words ask for.

    `subject`: the subject if it is own words, else "". `answers`: (quoted lines, the line written below them).
    `is_answer`: does the message answer a mailing of ours? `names`: of our lists; `writer`: his name and address.
    """
    text = sentences.read(subject, body, names)
    wish = _by_rules(text, is_answer=is_answer, writer=writer)
    _weigh(wish, text, is_answer=is_answer)
    if wish.kind != "opt-out" or wish.rule == "2-one-word":
        for language in text.languages()[:3]:
            if yes := _yes(answers, language):
                if wish.kind == "ordinary" or wish.rule in _YIELDS_TO_YES:
                    wish = Wish("opt-out", "2-answer-to-quoted", language, yes, wish.sentences, set(), text.addresses)
                break
    wish.addresses = text.addresses
    if wish.kind == "ordinary" and wish.rule != "0.4-offers-opt-out" and _is_pasted_list(wish):
        wish.kind, wish.rule = "review", "2-review-f-many"
    return wish


def _is_pasted_list(wish: Wish) -> bool:
    speaks_of_removal = any(s.has(name) for s in wish.sentences for name in ("leave", "remove", "remove_me"))
    return speaks_of_removal and len(set(wish.addresses)) >= _MANY


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
            if wish.kind == kind and not (kind == "opt-out" and any(_outweighs(w, wish) for w in wishes[:n])):
                return wish
    return wishes[0]


def _outweighs(doubt: Wish, wish: Wish) -> bool:
    """Does a doubt in a likelier language keep a request from being acted on? Not what a sister language (Russian,
    Danish) fails to understand of a text whose every word another one knows (closed.py)."""
    if doubt.kind != "review" or doubt.rule == "2-review-c-displeasure":
        return False
    closely = wish.language not in closed.OPEN and doubt.language not in closed.OPEN
    return not (closely and doubt.rule == "2-review-a-unclear")


def judged(text: Text, language: str, *, is_answer: bool) -> tuple[list[Sentence], Found]:
    """The sentences of a text as seen in a language, and what each was found to say."""
    said = text.annotate(language)
    found = Found()
    context = Context(language, said, text.size, is_answer)
    for n, sentence in enumerate(said):
        judging.judge(context, n, found)
        if _is_bare(sentence):
            found.add("bare", n)
    return said, found


def _weigh(wish: Wish, text: Text, *, is_answer: bool) -> None:
    """Let the model speak; where it decides, its words are the sentence that it weighs most."""
    weighed = model.weigh(_features(text, wish, is_answer=is_answer)) if wish.sentences else model.NOTHING
    kind, rule = weighing.weigh(wish, weighed)
    if kind != wish.kind and kind == "opt-out" and not wish.deciding:
        wish.deciding = _weightiest(wish)
        wish.words = " ".join(wish.sentences[n].text for n in sorted(wish.deciding))[:_EXCERPT]
    if rule != wish.rule:
        wish.reasons = weighed.reasons
    wish.kind, wish.rule = kind, rule
    wish.stays = kind == "opt-out" and deciding.has_other_business(wish.sentences, wish.deciding)


def _weightiest(wish: Wish) -> set[int]:
    """The sentence that says most for a request."""
    said = wish.likeliest[0][0] if wish.likeliest else wish.sentences
    weights = [
        model.speaks_for(
            "opt-out", (f for clause in s.clauses for f in clause_features(clause, question=s.is_question))
        )
        for s in said[:60]
    ]
    return {max(range(len(weights)), key=weights.__getitem__)}


def features_of(
    subject: str, body: str, *, is_answer: bool, names: list[list[str]] | None = None, writer: str = ""
) -> set[str]:
    """What the model is told of a text; the same for training and for reading."""
    text = sentences.read(subject, body, names)
    return _features(text, _by_rules(text, is_answer=is_answer, writer=writer), is_answer=is_answer)


def _features(text: Text, wish: Wish, *, is_answer: bool) -> set[str]:
    for likeliest, found in wish.likeliest:
        return features(likeliest, found, wish.kind, wish.rule, wish.languages[0], text.size, is_answer=is_answer)
    return set()


def _by_rules(text: Text, *, is_answer: bool, writer: str) -> Wish:
    languages = text.languages()
    wishes = [_in_language(text, language, is_answer=is_answer, writer=writer) for language in languages]
    wish = _strongest(wishes)
    wish.languages = languages
    wish.likeliest = wishes[0].likeliest if wishes else []
    wish.has_cause = any(w.has_cause for w in wishes)
    return wish


def _in_language(text: Text, language: str, *, is_answer: bool, writer: str) -> Wish:
    said, found = judged(text, language, is_answer=is_answer)
    kind, rule, decisive = deciding.decide(said, found, text.size, is_answer=is_answer)
    if kind == "opt-out" and language not in closed.OPEN and not closed.is_plain(said, language, writer):
        kind, rule = "review", "2-review-a-unclear"
    wish = Wish(kind, rule, language, "", said, decisive)
    wish.words = " ".join(said[n].text for n in sorted(decisive))[:_EXCERPT]
    wish.about_others = bool(found["them"])
    wish.has_cause = is_answer or bool(_CAUSES & found.by.keys()) or any(s.has(name) for s in said for name in _TOUCHED)
    wish.told = bool(found["lacks form"] or found["lacks writer"])
    wish.likeliest = [(said, found)]
    wish.negated = language not in closed.OPEN and closed.is_negated(said)
    wish.stays = kind == "opt-out" and deciding.has_other_business(said, decisive)
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


def _yes(answers: list[tuple[str, str]], language: str) -> str:
    """A short yes below a quoted unsubscribe line takes its meaning from that line."""
    for quoted, line in answers:
        last = [x for x in quoted.split("\n") if x.strip(" >|")][-2:]
        asked = any(
            s.has("leave") or s.has("quote_word")
            for s in sentences.read("", "\n".join(x.lstrip(" >|") for x in last)).annotate(language)
        )
        own = sentences.read("", line).annotate(language)
        if asked and len(own) == 1 and len(own[0].words) <= 16 and _is_yes(own[0]):
            return line.strip()[:_EXCERPT]
    return ""


def _is_yes(sentence: Sentence) -> bool:
    """Nothing but a yes, or a yes and a word on the link that does not work."""
    rest = [
        c
        for c in sentence.clauses
        if not _only_yes(c) and not _wants_it(c) and not all(w in ("for", "me", "please") for w in c.words)
    ]
    return len(rest) < len(sentence.clauses) and all(_LINK & set(c.words) and _FAILS & set(c.words) for c in rest)


def _wants_it(clause: Clause) -> bool:
    """ "Yes, I do want to leave": says the same once more."""
    wants = any(name in clause.found for name in ("want", "i_want")) and "leave" in clause.words
    return wants and "negation" not in clause.found and len(clause.words) <= _REPEATED


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
