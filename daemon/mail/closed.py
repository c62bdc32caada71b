"""The closed world: in languages of which we know few words, act only on a text of which we know every word.

Their phrase files have a class `sure`: words that plain requests to be taken off are made of. A word outside it, a "not"
that is no part of a known request phrase, thanks in front of the request ("thank you for removing me"), or any class
that hints at another matter leaves the text to a person. So nothing has to be known of what else might be said.
"""

from __future__ import annotations

from typing import Final

from daemon.mail.phrases import Clause, Hit, Lexicon, lexicon, tokens
from daemon.mail.sentences import Sentence

OPEN: Final = frozenset(("en", "de", "fr", "es"))  # languages whose files are large enough to judge by (evidence.py)
_LIMIT: Final = 60  # words (signs, where each counts as a word): more is no plain request
_DOUBTS: Final = ("veto", "theirs", "product", "offer", "not_own", "channel", "keep_word", "renewal")
_REQUESTS: Final = ("ask", "bare")
_NAME_WORDS: Final = 4
_NEAR: Final = 6  # words between a "not" and what it may negate; another "not" may be more than twice as far
_NEAR_SIGNS: Final = 80  # where each sign counts as a word: the whole clause
_FRAGMENT: Final = 3  # words: a clause so short with a "not" in it negates what stands beside it
# Understood in mail of every language.
_EVERYWHERE: Final = frozenset(
    "unsubscribe newsletter newsletters stop email emails mail mails gdpr re hello hi please thanks quill quillpdf".split()
)


def is_plain(said: list[Sentence], language: str, writer: str) -> bool:
    """Is the text nothing but a short request in known words? `writer`: his name and address, as he may sign."""
    words = lexicon(language)
    signature = set(tokens(writer.replace("@", " ").replace("_", " ").replace(".", " ")))
    if sum(len(s.words) for s in said) > _LIMIT:
        return False
    return all(_is_signature(s, signature) or _is_known(s, words, signature) for s in said)


def is_negated(said: list[Sentence]) -> bool:
    """Does a "not" stand in one clause with a word of removal or ending ("do not take me off"), or with another "not"?"""
    return any(_has_stray_not(clause) for sentence in said for clause in sentence.clauses)


def _has_stray_not(clause: Clause) -> bool:
    ending = [n for name in ("leave", "remove", "stop") for n in _places(clause, name)]
    nots = [n for n in _places(clause, "nots") if n not in ending]  # "enough!" ends something, it does not negate
    if not nots:
        return False
    says_what = any(name in clause.found for name in ("send", "receive", "want", "mail", "list", "sending", "contact"))
    fragment = len(nots) + len(_places(clause, "filler")) >= len(clause.words) or (
        len(clause.words) <= _FRAGMENT and not says_what
    )
    signs = any(len(word) == 1 and word > "\u2e80" for word in clause.words)  # each counts as a word
    near = _NEAR_SIGNS if signs else _NEAR
    starts = sorted(clause.found["nots"])
    ends = {at: max(clause.found["nots"][at]) for at in starts}
    twice = any(
        ends[one] <= other < ends[one] + 2 * near + 2
        for one in starts
        for other in starts
        if one in nots and other in nots
    )
    return twice or fragment or any(abs(n - other) <= near for n in nots for other in ending)


def _places(clause: Clause, name: str) -> list[int]:
    return sorted({n for at, ends in clause.found.get(name, {}).items() for n in range(at, max(ends))})


def _is_signature(sentence: Sentence, signature: set[str]) -> bool:
    words = [word for word in sentence.words if word.isalnum()]
    if "".join(words) in signature:
        return True  # names of one sign a word
    return 0 < len(words) <= _NAME_WORDS and all(word in signature for word in words)


def _is_known(sentence: Sentence, words: Lexicon, signature: set[str]) -> bool:
    if any(sentence.has(name) for name in _DOUBTS):
        return False
    if sentence.is_question and not (sentence.has("how") or sentence.has("filler")):
        return False
    hits = [(at, hit) for at, hit in sentence.hits if hit.kind in _REQUESTS]
    return all(
        _is_covered(clause, [hit for at, hit in hits if at == n], words, signature)
        for n, clause in enumerate(sentence.clauses)
    )


def _is_covered(clause: Clause, hits: list[Hit], words: Lexicon, signature: set[str]) -> bool:
    """Is every word of the clause known, and does each "not" belong to a request?"""
    known = {at for at, word in enumerate(clause.words) if word in _EVERYWHERE or word.isdigit() or word[:2] == "@@"}
    for name in words.closed & clause.found.keys():
        for at, ends in clause.found[name].items():
            known.update(range(at, max(ends)))
    sure = {n for at, ends in clause.found.get("sure", {}).items() for n in range(at, max(ends))}
    within: set[int] = set()
    for hit in hits:
        exact, beginnings = _literal(clause, hit)
        within |= exact | (beginnings & sure)
    nots = {n for at, ends in clause.found.get("nots", {}).items() for n in range(at, max(ends))}
    if nots and not _is_one_not(clause, hits, nots):
        return False
    if hits and clause.has("thanks", 0, min(hit.start for hit in hits)):
        return False
    polite = {n for at, ends in clause.found.get("polite", {}).items() for n in range(at, max(ends))}
    if set(clause.found.get("condition", ())) - polite - within:
        return False
    unknown = set(range(len(clause.words))) - (known - nots) - _phrased(clause) - within - polite
    return all(clause.words[at] in signature for at in unknown)


def _phrased(clause: Clause) -> set[int]:
    """Words of `sure` phrases of several words: "보내지 마세요" is known as a whole, its "not" included."""
    return {n for at, ends in clause.found.get("sure", {}).items() if max(ends) > at + 1 for n in range(at, max(ends))}


def _is_one_not(clause: Clause, hits: list[Hit], nots: set[int]) -> bool:
    """ "Do not send" is a request, "do not remove" and "stop not sending" are none: beside a "not" no other request."""
    if any(name in clause.found for name in ("leave", "remove")) or sum(n - 1 not in nots for n in nots) > 1:
        return False
    spans = [set(range(hit.start, hit.end)) for hit in hits]
    negative = {n for span in spans if span & nots for n in span}
    return all(span & negative for span in spans)


def _literal(clause: Clause, hit: Hit) -> tuple[set[int], set[int]]:
    """Where the words that the template spells out stand, run by run: whole words, and words given by their beginning.

    What fills its gaps is not known by that.
    """
    runs: list[list[str]] = [[]]
    for piece in hit.template.split():
        if piece in ("_", "__", "^", "$") or piece.startswith("{"):
            runs.append([])
        else:
            words = tokens(piece.rstrip("*?"))
            runs[-1] += [*words[:-1], *(word + "*" if piece.endswith("*") else word for word in words[-1:])]
    exact: set[int] = set()
    beginnings: set[int] = set()
    for run in filter(None, runs):
        for at in range(hit.start, hit.end - len(run) + 1):
            if all(_is(clause.words[at + n], expected) for n, expected in enumerate(run)):
                for n, expected in enumerate(run):
                    (beginnings if expected.endswith("*") else exact).add(at + n)
    return exact, beginnings


def _is(word: str, expected: str) -> bool:
    return word.startswith(expected[:-1]) if expected.endswith("*") else word == expected
