"""What is different where the ledger lies in PostgreSQL; all else is tested on both databases by the tests beside this."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from daemon.gate import Pass, Refused, Unknown
from daemon.opening import gate_of
from storage import audit, hashes, incoming, postgres
from storage.address import SiteKey, parse
from storage.engine import REVISION, Unavailable, Unusable, new_site_key
from storage.incoming import Place
from storage.postgres import Server, open_server
from storage.questions import Lookup, Questions
from storage.terms import ALL, Reason
from storage.write import write
from tests import servers
from tests.certificates import certify
from tests.ledgers import Books, bring

pytestmark = pytest.mark.postgres

ANN, BOB = parse("ann@example.com"), parse("bob@example.com")
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.fixture
def ledger(on_server: Books) -> Books:
    return on_server


def behind_our_back(it: Books, statement: str, *values: object) -> None:
    with raw(it) as db:
        db.execute(statement.encode(), values)


@contextmanager
def raw(it: Books) -> Iterator[psycopg.Connection[Any]]:
    """A connection of somebody else's."""
    with psycopg.connect(it.where[0]) as db:
        yield db


# ------------------------------------------------------------------ making it, opening it


def test_a_database_and_its_key_are_made_together(empty: Server, tmp_path: Path) -> None:
    key_file = tmp_path / "site.key"
    with pytest.raises(Unusable, match="has no schema yet: run `optoutd migrate`"):
        open_server(empty, key_file)
    assert postgres.migrate(empty, key_file) == (None, REVISION)
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert postgres.migrate(empty, key_file) == (REVISION, REVISION)
    ledger = open_server(empty, key_file)
    with ledger.reading() as db:
        assert audit.verify(db, ledger.site_key).seq == 0


def test_one_half_without_the_other_is_refused(empty: Server, tmp_path: Path) -> None:
    key_file = tmp_path / "site.key"
    new_site_key(key_file)
    with pytest.raises(Unusable, match=r"the site key .* is there but database .* is empty"):
        postgres.migrate(empty, key_file)
    key_file.unlink()
    postgres.migrate(empty, key_file)
    key_file.rename(tmp_path / "away")
    with pytest.raises(Unusable, match="put the key file of another node there"):
        open_server(empty, key_file)
    new_site_key(key_file)
    with pytest.raises(Unusable, match="not the one this database was made with"):
        open_server(empty, key_file)


def test_a_migration_that_fails_leaves_neither_half(
    empty: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(postgres, "migrate_schema", broken)
    with pytest.raises(RuntimeError):
        postgres.migrate(empty, tmp_path / "site.key")
    assert not (tmp_path / "site.key").exists()
    assert postgres.revision(empty) is None


def test_a_server_that_is_not_there_is_doubt(tmp_path: Path) -> None:
    server = Server("postgresql://optoutd@127.0.0.1:1/none")
    with pytest.raises(Unavailable, match=r"database postgresql://optoutd@127\.0\.0\.1:1/none: "):
        open_server(server, tmp_path / "site.key")


def test_a_password_is_in_no_message() -> None:
    server = Server("postgresql://optoutd@127.0.0.1:1/none", password="s3cret")
    assert "s3cret" not in repr(server) + server.name
    assert "s3cret" in server.conninfo(1)
    with pytest.raises(Unavailable) as found:
        postgres.revision(server)
    assert "s3cret" not in str(found.value)


def test_a_node_of_an_older_version_goes_on_while_a_newer_schema_allows_it(ledger: Books) -> None:
    old = Lookup(Server(ledger.where[0]), ledger.ledger.site_key)
    try:
        behind_our_back(ledger, "UPDATE alembic_version SET version_num = '9999'")
        assert old.rows(ANN) == []
        ledger.suppress("ann@example.com")
        assert len(old.rows(ANN)) == 1
        old.close()
        behind_our_back(ledger, "UPDATE meta SET value = '9999' WHERE name = 'needs'")
        with pytest.raises(Unusable, match="schema is 9999"):
            old.rows(ANN)
    finally:
        behind_our_back(ledger, f"UPDATE alembic_version SET version_num = '{REVISION}'")
        behind_our_back(ledger, f"UPDATE meta SET value = '{REVISION}' WHERE name = 'needs'")


def test_a_server_is_talked_to_under_tls_once_its_certificate_is_the_right_one(tmp_path: Path) -> None:
    with servers.postgres(tls=True) as guarded:
        url = f"{guarded.url(guarded.new_database())}?sslmode=verify-full"
        stranger = tmp_path / "stranger.pem"
        certify(tmp_path / "key.pem", stranger)
        with pytest.raises(Unavailable, match="certificate verify failed"):
            postgres.revision(Server(f"{url}&sslrootcert={stranger}"))
        server = Server(f"{url}&sslrootcert={guarded.ca_file}")
        postgres.migrate(server, tmp_path / "site.key")
        ledger = open_server(server, tmp_path / "site.key")
        with ledger.connect() as db:
            assert db.exec_driver_sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").scalar() is True
        with closing(Lookup(server, ledger.site_key)) as lookup:
            assert lookup.rows(ANN) == []
        ledger.close()


# ------------------------------------------------------------------ the question


async def test_questions_that_come_together_are_asked_together(ledger: Books) -> None:
    ledger.suppress("ann@example.com")
    ledger.suppress("bob@example.com", "offers")
    questions = Questions(Server(ledger.where[0]), ledger.ledger.site_key)
    people = [[ANN], [BOB, ANN], [parse("cem@example.com")], []]
    found = await asyncio.gather(*(questions.rows_of_all(some) for some in people))
    lookup = ledger.lookup()
    assert found == [lookup.rows_of_all(some) for some in people]
    assert [len(rows) for some in found for rows in some] == [1, 1, 1, 0]
    await questions.close()


async def test_the_gate_waits_and_says_the_same(ledger: Books) -> None:
    ref = ledger.suppress("ann@example.com").evidence
    gate = gate_of(ledger.ledger, ledger.numbers)
    people = [ANN, BOB, parse("ann%example.com@relay.example"), parse("a%b%c%d%e%f%g%h%i%j%k@l.example")]
    assert await gate.ask(people) == gate.may_all(people)
    [refused] = await gate.ask([ANN])
    assert isinstance(refused, Refused)
    assert refused.reply("ann@example.com") == f"550 5.7.1 <ann@example.com> has opted out (ref {ref})"
    await gate.close()


async def test_whoever_asks_and_goes_disturbs_nobody(ledger: Books) -> None:
    questions = Questions(Server(ledger.where[0]), ledger.ledger.site_key)
    first, second = (asyncio.create_task(questions.rows_of_all([ANN])) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == [[]]
    await questions.close()


async def test_the_wrong_key_is_doubt_for_every_recipient(ledger: Books) -> None:
    gate = Questions(Server(ledger.where[0]), SiteKey((b"x" * 32,)))
    with pytest.raises(Unavailable, match="the site key is not the one"):
        await gate.rows_of_all([ANN])
    await gate.close()


async def test_a_slow_database_is_asked_for_hashes_all_the_same(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """What kinds there are was read a second ago when the answer came: as old as may be, and not the same as none."""
    key = hashlib.sha256(b"zed@example.com").digest()[:16]
    hashes.announce(ledger.ledger, "sha256", NOW, "test", lambda _: None)
    with write(ledger.ledger, NOW, "test") as w:
        bring(w, [(key, ALL, int(Reason.OPT_OUT), 1)], "import", {"file": "h.txt"})
    monkeypatch.setattr(hashes, "LOOK_AGAIN", 0.0)
    questions = Questions(Server(ledger.where[0]), ledger.ledger.site_key)
    [rows] = await questions.rows_of_all([parse("zed@example.com")])
    assert [r.kind for r in rows] == ["hash"]
    await questions.close()


def test_a_connection_that_is_lost_while_we_write_is_doubt(ledger: Books) -> None:
    def lose() -> None:
        with write(ledger.ledger, NOW, "test") as w:
            pid = w.db.exec_driver_sql("SELECT pg_backend_pid()").scalar()
            behind_our_back(ledger, "SELECT pg_terminate_backend(%s)", pid)
            incoming.attempt(w, Place("support", "INBOX", 1, 1))

    with pytest.raises(Unavailable):
        lose()
    ledger.suppress("ann@example.com")


def test_a_commit_is_on_disk_whatever_the_server_s_default(ledger: Books) -> None:
    database = ledger.where[0].rpartition("/")[2]
    behind_our_back(ledger, f"ALTER DATABASE {database} SET synchronous_commit = off")
    try:
        with Server(ledger.where[0]).connect() as db:
            assert db.execute("SHOW synchronous_commit").fetchone() == ("on",)
    finally:
        behind_our_back(ledger, f"ALTER DATABASE {database} RESET synchronous_commit")


async def test_a_lost_connection_is_doubt_and_heals(ledger: Books) -> None:
    ledger.suppress("ann@example.com")
    gate = gate_of(ledger.ledger, ledger.numbers)
    assert isinstance((await gate.ask([ANN]))[0], Refused)
    assert await gate.ask([BOB]) == [Pass()]
    behind_our_back(
        ledger,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()",
    )
    assert isinstance((await gate.ask([BOB]))[0], Unknown)
    assert await gate.ask([BOB]) == [Pass()]
    assert isinstance((await gate.ask([ANN]))[0], Refused)
    ledger.suppress("bob@example.com")  # the pool of the writers heals by itself
    assert isinstance((await gate.ask([BOB]))[0], Refused)
    await gate.close()


async def test_a_database_that_does_not_answer_is_doubt_within_five_seconds(ledger: Books) -> None:
    gate = gate_of(ledger.ledger, ledger.numbers)
    assert await gate.ask([BOB]) == [Pass()]
    with raw(ledger) as db:
        db.execute("LOCK TABLE suppression IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        answers = await asyncio.gather(gate.ask([BOB]), gate.ask([ANN]))
        assert all(isinstance(a, Unknown) for some in answers for a in some)
        assert time.monotonic() - began < 5
    assert await gate.ask([BOB]) == [Pass()]
    await gate.close()


# ------------------------------------------------------------------ writing


def test_a_writer_waits_for_one_on_another_node(ledger: Books) -> None:
    with raw(ledger) as db:
        db.execute("SELECT pg_advisory_xact_lock(7382194)")
        waiting = threading.Thread(target=ledger.suppress, args=("ann@example.com",))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
    waiting.join(5)
    assert isinstance(ledger.gate().may(ANN), Refused)


def test_a_writer_that_waits_too_long_is_doubt_and_heals(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    from storage import write as writing

    begin = tuple(s.replace("5s", "100ms") for s in writing._BEGIN["postgresql"])
    monkeypatch.setitem(writing._BEGIN, "postgresql", begin)
    with raw(ledger) as db:
        db.execute("SELECT pg_advisory_xact_lock(7382194)")
        with pytest.raises(Unavailable, match="lock timeout"):
            ledger.suppress("ann@example.com")
    ledger.suppress("ann@example.com")
    with ledger.ledger.reading() as read:
        assert audit.verify(read, ledger.ledger.site_key).seq == 1


def test_an_error_in_the_middle_undoes_all_of_it(ledger: Books) -> None:
    def fail() -> None:
        with write(ledger.ledger, NOW, "test") as w:
            incoming.attempt(w, Place("support", "INBOX", 1, 1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with ledger.ledger.reading() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM incoming").scalar() == 0


def test_a_nul_in_a_text_is_stored_as_an_unknown_character(ledger: Books) -> None:
    """SQLite takes it; here a message with one in its folder or subject would never be read."""
    with write(ledger.ledger, NOW, "test") as w:
        incoming.attempt(w, Place("support", "IN\0BOX", 1, 1))
    with ledger.ledger.reading() as db:
        assert db.exec_driver_sql("SELECT folder FROM incoming").scalar() == "IN\ufffdBOX"


def test_a_percent_sign_in_a_statement_is_a_percent_sign(ledger: Books) -> None:
    with ledger.ledger.reading() as db:
        assert (
            db.exec_driver_sql("SELECT count(*) FROM list_number WHERE id LIKE 'off%' AND number > ?", (0,)).scalar()
            == 1
        )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE suppression SET since = since + 1",
        "DELETE FROM suppression WHERE scope = 0",
        "UPDATE audit SET actor = 'somebody else' WHERE seq = 1",
        "DELETE FROM audit WHERE seq = 2",
        "UPDATE evidence SET detail = replace(detail, 'ann', 'eve') WHERE id = 1",
    ],
)
def test_what_is_changed_behind_our_back_is_found(ledger: Books, statement: str) -> None:
    ledger.suppress("ann@example.com")
    ledger.suppress("bob@example.com", "offers")
    behind_our_back(ledger, statement)
    with ledger.ledger.reading() as db, pytest.raises(audit.ChainBroken):
        audit.verify(db, ledger.ledger.site_key)
