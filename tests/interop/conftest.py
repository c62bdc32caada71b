"""A house that sends: the whole daemon before the sink, with one person who has opted out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.house import BOB, DORA, house
from tests.scenarios.process import Daemon
from tests.servers import Sink


@pytest.fixture
def home() -> Iterator[Path]:
    """A short directory of the test's own."""
    with tempfile.TemporaryDirectory(prefix="oo") as name:
        yield Path(name)


def _running(sink: Sink, mode: str) -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="oo") as name, house(Path(name), sink.port, mode=mode).running() as daemon:
        daemon.cli("suppress", BOB, "--reason", "opt-out")
        daemon.cli("suppress", DORA, "--reason", "opt-out", "--list", "newsletter")
        yield daemon


@pytest.fixture(scope="module")
def _refusing(_sink_server: Sink) -> Iterator[Daemon]:
    yield from _running(_sink_server, "refuse")


@pytest.fixture(scope="module")
def _stripping(_sink_server: Sink) -> Iterator[Daemon]:
    yield from _running(_sink_server, "strip")


@pytest.fixture
def refusing(_refusing: Daemon, sink: Sink) -> Daemon:
    """A daemon whose relay refuses bob@example.org at RCPT; what passes goes to `sink`, which is empty."""
    return _refusing


@pytest.fixture
def stripping(_stripping: Daemon, sink: Sink) -> Daemon:
    """A daemon whose relay leaves bob@example.org out."""
    return _stripping
