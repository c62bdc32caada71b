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
