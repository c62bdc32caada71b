"""The desk fixture."""

from pathlib import Path

import pytest

from tests.cli.desk import CONFIG, Desk


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    """In a directory of its own, with a config but no ledger yet."""
    for name in ("OPTOUTD_CONFIG", "STATE_DIRECTORY", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path, capsys, monkeypatch)
    desk.configure(CONFIG)
    return desk


@pytest.fixture
def kept(desk: Desk) -> Desk:
    """With hourly backups."""
    desk.configure(CONFIG + '[storage]\nbackup_dir = "backups"\n')
    return desk
