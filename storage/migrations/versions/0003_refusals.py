"""The relay's record: single refusals, and counts by the hour."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Towards this revision."""
    op.create_table(
        "refusal",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("list", sa.Integer, nullable=False),
        sa.Column("reason", sa.Integer, nullable=False),
        sa.Column("credential", sa.String, nullable=False),
        sa.Column("message_id", sa.String, nullable=False),
        sa.Column("evidence", sa.BigInteger, nullable=False),
        sa.Column("others", sa.Integer, nullable=False),
    )
    op.create_index("ix_refusal_key", "refusal", ["key"])
    op.create_index("ix_refusal_at", "refusal", ["at"])
    op.create_index("ix_refusal_message_id", "refusal", ["message_id"])
    op.create_table(
        "tally",
        sa.Column("hour", sa.Integer, primary_key=True),
        sa.Column("list", sa.Integer, primary_key=True),
        sa.Column("credential", sa.String, primary_key=True),
        sa.Column("outcome", sa.String, primary_key=True),
        sa.Column("reason", sa.Integer, primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
