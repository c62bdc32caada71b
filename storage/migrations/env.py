"""Alembic's entry: runs the migrations on the connection that storage.engine hands in."""

from alembic import context
from sqlmodel import SQLModel

import storage.models  # noqa: F401 - declares the tables

connection = context.config.attributes["connection"]
context.configure(
    connection=connection, target_metadata=SQLModel.metadata, render_as_batch=True, transactional_ddl=True
)
with context.begin_transaction():
    context.run_migrations()
