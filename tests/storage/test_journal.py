"""The journal of keys: what is in it was committed, and what is missing in it shows."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import journal, suppressions
from storage.address import SiteKey, parse
from storage.engine import Unavailable, Unusable
from storage.journal import Journal, Line
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import Books, books, bring
from tests.storage.another import another, hear

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
AT = int(NOW.timestamp())
KEY = SiteKey((bytes(32),))


@pytest.fixture
def ledger(in_file: Books) -> Books:
    """Backups of a list in PostgreSQL are in test_postgres_backup.py."""
    return in_file


@pytest.fixture
def kept(ledger: Books, tmp_path: Path) -> Books:
    """A ledger with a journal."""
    ledger.ledger.journal = Journal(tmp_path / "kept" / "journal.log", ledger.ledger.site_key)
    return ledger


def file_of(it: Books) -> Path:
    assert it.ledger.journal is not None
    return it.ledger.journal.path


def lines(it: Books) -> list[Line | None]:
    return list(journal.read(file_of(it).parent, it.ledger.site_key))


def signs(it: Books) -> str:
    return "".join(line.sign if line else "?" for line in lines(it))


def since(it: Books, backup: tuple[int, int] = (1, 0)) -> journal.Since:
    return journal.since(lines(it), backup, AT)


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


# ------------------------------------------------------------------ reading it


def line(sign: str = "+", who: int = 1, *, epoch: int = 1, seq: int, before: int | None = None, **other: int) -> Line:
    values = {"place": 1, "lines": 1, "number": 0, "since": AT, "at": AT + seq} | other
    follows = seq - 1 if before is None else before
    reason = int(Reason.OPT_OUT) if sign in "+-" else 0
    key = bytes([who]) * 16
    return Line(sign, key, "all", values["number"], reason, values["since"], epoch, follows, seq, values["place"], values["lines"], values["at"])  # type: ignore[arg-type]  # fmt: skip


def test_what_the_backup_has_is_not_replayed() -> None:
    found = journal.since([line(seq=1), line(seq=2), line(seq=3, who=3)], (1, 2), AT)
    assert (list(found.rows), found.lines, found.reached, found.until) == (
        [(b"\3" * 16, "all", 2)], 1, (1, 3), AT + 3,
    )  # fmt: skip


def test_the_last_word_on_a_row_counts_whatever_the_order_of_the_lines() -> None:
    found = journal.since([line("-", seq=3), line("+", seq=2), line("+", who=2, seq=1)], (1, 0), AT)
    assert [sign for sign, *_ in found.rows.values()] == ["-", "+"]
    assert (found.whole, found.until) == (True, AT + 3)
    again = journal.since([line("-", seq=1, lines=2), line("+", seq=1, place=2, lines=2, since=7)], (1, 0), AT)
    assert list(again.rows.values()) == [("+", 7, 0)]


@pytest.mark.parametrize(
    ("missing", "until"),
    [([2], 1), ([1], 0), ([1, 2], 0)],
)
def test_a_hole_shows(missing: list[int], until: int) -> None:
    found = journal.since([line(seq=n, who=n) for n in (1, 2, 3) if n not in missing], (1, 0), AT)
    assert (found.whole, found.until, len(found.rows)) == (False, AT + until, 3 - len(missing))


def test_a_part_of_a_transaction_is_a_hole() -> None:
    found = journal.since([line(seq=2, before=0, place=n, lines=3, who=n) for n in (1, 3, 3)], (1, 0), AT)
    assert (found.whole, found.until) == (False, AT)
    found = journal.since([line(seq=2, before=0, place=n, lines=3, who=n) for n in (1, 3, 2)], (1, 0), AT)
    assert (found.whole, found.until) == (True, AT + 2)


def test_after_a_restore_audit_numbers_are_given_again_and_nothing_is_mixed_up() -> None:
    """Restored as of 2, with its journal up to 4 replayed; then numbers go on from 3 in the second epoch."""
    first = [line(seq=n, who=n) for n in (1, 2, 3, 4)]
    mark = line("r", epoch=2, seq=3, before=4, since=1)
    second = [line("-", 4, epoch=2, seq=4), line(epoch=2, seq=5, who=9)]
    found = journal.since([*first, mark, *second], (1, 2), AT)
    assert (found.whole, found.reached) == (True, (2, 5))
    assert {key[0]: sign for (key, *_), (sign, *_) in found.rows.items()} == {3: "+", 4: "-", 9: "+"}
    later = journal.since([*first, mark, *second], (2, 4), AT)  # a backup of the second epoch
    assert ([key[0] for key, *_ in later.rows], later.whole) == ([9], True)
    lost = journal.since([mark, *second], (1, 2), AT)  # the first part of the journal is gone
    assert (lost.whole, lost.until) == (False, AT)
    without = journal.since([*first, *second], (1, 2), AT)  # the restore itself was not noted
    assert (without.whole, without.until) == (False, AT + 4)


def test_nothing_that_somebody_else_wrote_is_read(kept: Books, tmp_path: Path) -> None:
    kept.suppress("ann@example.com", "offers")
    (octets,) = file_of(kept).read_bytes().splitlines()
    for changed in (
        octets.replace(b"+", b"-", 1),
        octets.replace(b"offers", b"newsletter"),
        octets.replace(b"opt-out", b"wanted"),
        octets[:-1] + (b"0" if octets[-1:] != b"0" else b"1"),
        octets + b" ",
        octets.replace(b" 1 0 1 ", b" 9 0 1 "),
    ):
        file_of(kept).write_bytes(changed + b"\n")
        assert lines(kept) == [None], changed
    other = books(tmp_path / "other")
    assert list(journal.read(file_of(kept).parent, other.ledger.site_key)) == [None]
    other.ledger.close()


_HASHER = journal._hasher(KEY)


@given(st.binary(max_size=500))
def test_any_octets_are_read_or_refused(octets: bytes) -> None:
    assert journal.parse(octets, _HASHER) is None


@given(
    sign=st.sampled_from("+-"),
    key=st.binary(min_size=16, max_size=16),
    scope=st.integers(0, 3),
    reason=st.sampled_from(list(Reason)),
    numbers=st.lists(st.integers(0, 10**9 - 1), min_size=5, max_size=5),
    moment=st.integers(-(10**11), 10**11),
)
def test_a_line_is_read_as_it_was_written(
    sign: journal.Sign, key: bytes, scope: int, reason: Reason, numbers: list[int], moment: int
) -> None:
    epoch, before, seq, place, at = numbers
    change = (sign, key, scope, int(reason), moment)
    ids = {1: "a", 2: "b-2", 3: "x" * 32}
    octets = journal._line(_HASHER, change, ids, f"{epoch} {before} {seq} {place}/{place} {at}")
    word = "all" if scope == ALL else f"list:{ids[scope]}"
    expected = Line(sign, key, word, scope, int(reason), moment, epoch, before, seq, place, place, at)
    assert journal.parse(octets, _HASHER) == expected


def test_a_long_line_is_cut_and_not_held_in_memory(kept: Books) -> None:
    kept.suppress("ann@example.com")
    with file_of(kept).open("ab") as file:
        file.write(b"x" * 2000 + b"\n")
    kept.suppress("bob@example.com")
    assert signs(kept).replace("?", "") == "++"
    assert since(kept).whole


# ------------------------------------------------------------------ both together

_CHANGES = st.lists(st.tuples(st.sampled_from("+-="), st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=3)


@given(st.lists(_CHANGES, max_size=8), st.randoms(use_true_random=False), st.data())
def test_backup_and_journal_come_to_the_ledger(
    transactions: list[list[tuple[str, int, int]]], random: Random, data: st.DataObject
) -> None:
    """Whatever was done, wherever the backup was made, in whatever order the lines came to lie."""
    states: list[dict[int, int]] = [{}]
    written: list[Line | None] = []
    for seq, changes in enumerate(transactions, 1):
        now = dict(states[-1])
        for place, (sign, who, moment) in enumerate(changes, 1):
            written.append(line(sign, who, seq=seq, place=place, lines=len(changes), since=moment))
            if sign == "+":
                now[who] = moment
            elif sign == "-":
                now.pop(who, None)
        states.append(now)
    random.shuffle(written)
    made = data.draw(st.integers(0, len(transactions)))
    found = journal.since(written, (1, made), AT + made)
    state = dict(states[made])
    for (key, *_), (sign, moment, _) in found.rows.items():
        state.pop(key[0], None)
        if sign == "+":
            state[key[0]] = moment
    assert state == states[-1]
    assert (found.whole, found.until, found.reached) == (True, AT + len(transactions), (1, len(transactions)))
    gone = [x for x in written if x and x.seq > made]
    if gone and gone[0].seq < len(transactions):
        assert not journal.since([x for x in written if x != gone[0]], (1, made), AT + made).whole


def test_killed_whenever_no_acknowledged_line_is_missing_and_none_is_of_what_did_not_happen(kept: Books) -> None:
    script = f"""
from storage.journal import Journal
it = open_again()
it.ledger.journal = Journal(Path({str(file_of(kept))!r}), it.ledger.site_key)
n = 0
while True:
    it.suppress(f"a{{n}}@example.com")
    say(n)
    n += 1
"""
    with another(kept, script) as process:
        for n in range(30):
            hear(process, str(n))
        process.kill()
        assert process.stdout
        acknowledged = 30 + len(process.stdout.read().splitlines())
    journalled = {line.key for line in lines(kept) if line}
    with kept.ledger.connect() as db:
        recorded = {bytes(r[0]) for r in db.exec_driver_sql("SELECT key FROM suppression")}
    keys = {kept.ledger.site_key.address_key(f"a{n}@example.com") for n in range(acknowledged)}
    assert keys <= journalled <= recorded
    assert len(recorded - journalled) <= 1
