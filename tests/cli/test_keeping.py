"""audit and migrate."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from daemon.opening import sole_owner
from storage.engine import REVISION
from tests.cli.desk import Desk

ROW = ["seq", "at", "actor", "event", "key", "scope", "reason", "source", "evidence", "mac"]
VERIFIED = ["ok", "rows", "head", "error", "row"]


def spoil(desk: Desk, statement: str) -> None:
    """What somebody does behind our back."""
    with closing(sqlite3.connect(desk.directory / "optoutd.db")) as db:
        db.execute(statement)
        db.commit()


def test_verify_and_its_head(desk: Desk) -> None:
    desk("suppress", "ann@example.com")
    head = desk("audit", "verify").out.split()[-1]
    desk("suppress", "bob@example.org")
    said = desk("audit", "verify", "--json")
    assert (said.code, said.err, list(said.fact)) == (0, "", VERIFIED)
    assert said.fact | {"head": None} == {"ok": True, "rows": 2, "head": None, "error": None, "row": None}
    assert desk("audit", "verify", "--head", head).out == f"ok, 2 rows, head {said.fact['head']}\n"
    assert desk("audit", "verify", "--head", said.fact["head"].upper()).code == 0
    other = desk("audit", "verify", "--head", "1:" + "0" * 32, "--json")
    assert (other.code, other.fact["row"]) == (1, 1)
    assert desk("audit", "verify", "--head", "3:" + "0" * 32).code == 1


@pytest.mark.parametrize("head", ["", "1", "1:", ":ab", "-1:ab", "x:ab", "²:ab", "9" * 5000 + ":ab"])
def test_a_head_that_is_none_is_64(desk: Desk, head: str) -> None:
    desk.books()
    assert desk("audit", "verify", "--head", head).code == 64


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'somebody else' WHERE seq = 1",
        "DELETE FROM audit WHERE seq = 2",
        "UPDATE suppression SET since = since - 1",
        "DELETE FROM suppression",
    ],
)
def test_what_was_changed_behind_our_back_is_1(desk: Desk, statement: str) -> None:
    desk("suppress", "ann@example.com", "bob@example.org")
    spoil(desk, statement)
    said = desk("audit", "verify")
    assert (said.code, len(said.out.splitlines()), len(said.err.splitlines())) == (1, 1, 1)
    fact = desk("audit", "verify", "--json").fact
    assert (fact["ok"], list(fact)) == (False, VERIFIED)


def test_export(desk: Desk) -> None:
    desk("suppress", "ann@example.com", "--list", "offers")
    desk("lift", "ann@example.com", "--list", "offers", "--because", "wrote again")
    said = desk("audit", "export")
    assert said.code == 0
    assert all(list(f) == ROW for f in said.facts)
    assert [(f["seq"], f["event"], f["scope"]) for f in said.facts] == [
        (1, "suppressed", "list:offers"),
        (2, "lifted", "list:offers"),
    ]
    assert "ann" not in said.out
    assert desk("audit", "export", "--json").out == said.out


def test_migrate(desk: Desk) -> None:
    assert desk("migrate").code == 75
    books = desk.books()
    said = desk("migrate")
    assert (said.code, said.out, said.err) == (0, "", f"schema {REVISION}: nothing to do\n")
    with sole_owner(books.ledger.path):
        assert desk("migrate").code == 75
    books.ledger.path.write_bytes(b"garbage")
    assert desk("migrate").code == 75
