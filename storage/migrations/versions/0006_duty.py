"""Alarms: what wants a person, whom it was told, and when it was over."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Towards this revision. Nodes of the version before go on beside it: this table is none of theirs."""
    op.create_table(
        "alarm",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("about", sa.String, nullable=False),
        sa.Column("node", sa.String, nullable=False),
        sa.Column("detector", sa.String, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.Column("text", sa.String, nullable=False),
        sa.Column("advice", sa.String, nullable=False),
        sa.Column("told", sa.BigInteger, nullable=True),
        sa.Column("ended", sa.BigInteger, nullable=True, index=True),
        sa.Column("closed", sa.BigInteger, nullable=True),
    )
