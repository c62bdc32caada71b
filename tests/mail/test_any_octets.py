"""`read` never raises, whatever comes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.config import House
from daemon.mail import triage
from daemon.mail.reading import label
from daemon.mail.rules import RULES

FILES = sorted((Path(__file__).parents[1] / "corpus" / "mail").glob("*.eml"))
SEEDS = sorted((Path(__file__).parent / "seeds").iterdir())  # what tests/fuzz/read.py found
QUIET = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@QUIET
@given(raw=st.binary(max_size=3000))
def test_arbitrary_octets(house: House, raw: bytes) -> None:
    assert label(triage.read(raw, house))
    assert label(
        triage.read(b"From: a@b.example\nSubject: x\nContent-Type: multipart/mixed; boundary=a\n\n--a\n" + raw, house)
    )


@QUIET
@given(
    file=st.sampled_from(FILES),
    cuts=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 40), st.binary(max_size=12)), max_size=6),
)
def test_mutated_messages(house: House, file: Path, cuts: list[tuple[int, int, bytes]]) -> None:
    raw = file.read_bytes()
    for at, size, put in cuts:
        raw = raw[:at] + put + raw[at + size :]
    assert label(triage.read(raw, house))


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: path.name[:12])
def test_what_the_fuzzer_found(house: House, seed: Path) -> None:
    began = time.thread_time()
    reading = triage.read(seed.read_bytes(), house)
    assert time.thread_time() - began < 2
    assert set(reading.rules) <= set(RULES)


def test_there_are_seeds() -> None:
    assert len(SEEDS) >= 40
