"""The commands on a list in PostgreSQL, and the way there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.engine import REVISION
from tests.cli.desk import CONFIG, Desk
from tests.servers import Postgres

pytestmark = pytest.mark.postgres


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    """Of an empty database."""
    database = postgres.new_database()
    yield postgres.url(database)
    postgres.drop(database)


def on(url: str, key_file: str = "site.key") -> str:
    return f'{CONFIG}\n[storage]\nurl = "{url}"\nkey_file = "{key_file}"\n'


def test_a_list_moves_there_and_every_command_goes_on(desk: Desk, url: str) -> None:
    desk("suppress", "ann@example.com", "--note", "by phone")
    desk("suppress", "bob@example.com", "--list", "offers")
    before = desk("audit", "verify").out
    said = desk("migrate", "--to", url)
    assert (said.code, said.out) == (0, "")
    assert "are there and equal, 2 suppressions among them" in said.err
    assert f'now set storage.url = "{url}" on every node' in said.err
    desk.configure(on(url))
    assert desk("audit", "verify").out == before
    assert desk("check", "ann@example.com", "bob@example.com", "cem@example.com").code == 1
    assert "by phone" in desk("show", "ann@example.com").out
    desk("suppress", "cem@example.com")
    assert [f["address"] for f in desk("list", "--json").facts if f["scope"] == "all"] in (
        ["ann@example.com", "cem@example.com"],
        ["cem@example.com", "ann@example.com"],
    )
    assert desk("lift", "ann@example.com", "--because", "wrote again").code == 0
    assert desk("stats", "--json").fact["suppressions"] == 2
    assert [f["event"] for f in desk("audit", "export").facts] == ["suppressed"] * 3 + ["lifted"]
    assert desk("migrate").err == f"schema {REVISION}: nothing to do\n"
    assert desk("migrate", "--to", url).code == 64


def test_what_is_refused_says_what_to_do(desk: Desk, url: str, tmp_path: Path) -> None:
    desk("suppress", "ann@example.com")
    assert desk("migrate", "--to", "mysql://x/y").code == 64
    assert "a config is no place for a password" in desk("migrate", "--to", "postgresql://a:b@localhost/c").err
    shutil.move("site.key", "old.key")
    desk.configure(on(url))
    assert (desk("check", "ann@example.com").code, desk("check", "ann@example.com").sentence) == (
        78,
        f"database {url} has no schema yet: run `optoutd migrate`",
    )
    said = desk("migrate")
    assert (said.code, "every node needs this file" in said.err) == (0, True)
    desk.configure(on(url, "old.key"))
    assert "the site key is not the one this database was made with" in desk("check", "ann@example.com").err
    desk.configure(on("postgresql://optoutd@127.0.0.1:1/none"))
    assert [desk(*line).code for line in (["check", "ann@example.com"], ["suppress", "x@example.com"])] == [75, 75]


def test_a_backup_goes_into_another_empty_database(desk: Desk, url: str, postgres: Postgres) -> None:
    desk.configure(on(url))
    desk("migrate")
    desk("suppress", "ann@example.com", "--note", "by phone")
    desk("suppress", "bob@example.com", "--list", "offers")
    head = desk("audit", "verify").out
    said = desk("backup", "kept.db")
    assert (said.code, "2 suppressions" in said.out) == (0, True)
    assert Path("kept.db").stat().st_mode & 0o777 == 0o600
    assert desk("restore", "kept.db").code == 1  # it is not empty
    database = postgres.new_database()
    desk.configure(on(postgres.url(database)))
    said = desk("restore", "kept.db", "--defer")
    assert (said.code, "2 suppressions" in said.out) == (0, True)
    checked = desk("check", "cem@example.com")
    assert (checked.code, "is not replayed yet" in checked.out) == (75, True)
    assert desk("restore", "--done").code == 0
    assert [desk("check", f"{name}@example.com").code for name in ("ann", "cem")] == [1, 0]
    assert "by phone" in desk("show", "ann@example.com").out
    assert desk("audit", "verify", "--head", head.rpartition(" ")[2].strip()).code == 0
    postgres.drop(database)


def test_a_node_without_the_newest_key_answers_nobody(desk: Desk, url: str) -> None:
    desk("suppress", "ann@example.com")
    old = Path("site.key").read_bytes()
    desk("migrate", "--new-key")
    desk("suppress", "bob@example.com")
    desk("migrate", "--to", url)
    desk.configure(on(url))
    assert desk("check", "bob@example.com").code == 1
    assert desk("migrate", "--new-key", "--json").fact["keys"] == 3
    new = Path("site.key").read_bytes()
    Path("site.key").write_bytes(old)
    for line in ("check bob@example.com", "suppress cem@example.com", "migrate --new-key", "run"):
        said = desk(*line.split())
        assert (said.code, "put the newest key file in place" in said.sentence) == (78, True), line
    Path("site.key").write_bytes(new)
    assert desk("audit", "verify").code == 0


def test_lists_come_and_go_and_people_are_forgotten_there_too(desk: Desk, url: str) -> None:
    desk.configure(on(url))
    desk("migrate")
    Path("old.csv").write_text("email,reason\nann@example.com,hard-bounce\nbob@example.com,opt-out\nnobody,\n")
    assert desk("import", "old.csv", "--yes", "--json").fact == {
        "rows": 3, "added": 2, "already": 0, "skipped": 0, "bad": 1,
    }  # fmt: skip
    assert desk("import", "old.csv", "--yes", "--json").fact["added"] == 0
    Path("ours.csv").write_text("email,name\nann@example.com,Ann\ncem@example.com,Cem\n")
    assert desk("scrub", "ours.csv", "-o", "clean.csv").code == 0
    assert Path("clean.csv").read_text() == "email,name\ncem@example.com,Cem\n"
    assert "bob@example.com" in desk("export").out
    assert desk("erase", "ann@example.com").code == 0
    assert "ann@" not in desk("export").out
    assert desk("check", "ann@example.com").code == 1
    undone = desk("lift", "--import", "old.csv", "--because", "wrong file", "--even-opt-outs", "--yes", "--json").fact
    assert undone["lifted"] == 2
    assert desk("check", "ann@example.com", "bob@example.com").code == 0
    assert desk("audit", "verify").code == 0
