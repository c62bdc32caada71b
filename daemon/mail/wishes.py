"""What a text asks for, as `wording.understand` found it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from daemon.mail.found import Found
from daemon.mail.sentences import Sentence

Kind = Literal["opt-out", "resubscribe", "review", "ordinary"]


@dataclass(slots=True)
class Wish:
    """The kind of wish, the rule that found it, and where: `deciding` are indexes into `sentences`."""

    kind: Kind
    rule: str
    language: str = ""
    words: str = ""
    sentences: list[Sentence] = field(default_factory=list)
    deciding: set[int] = field(default_factory=set)
    addresses: list[str] = field(default_factory=list)  # named in the text, in order
    about_others: bool = False  # the request is worded for somebody else
    languages: list[str] = field(default_factory=list)  # that it may be written in, the likeliest first
    likeliest: list[tuple[list[Sentence], Found]] = field(default_factory=list)  # as seen in that one; [] for no words
    has_cause: bool = False  # do its words touch mailings, leaving, displeasure, rights: is there anything to suspect?
    told: bool = False  # a request's words in the form of a story, a report, thanks
    negated: bool = False  # a "not" beside a word of removal, in a language of which few phrases are known
    reasons: tuple[str, ...] = ()  # words that weighed most, where the model decided
    stays: bool = False  # other business with support in the same message
