"""The database as a stranger reads it: SQL of our own, and keys computed from what is documented of them."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg


class Away(Exception):
    """It cannot be read just now."""


class Ledger:
    """Read only, a connection for each look. `where`: a file, or the URL of a PostgreSQL."""

    def __init__(self, where: Path | str, key_file: Path):
        self.where = where
        lines = key_file.read_text().split("\n")
        self._key = bytes.fromhex(next(line for line in lines if line and not line.startswith("#")))

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows. Raises Away."""
        try:
            if isinstance(self.where, Path):
                with closing(sqlite3.connect(f"{self.where.as_uri()}?mode=ro", uri=True, timeout=2)) as db:
                    return db.execute(sql).fetchall()
            with psycopg.connect(self.where, connect_timeout=2, options="-c statement_timeout=3000") as server:
                return server.execute(sql.encode()).fetchall()
        except (sqlite3.Error, psycopg.Error) as why:
            raise Away(str(why)) from None

    def key(self, person: str) -> bytes:
        """BLAKE2b-128 under the site key, of the address in small letters without its tag."""
        local, _, domain = person.lower().partition("@")
        form = f"{local.partition('+')[0]}@{domain}"
        return hashlib.blake2b(form.encode(), key=self._key, digest_size=16).digest()

    def suppressions(self) -> set[tuple[bytes, str, int]]:
        """(key, scope, reason) of all rows; a scope is `all` or the id of a list. Raises Away."""
        ids = {0: "all", **dict(self.ask("SELECT number, id FROM list_number"))}
        return {(bytes(k), ids[s], r) for k, s, r in self.ask("SELECT key, scope, reason FROM suppression")}
