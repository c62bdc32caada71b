"""A ledger whose audit log is verified after every test, and the desk over it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from daemon.config import Intake as Allowance
from daemon.intake import Intake
from tests.intake.support import (
    HOUSE,
)
from tests.ledgers import Books, verified, verified_on
from tests.servers import Postgres


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Books]:
    with verified(tmp_path / "ledger") as it:
        yield it


@pytest.fixture
def in_file(tmp_path: Path) -> Iterator[Books]:
    with verified(tmp_path / "ledger") as it:
        yield it


@pytest.fixture
def on_server(postgres: Postgres, tmp_path: Path) -> Iterator[Books]:
    with verified_on(postgres, tmp_path) as it:
        yield it


@pytest.fixture(params=["file", pytest.param("postgres", marks=pytest.mark.postgres)])
def anywhere(request: pytest.FixtureRequest) -> Books:
    """In each kind of database."""
    found: Books = request.getfixturevalue("in_file" if request.param == "file" else "on_server")
    return found


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    """What is logged once the test has configured it; nobody logs into a closed stream afterwards."""
    handlers = list(logging.getLogger().handlers)
    yield capsys
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = handlers


@pytest.fixture
def desk(ledger: Books) -> Intake:
    """Without the hourly allowance: what nobody proved waits for a person (test_trust.py has the rest)."""
    return Intake(ledger.ledger, HOUSE, ledger.numbers, allowance=Allowance(unproven_per_hour=0))
