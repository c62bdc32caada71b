"""What is too costly to be done by each of the processes that run the tests."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def once(name: str, temporary: pytest.TempPathFactory) -> Iterator[tuple[Path, bool]]:
    """A directory that all processes of this run share, and whether it is for this one to fill: the others wait until it has."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    base = temporary.getbasetemp()
    directory = base.parent / f"{name}-{run}" if run else base / name
    directory.mkdir(exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield directory, not (directory / "done").exists()
        (directory / "done").touch()
