"""A text cut into sentences and clauses, its misspellings led back, its languages guessed."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from re import Match
from typing import Final

from daemon.mail import phrases
from daemon.mail.addresses import in_text
from daemon.mail.patterns import pattern
from daemon.mail.phrases import Clause, Hit, Lexicon, lexicon

SHORT: Final = 60  # words: misspellings are mended only in texts as short as that
FEW: Final = 8  # words: too few to tell the language by

_END = pattern(r"(?<=[.!?;…:])[\"'”»)]{0,3}\s|(?<=[。！？؟])|\n")
_URL = pattern(r"(?:https?://|www\.)[^\s<>\"]{1,2000}")
_COLON_URL = pattern(r":\s{1,3}url ")
_APPOSITION = pattern(r"[,(]\s{0,2}(@@\d{1,3})\s{0,2}[,)]")
_QUOTATION = pattern(
    r"[\"“”„«»](?=\S)([^\"“”„«»\n]{1,200})[\"“”„«»]|(?<!\w)['‘‚](?=\S)([^'‘’‚\n]{1,200})['’](?!\w)|「([^「」\n]{1,200})」"
)
_STOPS = pattern(r"[.!?;:…](?=\s|$)")
_LETTER = pattern(r"[^\W\d_]")
_SCRIPTS: Final = (
    ("ko", pattern(r"[\uac00-\ud7a3]")),
    ("ja", pattern(r"[\u3040-\u30ff]")),
    ("zh", pattern(r"[\u4e00-\u9fff]")),
    ("ar", pattern(r"[\u0600-\u06ff]")),
    ("he", pattern(r"[\u0590-\u05ff]")),
    ("ru", pattern(r"[\u0400-\u04ff]")),
    ("uk", pattern(r"[\u0400-\u04ff]")),
)
_LATIN: Final = ("en", "de", "fr", "es", "it", "nl", "pt", "sv", "da", "no", "fi", "pl", "cs", "tr")


@dataclass(slots=True)
class Sentence:
    """One sentence: as written, its words, and (for one language) its clauses with what was found in them."""

    text: str
    words: list[str]
    subject: bool = False
    clauses: list[Clause] = field(default_factory=list)
    hits: list[tuple[int, Hit]] = field(default_factory=list)  # (clause, hit)

    def has(self, name: str) -> bool:
        """Is there a phrase of this class anywhere in it?"""
        return any(name in clause.found for clause in self.clauses)

    def says(self, kind: str) -> list[tuple[int, Hit]]:
        """The hits of one kind."""
        return [(n, hit) for n, hit in self.hits if hit.kind == kind]

    @property
    def is_question(self) -> bool:
        return self.text.rstrip(" \"'”»)").endswith(("?", "？", "؟"))


@dataclass(slots=True)
class Text:
    """What somebody wrote, ready to be looked at in one language after the other."""

    sentences: list[Sentence]
    addresses: list[str]  # "@@0" in the words stands for the first of them
    size: int  # words of the body
    names: list[list[str]] = field(default_factory=list)  # what our lists are called

    def languages(self) -> list[str]:
        """The languages it may be written in, the likeliest first."""
        sample = " ".join(s.text for s in self.sentences)[:20_000]
        by_script = [language for language, script in _SCRIPTS if script.search(sample)]
        if "ja" in by_script and "zh" in by_script:
            by_script.remove("zh")
        elif "zh" in by_script:
            by_script.append("ja")  # a few Japanese words have no kana
        words = [w for s in self.sentences for w in s.words][:3000]
        score: dict[str, int] = {
            x: sum(w in lexicon(x).stopwords for w in words) for x in (*_LATIN, "ru", "uk") if x in phrases.languages()
        }
        best = max(score.values(), default=0)
        latin = [x for x in _LATIN if x in score and (len(words) <= FEW or x == "en" or score[x] * 2 > best)]
        if best > 1:  # some words of a language are known: the others are only look-alikes
            latin = [x for x in latin if score[x] or x == "en"]
        by_script.sort(key=lambda x: -score.get(x, 0))
        return [x for x in by_script + sorted(latin, key=lambda x: -score[x]) if x in phrases.languages()]

    def annotate(self, language: str) -> list[Sentence]:
        """The sentences with what this language's lexicon finds in them."""
        words = lexicon(language)
        return [_annotated(sentence, words, self.names) for sentence in self.sentences]


def read(subject: str, body: str, names: list[list[str]] | None = None) -> Text:
    """Cut subject and body into sentences. `names`: of our lists, as words; they stand for "the list" in a request."""
    addresses: list[str] = []
    sentences = [Sentence(t, w, subject=True) for t, w in _sentences(subject, addresses)]
    own = [Sentence(t, w) for t, w in _sentences(body, addresses)]
    text = Text(sentences + own, addresses, sum(len(s.words) for s in own), names or [])
    if sum(len(s.words) for s in text.sentences) <= SHORT:
        _mend(text)
    return text


def _sentences(text: str, addresses: list[str]) -> list[tuple[str, list[str]]]:
    out = []
    for piece in _END.split(_closed(_unwrapped(_COLON_URL.sub(" url ", _URL.sub(" url ", text))))):
        marked = _marked(piece, addresses)
        words = phrases.tokens(_unquoted(marked))
        if any(_LETTER.search(w) or w.startswith("@@") for w in words):
            out.append((piece.strip(), words))
    return out


def _closed(text: str) -> str:
    """A quotation ends no sentence of the writer's: `what does "Take me off." mean?` is one."""
    return _QUOTATION.sub(lambda found: found[0][0] + _STOPS.sub(" ", found[0][1:-1]) + found[0][-1], text)


def _unwrapped(text: str) -> str:
    """Lines that a mail program broke, joined: a line goes on if the next begins in lower case or it was a long one."""
    out: list[str] = []
    for line in text.split("\n"):
        bare = line.strip()
        last = out[-1].rstrip() if out else ""
        if (
            bare
            and last
            and not last.endswith((".", "!", "?", ":", ";"))
            and (bare[0].islower() or len(last) >= 50 or (last.endswith(",") and len(last) >= 30))
        ):
            out[-1] = f"{last} {bare}" if not _SCRIPTS[1][1].search(last[-1]) else last + bare
        else:
            out.append(bare)
    return "\n".join(out)


def _marked(piece: str, addresses: list[str]) -> str:
    out, last = [], 0
    for start, end, address in in_text(piece):
        if start < last:
            continue
        out.append(f"{piece[last:start]} @@{len(addresses)} ")
        addresses.append(address)
        last = end
    return _APPOSITION.sub(r" \1 ", "".join(out) + piece[last:])


def _unquoted(piece: str) -> str:
    """Without what is only quoted: `"Please remove me" replies went up` asks nothing. One word, a name in capitals
    (`the "Quill Letter"`), or a sentence that is nothing but its quotation stay."""

    def kept(found: Match[str]) -> str:
        inside = next(x for x in found.groups() if x)
        rest = len(piece) - len(found[0])
        words = inside.split()
        is_name = all(w[:1].isupper() or w in ("of", "and", "de", "du", "la") for w in words) and len(words) > 1
        return f" {inside} " if len(words) == 1 or is_name or rest <= 3 else " , quotation , "

    return _QUOTATION.sub(kept, piece)


def _annotated(sentence: Sentence, words: Lexicon, names: list[list[str]]) -> Sentence:
    out = Sentence(sentence.text, sentence.words, sentence.subject)
    whole = words.annotate(sentence.words)
    cuts = sorted({at for name in ("but", "because") for at in whole.found.get(name, {}) if at > 0})
    start = 0
    for n, word in enumerate([*sentence.words, ","]):
        if word in (",", "(", ")", "–", "—", "/", "|", "-") or n in cuts or n == len(sentence.words):
            if n > start:
                out.clauses.append(words.annotate(sentence.words[start:n]))
            start = n if n in cuts else n + 1
        if len(out.clauses) >= 60:
            break
    for n, clause in enumerate(out.clauses):
        _name_lists(clause, names)
        out.hits += [(n, hit) for hit in words.hits(clause)]
    return out


def _name_lists(clause: Clause, names: list[list[str]]) -> None:
    """Where a list of ours is called by its name, the words for lists and mail stand."""
    for name in names:
        for at, word in enumerate(clause.words):
            if word == name[0] and clause.words[at : at + len(name)] == name:
                for kind in ("list", "mail", "named"):
                    clause.found.setdefault(kind, {}).setdefault(at, []).append(at + len(name))


def _mend(text: Text) -> None:
    """Lead misspelt words back to the ones that matter; a word that any of the languages knows is left alone."""
    known, right = _spelling(tuple(text.languages()))
    for sentence in text.sentences:
        sentence.words = [_mended(w, known, right) for w in sentence.words]


@functools.lru_cache(maxsize=256)
def _spelling(languages: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    """(words that any of the languages knows, words that matter: misspellings are led back to them)."""
    known = frozenset[str]().union(*(lexicon(x).vocabulary | lexicon(x).stopwords for x in languages))
    return known, tuple(sorted({w for x in languages for w in lexicon(x).typos}))


def _mended(word: str, known: frozenset[str], right: tuple[str, ...]) -> str:
    if not 5 <= len(word) <= 20 or word in known or not word.isalpha():
        return word
    near = sorted(
        (d, candidate)
        for candidate in right
        if (d := _distance(word, candidate)) <= (2 if len(word) >= 8 else 1)
        and word.startswith("re") == candidate.startswith("re")  # "reinscription" is no misspelt "desinscription"
    )
    return (
        near[0][1] if near and (len(near) == 1 or near[0][0] < near[1][0] or near[0][1][:5] == near[1][1][:5]) else word
    )


def _distance(a: str, b: str) -> int:
    """Letters wrong, missing, too many or swapped between two words; 9 if plainly many."""
    if abs(len(a) - len(b)) > 2 or (a[0] != b[0] and a[1:2] != b[1:2] and a[0] != b[1:2]):
        return 9
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, before, row = before, row, [i] + [0] * len(b)
        for j, y in enumerate(b, 1):
            row[j] = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                row[j] = min(row[j], last[j - 2] + 1)
    return row[-1]
