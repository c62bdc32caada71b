"""Programs that are told of changes, and answers that programs may ask for again."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Towards this revision. Nodes of the version before go on beside it: these tables are none of theirs."""
    op.create_table(
        "hook",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("reached", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("due", sa.BigInteger, nullable=False),
        sa.Column("trouble", sa.String, nullable=False),
    )
    op.create_table(
        "undelivered",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("hook", sa.String, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("trouble", sa.String, nullable=False),
    )
    op.create_index("ix_undelivered_hook", "undelivered", ["hook"])
    op.create_table(
        "answered",
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False, index=True),
        sa.Column("request", sa.LargeBinary, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("ref", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
