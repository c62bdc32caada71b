"""Coverage-guided fuzzing of `triage.read`: no exception, and no message that takes longer than the bound.

    pip install -e '.[fuzz]'
    python tests/fuzz/read.py -max_total_time=300 /tmp/seeds tests/corpus/mail

libFuzzer's options follow; the first directory receives what it finds. A message that broke something is kept by
libFuzzer as crash-* or timeout-*: shorten it and put it into tests/mail/seeds/, which tests/mail/test_any_octets.py reads.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["daemon.mail", "training.house"]):
    from daemon.mail import reading, rules, summary, triage
    from storage.address import SiteKey
    from training.house import HOUSE

BOUND: Final = 2.0  # seconds; instrumented code is several times slower than the real one
KEY: Final = SiteKey((bytes(32),))


def one(octets: bytes) -> None:
    """Read one message as the watcher would."""
    began = time.monotonic()
    found = triage.read(octets, HOUSE, KEY)
    summary.summary(octets)
    assert time.monotonic() - began < BOUND, f"{time.monotonic() - began:.1f} s"
    assert set(found.rules) <= set(rules.RULES)
    assert all("@" in address for address in reading.addresses(found))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
