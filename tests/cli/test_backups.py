"""backup and restore as an operator types them, and the drill of docs/backup.md as it stands there."""

from __future__ import annotations

import os
import re
import resource
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from daemon.opening import sole_owner
from storage.engine import read_site_key
from tests.cli.desk import CONFIG, ROOT, Desk, Said

PAGE = (ROOT / "docs/backup.md").read_text()
BACKED_UP = ["file", "octets", "taken", "head", "suppressions", "key"]
RESTORED = (
    "taken head journal_lines unreadable_lines added ended erased suppressions uncovered_since uncovered_until"
    " journal_whole kept_aside deferred replay"
).split()
BOX = """
[[mailbox]]
name = "{}"
host = "127.0.0.1"
tls = "none"
username = "x"
password_file = "/dev/null"
"""


def there(directory: Path) -> set[str]:
    return {p.name for p in directory.iterdir()}


def lose(desk: Desk) -> None:
    for path in desk.directory.glob("optoutd.db*"):
        path.unlink()


# ------------------------------------------------------------------ the drill


def drill() -> list[list[tuple[str, int]]]:
    """The blocks of the drill: (line, its exit code, 0 unless the page says another)."""
    section = PAGE.partition("## The drill")[2].partition("\n## ")[0]
    found = []
    for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL):
        lines = [re.fullmatch(r"(.*?)(?:\s+# (?:(\d+):)?.*)?", line) for line in block.splitlines()]
        found.append([(x[1], int(x[2] or 0)) for x in lines if x])
    return found


def done(desk: Desk, line: str) -> int:
    """What a shell does with a line; our own commands in this process."""
    if not line.startswith("optoutd "):
        return subprocess.run(line, shell=True, cwd=desk.directory).returncode
    words = shlex.split(line)[1:]
    named = [map(str, desk.directory.glob(word)) if "*" in word else [word] for word in words]
    return desk(*(word for some in named for word in some)).code


def test_the_drill_does_what_the_page_says(desk: Desk) -> None:
    config = re.search(r"## The drill.*?```toml\n(.*?)```", PAGE, re.DOTALL)
    assert config
    desk.configure(config[1])
    blocks = drill()
    assert [len(block) for block in blocks] == [9, 7]
    for line, code in [step for block in blocks for step in block]:
        assert done(desk, line) == code, line


# ------------------------------------------------------------------ backup


def test_a_backup_into_a_directory_and_into_a_file(kept: Desk) -> None:
    kept("suppress", "ann@example.com", "bob@example.com")
    said = kept("backup", ".", "--json")
    assert (said.code, list(said.fact), said.fact["suppressions"], said.fact["key"]) == (0, BACKED_UP, 2, None)
    assert re.fullmatch(r"optoutd-\d{8}T\d{6}Z\.db", said.fact["file"])
    assert (
        said.err == f"the site key is not in it: {kept.directory / 'site.key'} (keep a copy of that somewhere else)\n"
    )
    assert kept("backup", "a.db").out.startswith("a.db: 2 suppressions, audit head 2:")
    assert [oct((kept.directory / name).stat().st_mode & 0o777) for name in ("a.db", said.fact["file"])] == [
        "0o600"
    ] * 2


def test_with_key_puts_it_into_a_file_of_its_own(kept: Desk) -> None:
    kept("suppress", "ann@example.com")
    assert kept("backup", "a.db", "--with-key", "--json").fact["key"] == "a.key"
    copy, key = kept.directory / "a.key", kept.directory / "site.key"
    assert (copy.read_bytes(), oct(copy.stat().st_mode & 0o777)) == (key.read_bytes(), "0o600")
    secret = read_site_key(key).keys[0]
    octets = (kept.directory / "a.db").read_bytes()
    assert secret not in octets
    assert secret.hex().encode() not in octets


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["there.db"], 64, "there.db is there already: name a directory, or a file that is not there yet"),
        (["new.db", "--with-key"], 64, "new.key is there already: name a directory, or a file that is not there yet"),
        (["no/such.db"], 78, "there is no directory no: make it first"),
        (["dangling"], 64, "dangling is there already: name a directory, or a file that is not there yet"),
    ],
)
def test_where_a_backup_cannot_go(kept: Desk, words: list[str], code: int, sentence: str) -> None:
    kept("suppress", "ann@example.com")
    for name in ("there.db", "new.key"):
        (kept.directory / name).write_text("mine")
    (kept.directory / "dangling").symlink_to("nowhere")
    before = there(kept.directory)
    said = kept("backup", *words)
    assert (said.code, said.sentence) == (code, sentence)
    assert there(kept.directory) == before
    assert (kept.directory / "there.db").read_text() == "mine"


def test_there_is_nothing_to_back_up_before_the_first_start(desk: Desk) -> None:
    assert desk("backup", ".").code == 75
    assert there(desk.directory) == {"optoutd.toml"}


@contextmanager
def mounted(where: Path, *options: str) -> Iterator[Path]:
    """A file system of its own."""
    where.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", where], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield where
    finally:
        subprocess.run(["umount", where], check=True)


@pytest.mark.parametrize(("option", "code"), [("size=64k", 75), ("ro", 78)])
def test_a_disk_that_is_full_or_not_to_be_written(kept: Desk, option: str, code: int) -> None:
    kept("suppress", "ann@example.com")
    with mounted(kept.directory / "small", "-o", option) as small:
        said = kept("backup", "small", "--with-key")
        assert said.code == code
        assert said.sentence.startswith("backup into small: ")
        assert there(small) == set()
    assert kept("check", "ann@example.com").code == 1


# ------------------------------------------------------------------ restore


def restored(desk: Desk, *words: str) -> Said:
    said = desk("restore", *words, "--json")
    assert said.code == 0, said.err
    assert list(said.fact) == RESTORED
    return said


def test_rows_that_came_and_went_since_come_and_go_again(kept: Desk) -> None:
    kept("suppress", "ann@example.com", "bob@example.com")
    kept("backup", "a.db")
    kept("lift", "bob@example.com", "--because", "wrote")
    kept("suppress", "cem@example.com", "--list", "offers")
    kept("suppress", "@bad.example")
    before = kept("check", "ann@example.com", "bob@example.com", "cem@example.com", "x@bad.example").out
    lose(kept)
    fact = restored(kept, "a.db").fact
    assert (fact["journal_lines"], fact["added"], fact["ended"], fact["suppressions"]) == (3, 2, 1, 3)
    assert (fact["journal_whole"], fact["kept_aside"], fact["deferred"]) == (True, None, False)
    assert kept("check", "ann@example.com", "bob@example.com", "cem@example.com", "x@bad.example").out == before
    assert "restored from a backup" in kept("show", "cem@example.com").out
    assert kept("audit", "verify").code == 0
    # a lift that came back from the journal is one: an older request does not bring the opt-out back
    assert kept("show", "bob@example.com", "--json").fact["history"][-1]["event"] == "lifted"


def test_of_a_directory_the_newest_is_taken(kept: Desk) -> None:
    kept("suppress", "ann@example.com")
    kept("backup", "optoutd-20250101T000000Z.db")
    kept("suppress", "bob@example.com")
    kept("backup", "optoutd-20260101T000000Z.db")
    lose(kept)
    shutil.rmtree(kept.directory / "backups")
    (kept.directory / "empty").mkdir()
    assert kept("restore", "empty").sentence.startswith("empty: there is no backup in it")
    assert restored(kept, ".").fact["suppressions"] == 2


def test_the_newest_is_the_one_that_knows_most_whatever_the_clock_was(kept: Desk) -> None:
    kept("suppress", "ann@example.com")
    kept("backup", "optoutd-20380101T000000Z.db")  # made while the clock was wrong
    kept("suppress", "bob@example.com")
    kept("backup", "optoutd-20260101T000000Z.db")
    (kept.directory / "optoutd-20400101T000000Z.db").write_text("no backup at all")
    lose(kept)
    shutil.rmtree(kept.directory / "backups")
    assert restored(kept, ".").fact["suppressions"] == 2


def test_a_database_that_is_not_empty_stays_unless_forced(kept: Desk) -> None:
    kept("suppress", "ann@example.com")
    kept("backup", "a.db")
    kept("suppress", "bob@example.com")
    said = kept("restore", "a.db")
    assert said.code == 1
    assert said.sentence.endswith("and it is not empty: nothing done; with --force it is kept under another name")
    assert kept("check", "bob@example.com").code == 1
    aside = Path(restored(kept, "a.db", "--force").fact["kept_aside"])
    with closing(sqlite3.connect(aside)) as db:
        assert db.execute("SELECT count(*) FROM suppression").fetchone() == (2,)
    assert kept("check", "bob@example.com").code == 1


def test_a_database_that_was_just_made_is_empty(kept: Desk) -> None:
    kept("suppress", "ann@example.com")
    kept("backup", "a.db")
    lose(kept)
    shutil.copy(kept.directory / "site.key", kept.directory / "key")
    (kept.directory / "site.key").unlink()
    kept.books().ledger.close()  # a start that made a new pair
    said = kept("restore", "a.db")
    assert said.code == 78
    assert "the site key is not the one that a.db was made with" in said.sentence
    (kept.directory / "key").rename(kept.directory / "site.key")
    assert restored(kept, "a.db").fact["suppressions"] == 1


def test_a_garbled_database_is_replaced_and_kept(kept: Desk) -> None:
    kept("suppress", "ann@example.com")
    kept("backup", "a.db")
    (kept.directory / "optoutd.db").write_bytes(b"garbled " * 5000)
    (kept.directory / "optoutd.db-wal").write_bytes(b"its log")
    assert kept("restore", "a.db").code == 1
    aside = Path(restored(kept, "a.db", "--force").fact["kept_aside"])
    assert (aside.read_bytes()[:8], aside.with_name(aside.name + "-wal").read_bytes()) == (b"garbled ", b"its log")
    assert kept("check", "ann@example.com").code == 1
    assert kept("audit", "verify").code == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 64),
        (["a.db", "--done"], 64),
        (["--done", "--status"], 64),
        (["--done", "--force"], 64),
        (["nowhere.db"], 66),
        (["."], 66),
        (["optoutd.toml", "--force"], 65),
        (["cut.db", "--force"], 65),
        (["changed.db", "--force"], 1),
        (["--done"], 1),
    ],
)
def test_what_cannot_be_restored(kept: Desk, words: list[str], code: int) -> None:
    kept("suppress", "ann@example.com", "bob@example.com")
    kept("backup", "a.db")
    octets = (kept.directory / "a.db").read_bytes()
    (kept.directory / "cut.db").write_bytes(octets[: len(octets) // 2])
    shutil.copy(kept.directory / "a.db", kept.directory / "changed.db")
    with closing(sqlite3.connect(kept.directory / "changed.db")) as db:
        db.execute("DELETE FROM suppression")
        db.commit()
    before = there(kept.directory)
    said = kept("restore", *words)
    assert (said.code, bool(said.sentence)) == (code, True)
    assert there(kept.directory) - before <= {"optoutd.db.lock"}
    assert kept("check", "ann@example.com").code == 1


def test_not_under_a_daemon_nor_without_the_key(kept: Desk) -> None:
    kept("suppress", "ann@example.com")
    kept("backup", "a.db")
    with sole_owner(kept.directory / "optoutd.db"):
        assert kept("restore", "a.db", "--force").code == 75
    with closing(sqlite3.connect(kept.directory / "optoutd.db")) as db:
        db.execute("SELECT count(*) FROM suppression").fetchall()
        db.execute("BEGIN IMMEDIATE")
        kept.monkeypatch.setattr("storage.restoring.PATIENCE", 0.1)
        said = kept("restore", "a.db", "--force")
        assert (said.code, said.sentence.partition(" has ")[0]) == (75, "another process")
    (kept.directory / "site.key").unlink()
    assert kept("restore", "a.db", "--force").code == 78


def test_no_room_for_what_is_restored(kept: Desk) -> None:
    with mounted(kept.directory / "small", "-o", "size=480k") as small:
        kept.configure(CONFIG + '[storage]\nurl = "sqlite:///small/optoutd.db"\n')
        kept("suppress", "ann@example.com")
        kept("backup", "a.db")
        kept("suppress", "bob@example.com")
        ballast = small / "ballast"
        ballast.write_bytes(b"x" * 120_000)
        before = there(small)
        said = kept("restore", "a.db", "--force")
        assert (said.code, said.sentence) == (75, f"restoring into {small}: database or disk is full: nothing done")
        assert there(small) - before == {"optoutd.db.lock"}
        assert kept("check", "bob@example.com").code == 1
        assert kept("audit", "verify").code == 0
        ballast.unlink()
        restored(kept, "a.db", "--force")


def test_a_disk_that_does_not_take_the_copy_is_no_fault_of_the_backup(kept: Desk) -> None:
    kept("suppress", "ann@example.com")
    kept("backup", "a.db")
    lose(kept)
    before = there(kept.directory)
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, most[1]))  # octets that a file may have
    try:
        said = kept("restore", "a.db")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert (said.code, said.sentence) == (75, f"restoring into {kept.directory}: disk I/O error: nothing done")
    assert there(kept.directory) - before <= {"optoutd.db.lock"}
    restored(kept, "a.db")


# ------------------------------------------------------------------ --defer


def test_deferred_until_every_mailbox_was_read_again(kept: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from daemon import replay

    config = CONFIG + '[storage]\nbackup_dir = "backups"\n' + BOX.format("support") + BOX.format("sales")
    kept.configure(config)
    kept("suppress", "ann@example.com")
    kept("backup", "a.db")
    lose(kept)
    said = restored(kept, "a.db", "--defer")
    first, second = said.fact["replay"]
    assert first.startswith("optoutd replay support --since 20")
    assert kept("check", "ann@example.com").code == kept("check", "bob@example.com").code == 75
    assert kept("restore", "--status", "--json").fact["left"] == [first, second]
    monkeypatch.setattr(replay, "folder", lambda *_, **__: replay.Source(0, iter(())))
    day = first.split()[4]
    assert "changes since" in kept("replay", "support", "--since", "2999-01-01", "--apply").err
    kept("replay", "support", "--since", day)  # a dry run
    kept("replay", "support", "--since", day, "--folder", "INBOX", "--apply")  # not all of it
    assert kept("restore", "--status", "--json").fact["left"] == [first, second]
    assert "until this was done for sales, too" in kept("replay", "support", "--since", day, "--apply").err
    assert kept("restore", "--status", "--json").fact["left"] == [second]
    assert kept("check", "bob@example.com").code == 75
    assert "the gap of the restore is closed" in kept("replay", "sales", "--apply").err
    assert (kept("check", "ann@example.com").code, kept("check", "bob@example.com").code) == (1, 0)
    assert kept("restore", "--status", "--json").fact == {"deferred": False, "since": None, "left": []}
    assert kept("audit", "verify").code == 0


def test_a_backup_of_a_deferred_list_is_deferred(kept: Desk) -> None:
    kept("suppress", "ann@example.com")
    kept("backup", "a.db")
    lose(kept)
    since = restored(kept, "a.db", "--defer").fact["uncovered_since"]
    kept("suppress", "bob@example.com")
    kept("backup", "b.db")
    lose(kept)
    fact = restored(kept, "b.db").fact
    assert (fact["deferred"], fact["uncovered_since"]) == (True, since)
    assert kept("restore", "--done").code == 0
    assert kept("check", "bob@example.com").code == 1


# ------------------------------------------------------------------ beside it


def test_a_journal_that_cannot_be_written_is_told_and_the_opt_out_stands(kept: Desk) -> None:
    (kept.directory / "backups").write_text("not a directory")
    said = kept("suppress", "ann@example.com")
    assert said.code == 0
    assert "the journal in storage.backup_dir cannot be written: " in said.err
    assert kept("check", "ann@example.com").code == 1


def test_what_a_restore_gives_to_the_daemon_belongs_to_it(kept: Desk) -> None:
    """An operator restores as root; the daemon's user must be able to go on with all of it."""
    if os.geteuid() != 0:
        pytest.skip("needs root to give files away")
    kept("suppress", "ann@example.com")
    kept("backup", "a.db")
    lose(kept)
    shutil.rmtree(kept.directory / "backups")
    os.chown(kept.directory, 12345, 12345)
    restored(kept, "a.db")
    made = [kept.directory / n for n in ("optoutd.db", "optoutd.db.lock", "backups", "backups/journal.log")]
    assert {p.stat().st_uid for p in made} == {12345}
