"""The first schema. Kept as written: later changes are later migrations."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Towards this revision."""
    op.create_table(
        "meta", sa.Column("name", sa.String, primary_key=True), sa.Column("value", sa.LargeBinary, nullable=False)
    )
    op.create_table(
        "list_number",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False),
        sa.UniqueConstraint("id"),
    )
    op.create_table(
        "suppression",
        sa.Column("key", sa.LargeBinary(16), primary_key=True),
        sa.Column("scope", sa.Integer, primary_key=True),
        sa.Column("reason", sa.Integer, primary_key=True),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("evidence", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "person",
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("address", sa.String, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "evidence",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("salt", sa.LargeBinary),
        sa.Column("detail", sa.String),
        sqlite_autoincrement=True,  # a `ref` in a refusal, once given, never means something else
    )
    op.create_table(
        "audit",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("event", sa.String, nullable=False),
        sa.Column("key", sa.LargeBinary),
        sa.Column("scope", sa.Integer),
        sa.Column("reason", sa.Integer),
        sa.Column("source", sa.String),
        sa.Column("evidence", sa.Integer),
        sa.Column("digest", sa.LargeBinary),
        sa.Column("standing", sa.LargeBinary, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_audit_key", "audit", ["key"])
    op.create_index("ix_audit_evidence", "audit", ["evidence"])
    op.create_table(
        "incoming",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("mailbox", sa.String, nullable=False),
        sa.Column("folder", sa.String, nullable=False),
        sa.Column("uidvalidity", sa.BigInteger, nullable=False),
        sa.Column("uid", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("target", sa.String, nullable=False),
        sa.Column("digest", sa.LargeBinary),
        sa.Column("size", sa.Integer),
        sa.Column("message_id", sa.String, nullable=False),
        sa.Column("internaldate", sa.BigInteger),
        sa.Column("label", sa.String, nullable=False),
        sa.Column("evidence", sa.Integer),
        sa.UniqueConstraint("mailbox", "folder", "uidvalidity", "uid"),
    )
    op.create_index("ix_incoming_mailbox_state", "incoming", ["mailbox", "state"])
    op.create_index("ix_incoming_message_id", "incoming", ["message_id"])
    op.create_table(
        "watched_folder",
        sa.Column("mailbox", sa.String, primary_key=True),
        sa.Column("folder", sa.String, primary_key=True),
        sa.Column("uidvalidity", sa.BigInteger, primary_key=True),
        sa.Column("uidnext", sa.BigInteger, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "review",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("incoming", sa.Integer),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("sender", sa.String, nullable=False),
        sa.Column("addresses", sa.String, nullable=False),
        sa.Column("scope", sa.String, nullable=False),
        sa.Column("rules", sa.String, nullable=False),
        sa.Column("words", sa.String, nullable=False),
        sa.Column("language", sa.String, nullable=False),
        sa.Column("excerpt", sa.String, nullable=False),
        sa.Column("wish", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("decided", sa.BigInteger),
        sa.Column("note", sa.String, nullable=False),
    )
    op.create_index("ix_review_incoming", "review", ["incoming"])
    op.create_index("ix_review_state", "review", ["state"])
    op.create_table(
        "soft_bounce",
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "job_run", sa.Column("name", sa.String, primary_key=True), sa.Column("at", sa.BigInteger, nullable=False)
    )
