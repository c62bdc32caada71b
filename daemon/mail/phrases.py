"""Phrases as data: a TOML file a language (phrases/LANG.toml), and the matcher that finds them in a text.

A file has `stopwords` (to tell languages apart), `typos` (words whose misspellings are led back to them), `[words]`
(classes: phrases separated by ";", where "mailing*" is any word so beginning) and `[say]` (templates by kind):

    ask = ["{remove} {me} _ {off} _ {list}"]      {class}, word, word*, word?; _ : up to 3 words, __ : up to 8,
                                                  ^ : where a clause begins, $ : where it ends (fillers aside)

Matching goes over lists of words, never letters, within one clause, in time bounded by its length: no pattern of ours
can be made to backtrack by what somebody writes. Chinese and Japanese count each character as a word.
"""

from __future__ import annotations

import functools
import importlib.resources
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from daemon.mail.normalizing import composed
from daemon.mail.patterns import pattern

CLAUSE_LIMIT: Final = 80  # words of a clause that are looked at
_MARKS: Final = dict.fromkeys((*range(768, 880), *range(1425, 1480), *range(1611, 1632), 1600))
_LETTERS: Final = str.maketrans(
    {
        "、": ",",
        "،": ",",
        "ø": "o",
        "æ": "ae",
        "œ": "oe",
        "ł": "l",
        "ı": "i",
        "đ": "d",
        "أ": "ا",
        "إ": "ا",
        "آ": "ا",
        "ى": "ي",
        "ة": "ه",
    }
)
_WORD = pattern(
    r"@@\d{1,3}|[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+|[,()–—/|]|"
    r"(?<=\s)-(?=\s)"
)
_E_MAIL = pattern(r"(?<!\w)e[- ]?(mail|post|posta)(?=s?(?!\w)|[a-z])")


def fold(text: str) -> str:
    """Lower case, without accents and the like: as people type who are in a hurry."""
    if text.isascii():
        return text.lower()
    folded = composed(text.casefold(), "NFKD").translate(_MARKS).translate(_LETTERS)
    return composed(folded)


def tokens(text: str) -> list[str]:
    """The words of a folded text; marks that part clauses are words too."""
    return _WORD.findall(_E_MAIL.sub(r"e\1", fold(text)))


@dataclass(slots=True)
class Clause:
    """Words between commas (or "but", "because"), with what was found in them: class -> start -> ends."""

    words: list[str]
    found: dict[str, dict[int, list[int]]] = field(default_factory=dict)

    def has(self, name: str, start: int = 0, end: int = CLAUSE_LIMIT) -> bool:
        """Is there a phrase of this class that begins within [start, end)?"""
        return any(start <= at < end for at in self.found.get(name, ()))


@dataclass(frozen=True, slots=True)
class Hit:
    """A template found: its kind, where (words [start, end) of the clause), and as what it is written in the file."""

    kind: str
    start: int
    end: int
    template: str


_Element = tuple[str, str, bool]  # what ("word" prefix "class" gap ^ $), its text, is it optional?


class _Template(NamedTuple):
    """A template ready for matching. `needs`: classes and words without which it cannot be found."""

    kind: str
    written: str
    elements: tuple[_Element, ...]
    needs: frozenset[str]


@dataclass(frozen=True)
class Lexicon:
    """One language, ready for matching."""

    language: str
    stopwords: frozenset[str]
    typos: tuple[str, ...]
    vocabulary: frozenset[str]
    exact: dict[str, list[tuple[str, tuple[str, ...]]]]
    prefixes: dict[str, list[tuple[str, tuple[str, ...]]]]
    templates: dict[str, list[_Template]]  # by what the first element is
    closed: frozenset[str]  # classes of request words that are spelled out in full (closed.py)

    def annotate(self, words: list[str]) -> Clause:
        """Find every class in a clause."""
        clause = Clause(words[:CLAUSE_LIMIT])
        for start, word in enumerate(clause.words):
            for name, rest in self._starting_with(word):
                if end := _follows(clause.words, start + 1, rest):
                    clause.found.setdefault(name, {}).setdefault(start, []).append(end)
        return clause

    def _starting_with(self, word: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        yield from self.exact.get(word, ())
        for size in range(1, min(len(word), 24) + 1):
            yield from self.prefixes.get(word[:size], ())

    def hits(self, clause: Clause) -> list[Hit]:
        """Every template found in an annotated clause."""
        out = []
        begin, stop = _inner(clause)
        there = {*clause.found, *("=" + word for word in clause.words)}
        for start in range(len(clause.words)):
            keys = [name for name in clause.found if start in clause.found[name]]
            keys += ["=" + clause.words[start], "*"] + (["^"] if start == begin else [])
            for key in keys:
                for kind, written, elements, needs in self.templates.get(key, ()):
                    if needs <= there and (ends := _match(elements, clause, start, stop)):
                        out.append(Hit(kind, start, max(ends), written))
        return out


def _follows(words: list[str], at: int, rest: tuple[str, ...]) -> int:
    """The end of a phrase whose further words are `rest`; 0 if the text goes on otherwise."""
    for expected in rest:
        if at >= len(words):
            return 0
        if not (words[at].startswith(expected[:-1]) if expected.endswith("*") else words[at] == expected):
            return 0
        at += 1
    return at


def _inner(clause: Clause) -> tuple[int, int]:
    """Begin and end of a clause without the fillers ("please", "hello", "thank you") around it."""
    filler = clause.found.get("filler", {})
    begin, stop = 0, len(clause.words)
    while begin in filler:
        begin = max(filler[begin])
    ends = {end: start for start, all_ends in filler.items() for end in all_ends}
    while stop in ends and ends[stop] >= begin:
        stop = ends[stop]
    return begin, stop


def _match(elements: tuple[_Element, ...], clause: Clause, start: int, stop: int) -> set[int]:
    """The ends at which the elements, from `start` on, may have been matched."""
    places = {start}
    for what, text, optional in elements:
        step: set[int] = set(places) if optional else set()
        for place in places:
            step.update(_advance(what, text, clause, place, stop))
        places = step
        if not places:
            break
    return places


def _advance(what: str, text: str, clause: Clause, place: int, stop: int) -> list[int]:
    words = clause.words
    match what:
        case "class":
            return clause.found.get(text, {}).get(place, [])
        case "gap":
            return list(range(place, min(place + int(text), len(words)) + 1))
        case "word":
            return [place + 1] if place < len(words) and words[place] == text else []
        case "prefix":
            return [place + 1] if place < len(words) and words[place].startswith(text) else []
        case "$":
            return [place] if place >= stop else []
        case _:  # "^": tried only where the clause begins
            return [place]


@functools.cache
def languages() -> tuple[str, ...]:
    """The languages there is a file for."""
    names = (entry.name for entry in importlib.resources.files("daemon.mail").joinpath("phrases").iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


class Broken(Exception):
    """A phrase file cannot be read; the message says which, and where."""


@functools.cache
def lexicon(language: str) -> Lexicon:
    """Read phrases/LANG.toml, on first use. Raises Broken."""
    file = importlib.resources.files("daemon.mail").joinpath("phrases").joinpath(f"{language}.toml")
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as why:
        raise Broken(f"daemon/mail/phrases/{language}.toml: {why}") from None
    exact: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    prefixes: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    vocabulary: set[str] = set()
    for name, phrases in data["words"].items():
        for phrase in phrases.split(";"):
            for index, key, rest in _phrase(phrase):
                (exact if index else prefixes).setdefault(key, []).append((name, rest))
                vocabulary.update(w.rstrip("*") for w in (key, *rest))
    templates: dict[str, list[_Template]] = {}
    for kind, written in data["say"].items():
        for template in written:
            elements = _elements(template)
            vocabulary.update(text for what, text, _ in elements if what in ("word", "prefix"))
            made = _Template(kind, template, elements, _needs(elements))
            for key in _keys(elements):
                templates.setdefault(key, []).append(made)
    return Lexicon(
        language,
        frozenset(tokens(data["stopwords"])),
        tuple(tokens(data.get("typos", ""))),
        frozenset(vocabulary),
        exact,
        prefixes,
        templates,
        _closed(data["words"]),
    )


def _closed(classes: dict[str, str]) -> frozenset[str]:
    """Classes whose words are known in full; of nouns ("mail", "list") a known beginning will do."""
    spelled = {name for name in ("leave", "remove") if "*" not in classes.get(name, "*")}
    return frozenset(
        {"sure", "filler", "me", "list", "mail", "named", "consent", "purposes", "everything", "how", "off", "thanks"}
        | spelled
    )


def _phrase(written: str) -> list[tuple[bool, str, tuple[str, ...]]]:
    """A phrase of a class -> [(does its first word stand as it is, or is it a beginning?, first word, the others)]."""
    words = _template_words(written)
    if not words:
        return []
    return [(not words[0].endswith("*"), words[0].rstrip("*"), tuple(words[1:]))]


def _template_words(written: str) -> list[str]:
    out: list[str] = []
    for piece in written.split():
        folded = tokens(piece.rstrip("*?")) or [piece] if piece.startswith("@@") else tokens(piece.rstrip("*?"))
        out += folded
        if piece.rstrip("?").endswith("*") and out:
            out[-1] += "*"
    return out


def _elements(template: str) -> tuple[_Element, ...]:
    out: list[_Element] = []
    for piece in template.split():
        optional = piece.endswith("?")
        bare = piece.rstrip("?")
        if bare in ("^", "$"):
            out.append((bare, "", False))
        elif bare in ("_", "__"):
            out.append(("gap", "3" if bare == "_" else "8", False))
        elif bare.startswith("{"):
            out.append(("class", bare.strip("{}"), optional))
        else:
            words = _template_words(bare)
            out += [("prefix" if w.endswith("*") else "word", w.rstrip("*"), optional) for w in words]
    return tuple(out)


def _needs(elements: tuple[_Element, ...]) -> frozenset[str]:
    """What must be in a clause, as `hits` names it: most templates are ruled out by that, without being tried."""
    return frozenset(
        text if what == "class" else "=" + text
        for what, text, optional in elements
        if what in ("class", "word") and not optional
    )


def _keys(elements: tuple[_Element, ...]) -> list[str]:
    """Under which first words a template is looked for."""
    keys = []
    for what, text, optional in elements:
        if what == "^":
            return ["^"]
        keys.append(text if what == "class" else "=" + text if what == "word" else "*")
        if not optional:
            break
    return keys
