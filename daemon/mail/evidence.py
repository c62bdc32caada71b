"""Is a phrase that asks borne out by what stands around it? The evidence that an opt-out needs, checked one by one.

A phrase found is only a suspicion. To act without a person, the same clause must show that the request is about
mailings, about ours and the writer's own, in a form that asks; an object that we do not know, a question that is no
polite request, or words of doubt leave it to a person. In languages of which we know few words, more is required.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from daemon.mail import statements
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
_FIRST_PERSON: Final = frozenset(
    "i we my me us our ich wir mein meine mir mich uns je j nous mon ma yo nosotros mi".split()
)
_SUBJECTS: Final = frozenset("i we ich wir je j nous yo nosotros".split())
_LEAVING: Final = frozenset(("leave", "left", "leaving", "leave_me", "remove", "removed", "list", "mail"))
_ASKED: Final = frozenset("asked told requested begged gebeten gesagt pedi pedido solicite solicitado".split())
_HAVE: Final = frozenset("have ve had habe hab haben hatte hatten ai avons suis sommes he hemos".split())
_OBJECT: Final = ("list", "mail", "named", "purposes", "explicit", "list_noun")
# Words of the classes `list` and `mail` that name nothing by themselves.
_PRONOUNS: Final = frozenset(
    "message messages this these those them it that all everything any anything nothing one more again here there stuff things "
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
    known = _known(lexicon(context.language), clause, hit)
    if not _has_shape(context, known, clause, hit):
        return "form"
    if _unknown_object(known, clause, hit, failed=bool(sentence.says("byhand"))):
        return "object"
    if not _names_mail(clause, hit) and not _is_mail_verb(clause, hit) and not _is_supplied(context, n):
        return "mailings"
    if _is_told(clause, hit) or _is_statement(context, clause, hit) or _is_observed(context, sentence, clause, hit):
        return "form"
    if _is_report(clause, hit) and not _has_failed(context):
        return "failure"
    if clause.has("manner", hit.start) or sentence.has("instead") or _goes_on_with("manner", sentence, clause):
        return "unconditional"
    if _is_reported(context, n, clause, hit) or _is_anothers(sentence):
        return "writer"
    return ""


def _has_shape(context: Context, known: set[int], clause: Clause, hit: Hit) -> bool:
    """Does the phrase stand where requests stand: at the beginning, or behind "please", "I want", "could you"?

    "My daughter wanted to unsubscribe me" and "I have had no more mails" only contain the words. English word order
    is strict enough to ask for a lead directly before; elsewhere it must do that no unknown word is near before it.
    """
    if not hit.start:
        return True
    if context.language != "en":
        return all(at in known for at in range(max(0, hit.start - 3), hit.start))
    leads = (
        (at, max(ends))
        for name in ("filler", "please", "courteous", "polite", "i_want", "lead", "tried", "cannot", "how")
        for at, ends in clause.found.get(name, {}).items()
    )
    return any(at < hit.start <= end for at, end in leads)


def _asks_politely(context: Context, sentence: Sentence, hit: Hit) -> bool:
    """ "Could you remove me?" asks; "Did you remove me?" wants to know."""
    if not context.is_well_known:
        return sentence.has("filler") or sentence.has("how")
    return any(sentence.has(name) for name in ("please", "polite", "how", "courteous", "tried", "cannot")) or any(
        name in hit.template for name in ("{i_want}", "{want}", "{tried}", "{how}", "{not_want}", "{left}")
    )


def _lacking_in_few_words(context: Context, sentence: Sentence, clause: Clause, hit: Hit) -> str:
    """A language of which only some phrases are known: the request must be short, or name list or mail.

    That the rest of the text is known to the last word is seen to when all is read (closed.py).
    """
    if any(sentence.has(name) for name in ("theirs", "product", "offer", "not_own", "condition")):
        return "object"
    if context.is_brief:
        return ""
    if hit.template == "{leave}" or not _names_mail(clause, hit):
        return "mailings"
    if any(s.has("theirs") for s in context.said):
        return "writer"
    return ""


def _is_report(clause: Clause, hit: Hit) -> bool:
    """ "I have unsubscribed", "I asked you to": only a report that it failed is a request."""
    before = clause.words[max(0, hit.start - 3) : hit.start]
    if "{tried}" in hit.template or _ASKED & set(before):
        return True
    if clause.has("i_want", 0, hit.start + 1):
        return False
    if hit.template.startswith("{remove}") and (_HAVE - {"have", "had"}) & set(before[-2:]):
        return True
    if not any(name in hit.template for name in ("{left}", "{removed}")):
        return False
    return bool(_HAVE & set(before[-2:])) or ("{left}" in hit.template and "{me}" not in hit.template)


def _has_failed(context: Context) -> bool:
    """Does the text say that mailings go on, or that the way out did not work?"""
    return any(s.says(kind) for s in context.said for kind in ("byhand", "broken", "angry")) or any(
        s.has("threat") or any("cannot" in c.found and _LEAVING & c.found.keys() for c in s.clauses)
        for s in context.said
    )


def _objects(clause: Clause) -> list[tuple[int, int]]:
    """Where the clause names mail, a list or marketing, not only "this" or "everything"."""
    return [
        (at, end)
        for name in _OBJECT
        for at, ends in clause.found.get(name, {}).items()
        for end in (max(ends),)
        if any(word not in _PRONOUNS for word in clause.words[at:end]) and not _is_verb(clause, at, end)
    ]


def _is_verb(clause: Clause, at: int, end: int) -> bool:
    """ "email me", "mail us"."""
    return (
        end == at + 1
        and (clause.has("contact", at, end) or clause.has("send", at, end))
        and clause.has("me", end, end + 1)
    )


def _names_mail(clause: Clause, hit: Hit | None = None) -> bool:
    """Is mail named in the clause (near the phrase `hit`)?"""
    return any(hit is None or hit.start - 8 <= at < hit.end + 8 for at, _ in _objects(clause))


def is_about_mail(sentence: Sentence) -> bool:
    """Does the sentence speak of mailings, lists, subscribing or unsubscribing?"""
    return any(_names_mail(clause) for clause in sentence.clauses) or any(
        sentence.has(name) for name in ("leave", "left", "leaving", "leave_me", "subscription", "mail", "list")
    )


def _is_mail_verb(clause: Clause, hit: Hit) -> bool:
    """ "emailing", "writing to", "hear from you": verbs that say themselves what is to end."""
    return any(hit.start <= at < hit.end for at in clause.found.get("mail_verb", {}))


def _is_supplied(context: Context, n: int) -> bool:
    """No object named beside the verb: do subject, neighbours, brevity or the mailing answered supply it?"""
    if context.is_answer:
        return True
    if context.said[n].has("product"):
        return False
    near = [s for m, s in enumerate(context.said) if s.subject or abs(m - n) <= 2]
    if any(_names_mail(clause) for s in near for clause in s.clauses):
        return True
    return context.size <= 2 * BRIEF and not any(s.has("product") or s.has("theirs") for s in context.said)


def _is_told(clause: Clause, hit: Hit) -> bool:
    """ "Thank you for removing me", "you stopped sending": what was done, no request."""
    before = [(at, max(ends)) for at, ends in clause.found.get("told", {}).items()]
    if clause.has("polite", 0, hit.start + 1):
        return False  # "I would be grateful if you took me off"
    if any(at <= hit.start and hit.start - 3 <= end <= hit.start + 2 for at, end in before):
        return True
    return any(hit.end - 1 <= at <= hit.end for at in clause.found.get("done", {}))


def _is_statement(context: Context, clause: Clause, hit: Hit) -> bool:
    """Is it told, not asked? Who tells that he left, and that mailings still come, asks by that."""
    return statements.is_statement(clause, hit) and not _has_failed(context)


def _goes_on_with(name: str, sentence: Sentence, clause: Clause) -> bool:
    """ "Stop, please, sending everything twice": does a later clause have it?"""
    after = next(n for n, other in enumerate(sentence.clauses) if other is clause) + 1
    return any(name in other.found for other in sentence.clauses[after:])


def _is_observed(context: Context, sentence: Sentence, clause: Clause, hit: Hit) -> bool:
    """ "No more letters since Monday": without a verb it asks only if nothing else is in the sentence."""
    if not statements.is_verbless(clause, hit) or any(
        clause.has(name, 0, hit.start) for name in ("i_want", "want", "not_want", "lead", "polite")
    ):
        return False
    words = lexicon(context.language)
    unknown = any(len(_known(words, other, hit)) < len(other.words) for other in sentence.clauses)
    return (unknown and hit.start <= 2) or statements.is_observed(sentence, clause, hit)


def _unknown_object(known: set[int], clause: Clause, hit: Hit, *, failed: bool) -> bool:
    """ "Remove me from the choir list", "the newsletter template", "email me the key": a noun that we do not know
    within the phrase, right behind its object, or where its object should be."""
    legal = "{purposes}" in hit.template or "{consent}" in hit.template
    if legal and ("{purposes}" in hit.template or _names_mail(clause)):
        return False
    if "@@*" not in hit.template and any(at not in known for at in range(hit.start, hit.end)):
        return True
    size = len(clause.words)
    objects = [(at, end) for at, end in _objects(clause) if hit.start <= at <= hit.end + 1]
    end = max([hit.end, *(end for _, end in objects)])
    if not objects and not legal:
        return not failed and any(at not in known for at in range(end, min(end + 4, size)))
    if end < size and end not in known and not legal:
        return True
    of = clause.found.get("of", {})
    return end in of and any(at not in known for at in range(max(of[end]), min(max(of[end]) + 3, size)))


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


def _is_reported(context: Context, n: int, clause: Clause, hit: Hit) -> bool:
    """Somebody else's words, or words talked about: `Our users write: "..."`, "the popup says ..."."""
    sentence = context.said[n]
    before = sentence.clauses[: next(m for m, c in enumerate(sentence.clauses) if c is clause)]
    if any(_speaks(c, len(c.words)) for c in before) or _speaks(clause, hit.start):
        return True
    return any(_introduces(s, next_to_it=m == n - 1) for m, s in enumerate(context.said[:n]) if not s.subject)


def _is_anothers(sentence: Sentence) -> bool:
    """ "My boss wants me to unsubscribe": another person in the sentence, and no address that would tell."""
    named = any(word.startswith("@@") for word in sentence.words)
    another = any(set(clause.found.get("not_own", ())) - filled(clause) for clause in sentence.clauses)
    return another and not named  # the "il" of "s'il vous plaît" is nobody


def _speaks(clause: Clause, end: int) -> bool:
    """Is there a verb of saying before `end` whose subject is not the writer?"""
    return any(
        at < end and not _SUBJECTS & set(clause.words[max(0, at - 4) : at]) for at in clause.found.get("reported", ())
    )


def _introduces(sentence: Sentence, *, next_to_it: bool) -> bool:
    """ "A reader writes:" makes what follows the reader's; "If prices go up:" makes it conditional."""
    if not sentence.text.endswith(":"):
        return False
    if any(_speaks(c, len(c.words)) for c in sentence.clauses):
        return True
    if any(sentence.has(name) for name in ("theirs", "not_own")):
        return True
    if not next_to_it:
        return False
    content = sum(len(c.words) - len(filled(c)) for c in sentence.clauses)
    return sentence.has("condition") or (content > 4 and not _FIRST_PERSON & set(sentence.words))


def filled(clause: Clause) -> set[int]:
    """Which of its words only fill: greetings, thanks, names."""
    return {n for at, ends in clause.found.get("filler", {}).items() for n in range(at, max(ends))}
