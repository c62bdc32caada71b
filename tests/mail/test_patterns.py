"""No pattern may be made slow: `re` holds the interpreter lock, and with it the relay."""

from __future__ import annotations

import re
import time

import pytest

from daemon.mail import patterns, triage

assert triage  # importing it registers the patterns of the whole room

SIZE = 16_384  # a quarter of 64 KB: what is linear here takes four times as long there
SEEDS = ("a", " ", "a ", "\n", ">", "-", "a@", "a.a", "=?a?q?", "<a", "on 1", "From: ", "0.", "(at) ")


def literal_prefix(pattern: str) -> str:
    """What a pattern may begin with, roughly: its first run of letters."""
    found = re.search(r"[A-Za-z][A-Za-z ]{0,30}", re.sub(r"\\.|\(\?[^)]{0,5}", "", pattern))
    return found[0] if found else "a"


@pytest.mark.parametrize("pattern", patterns.REGISTRY, ids=lambda p: p.pattern[:40])
def test_every_pattern_is_linear(pattern: re.Pattern[str]) -> None:
    prefix = literal_prefix(pattern.pattern)
    for seed in (*SEEDS, prefix, prefix + " ", prefix + "a@"):
        text = (seed * (SIZE // len(seed)))[:SIZE]
        start = time.monotonic()
        pattern.search(text)
        pattern.match(text)
        assert time.monotonic() - start < 1, (pattern.pattern[:80], seed)
