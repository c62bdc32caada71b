"""import: facts, counts and exit codes, and what is left behind."""

from __future__ import annotations

import hashlib
import os
import pty
import stat
import sys
from pathlib import Path

import pytest

from daemon.config import load
from daemon.opening import is_running, sole_owner
from tests.cli.desk import Desk

LIST = """\
email,list,reason,since
ann@example.com,newsletter,opt-out,2024-01-02
bob@example.com,,complaint,
Carla+x@Example.com,list:newsletter;list:offers,,2024-01-02T03:04:05Z
support@quillpdf.example,,,
nonsense,,,
dan@example.com,webinars,,
"""


@pytest.fixture
def old(desk: Desk) -> Path:
    path = desk.directory / "old.csv"
    path.write_text(LIST)
    return path


def suppressions(desk: Desk) -> dict[str, tuple[str, str]]:
    return {f["address"]: (f["scope"], f["reason"]) for f in desk("list", "--json").facts}


def test_a_list_is_imported_and_its_bad_rows_are_told(desk: Desk, old: Path) -> None:
    said = desk("import", "old.csv")
    assert (said.code, said.out) == (65, "3 added, 0 already there, 3 bad\n")
    assert said.err.splitlines() == [
        "old.csv: CSV, UTF-8, comma-separated, with header, addresses in 'email'",
        "it begins with a***@example.com, b***@example.com, C***@Example.com",
        "old.csv:5: one of our own addresses: it is never suppressed",
        "old.csv:6: an address looks like name@example.com",
        "old.csv:7: no list 'webinars' in the config",
        "bad rows: old.csv.rejects",
    ]
    rejects = desk.directory / "old.csv.rejects"
    assert rejects.read_text().splitlines()[:2] == [
        "line\treason\trow",
        "5\tone of our own addresses: it is never suppressed\tsupport@quillpdf.example",
    ]
    assert stat.S_IMODE(rejects.stat().st_mode) == 0o600
    assert not rejects.with_name("old.csv.rejects.new").exists()
    facts = desk("list", "--json").facts
    assert [(f["address"], f["scope"], f["reason"], f["source"]) for f in sorted(facts, key=lambda f: str(f))] == [
        ("Carla+x@example.com", "list:newsletter", "opt-out", "import"),
        ("Carla+x@example.com", "list:offers", "opt-out", "import"),
        ("ann@example.com", "list:newsletter", "opt-out", "import"),
        ("bob@example.com", "all", "complaint", "import"),
    ]
    assert desk("audit", "verify").code == 0


def test_the_same_list_again_changes_nothing_and_says_so(desk: Desk, old: Path) -> None:
    desk("import", "old.csv")
    audited = desk("audit", "export").out
    said = desk("import", "old.csv", "--json")
    assert said.code == 65
    assert said.fact == {"rows": 6, "added": 0, "already": 3, "skipped": 0, "bad": 3}
    assert "this list was imported before" in said.err
    assert "nothing in it was new" in said.err
    assert desk("audit", "export").out == audited


def test_a_dry_run_changes_nothing(desk: Desk, old: Path) -> None:
    desk.books()
    said = desk("import", "old.csv", "--dry-run", "--json")
    assert said.code == 65
    assert said.fact == {"rows": 6, "added": 3, "already": 0, "skipped": 0, "bad": 3}
    assert "nothing was changed" in said.err
    assert desk("list").out == ""
    assert not (desk.directory / "old.csv.rejects").exists()
    assert desk("import", "old.csv", "--json").fact["added"] == 3


def test_a_dry_run_creates_no_ledger(desk: Desk, old: Path) -> None:
    said = desk("import", "old.csv", "--dry-run")
    assert (said.code, (desk.directory / "optoutd.db").exists()) == (75, False)


def test_a_dry_run_gives_lists_no_numbers(desk: Desk, old: Path) -> None:
    desk("suppress", "zoe@example.com")
    assert desk("import", "old.csv", "--dry-run", "--json").fact["added"] == 3
    assert desk("import", "old.csv", "--dry-run", "--list", "offers", "--json").fact["added"] == 3
    assert desk("list", "--list", "offers").out == ""


def test_what_rows_do_not_say_is_said_for_them(desk: Desk) -> None:
    (desk.directory / "a.txt").write_text("ann@example.com\n")
    options = ["--list", "offers", "--reason", "complaint", "--as-of", "2024-05-06"]
    assert desk("import", "a.txt", *options).code == 0
    (fact,) = desk("list", "--json").facts
    assert (fact["scope"], fact["reason"], fact["since"]) == ("list:offers", "complaint", "2024-05-06T00:00:00Z")


def test_who_was_lifted_stays_so_and_it_is_told(desk: Desk) -> None:
    (desk.directory / "a.txt").write_text("ann@example.com\nbob@example.com\n")
    assert desk("import", "a.txt").out == "2 added, 0 already there, 0 bad\n"
    desk("lift", "ann@example.com", "--because", "she asked")
    (desk.directory / "b.txt").write_text("ann@example.com\n")
    for name in ("a.txt", "b.txt"):
        said = desk("import", name, "--json")
        assert (said.code, said.fact["skipped"], said.fact["added"]) == (0, 1, 0)
        assert "1 skipped: people who were taken off the list since" in said.err
    assert desk("check", "ann@example.com").code == 0
    assert desk("import", "b.txt", "--as-of", "2124-01-01").out == "1 added, 0 already there, 0 bad\n"


def test_stdin(desk: Desk) -> None:
    said = desk("import", "-", stdin=b"ann@example.com\nfoo\n")
    assert (said.code, said.out) == (65, "1 added, 0 already there, 1 bad\n")
    assert said.err.splitlines()[-1] == "stdin:2: an address looks like name@example.com"
    assert desk("import", "-", "--rejects", "no.txt", stdin=b"bar@example.com\nfoo\n").code == 65
    assert (desk.directory / "no.txt").read_text().splitlines()[1:] == [
        "2\tan address looks like name@example.com\tfoo"
    ]


def test_of_many_bad_rows_the_first_are_told(desk: Desk) -> None:
    (desk.directory / "a.txt").write_text("ann@example.com\n" * 5 + "bad\n" * 50)
    said = desk("import", "a.txt")
    assert said.out == "1 added, 4 already there, 50 bad\n"
    told = [line for line in said.err.splitlines() if line.startswith("a.txt:") and "an address" in line]
    assert len(told) == 20
    assert "... and 30 more bad rows" in said.err
    assert len((desk.directory / "a.txt.rejects").read_text().splitlines()) == 51


def test_where_rejects_cannot_be_written_the_good_rows_are_done(desk: Desk) -> None:
    (desk.directory / "a.txt").write_text("ann@example.com\nbad\nworse\n")
    said = desk("import", "a.txt", "--rejects", "nowhere/a.rejects")
    assert (said.code, said.out) == (65, "1 added, 0 already there, 2 bad\n")
    assert said.err.count("nowhere/a.rejects.new: No such file or directory") == 1


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["nofile"], 66, "nofile: No such file or directory"),
        (["."], 66, ".: Is a directory"),
        (["a.txt", "--list", "nope"], 64, "no list 'nope'; known: newsletter, offers"),
        (["a.txt", "--reason", "wanted"], 64, "`wanted` exempts one list: name it with --list"),
        (["a.txt", "--as-of", "soon"], 64, "--as-of: 'soon' is no date; write 2026-01-31 or 2026-01-31T12:00:00Z"),
        (["empty.txt"], 65, "empty.txt: the file is empty"),
        (["a.txt", "--column", "mail"], 65, None),
        (["a.txt", "--format", "excel"], 64, None),
        (["a.txt", "--reason", "boredom"], 64, None),
    ],
)
def test_mistakes(desk: Desk, words: list[str], code: int, sentence: str | None) -> None:
    (desk.directory / "a.txt").write_text("ann@example.com\n")
    (desk.directory / "empty.txt").write_text("")
    said = desk("import", *words)
    assert said.code == code
    assert sentence in (None, said.sentence)
    assert desk("list").out == ""


def test_hashes_are_found_at_once(desk: Desk) -> None:
    desk.monkeypatch.setattr("storage.hashes.SETTLED", 0)
    (desk.directory / "h.txt").write_text(
        "".join(f"{hashlib.md5(a).hexdigest()}\n" for a in (b"ann@example.com", b"b@x.example"))
    )
    assert desk("import", "h.txt", "--format", "hashes").out == "2 added, 0 already there, 0 bad\n"
    said = desk("check", "Ann@Example.com", "ann+x@example.com", "--json")
    assert [(f["suppressed"], f["matched"]) for f in said.facts] == [(True, "hash"), (False, None)]
    assert desk("show", "ann@example.com", "--json").fact["suppressed"]
    assert [f["address"] for f in desk("list", "--json").facts] == [None, None]
    desk("lift", "ann@example.com", "--because", "she asked")
    assert desk("check", "ann@example.com").code == 0


# ------------------------------------------------------------------ what explains it


def test_an_imported_row_is_explained(desk: Desk, old: Path) -> None:
    desk("import", "old.csv")
    fact = desk("show", "bob@example.com", "--json").fact
    ref = fact["suppressions"][0]["ref"]
    (past,) = fact["history"]
    assert (past["event"], past["source"], past["ref"]) == ("imported", "import", ref)
    assert past["because"] == "in the list old.csv (csv, lines 2 to 4)"
    desk("lift", "bob@example.com", "--because", "she asked")
    told = desk("show", "--ref", str(ref), "--json").fact
    assert told["suppressed"]
    assert told["import"] == {
        "file": "old.csv", "format": "csv", "first": 2, "last": 4, "rows": 4, "standing": 3, "total": 4, "total_standing": 3,
    }  # fmt: skip
    out = desk("show", "--ref", str(ref)).out
    assert "import of old.csv" in out
    assert "this part of it brought 4, of which 3 stand now" in out
    assert "not suppressed" not in out


def test_nothing_of_a_list_without_addresses_kept_is_plain(desk: Desk, old: Path) -> None:
    desk.configure((desk.directory / "optoutd.toml").read_text() + "\n[storage]\nkeep_addresses = false\n")
    desk("import", "old.csv")
    for file in desk.directory.glob("optoutd.db*"):
        assert b"bob@" not in file.read_bytes()


# ------------------------------------------------------------------ beside a daemon, and at a terminal


def test_whether_a_daemon_runs_is_found_out_without_getting_in_its_way(desk: Desk) -> None:
    config = load(desk.directory / "optoutd.toml")
    database = config.database
    assert not is_running(config)
    with sole_owner(database):
        assert is_running(config)
    assert not is_running(config)
    with sole_owner(database):
        pass


def at_a_terminal(desk: Desk, answer: bytes, *words: str) -> tuple[int, str]:
    """Exit code and all that was said."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(desk.directory)
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        os.execv(sys.executable, [sys.executable, "-m", "daemon", "import", *words])
    os.write(terminal, answer)
    heard = b""
    while True:
        try:
            octets = os.read(terminal, 4096)
        except OSError:
            break
        if not octets:
            break
        heard += octets
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), heard.decode()


def test_at_a_terminal_it_asks(desk: Desk) -> None:
    desk.books()
    (desk.directory / "a.txt").write_text("ann@example.com\n")
    code, said = at_a_terminal(desk, b"n\n", "a.txt")
    assert code == 1
    assert "Is that right? [y/N]" in said
    assert "nothing was imported" in said
    code, said = at_a_terminal(desk, b"y\n", "a.txt")
    assert code == 0
    assert said.splitlines()[-1].endswith("1 added, 0 already there, 0 bad")
    code, said = at_a_terminal(desk, b"", "a.txt", "--yes")
    assert (code, "Is that right?" in said) == (0, False)


def test_ctrl_c_says_that_it_can_be_gone_on_with(desk: Desk, old: Path) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    desk.monkeypatch.setattr("storage.imports.finish", interrupted)
    said = desk("import", "old.csv")
    assert said.code == 130
    assert said.err.splitlines()[-1] == "what is in stays in; the same command goes on from there"
    assert not list(desk.directory.glob("*.rejects*"))
    desk.monkeypatch.undo()
    desk.monkeypatch.chdir(desk.directory)
    again = desk("import", "old.csv", "--json")
    assert "going on behind row 6 of an import that was begun at" in again.err
    assert again.fact == {"rows": 6, "added": 3, "already": 0, "skipped": 0, "bad": 3}
    assert len((desk.directory / "old.csv.rejects").read_text().splitlines()) == 4
