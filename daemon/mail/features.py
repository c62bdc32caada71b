"""What the model (model.py) is told of a text: names of features, made of what the rules found and of the words.

The rules see concepts ("remove", "me", "list") and their shapes; the model weighs them together with the words around
them. The same function makes the features for training and for reading, so they cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from daemon.mail.found import Found
from daemon.mail.phrases import Clause
from daemon.mail.sentences import Sentence

SENTENCES: Final = 60  # looked at; a longer text has other business
_WORDS: Final = 60  # of a clause
_SIZES: Final = (0, 2, 4, 7, 11, 16, 25, 40, 70, 120)
_STEMS: Final = (4, 5, 6)  # letters: beginnings of words, for languages that bend their ends


def features(
    said: list[Sentence], found: Found, kind: str, rule: str, language: str, size: int, *, is_answer: bool
) -> set[str]:
    """The features of a text. `said`: annotated in `language`; `kind`, `rule`: what the rules alone would say;
    `size`: words of the body."""
    out = {f"K {kind}", f"R {rule}", f"L {language}", f"K {kind} {language}"}
    out.update(f"F {what}" for what, numbers in found.by.items() if numbers)
    out.update(f"S {limit}" for limit in _SIZES if size > limit)
    out.add(f"N {min(len(said), 6)}")
    named = {word for sentence in said for word in sentence.words if word.startswith("@@")}
    out.add(f"@ {min(len(named), 3)}")
    if is_answer:
        out.update(("A", f"A {kind}"))
    for sentence in said[:SENTENCES]:
        if sentence.is_question:
            out.add("Q")
        for clause in sentence.clauses:
            out.update(clause_features(clause, question=sentence.is_question))
            if sentence.subject:
                out.update(f"T {word}" for word in clause.words[:_WORDS])
    return out


def clause_features(clause: Clause, *, question: bool) -> Iterator[str]:
    """What one clause adds."""
    yield from _concepts(clause)
    yield from _words(clause, question=question)


def _concepts(clause: Clause) -> Iterator[str]:
    """The classes of a clause: which, which together, which soon after which, and in which words."""
    present = sorted(clause.found)
    for n, one in enumerate(present):
        yield f"C {one}"
        for other in present[n + 1 :]:
            yield f"P {one} {other}"
    at: list[list[str]] = [[] for _ in clause.words[:_WORDS]]
    for name, starts in clause.found.items():
        for start in starts:
            if start < len(at):
                at[start].append(name)
                yield f"D {name} {clause.words[start]}"
    for n, names in enumerate(at):
        for later in at[n + 1 : n + 4]:
            for one in names:
                for other in later:
                    yield f"B {one} {other}"


def _words(clause: Clause, *, question: bool) -> Iterator[str]:
    """Runs of one to four words, pairs with a gap, and beginnings of words."""
    words = [
        "^",
        *("@@" if word.startswith("@@") else word for word in clause.words[:_WORDS]),
        "?" if question else "$",
    ]
    for n, word in enumerate(words):
        yield f"W {word}"
        for size in (2, 3, 4):
            if n + size <= len(words):
                yield f"W {' '.join(words[n : n + size])}"
        if n + 3 <= len(words):
            yield f"G {word} {words[n + 2]}"
        for size in _STEMS:
            if len(word) > size:
                yield f"X {word[:size]}"
                if n + 1 < len(words):
                    yield f"X {word[:size]} {words[n + 1][:size]}"
