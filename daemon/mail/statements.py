"""Statements in the words of a request: "you no longer write to me", "taken off the list, thanks", "ok, no more mails".

They tell what is or was so and ask nothing. Word order and verb forms give them away, for the languages that are
known well (evidence.py).
"""

from __future__ import annotations

from typing import Final

from daemon.mail.phrases import Clause, Hit
from daemon.mail.sentences import Sentence

# Templates that ask without a verb; they do so only where nothing but politeness stands before them.
_VERBLESS: Final = (
    "no more",
    "no further",
    "no {mail}",
    "no newsletter",
    "keine",
    "kein ",
    "plus de",
    "pas de",
    "no mas",
)
_NOTS: Final = frozenset("no kein keine keinen plus pas ni".split())
_POLITE: Final = frozenset(
    "please pls plz hello hi hey dear sir madam team good morning day afternoon thanks and bitte hallo guten tag "
    "morgen moin liebe lieber damen herren sehr geehrte danke und ab sofort s il svp bonjour merci et hola por "
    "favor buenos dias buenas tardes gracias y".split()
)
# Who is said to do something, at the beginning of a clause; a demand goes on with one of the verbs in `_DEMANDS`.
_ADDRESSED: Final = frozenset("you they sie ihr vous ils ustedes".split())
_DEMANDS: Final = frozenset(
    "must should need keep have shall can could may might are ought will would had sollen sollten konnen konnten durfen mussen "
    "mussten mogen mochten werden wurden haben devez pouvez pourriez devriez avez etes allez plait voudrez deben pueden podrian".split()
)
_DONE: Final = frozenset(
    "took deleted removed dropped stopped retire supprime efface raye desinscrit desabonne desinscrite desabonnee".split()
)
_PARTICIPLES: Final = frozenset("genommen gestrichen geloscht entfernt ausgetragen abgemeldet rausgenommen".split())
_WISHES: Final = frozenset("werden wird mochte mochten will wollen bitte wunsche wurde lassen please".split())
_INDICATIVE: Final = frozenset("envian mandan escriben envia manda escribe llegan recibo recibimos".split())
_VERBS: Final = frozenset("was is were took made has would seemed felt".split())


def is_verbless(clause: Clause, hit: Hit) -> bool:
    """ "No more mails": a request, or an observation."""
    written = hit.template.removeprefix("^ ")
    return written.startswith(_VERBLESS) or (written.startswith("{stop}") and clause.words[hit.start] in _NOTS)


def is_observed(sentence: Sentence, clause: Clause, hit: Hit) -> bool:
    """ "Ok, no more mails", "finally no more mails": something stands before it that is no politeness."""
    before = [word for other in _before(sentence, clause) for word in other.words] + clause.words[: hit.start]
    return any(word not in _POLITE for word in before)


def is_statement(clause: Clause, hit: Hit) -> bool:
    """Does the clause tell what somebody does or did?"""
    words = clause.words
    first = next((n for n, word in enumerate(words) if word not in _POLITE), 0)
    if (
        words[first] in _ADDRESSED
        and not _DEMANDS & set(words[first + 1 : first + 2])
        and first <= hit.start <= first + 5
    ):
        return True
    if words[hit.start] in _DONE and hit.start == first and not clause.has("me", hit.start, hit.start + 2):
        return True
    if words[first] == "took":
        return True
    if _PARTICIPLES & set(words) and not _WISHES & set(words):
        return True
    if hit.start == first and words[first].endswith("ing") and _VERBS & set(words):
        return True  # "unsubscribing was a mistake"
    return bool(_INDICATIVE & set(words[hit.start : hit.end])) and "no" in words


def _before(sentence: Sentence, clause: Clause) -> list[Clause]:
    return sentence.clauses[: next(n for n, other in enumerate(sentence.clauses) if other is clause)]
