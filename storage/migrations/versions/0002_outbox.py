"""The outbox of our own notices, the hourly allowance of what nobody proved, and when a request was repeated."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Towards this revision."""
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("address", sa.String, nullable=False),
        sa.Column("language", sa.String, nullable=False),
        sa.Column("scopes", sa.String, nullable=False),
        sa.Column("proven", sa.Integer, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_outbox_key", "outbox", ["key"])
    op.create_index("ix_outbox_state_due", "outbox", ["state", "due"])
    op.create_table(
        "asked_again",
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("scope", sa.Integer, primary_key=True),
        sa.Column("reason", sa.Integer, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "unproven",
        sa.Column("hour", sa.Integer, primary_key=True),
        sa.Column("writer", sa.LargeBinary, primary_key=True),
        sa.Column("count", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
