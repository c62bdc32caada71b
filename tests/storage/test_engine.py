"""Database and key: made together, opened together, or not at all."""

from __future__ import annotations

import gc
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlmodel import SQLModel

import storage.address
import storage.audit
import storage.models
from storage import engine, sqlite
from storage.engine import REVISION, Ledger, Unavailable, Unusable, read_site_key
from storage.lookup import Lookup
from storage.sqlite import File, create, migrate, open_ledger
from tests.ledgers import IN_A_FILE, Books, books

KEY = "00" * 32


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "optoutd.db"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / "site.key"


def change(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


def listing(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir())


# ------------------------------------------------------------------ the two halves


def test_both_are_made_together_and_open_again(database: Path, key: Path) -> None:
    open_ledger(database, key, allow_create=True).close()
    open_ledger(database, key).close()
    assert listing(database.parent) == ["optoutd.db", "site.key"]


def test_both_are_for_their_owner_only(database: Path, key: Path) -> None:
    old = os.umask(0)
    try:
        create(database, key)
    finally:
        os.umask(old)
    assert [oct(p.stat().st_mode & 0o777) for p in (database, key)] == ["0o600", "0o600"]


def test_creating_again_changes_nothing(database: Path, key: Path) -> None:
    create(database, key)
    before = database.read_bytes(), key.read_bytes()
    create(database, key)
    assert (database.read_bytes(), key.read_bytes()) == before


def test_what_only_reads_creates_nothing(database: Path, key: Path) -> None:
    with pytest.raises(Unavailable, match=r"no database at .* yet: `optoutd run` creates it"):
        open_ledger(database, key)
    assert listing(database.parent) == []


@pytest.mark.parametrize("allow_create", [True, False])
@pytest.mark.parametrize(
    ("missing", "sentence"),
    [("optoutd.db", "restore the database from a backup"), ("site.key", "put the key file back")],
)
def test_one_without_the_other_is_for_a_person_to_mend(
    database: Path, key: Path, missing: str, sentence: str, allow_create: bool
) -> None:
    create(database, key)
    (database.parent / missing).unlink()
    with pytest.raises(Unusable, match=sentence):
        open_ledger(database, key, allow_create=allow_create)
    assert not (database.parent / missing).exists()


@IN_A_FILE
def test_another_key_is_refused_however_the_database_is_opened(ledger: Books, tmp_path: Path) -> None:
    other = books(tmp_path / "other").ledger
    with pytest.raises(Unusable, match="not the one this database was made with"):
        open_ledger(ledger.ledger.path, other.path.with_name("site.key"))
    with pytest.raises(Unusable, match="not the one"):
        Lookup(ledger.ledger.path, other.site_key).rows_of_all([storage.address.parse("ann@example.com")])


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unusable, match="cannot create"):
        create(tmp_path / "file" / "optoutd.db", tmp_path / "site.key")


# ------------------------------------------------------------------ a crash while they are made


@pytest.mark.parametrize("step", ["make_schema", "new_site_key", "check_value"])
def test_a_failure_on_the_way_leaves_neither_half(
    database: Path, key: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = engine if step == "check_value" else sqlite
    real: Callable[..., object] = getattr(at, step)

    def failing(*arguments: object) -> object:
        if step == "make_schema":
            real(*arguments)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(at, step, failing)
        with pytest.raises(Unusable, match=r"cannot create .*No space left"):
            create(database, key)
    assert not database.exists()
    assert not key.exists()
    open_ledger(database, key, allow_create=True).close()


def test_a_full_disk_while_creating_is_told_and_leaves_no_key(
    database: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_key: object) -> bytes:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(engine, "check_value", full)
    with pytest.raises(Unusable, match="disk is full"):
        create(database, key)
    assert not key.exists()


def test_a_crash_after_the_key_was_written_says_how_to_go_on(database: Path, key: Path) -> None:
    """As a power cut leaves it: the database has not got its name yet."""
    create(database, key)
    database.rename(database.with_name("optoutd.db.new"))
    with pytest.raises(Unusable, match="remove the key and start again"):
        open_ledger(database, key, allow_create=True)
    key.unlink()
    open_ledger(database, key, allow_create=True).close()


# ------------------------------------------------------------------ the key's file


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(key: Path, mode: int) -> None:
    key.write_text(KEY)
    key.chmod(mode)
    with pytest.raises(Unusable, match="others can read it; run: chmod 600"):
        read_site_key(key)


def test_a_systemd_credential_may_look_readable(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key.write_text(KEY)
    key.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(key.parent))
    assert read_site_key(key).keys == (bytes(32),)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (KEY, (bytes(32),)),
        (f"# new\n{'11' * 32}  # since 2026\n\n# old\n{KEY}\n", (b"\x11" * 32, bytes(32))),
    ],
)
def test_a_key_file_has_a_key_a_line_newest_first(key: Path, text: str, keys: tuple[bytes, ...]) -> None:
    key.write_text(text)
    key.chmod(0o600)
    assert read_site_key(key).keys == keys


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"00" * 31, b"zz" * 32, b"\xff\xfe", (KEY * 2).encode()])
def test_a_file_that_is_no_key_is_refused_and_not_shown(key: Path, content: bytes) -> None:
    key.write_bytes(content)
    key.chmod(0o600)
    with pytest.raises(Unusable, match=r"64 hex digits|not text") as told:
        read_site_key(key)
    assert content.decode("latin1").strip() == "" or content.decode("latin1") not in str(told.value)


def test_a_key_that_is_away_says_why(key: Path) -> None:
    with pytest.raises(Unusable, match="No such file"):
        read_site_key(key)


@IN_A_FILE
def test_with_a_new_key_in_front_the_ledger_still_opens(ledger: Books) -> None:
    ref = ledger.suppress("ann@example.com").evidence
    file = ledger.ledger.path.with_name("site.key")
    file.write_text("11" * 32 + "\n" + file.read_text())
    again = books(ledger.ledger.path.parent)
    assert again.gate().may(storage.address.parse("ann@example.com")).verdict.evidence == ref  # type: ignore[union-attr]
    assert again.suppress("ann@example.com").outcome == "repeated"
    assert again.suppress("bob@example.com").outcome == "new"


# ------------------------------------------------------------------ the schema


def test_the_code_needs_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(engine.__file__).with_name("migrations")))
    assert ScriptDirectory.from_config(config).get_current_head() == REVISION


def test_the_models_are_what_the_migrations_make(ledger: Books) -> None:
    with ledger.ledger.connect() as db:
        context = MigrationContext.configure(db, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, SQLModel.metadata) == []


@IN_A_FILE
@pytest.mark.parametrize("table", ["suppression", "person", "watched_folder", "soft_bounce", "tally"])
def test_the_narrow_tables_have_no_rowid(ledger: Books, table: str) -> None:
    with ledger.ledger.connect() as db, pytest.raises(Exception, match="no such column: rowid"):
        db.exec_driver_sql(f"SELECT rowid FROM {table}")


@IN_A_FILE
def test_a_reference_once_given_never_means_something_else(ledger: Books) -> None:
    first = ledger.suppress("ann@example.com").evidence
    change(ledger.ledger.path, "DELETE FROM evidence")
    assert ledger.suppress("bob@example.com").evidence > first


def test_a_migration_keeps_a_copy_of_what_was_there(database: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(database, key)
    change(database, "UPDATE alembic_version SET version_num = '0000'")
    monkeypatch.setattr(
        sqlite, "make_schema", lambda path, _: change(path, f"UPDATE alembic_version SET version_num = '{REVISION}'")
    )
    old = os.umask(0)
    try:
        assert migrate(database, read_site_key(key)) == ("0000", REVISION)
    finally:
        os.umask(old)
    copy = database.with_name(f"optoutd.db.before-{REVISION}")
    assert sqlite.revision(copy) == "0000"
    assert copy.stat().st_mode & 0o777 == 0o600
    open_ledger(database, key).close()


def test_a_current_schema_is_left_alone(database: Path, key: Path) -> None:
    create(database, key)
    assert migrate(database, read_site_key(key)) == (REVISION, REVISION)
    assert listing(database.parent) == ["optoutd.db", "site.key"]


def test_the_schema_of_a_newer_version_is_refused_and_not_touched(database: Path, key: Path) -> None:
    create(database, key)
    change(
        database,
        "UPDATE alembic_version SET version_num = '9999'",
        "UPDATE meta SET value = CAST('9999' AS BLOB) WHERE name = 'needs'",
    )
    assert migrate(database, read_site_key(key)) == ("9999", "9999")
    with pytest.raises(Unusable, match=f"schema is 9999, this version needs {REVISION}: it belongs to a newer version"):
        open_ledger(database, key)
    assert sqlite.revision(database) == "9999"


def test_the_schema_of_a_newer_version_that_still_goes_with_ours_is_worked_with(database: Path, key: Path) -> None:
    """Nodes are renewed one after the other: the first new one migrates, the others go on."""
    create(database, key)
    change(database, "UPDATE alembic_version SET version_num = '9999'")
    open_ledger(database, key).close()
    assert Lookup(database, read_site_key(key)).rows(storage.address.parse("ann@example.com")) == []


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("DROP TABLE alembic_version", "no such table: alembic_version"),
        ("DELETE FROM alembic_version", "no schema"),
        ("DELETE FROM meta WHERE name = 'check'", "no check value"),
        ("DROP TABLE meta", "no such table: meta"),
    ],
)
def test_a_database_that_is_not_whole_is_doubt(database: Path, key: Path, statement: str, sentence: str) -> None:
    create(database, key)
    change(database, statement)
    with pytest.raises(Unavailable, match=sentence):
        open_ledger(database, key)
    with pytest.raises(Unavailable, match=sentence):
        Lookup(database, read_site_key(key)).rows(storage.address.parse("ann@example.com"))


@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough to look at" * 100])
def test_a_file_that_is_no_database_is_doubt(database: Path, key: Path, content: bytes) -> None:
    create(database, key)
    database.write_bytes(content)
    with pytest.raises(Unavailable):
        open_ledger(database, key)
    with pytest.raises(Unavailable):
        sqlite.revision(database)


def test_a_path_with_odd_characters_is_a_path(tmp_path: Path) -> None:
    directory = tmp_path / "a b#c%20ü"
    it = books(directory)
    it.suppress("ann@example.com")
    assert len(it.lookup().rows(storage.address.parse("ann@example.com"))) == 1
    it.ledger.close()


def test_the_ledger_says_nothing_of_its_key(ledger: Books) -> None:
    assert ledger.ledger.site_key.keys[0].hex() not in repr(ledger.ledger)


@IN_A_FILE
def test_a_snapshot_holds_over_several_statements(ledger: Books, tmp_path: Path) -> None:
    second = Ledger(File(ledger.ledger.path), ledger.ledger.site_key)
    count = "SELECT count(*) FROM suppression"
    with second.reading() as db:
        assert db.exec_driver_sql(count).scalar() == 0
        ledger.suppress("ann@example.com")
        assert db.exec_driver_sql(count).scalar() == 0
    with second.reading() as db:
        assert db.exec_driver_sql(count).scalar() == 1
    second.close()


@IN_A_FILE
def test_connections_that_were_in_use_while_the_file_was_written_to_do_not_pile_up(ledger: Books) -> None:
    """In a daemon whose collector hardly ever looks at what is old."""
    store, site_key = ledger.ledger.store, ledger.ledger.site_key
    assert isinstance(store, File)

    def files() -> int:
        links = [os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()]
        return sum(link.startswith(str(store.path)) for link in links)

    def turn(number: int) -> None:
        with ledger.ledger.connect() as one, ledger.ledger.connect() as other:
            os.utime(store.path, ns=(number, number))  # as a checkpoint does
            store.verify(site_key)
            assert [db.exec_driver_sql("SELECT 1").scalar() for db in (one, other)] == [1, 1]

    gc.disable()
    try:
        for number in range(3):
            turn(number)
        before = files()
        for number in range(3, 30):
            turn(number)
        assert files() <= before
    finally:
        gc.enable()


@IN_A_FILE
def test_a_copy_of_both_halves_is_a_whole_ledger(ledger: Books, tmp_path: Path) -> None:
    ledger.suppress("ann@example.com")
    ledger.ledger.close()  # the last connection writes the log back: one file is all there is
    shutil.copytree(ledger.ledger.path.parent, tmp_path / "copy")
    again = books(tmp_path / "copy")
    assert again.suppress("ann@example.com").outcome == "repeated"
    again.ledger.close()


def test_a_migration_that_fails_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half_way(*_: object, **__: object) -> None:
        raise RuntimeError("power")

    monkeypatch.setattr("alembic.op.create_index", half_way)
    with pytest.raises(RuntimeError):
        sqlite.make_schema(tmp_path / "new.db")
    with closing(sqlite3.connect(tmp_path / "new.db")) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == []
