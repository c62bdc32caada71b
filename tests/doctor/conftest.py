"""A patient, and certificates of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doctor.patient import Patient
from tests.upstream.certificates import Authority, authority


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Patient:
    for name in ("OPTOUTD_CONFIG", "STATE_DIRECTORY", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    return Patient(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA for the servers of the tests."""
    return authority(tmp_path_factory.mktemp("certificates") / "ca")
