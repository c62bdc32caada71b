"""migrate."""

from __future__ import annotations

from daemon.opening import sole_owner
from storage.engine import REVISION
from tests.cli.desk import Desk


def test_migrate(desk: Desk) -> None:
    assert desk("migrate").code == 75
    books = desk.books()
    said = desk("migrate")
    assert (said.code, said.out, said.err) == (0, "", f"schema {REVISION}: nothing to do\n")
    with sole_owner(books.ledger.path):
        assert desk("migrate").code == 75
    books.ledger.path.write_bytes(b"garbage")
    assert desk("migrate").code == 75
