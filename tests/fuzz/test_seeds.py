"""What fuzzing has found stays mended, and a short run of each target finds nothing new: the same inputs every time."""

from __future__ import annotations

from itertools import islice

import pytest

from tests.fuzz.driving import NAMES, SEEDS, failure, inputs, seeds, target

# Inputs of a short run: of a second or two each. A server's sessions take longer than a reader's calls.
COUNTS = {"mime": 30, "reports": 30, "smtp": 40, "upstream": 30, "imap": 30, "http": 40, "policy": 60}
MANY = 500


@pytest.mark.parametrize("name", NAMES)
def test_what_was_found_is_mended_and_a_short_run_finds_nothing(name: str) -> None:
    with target(name).ready() as one:
        bases = len(target(name).BASES)
        some = islice(inputs(name, 1), bases, bases + COUNTS.get(name, MANY))
        for octets in [*(path.read_bytes() for path in seeds(name)), *target(name).BASES[:12], *some]:
            if (why := failure(one, octets)) is not None:
                raise AssertionError(f"{octets[:2000]!r}") from why


def test_seeds_are_of_targets_and_small() -> None:
    kept = [path for path in SEEDS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in kept} <= set(NAMES)
    assert all(path.stat().st_size < 20_000 for path in kept)
    assert len(kept) >= 8
