"""audit: verified in full and since the last check, against noted heads; exported."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from tests.cli.desk import Desk

ROW = ["seq", "at", "actor", "event", "key", "scope", "reason", "source", "evidence", "mac"]
VERIFIED = ["ok", "rows", "head", "error", "row", "table"]


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
    whole = {"ok": True, "rows": 2, "head": None, "error": None, "row": None, "table": None}
    assert said.fact | {"head": None} == whole
    noted = desk("audit", "verify", "--head", head)
    assert (noted.out, noted.err) == (f"ok, 2 rows, head {said.fact['head']}\n", "1 noted head is part of it\n")
    assert desk("audit", "verify", "--head", said.fact["head"].upper()).code == 0
    other = desk("audit", "verify", "--head", "1:" + "0" * 32, "--json")
    assert (other.code, other.fact["table"], other.fact["row"]) == (1, "audit", 1)
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
        "DELETE FROM evidence WHERE id = 1",
        "UPDATE list_number SET id = 'news' WHERE number = 1",
    ],
)
def test_what_was_changed_behind_our_back_is_1(desk: Desk, statement: str) -> None:
    desk.books()
    desk("suppress", "ann@example.com", "bob@example.org")
    spoil(desk, statement)
    said = desk("audit", "verify")
    assert (said.code, len(said.out.splitlines()), len(said.err.splitlines())) == (1, 1, 1)
    fact = desk("audit", "verify", "--json").fact
    assert (fact["ok"], list(fact)) == (False, VERIFIED)


# ------------------------------------------------------------------ since the last check


def test_what_is_new_since_the_last_check(desk: Desk) -> None:
    desk("suppress", "ann@example.com", "bob@example.org")
    assert desk("audit", "verify", "--since-last").out.endswith(" (2 of them since the last check)\n")
    desk("suppress", "cem@example.com")
    assert desk("audit", "verify", "--since-last").out.endswith(" (1 of them since the last check)\n")
    assert desk("audit", "verify", "--since-last", "--json").fact["rows"] == 3
    desk("suppress", "dee@example.com")
    assert desk("audit", "verify").code == 0
    assert desk("audit", "verify", "--since-last").out.endswith(" (0 of them since the last check)\n")


def test_what_a_quick_check_sees_and_what_only_the_full_one_does(desk: Desk) -> None:
    desk("suppress", "ann@example.com")
    old = desk("audit", "verify", "--since-last").out.split()[4]
    desk("suppress", "bob@example.org")
    spoil(desk, "UPDATE audit SET actor = 'somebody else' WHERE seq = 1")
    assert desk("audit", "verify", "--since-last", "--head", old).code == 0
    assert desk("audit", "verify").code == 1
    desk("suppress", "cem@example.com")
    spoil(desk, "UPDATE audit SET actor = 'somebody else' WHERE seq = 3")
    said = desk("audit", "verify", "--since-last")
    assert (said.code, said.out) == (1, "audit row 3: changed, or not written by us\n")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit WHERE seq > 1",
        "UPDATE audit SET mac = zeroblob(16) WHERE seq = 2",
        "UPDATE meta SET value = zeroblob(40) WHERE name = 'verified'",
        "UPDATE meta SET value = 'text' WHERE name = 'verified'",
        "DELETE FROM meta WHERE name = 'head'",
        "DELETE FROM evidence WHERE id = 3",
        "UPDATE list_number SET id = 'news' WHERE number = 1",
    ],
)
def test_a_quick_check_is_1(desk: Desk, statement: str) -> None:
    desk.books()
    desk("suppress", "ann@example.com", "bob@example.org")
    assert desk("audit", "verify", "--since-last").code == 0
    desk("suppress", "cem@example.com")
    spoil(desk, statement)
    assert desk("audit", "verify", "--since-last").code == 1
    assert desk("audit", "verify").code == 1


def test_it_is_verified_though_nobody_may_write(desk: Desk) -> None:
    desk("suppress", "ann@example.com")
    with closing(sqlite3.connect(desk.directory / "optoutd.db", isolation_level=None)) as other:
        desk.monkeypatch.setattr("storage.sqlite.WRITE_SECONDS", 0)
        other.execute("BEGIN IMMEDIATE")
        assert desk("audit", "verify").code == 0
    assert desk("audit", "verify", "--since-last").out.endswith(" (1 of them since the last check)\n")


# ------------------------------------------------------------------ heads out of a log


def heads(desk: Desk, people: int = 3) -> list[str]:
    """The heads of a growing record, as they were."""
    found = []
    for n in range(people):
        desk("suppress", f"p{n}@example.com")
        found.append(desk("audit", "verify", "--json").fact["head"])
    return found


def test_heads_out_of_a_log(desk: Desk) -> None:
    one, two, three = heads(desk)
    log = desk.directory / "log"
    log.write_bytes(
        b'{"ts": "2026-05-04T12:00:00Z", "event": "audit_head", "seq": 1, "head": "%b"}\n' % one.encode()
        + b"May 04 13:00:00 host optoutd[12]: audit_head seq=2 head=%b\n" % two.upper().encode()
        + b"12:00:00 \xff 7:abcdef 99:%b \0\n" % (b"0" * 33)
        + b"%b,%b" % (one.encode(), three.encode())
    )
    said = desk("audit", "verify", "--heads", "log")
    assert (said.code, said.err) == (0, "3 noted heads are part of it\n")
    assert desk("audit", "verify", "--heads", "-", "--since-last", stdin=log.read_bytes()).code == 0
    log.write_text(f"{one}\n{two[:-1]}{'f' if two[-1] != 'f' else '0'}\n{three}\n")
    said = desk("audit", "verify", "--heads", "log")
    assert (said.code, said.out) == (1, "audit row 2: not the one of the given head\n")
    assert "or a given head is not of this database" in said.err


def test_two_heads_for_one_row_cannot_both_be_right(desk: Desk) -> None:
    (one,) = heads(desk, 1)
    said = desk("audit", "verify", "--heads", "-", stdin=f"{one}\n1:{'0' * 32}\n".encode())
    assert said.code == 1


def test_a_whole_record_written_anew_is_found(desk: Desk) -> None:
    """By somebody who has the site key: only what was noted elsewhere can tell."""
    noted = heads(desk)
    key = bytes.fromhex((desk.directory / "site.key").read_text().split()[-1])
    for half in ("optoutd.db", "site.key"):
        (desk.directory / half).unlink()
    with desk.monkeypatch.context() as patch:
        patch.setattr("secrets.token_bytes", lambda octets: key[:octets])
        desk.books().ledger.close()
    for n in range(3):
        desk("suppress", f"p{n}@example.com")
    assert desk("audit", "verify").code == 0
    assert desk("audit", "verify", "--head", noted[0]).code == 1


def test_a_file_without_heads_or_no_file(desk: Desk) -> None:
    desk.books()
    said = desk("audit", "verify", "--heads", "-", stdin=b"nothing here\n")
    assert (said.code, "no SEQ:HASH in it" in said.sentence) == (65, True)
    assert desk("audit", "verify", "--heads", "nowhere").code == 66
    assert desk("audit", "verify", "--heads", ".").code == 66


# ------------------------------------------------------------------ export


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
    assert desk("audit", "export", "--since", "1").facts == said.facts[1:]
    assert desk("audit", "export", "--since", "2").out == ""
    assert desk("audit", "export", "--since", "-1").code == 64
