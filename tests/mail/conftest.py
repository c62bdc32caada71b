"""The fictional house of the corpus, and where the corpora are."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.config import House
from training.house import HOUSE

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def house() -> House:
    """QuillPDF, as tests/corpus describes it."""
    return HOUSE


@pytest.fixture(scope="session")
def third_party() -> Path:
    """The openly licensed collections beside the checkout; the tests that need them are skipped without."""
    root = Path(os.environ.get("OPTOUTD_CORPUS", HERE.parents[2] / "shared" / "corpus")) / "third-party"
    if not root.is_dir():
        pytest.skip("no third-party corpus")
    return root


@pytest.fixture
def untraced() -> Iterator[None]:
    """Without coverage, which makes reading four times as slow: for a test that reads what others have read.

    The marker `no_cover` of pytest-cov does nothing in a worker of pytest-xdist.
    """
    tracer = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(tracer)
