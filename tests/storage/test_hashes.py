"""Lists of hashes: asked for when there are any, from the first moment on, and by nobody else."""

from __future__ import annotations

import hashlib
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import bulk, hashes, suppressions
from storage.address import HashKind, SiteKey, hash_key, hash_keys, keys_of, parse
from storage.engine import Ledger
from storage.lookup import Lookup, Row, verdict
from storage.sqlite import File
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import IN_A_FILE, Books

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
MD5 = hashlib.md5(b"ann.lee@example.com").digest()
SHA256 = hashlib.sha256(b"ann.lee@example.com").digest()
ANN = parse("Ann.Lee@Example.com")


def put(it: Books, digest: bytes) -> None:
    with write(it.ledger, NOW, "import") as w:
        bulk.add_many(w, bulk.Batch([(hash_key(digest), ALL, int(Reason.OPT_OUT), 7)]), 7, {})


def announce(it: Books, kind: HashKind) -> None:
    hashes.announce(it.ledger, kind, NOW, "import", lambda _: None)


def rows(it: Books, address: str = "Ann.Lee@Example.com") -> list[Row]:
    lookup = it.lookup()
    one, (other,) = lookup.rows(parse(address)), lookup.rows_of_all([parse(address)])
    lookup.close()
    assert one == other
    return one


# ------------------------------------------------------------------ the keys


@pytest.mark.parametrize(("kind", "digest"), [("md5", MD5), ("sha256", SHA256)])
def test_the_key_is_the_beginning_of_the_digest_of_the_address_in_small_letters(kind: HashKind, digest: bytes) -> None:
    assert hash_keys(ANN, [kind]) == [digest[:16]]
    assert hash_keys(parse("ann.lee+x@example.com"), [kind]) != [digest[:16]]
    assert hash_keys(parse("@example.com"), [kind]) == []


def test_a_domain_in_another_script_is_hashed_in_both_its_spellings() -> None:
    found = hash_keys(parse("ann@bücher.example"), ["md5"])
    assert found == [hashlib.md5(a.encode()).digest() for a in ("ann@xn--bcher-kva.example", "ann@bücher.example")]
    assert len(hash_keys(parse("ann@xn--999999999.example"), ["md5"])) == 1


@given(st.emails())
def test_the_other_keys_are_the_same_with_and_without_hashes(text: str) -> None:
    site_key, address = SITE_KEY, parse(text)
    without, with_them = keys_of(site_key, address), keys_of(site_key, address, ("md5", "sha256"))
    assert list(with_them[: len(without)]) == list(without)
    assert {kind for _, kind in with_them[len(without) :]} == {"hash"}


SITE_KEY = SiteKey((b"k" * 32,))


# ------------------------------------------------------------------ asked or not


def test_rows_of_hashes_count_once_their_kind_is_announced(ledger: Books) -> None:
    put(ledger, MD5)
    put(ledger, SHA256)
    assert rows(ledger) == []
    announce(ledger, "sha256")
    assert [r.kind for r in rows(ledger)] == ["hash"]
    announce(ledger, "md5")
    assert [r.kind for r in rows(ledger)] == ["hash", "hash"]
    assert rows(ledger, "ann@example.com") == []
    with ledger.ledger.connect() as db:
        assert db.exec_driver_sql(hashes.SELECT).scalar() == b"md5 sha256"


def test_it_is_announced_before_the_first_row_and_everybody_is_waited_for(ledger: Books) -> None:
    waited = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        with ledger.ledger.connect() as db:
            assert hashes.kinds(db) == ("md5",)

    for _ in range(2):  # again: whoever announced it may have been killed a moment ago
        hashes.announce(ledger.ledger, "md5", NOW, "import", wait)
    assert waited == [hashes.SETTLED] * 2
    assert hashes.SETTLED > hashes.LOOK_AGAIN


def test_a_reader_looks_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, reads, value = [100.0], [], [b""]
    monkeypatch.setattr("storage.hashes.time.monotonic", lambda: clock[0])

    def read() -> bytes:
        reads.append(clock[0])
        return value[0]

    known = hashes.Known()
    assert known.fresh() is None
    for _ in range(5):
        assert known.kinds(read) == ()
    value[0] = b"md5"
    clock[0] += 0.99
    assert known.kinds(read) == known.fresh() == ()
    clock[0] += 0.01
    assert known.fresh() is None
    assert known.kinds(read) == known.fresh() == ("md5",)
    known.forget()
    assert known.kinds(read) == ("md5",)
    assert reads == [100.0, 101.0, 101.0]


def test_no_reader_misses_a_row_whenever_it_looked_last(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred readers, who looked at any moment of the last seconds, ask in the instant after the first commit."""
    clock = [1000.0]
    monkeypatch.setattr("storage.hashes.time.monotonic", lambda: clock[0])
    readers = [ledger.lookup() for _ in range(30)]

    def wait(seconds: float) -> None:
        for n, reader in enumerate(readers):
            clock[0] = 1000.0 + seconds * n / len(readers)
            reader.rows(parse("bob@example.com"))
        clock[0] = 1000.0 + seconds

    for reader in readers:
        assert reader.rows(ANN) == []
    hashes.announce(ledger.ledger, "md5", NOW, "import", wait)
    put(ledger, MD5)
    for reader in readers:
        assert len(reader.rows(ANN)) == 1
        reader.close()


def test_words_of_a_later_version_are_no_kinds_of_ours() -> None:
    assert hashes.named(None) == ()
    assert hashes.named(b"sha512 sha256") == ("sha256",)


@IN_A_FILE
def test_another_list_that_takes_the_place_has_its_own_kinds(ledger: Books, tmp_path: Path) -> None:
    lookup = ledger.lookup()
    assert lookup.rows(ANN) == []
    lookup.close()
    ledger.ledger.close()  # so that all of it is in the file
    (tmp_path / "other").mkdir()
    copy = Books(Ledger(File(Path(shutil.copy(ledger.ledger.path, tmp_path / "other"))), ledger.ledger.site_key), {})
    announce(copy, "md5")
    put(copy, MD5)
    copy.ledger.close()
    copy.ledger.path.rename(ledger.ledger.path)
    assert [r.kind for r in lookup.rows(ANN)] == ["hash"]
    lookup.close()


def test_a_whole_list_is_asked_for_by_hash_too(ledger: Books) -> None:
    lookup = ledger.lookup()
    texts = ["Ann.Lee@Example.com", "bob@example.com", "ann@xn--bcher-kva.example"]
    assert lookup.sweep(texts) == [(), (), ()]
    lookup.close()
    announce(ledger, "md5")
    put(ledger, MD5)
    lookup = ledger.lookup()
    (ann, *others) = lookup.sweep(texts)
    assert ann
    assert [r.kind for r in ann] == ["hash"]
    assert others == [(), None]  # the last has two spellings: parse it
    lookup.close()


# ------------------------------------------------------------------ what else there is about a person


def test_a_hash_is_narrower_than_a_tag_and_wider_than_the_address_itself(ledger: Books) -> None:
    announce(ledger, "md5")
    digest = hashlib.md5(b"ann+x@example.com").digest()
    put(ledger, digest)
    ledger.suppress("ann@example.com")
    found = verdict(rows(ledger, "ann+x@example.com"), None)
    assert found
    assert (found.reason, found.matched) == (Reason.OPT_OUT, "hash")
    ledger.suppress("@example.com")
    assert [r.kind for r in rows(ledger, "bob@example.com")] == ["domain"]


def test_who_is_taken_off_the_list_is_taken_off_foreign_ones_too(ledger: Books) -> None:
    announce(ledger, "md5")
    put(ledger, MD5)
    ledger.suppress("ann.lee@example.com")
    with ledger.ledger.connect() as db:
        assert len(suppressions.standing(db, ledger.ledger.site_key, ANN)) == 2
    assert ledger.lift("Ann.Lee@example.com") == 2
    assert rows(ledger) == []
    with ledger.ledger.connect() as db:
        story = suppressions.history(db, ledger.ledger.site_key, ANN)
    assert [f.event for f in story] == ["suppressed", "lifted", "lifted"]
    put(ledger, MD5)  # the same list again, as old as it was
    assert rows(ledger) == []


@IN_A_FILE
def test_nobody_pays_for_hashes_that_are_not_there(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.hashes.time.monotonic", lambda: 1.0)
    lookup = Lookup(ledger.ledger.path, ledger.ledger.site_key)
    lookup.rows(ANN)
    statements = list[str]()
    assert lookup._db
    lookup._db.set_trace_callback(statements.append)
    for _ in range(3):
        lookup.rows(ANN)
    lookup.close()
    assert len(statements) == 3
