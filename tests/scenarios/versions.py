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
    meta = sa.table("meta", sa.column("name", sa.String), sa.column("value", sa.LargeBinary))
    op.execute(meta.update().where(meta.c.name == "needs").values(value=b"{needs}"))
'''


def later_version(directory: Path, *, goes_with_ours: bool) -> Path:
    """Make one in a directory; returns what PYTHONPATH has to name. `goes_with_ours`: may this version use its ledger?"""
    for package in ("daemon", "storage"):
        shutil.copytree(ROOT / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
    engine = directory / "storage/engine.py"
    text, found = re.subn(r'(?m)^(REVISION: Final = )"\d+"', rf'\1"{LATER}"', engine.read_text())
    assert found == 1
    engine.write_text(text)
    script = _MIGRATION.format(later=LATER, now=REVISION, needs=REVISION if goes_with_ours else LATER)
    (directory / f"storage/migrations/versions/{LATER}_later.py").write_text(script)
    return directory
