"""No pattern may be made slow: `re` holds the interpreter lock, and with it the relay."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from daemon.mail import patterns, triage

# The parse tree has no public name.
_constants: Any = importlib.import_module("re._constants")
_parser: Any = importlib.import_module("re._parser")

assert triage  # importing it registers the patterns of the whole room

SIZE: Final = 65_536
OPEN: Final = 1000  # repeats that may take more than this are as good as open
BOUND: Final = 0.2  # seconds for 64 KB, the better of two
SEEDS: Final = (
    "a", " ", "a ", "\n", " \n", ">", "> ", "-", "_", "=", "a@", "a.a", "a.", "a at ", "=?a?q?", "<a", "on 1", "From: ", "0.",
    "(at) ", "a:", ":", '"', "'a ", "“a", "«", "(", "[", "\t", "é", "は", "a-", "=a", "x=\"a\" ", "1-", "a b@", "<", "re: ", "@@1 ",
)  # fmt: skip
SAMPLE: Final = [chr(n) for n in range(128)] + list("\u00a0ßéøяёєłşはカ字中한عא\u200b\u3000：“”")
REPEATS: Final = (_constants.MAX_REPEAT, _constants.MIN_REPEAT)
POSSESSIVE: Final = _constants.POSSESSIVE_REPEAT
EVERY: Final = [pytest.param(p, id=p.pattern[:40]) for p in patterns.REGISTRY]


# ------------------------------------------------------------------ the parse tree


def children(op: Any, argument: Any) -> list[Any]:
    """The sequences inside a node."""
    if op in (*REPEATS, POSSESSIVE):
        return [argument[2]]
    if op is _constants.SUBPATTERN:
        return [argument[3]]
    if op is _constants.ATOMIC_GROUP:
        return [argument]
    if op is _constants.BRANCH:
        return list(argument[1])
    return []


def characters(op: Any, argument: Any) -> set[str]:
    """Which of the sample characters a node may consume."""
    if op is _constants.LITERAL:
        return {c for c in SAMPLE if c.lower() == chr(argument).lower()}
    if op is _constants.NOT_LITERAL:
        return {c for c in SAMPLE if c.lower() != chr(argument).lower()}
    if op is _constants.ANY:
        return set(SAMPLE) - {"\n"}
    if op is _constants.IN:
        return {c for c in SAMPLE if in_class(argument, c)}
    if op in (_constants.AT, _constants.ASSERT, _constants.ASSERT_NOT):
        return set()
    if op is _constants.GROUPREF:
        return set(SAMPLE)
    return {c for sequence in children(op, argument) for inner in sequence for c in characters(*inner)}


CATEGORY: Final = {
    _constants.CATEGORY_SPACE: r"\s",
    _constants.CATEGORY_NOT_SPACE: r"\S",
    _constants.CATEGORY_WORD: r"\w",
    _constants.CATEGORY_NOT_WORD: r"\W",
    _constants.CATEGORY_DIGIT: r"\d",
    _constants.CATEGORY_NOT_DIGIT: r"\D",
}


def in_class(items: Any, char: str) -> bool:
    """Is a character in [...]?"""
    turned = items[0][0] is _constants.NEGATE
    found = False
    for op, argument in items:
        if op is _constants.LITERAL:
            found = found or chr(argument).lower() == char.lower()
        elif op is _constants.RANGE:
            found = found or any(argument[0] <= ord(c) <= argument[1] for c in (char, char.lower(), char.upper()[:1]))
        elif op is _constants.CATEGORY:
            found = found or bool(re.match(CATEGORY[argument], char))
    return found != turned


def faults(sequence: Any, *, repeated: bool = False) -> Iterator[str]:
    """Open repeats inside another repeat, and neighbours that may take the same characters."""
    before: set[str] = set()  # what open repeats just before, with nothing sure between, may take
    for op, argument in flat(sequence):
        is_open = op in REPEATS and argument[1] > OPEN
        if is_open and repeated:
            yield f"an open repeat inside a repeat: {argument}"
        if is_open and before & characters(op, argument):
            yield f"adjacent open repeats: {argument}"
        inside = repeated or (op in REPEATS and argument[1] > 1)
        for inner in children(op, argument):
            yield from faults(inner, repeated=inside)
        if is_open:
            before = before | characters(op, argument) if argument[0] == 0 else characters(op, argument)
        elif not is_nullable(op, argument):
            before = before & characters(op, argument)  # "a*aa*": what stands between does not part them


def flat(sequence: Any) -> Iterator[tuple[Any, Any]]:
    """The nodes of a sequence, groups opened."""
    for op, argument in sequence:
        if op is _constants.SUBPATTERN:
            yield from flat(argument[3])
        else:
            yield op, argument


def is_nullable(op: Any, argument: Any) -> bool:
    """May the node match nothing?"""
    if op in (*REPEATS, POSSESSIVE):
        return argument[0] == 0 or all(is_nullable(*inner) for inner in argument[2])
    if op is _constants.BRANCH:
        return any(all(is_nullable(*inner) for inner in branch) for branch in argument[1])
    return op in (_constants.AT, _constants.ASSERT, _constants.ASSERT_NOT, _constants.GROUPREF)


@pytest.mark.parametrize(
    "bad", [r"(?:a+)+b", r"\s*\s+x", r"(?:x{0,5000}y)*", r"[ab]*a+", r"\w+\d{2000,}", r"a*b?a*", r"a*aa*"]
)
def test_the_check_itself_sees_what_is_wrong(bad: str) -> None:
    assert list(faults(_parser.parse(bad)))


@pytest.mark.parametrize("good", [r"(?:a{1,9})+b", r"\s*\S+", r"\w+-\w+", r"(?:ab|cd)*", r"x(?:\s*+\s)y"])
def test_the_check_itself_lets_pass_what_is_right(good: str) -> None:
    assert not list(faults(_parser.parse(good)))


@pytest.mark.parametrize("pattern", EVERY)
def test_no_pattern_has_nested_or_adjacent_open_repeats(pattern: re.Pattern[str]) -> None:
    assert not list(faults(_parser.parse(pattern.pattern, pattern.flags)))


# ------------------------------------------------------------------ the clock


def prefixes(sequence: Any) -> list[str]:
    """Texts a pattern may begin with: of each branch the first characters that fit, repeats taken once and often."""
    texts = [""]
    for op, argument in sequence:
        if op is _constants.BRANCH:
            pieces = [piece for branch in argument[1][:12] for piece in prefixes(branch)[:2]]
        elif op in (*REPEATS, POSSESSIVE):
            once = prefixes(argument[2])[:2]
            pieces = [*(once if argument[0] else ["", *once]), *(piece * min(argument[1], 40) for piece in once)]
        elif op is _constants.SUBPATTERN:
            pieces = prefixes(argument[3])
        else:
            fitting = sorted(characters(op, argument) - {"\n"}, key=lambda c: (not c.isalnum(), c))
            pieces = fitting[:1] or [""]
        texts = [text + piece for text in texts[:6] for piece in pieces[:8]][:24]
        if all(len(text) > 60 for text in texts):
            break
    return texts


def took(pattern: re.Pattern[str], text: str) -> float:
    """Seconds of work for search and match, the better of two, as a second job on a shared core may slow us down."""
    times = []
    for _ in range(2):
        start = time.thread_time()
        pattern.search(text)
        pattern.match(text)
        times.append(time.thread_time() - start)
        if times[-1] < BOUND:
            break
    return min(times)


@pytest.mark.parametrize("pattern", EVERY)
def test_no_64_kb_of_anything_take_long(pattern: re.Pattern[str]) -> None:
    own = {p for p in prefixes(_parser.parse(pattern.pattern, pattern.flags)) if p}
    for seed in {*SEEDS, *own, *(p + " " for p in own), *(p[:-1] for p in own if len(p) > 1)}:
        text = (seed * (SIZE // len(seed) + 1))[:SIZE]
        assert took(pattern, text) < BOUND, (pattern.pattern[:80], seed)
