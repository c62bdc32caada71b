"""`read` never raises, whatever comes."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.config import House
from daemon.mail import triage
from daemon.mail.reading import label

FILES = sorted((Path(__file__).parents[1] / "corpus" / "mail").glob("*.eml"))
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
