"""A later version of the whole program, as far as the ledger sees one: a migration more."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from storage.engine import REVISION
from tests.scenarios.process import ROOT

LATER: Final = "9999"
_MIGRATION: Final = '''
import sqlalchemy as sa
from alembic import op

revision = "{later}"
down_revision = "{now}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Towards this revision."""
    op.create_table("later", sa.Column("id", sa.Integer, primary_key=True))
    op.execute("{needs}")
'''


def later_version(directory: Path, *, goes_with_ours: bool) -> Path:
    """Make one in a directory; returns what PYTHONPATH has to name. `goes_with_ours`: may this version use its ledger?"""
    for package in ("daemon", "storage"):
        shutil.copytree(ROOT / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
    engine = directory / "storage/engine.py"
    text, found = re.subn(r'(?m)^(REVISION: Final = )"\d+"', rf'\1"{LATER}"', engine.read_text())
    assert found == 1
    engine.write_text(text)
    needs = "SELECT 1" if goes_with_ours else f"UPDATE meta SET value = '{LATER}' WHERE name = 'needs'"
    script = _MIGRATION.format(later=LATER, now=REVISION, needs=needs)
    (directory / f"storage/migrations/versions/{LATER}_later.py").write_text(script)
    return directory
