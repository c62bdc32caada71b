"""Is a phrase that asks borne out by what stands around it? The evidence that an opt-out needs, checked one by one.

A phrase found is only a suspicion. To act without a person, the same clause must show that the request is about
mailings, about ours and the writer's own, in a form that asks; an object that we do not know, a question that is no
polite request, or words of doubt leave it to a person. In languages of which we know few words, more is required.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from daemon.mail.phrases import Clause, Hit, Lexicon, lexicon
from daemon.mail.sentences import Sentence

BRIEF: Final = 14  # words: up to here a text has room for nothing but its request
_BRIEF_SIGNS: Final = 30  # the same, where every character counts as a word
_WELL_KNOWN: Final = frozenset(("en", "de", "fr", "es"))  # languages whose files have the classes that are used here
_SIGNS: Final = frozenset(("zh", "ja"))

# Classes whose words say nothing about an object that is not ours.
_HARMLESS: Final = frozenset(
    "filler please me leave leave1 leave_me left leaving remove remove_me removed off off2 list mail these stop sending send contact"
    " dont want not_want receive i_want i how how_i cannot tried consent withdraw object purposes explicit everything"
    " only yes but because both own_address named yours qualifier polite threat no more no_more except keep_word"
    " negation list_noun report data".split()
)
_OBJECT: Final = ("list", "mail", "named", "purposes", "explicit", "list_noun")
# Words of the classes `list` and `mail` that name nothing by themselves.
_PRONOUNS: Final = frozenset(
    "this these those them it that all everything any anything nothing one more again here there stuff things "
    "alles allem allen tout tous toutes rien todo todos todas nada e news information informacion informationen infos".split()
)


@dataclass(frozen=True, slots=True)
class Context:
    """The text around a phrase, in one language."""

    language: str
    said: list[Sentence]
    size: int  # words of the body
    is_answer: bool  # to a mailing of ours

    @property
    def is_brief(self) -> bool:
        """Has the text room for nothing but its request?"""
        return self.size <= (_BRIEF_SIGNS if self.language in _SIGNS else BRIEF)

    @property
    def is_well_known(self) -> bool:
        return self.language in _WELL_KNOWN


def lacking(context: Context, n: int, clause: Clause, hit: Hit) -> str:
    """What is missing for the phrase `hit` in sentence `n` to be acted on without a person; "" if nothing is."""
    sentence = context.said[n]
    if sentence.is_question and not _asks_politely(context, sentence, hit):
        return "form"
    if not context.is_well_known:
        return _lacking_in_few_words(context, sentence, clause, hit)
    words = lexicon(context.language)
    if _unknown_object(words, clause, hit):
        return "object"
    if not _has_object(clause, hit) and not _is_supplied(context, n):
        return "mailings"
    if _is_reported(context, n):
        return "writer"
    return ""


def _asks_politely(context: Context, sentence: Sentence, hit: Hit) -> bool:
    """ "Could you remove me?" asks; "Did you remove me?" wants to know."""
    if not context.is_well_known:
        return sentence.has("filler") or sentence.has("how")
    return any(sentence.has(name) for name in ("please", "polite", "how", "courteous", "tried", "cannot")) or any(
        name in hit.template for name in ("{i_want}", "{want}", "{tried}", "{how}", "{not_want}", "{left}")
    )


def _lacking_in_few_words(context: Context, sentence: Sentence, clause: Clause, hit: Hit) -> str:
    """A language of which only some phrases are known: the request must be short, or name list or mail."""
    if any(sentence.has(name) for name in ("theirs", "product", "offer", "not_own", "condition")):
        return "object"
    if context.is_brief:
        return ""
    if hit.template == "{leave}" or not _has_object(clause, hit):
        return "mailings"
    if any(s.has("theirs") for s in context.said):
        return "writer"
    return ""


def _has_object(clause: Clause, hit: Hit) -> bool:
    """Does the clause name mail, a list, or marketing, near the phrase?"""
    for name in _OBJECT:
        for at, ends in clause.found.get(name, {}).items():
            if hit.start - 8 <= at < hit.end + 8:
                words = clause.words[at : max(ends)]
                if any(word not in _PRONOUNS for word in words):
                    return True
    return False


def _is_supplied(context: Context, n: int) -> bool:
    """No object named beside the verb: do subject, neighbours, brevity or the mailing answered supply it?"""
    if context.is_answer:
        return True
    near = [s for m, s in enumerate(context.said) if s.subject or abs(m - n) <= 2]
    if any(_names_mail(clause) for s in near for clause in s.clauses):
        return True
    return context.size <= 2 * BRIEF and not any(s.has("product") or s.has("theirs") for s in context.said)


def _names_mail(clause: Clause) -> bool:
    return any(
        any(word not in _PRONOUNS for word in clause.words[at : max(ends)])
        for name in _OBJECT
        for at, ends in clause.found.get(name, {}).items()
    )


def _unknown_object(words: Lexicon, clause: Clause, hit: Hit) -> bool:
    """ "Remove me from the choir list", "the newsletter of the choir": a noun we do not know, within or behind."""
    known = _known(words, clause, hit)
    if any(at not in known for at in range(hit.start, hit.end)):
        return True
    end = hit.end
    for name in _OBJECT:  # the object phrase may reach beyond the template
        for at, ends in clause.found.get(name, {}).items():
            if hit.start <= at <= hit.end + 1:
                end = max(end, *ends)
    of = clause.found.get("of", {})
    for at in range(end, min(end + 2, len(clause.words))):
        if at in of:
            after = range(max(of[at]), min(max(of[at]) + 3, len(clause.words)))
            return any(x not in known for x in after)
    return False


def _known(words: Lexicon, clause: Clause, hit: Hit) -> set[int]:
    literal = set(hit.template.split())
    known = {
        at
        for at, word in enumerate(clause.words)
        if word in words.stopwords or word in literal or word.startswith("@@") or word.isdigit() or len(word) < 2
    }
    for name in _HARMLESS & clause.found.keys():
        for at, ends in clause.found[name].items():
            known.update(range(at, max(ends)))
    literal_starts = tuple(x[:-1] for x in literal if x.endswith("*"))
    return known | {at for at, word in enumerate(clause.words) if literal_starts and word.startswith(literal_starts)}


def _is_reported(context: Context, n: int) -> bool:
    """Somebody else's words: `Our users write: "..."`, "a reader says: ..."."""
    before = [s for m, s in enumerate(context.said) if m < n and not s.subject][-1:]
    return any(s.text.endswith(":") and any(s.has(x) for x in ("theirs", "not_own", "reporting")) for s in before)
