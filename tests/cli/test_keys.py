"""Site keys as an operator types them: a new one in front, and the rows that move to it."""

from __future__ import annotations

import sys

import pytest

from daemon.opening import announce, sole_owner
from storage.engine import read_site_key
from tests.cli.desk import Desk


def test_a_new_key_and_the_rows_that_move_to_it(kept: Desk) -> None:
    assert kept("migrate", "--re-key").code == 75
    kept("suppress", "ann@example.com", "bob@example.com", "@bad.example")
    assert kept("migrate", "--re-key").sentence.startswith("there is one site key only")
    assert kept("migrate", "--re-key", "--new-key").code == 64
    with sole_owner(kept.directory / "optoutd.db"):
        assert kept("migrate", "--new-key").code == 75
    said = kept("migrate", "--new-key", "--json")
    assert (said.code, said.fact["keys"]) == (0, 2)
    assert "the old keys must stay" in said.err
    assert kept("check", "ann@example.com", "x@bad.example").code == 1
    kept("suppress", "cem@example.com")
    said = kept("migrate", "--re-key", "--json")
    assert said.fact == {"moved": 3, "people": 3, "already": 1, "stay": 0}
    assert kept("migrate", "--re-key").out == "0 moved, 4 there already, 0 stay\n"
    for one in ("ann@example.com", "bob@example.com", "cem@example.com", "x@bad.example"):
        assert kept("check", one).code == 1
    assert kept("audit", "verify").code == 0
    assert kept("show", "--ref", "1", "--json").fact["suppressed"] is True


def test_without_the_newest_key_no_command_answers(kept: Desk) -> None:
    kept("suppress", "ann@example.com")
    old = (kept.directory / "site.key").read_text()
    kept("migrate", "--new-key")
    kept("suppress", "bob@example.com")
    new = (kept.directory / "site.key").read_text()
    (kept.directory / "site.key").write_text(old)
    for line in ("check bob@example.com", "suppress cem@example.com", "migrate --new-key", "backup a.db", "run"):
        said = kept(*line.split())
        assert (said.code, "put the newest key file in place" in said.sentence) == (78, True), line
    assert (kept.directory / "site.key").read_text() == old
    (kept.directory / "site.key").write_text(new)
    assert kept("check", "bob@example.com").code == 1
    assert kept("check", "cem@example.com").code == 0
    assert kept("audit", "verify").code == 0


def test_a_new_key_whose_command_was_killed_is_taken_up_by_the_next_one(
    kept: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept("suppress", "ann@example.com")
    old = (kept.directory / "site.key").read_text()
    with monkeypatch.context() as killed:
        killed.setattr("storage.write.Write.mark_newest", lambda *_: sys.exit(9))
        with pytest.raises(SystemExit):
            kept("migrate", "--new-key")
    assert kept("check", "ann@example.com").code == 1
    kept("suppress", "bob@example.com")
    (kept.directory / "site.key").write_text(old)
    assert kept("check", "bob@example.com").code == 78


def test_rows_move_beside_a_daemon_only_if_it_knows_the_new_key(kept: Desk) -> None:
    kept("suppress", "ann@example.com")
    kept("migrate", "--new-key")
    database, site_key = kept.directory / "optoutd.db", read_site_key(kept.directory / "site.key")
    with sole_owner(database):
        announce(database, type(site_key)(site_key.keys[1:]))
        said = kept("migrate", "--re-key")
        assert (said.code, said.sentence.rpartition(": ")[2]) == (75, "restart it first")
        announce(database, site_key)
        assert kept("migrate", "--re-key").out == "1 moved, 0 there already, 0 stay\n"
