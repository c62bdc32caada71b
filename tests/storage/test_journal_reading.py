"""The journal of keys read again: what it comes to, alone and after a backup."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import journal
from storage.journal import Line
from storage.terms import ALL, Reason
from tests.ledgers import Books, books
from tests.storage.another import another, hear
from tests.storage.journals import AT, KEY, file_of, lines, signs, since


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
