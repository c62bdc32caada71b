"""The journal of keys: what is in it was committed, and what is missing in it shows."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from storage import journal, suppressions
from storage.address import SiteKey, parse
from storage.engine import Unavailable, Unusable
from storage.journal import Journal
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import Books, books, bring
from tests.storage.another import another, hear
from tests.storage.journals import AT, NOW, file_of, lines, signs, since

# ------------------------------------------------------------------ what is written


def test_rows_that_come_and_go_are_lines(kept: Books) -> None:
    kept.suppress("ann@example.com")
    kept.suppress("bob@example.com", "offers")
    kept.lift("ann@example.com")
    key = kept.ledger.site_key.address_key("ann@example.com")
    first, second, third = lines(kept)
    assert first
    assert second
    assert third
    assert (first.sign, first.key, first.scope, first.number, first.reason) == ("+", key, "all", 0, Reason.OPT_OUT)
    assert (first.epoch, first.before, first.seq, first.place, first.lines) == (1, 0, 1, 1, 1)
    assert (second.scope, second.number, second.before) == ("list:offers", kept.numbers["offers"], 1)
    assert (third.sign, third.key, third.since) == ("-", key, first.since)
    assert file_of(kept).stat().st_mode & 0o777 == 0o600
    assert b"example.com" not in file_of(kept).read_bytes()


def test_a_change_of_no_row_is_a_line_and_one_without_a_record_is_none(kept: Books) -> None:
    with write(kept.ledger, NOW, "test") as w:
        w.audit("exported")
    with write(kept.ledger, NOW, "test") as w:
        w.job_ran("x")
    with write(kept.ledger, NOW, "test") as w:
        w.audit("erased", key=b"k" * 16)
    assert signs(kept) == "=x"


def opt_out_and(kept: Books, then: Callable[[], object]) -> None:
    with write(kept.ledger, NOW, "test") as w:
        suppressions.add(w, parse("ann@example.com"), ALL, Reason.OPT_OUT, "mail", {})
        then()


def test_what_was_rolled_back_or_not_committed_is_no_line(kept: Books) -> None:
    with pytest.raises(ZeroDivisionError):
        opt_out_and(kept, lambda: 1 / 0)
    kept.suppress("first@example.com")

    def another_file() -> None:  # what is committed now is committed into nothing
        octets = kept.ledger.path.read_bytes()
        kept.ledger.path.unlink()
        kept.ledger.path.write_bytes(octets)

    with pytest.raises(Unavailable):
        opt_out_and(kept, another_file)
    assert signs(kept) == "+"


def test_it_is_written_after_the_commit_and_before_the_caller_goes_on(
    kept: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    other = books(kept.ledger.path.parent)

    def append(self: Journal, text: bytes) -> None:
        order.append("journal")
        assert len(other.lookup().rows(parse("ann@example.com"))) == 1

    monkeypatch.setattr(Journal, "append", append)
    with write(kept.ledger, NOW, "test") as w:
        suppressions.add(w, parse("ann@example.com"), ALL, Reason.OPT_OUT, "mail", {})
        w.after_commit(lambda: order.append("said"))
    assert order == ["journal", "said"]
    other.ledger.close()


def test_a_batch_is_written_at_once(kept: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def counted(descriptor: int) -> None:
        synced.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    file_of(kept).parent.mkdir()
    with write(kept.ledger, NOW, "test") as w:
        bring(w, [(bytes([n]) * 16, ALL, 2, AT) for n in range(200)], "import", {})
    assert signs(kept) == "+" * 200
    assert len(synced) == 2  # the new file's name, and what is in it


# ------------------------------------------------------------------ when it cannot be written


def test_a_journal_that_cannot_be_written_does_not_hold_back_an_opt_out(kept: Books) -> None:
    told: list[OSError] = []
    assert kept.ledger.journal is not None
    kept.ledger.journal.failed = told.append
    file_of(kept).parent.write_text("not a directory")
    assert kept.suppress("ann@example.com").outcome == "new"
    assert [type(t) for t in told] == [FileExistsError] or [type(t) for t in told] == [NotADirectoryError]
    assert kept.ledger.journal.behind


def test_half_a_line_is_taken_back_and_what_was_not_written_shows_as_a_hole(
    kept: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.suppress("ann@example.com")
    real = os.write

    def little_room(descriptor: int, octets: bytes) -> int:
        if len(octets) > 20:
            return real(descriptor, octets[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", little_room)
        kept.suppress("bob@example.com")
    kept.suppress("cem@example.com")
    assert signs(kept) == "++"
    found = since(kept)
    assert (found.whole, len(found.rows), found.until) == (False, 2, lines(kept)[0].at)  # type: ignore[union-attr]
    assert since(kept, (1, 2)).whole, "a backup that was made since has it"


def test_after_a_torn_line_the_next_one_begins_anew(kept: Books) -> None:
    kept.suppress("ann@example.com")
    octets = file_of(kept).read_bytes()
    file_of(kept).write_bytes(octets + octets[:50])
    kept.suppress("bob@example.com")
    assert signs(kept) == "+?+"
    assert (since(kept).whole, since(kept).unreadable, since(kept).lines) == (True, 1, 2)


# ------------------------------------------------------------------ several writers, and rotation


def test_two_processes_write_whole_lines_in_whatever_order(kept: Books) -> None:
    script = f"""
from storage.journal import Journal
it = open_again()
it.ledger.journal = Journal(Path({str(file_of(kept))!r}), it.ledger.site_key)
for n in range(40):
    it.suppress(f"other{{n}}@example.com")
say("done")
"""
    with another(kept, script) as process:
        for n in range(40):
            kept.suppress(f"a{n}@example.com")
        hear(process, "done")
    assert signs(kept) == "+" * 80
    assert (since(kept).whole, len(since(kept).rows)) == (True, 80)


def test_a_rotated_journal_is_read_as_one_and_goes_when_a_later_backup_has_it(kept: Books) -> None:
    assert kept.ledger.journal is not None
    kept.ledger.journal.rotate("20260504T000000Z")  # nothing in it: nothing to keep
    kept.suppress("ann@example.com")
    kept.ledger.journal.rotate("20260504T120000Z")
    kept.suppress("bob@example.com")
    kept.ledger.journal.rotate("20260504T130000Z")
    kept.suppress("cem@example.com")
    where = file_of(kept).parent
    names = ["journal-20260504T120000Z.log", "journal-20260504T130000Z.log", "journal.log"]
    assert [p.name for p in journal.segments(where)] == names
    assert (signs(kept), since(kept).whole) == ("+++", True)
    assert journal.prune(where, "20260504T120000Z") == 0  # what was written while that backup was made may be in it
    assert journal.prune(where, "20260504T130000Z") == 1
    assert [p.name for p in journal.segments(where)] == names[1:]


# ------------------------------------------------------------------ is the database as new as its journal?


@pytest.mark.parametrize("rotated", [False, True])
def test_a_database_that_lacks_what_its_journal_tells_of_is_refused(kept: Books, rotated: bool) -> None:
    kept.suppress("ann@example.com")
    kept.ledger.compare_with_journal()
    journal_of = kept.ledger.journal
    assert journal_of is not None
    with kept.ledger.reading() as db:
        later = journal_of.lines(db, 1, 2, AT, [("+", bytes(16), ALL, int(Reason.OPT_OUT), AT)])
    journal_of.append(later)
    if rotated:
        journal_of.rotate("20260504T120000Z")
    with pytest.raises(Unusable, match=r"older than the journal .* changes after audit row 1 are missing"):
        kept.ledger.compare_with_journal()


def test_what_the_journal_lacks_is_in_the_backup_that_is_due_then(kept: Books) -> None:
    journal_of = kept.ledger.journal
    assert journal_of is not None
    kept.suppress("ann@example.com")
    kept.ledger.compare_with_journal()
    assert not journal_of.behind
    kept.ledger.journal = None  # killed between the commit and its line
    kept.suppress("bob@example.com")
    kept.ledger.journal = journal_of
    kept.ledger.compare_with_journal()
    assert journal_of.behind


def test_what_a_crash_kept_from_the_journal_is_written_into_it_at_the_next_start(kept: Books) -> None:
    journal_of = kept.ledger.journal
    assert journal_of is not None
    kept.suppress("ann@example.com")
    kept.ledger.journal = None  # killed between the commit and its line
    kept.suppress("bob@example.com", "offers")
    kept.lift("ann@example.com")
    kept.ledger.journal = journal_of
    kept.ledger.compare_with_journal(alone=True)
    kept.suppress("cem@example.com")
    assert since(kept).whole
    ours = kept.ledger.site_key
    people = [parse(f"{name}@example.com") for name in ("ann", "bob", "cem")]
    ann, bob, cem = (ours.address_key(f"{person}") for person in people)
    assert {(key, scope): row[0] for (key, scope, _), row in since(kept).rows.items()} == {
        (ann, "all"): "-",
        (bob, "list:offers"): "+",
        (cem, "all"): "+",
    }


def test_what_names_no_keys_is_left_to_the_backup(kept: Books) -> None:
    journal_of = kept.ledger.journal
    assert journal_of is not None
    kept.suppress("ann@example.com")
    kept.ledger.journal = None
    with write(kept.ledger, NOW, "test") as w:
        bring(w, [(bytes(16), ALL, int(Reason.OPERATOR), AT)], "import", {"file": "x"})
    kept.ledger.journal = journal_of
    before = file_of(kept).read_bytes()
    kept.ledger.compare_with_journal(alone=True)
    assert (file_of(kept).read_bytes(), journal_of.behind) == (before, True)


def test_a_restore_that_was_broken_off_and_lines_of_another_key_say_nothing_of_the_database(kept: Books) -> None:
    journal_of = kept.ledger.journal
    assert journal_of is not None
    kept.suppress("ann@example.com")
    journal_of.restored((1, 1), (2, 7), AT)
    foreign = Journal(journal_of.path, SiteKey((bytes(range(32)),)))
    with kept.ledger.reading() as db:
        foreign.append(foreign.lines(db, 1, 9, AT, []))
    kept.ledger.compare_with_journal()


def test_a_journal_that_cannot_be_read_does_not_hold_the_daemon_back(kept: Books) -> None:
    kept.suppress("ann@example.com")
    file_of(kept).unlink()
    file_of(kept).mkdir()  # as root reads everything
    kept.ledger.compare_with_journal()
    assert kept.ledger.journal is not None
    assert kept.ledger.journal.behind


def test_a_line_is_not_written_into_a_file_that_was_rotated_away(kept: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept.ledger.journal is not None
    kept.suppress("ann@example.com")
    real, turns = Journal._open, list[int]()

    def slow(self: Journal) -> int:
        descriptor = real(self)
        if not turns:
            turns.append(descriptor)
            Journal(self.path, self.site_key).rotate("20260504T120000Z")
        return descriptor

    monkeypatch.setattr(Journal, "_open", slow)
    kept.suppress("bob@example.com")
    where = file_of(kept).parent
    assert [len(p.read_bytes().splitlines()) for p in journal.segments(where)] == [1, 1]
