"""Whatever single edit somebody makes to an audited table, with the file but without the key: it is found."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from storage import audit, brake
from storage.audit import ChainBroken
from storage.engine import Ledger
from storage.sqlite import File
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import Books, books, bring

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
KEYS: Final = {"audit": 1, "evidence": 1, "suppression": 3, "list_number": 1, "meta": 1}  # columns of the primary key
SEALED: Final = ("head", "sealed", "hashes", "deferred", "brake", "verified")  # rows of meta
Row = tuple[Any, ...]


class Edited:
    """A ledger to edit: a new copy of it each time."""

    def __init__(self, it: Books):
        self._original, self._site_key = it.ledger.path, it.ledger.site_key
        it.ledger.close()
        self._copies = 0

    @contextmanager
    def raw(self) -> Iterator[sqlite3.Connection]:
        """What somebody with the file has."""
        self._path.unlink(missing_ok=True)
        self._copies += 1
        shutil.copyfile(self._original, self._path)
        with closing(sqlite3.connect(self._path)) as db:
            yield db
            db.commit()

    @property
    def _path(self) -> Path:
        return self._original.with_name(f"copy-{self._copies}.db")

    def verify(self) -> None:
        """Raises ChainBroken."""
        ledger = Ledger(File(self._path), self._site_key)
        try:
            with ledger.reading() as db:
                audit.verify(db, self._site_key)
        finally:
            ledger.close()


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Edited:
    """Of everything there can be: lifts, an import, somebody forgotten, several lists, a check that ended well."""
    it = books(tmp_path_factory.mktemp("edited"))
    for name in ("ann", "bob", "cem", "dee"):
        it.suppress(f"{name}@example.com")
    it.suppress("bob@example.com", "offers")
    it.suppress("bob@example.com", reason=Reason.HARD_BOUNCE)
    it.suppress("bob@example.com", "newsletter", Reason.WANTED)
    it.lift("cem@example.com")
    with write(it.ledger, NOW, "import") as w:
        rows = [(bytes([n]) * 16, ALL, int(Reason.OPT_OUT), n) for n in range(1, 6)]
        bring(w, rows, "import", {"file": "list.csv"})
    with write(it.ledger, NOW + timedelta(hours=1), "cli") as w:
        w.forget_evidence([1])
        w.audit("erased")
        w.db.exec_driver_sql("INSERT INTO meta (name, value) VALUES ('hashes', ?), ('deferred', ?)", (b"md5", b"{}"))
        brake.set_to(w, ["complaints"], [], "test")
    with it.ledger.reading() as db:
        head = audit.verify(db, it.ledger.site_key)
    with write(it.ledger, NOW, "job") as w:
        audit.remember_verified(w.db, it.ledger.site_key, head)
    return Edited(it)


def content(db: sqlite3.Connection, table: str) -> list[Row]:
    """All rows, the kind of each value beside it: to SQLite 1 and 1.0 are equal, to us they are not."""
    names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    columns = ", ".join(f"typeof({n}), quote({n})" for n in names)
    return sorted(db.execute(f"SELECT {columns} FROM {table}"))


def rows(db: sqlite3.Connection, table: str) -> list[Row]:
    found = db.execute(f"SELECT * FROM {table}").fetchall()
    return [row for row in found if table != "meta" or row[0] in SEALED]


def put(db: sqlite3.Connection, table: str, row: Row) -> None:
    db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)


def take(db: sqlite3.Connection, table: str, row: Row) -> None:
    names = [column[1] for column in db.execute(f"PRAGMA table_info({table})")][: KEYS[table]]
    where = " AND ".join(f"{n} IS ?" for n in names)
    db.execute(f"DELETE FROM {table} WHERE {where}", row[: KEYS[table]])


VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 12),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
    st.binary(max_size=20),
    st.sampled_from([bytes(16), bytes(32), bytes(40), "lifted", "newsletter", "{}"]),
)


def test_the_tables_are_whole_before(edited: Edited) -> None:
    with edited.raw() as db:
        assert min(len(rows(db, table)) for table in KEYS) >= 2
    edited.verify()


@settings(max_examples=250, deadline=None)
@example(table="audit", kind="insert", which=(0, 1), column=0, value=-5)
@example(table="evidence", kind="delete", which=(0, 1), column=0, value=None)
@example(table="list_number", kind="swap", which=(0, 1), column=1, value=None)
@given(
    table=st.sampled_from(sorted(KEYS)),
    kind=st.sampled_from(["change", "delete", "insert", "swap"]),
    which=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    column=st.integers(0, 11),
    value=VALUES,
)
def test_any_single_edit_is_found(
    edited: Edited, table: str, kind: str, which: tuple[int, int], column: int, value: Any
) -> None:
    with edited.raw() as db:
        before, there = content(db, table), rows(db, table)
        one, two = (there[n % len(there)] for n in which)
        column %= len(one)
        assume(table != "meta" or (kind == "change" and column == 1) or (kind == "delete" and one[0] != "verified"))
        try:
            edit(db, table, kind, one, two, column, value)
        except sqlite3.IntegrityError:
            assume(False)
        assume(content(db, table) != before)
    with pytest.raises(ChainBroken) as found:
        edited.verify()
    assert found.value.table == table or table == "meta"


def edit(db: sqlite3.Connection, table: str, kind: str, one: Row, two: Row, column: int, value: Any) -> None:
    changed = (*one[:column], value, *one[column + 1 :])
    if kind != "insert":
        take(db, table, one)
    if kind in ("change", "insert"):
        put(db, table, changed)
    if kind == "swap":
        assume(one != two)
        take(db, table, two)
        put(db, table, (*one[:column], two[column], *one[column + 1 :]))
        put(db, table, (*two[:column], one[column], *two[column + 1 :]))


@pytest.mark.parametrize(("table", "column"), [("audit", "source"), ("evidence", "detail"), ("list_number", "id")])
def test_octets_that_are_no_text_are_found(edited: Edited, table: str, column: str) -> None:
    with edited.raw() as db:
        one = f"{column} = (SELECT min({column}) FROM {table})"
        db.execute(f"UPDATE {table} SET {column} = CAST(x'ff' AS TEXT) WHERE {one}")
    with pytest.raises(ChainBroken):
        edited.verify()
