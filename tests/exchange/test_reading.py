"""Octets to text to lines to records, and back to the same octets, however the file is cut into pieces."""

from __future__ import annotations

import csv
import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.exchange import reading, tables
from daemon.exchange.reading import Text, batches, plain, records
from daemon.exchange.rows import NotUnderstood

CELLS = st.text(st.sampled_from(list('ab",;\n\r\té\u2028\x85 ')), max_size=6)
ROWS = st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=8)
SOUP = st.text(st.sampled_from(list('a@,;"\n\r x')), max_size=60)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@st.composite
def pieces(draw: st.DrawFn, of: st.SearchStrategy[str]) -> list[str]:
    """A text cut anywhere."""
    text = draw(of)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]


@given(pieces(SOUP))
def test_lines_are_all_there_whatever_the_pieces(cut: list[str]) -> None:
    lines = [line for batch in batches(cut) for line in batch.lines]
    assert lines == list(io.StringIO("".join(cut), newline=""))


@given(pieces(SOUP), st.sampled_from(",;"))
def test_records_put_together_are_the_file(cut: list[str], delimiter: str) -> None:
    found = list(records(cut, delimiter, 2))
    assert "".join(raw for _, raw, _ in found) == "".join(cut)
    lines = [line for line, _, _ in found]
    sizes = [len(list(io.StringIO(raw, newline=""))) for _, raw, _ in found]
    assert lines == [1 + sum(sizes[:n]) for n in range(len(sizes))]
    assert "".join(raw for _, raw, _ in plain(cut)) == "".join(cut)


@given(pieces(SOUP), st.sampled_from(",;"))
def test_the_pieces_change_nothing(cut: list[str], delimiter: str) -> None:
    assert list(records(cut, delimiter, 2)) == list(records(["".join(cut)], delimiter, 2))


@given(ROWS, ENDS, st.sampled_from(",;\t"), st.integers(1, 9))
def test_what_the_csv_module_writes_is_read_back(rows: list[list[str]], end: str, delimiter: str, size: int) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
    text = file.getvalue()
    cut = [text[n : n + size] for n in range(0, len(text), size)]
    assert [cells for _, _, cells in records(cut, delimiter, 3)] == rows


@given(st.binary(max_size=80), st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"]))
def test_no_octet_is_lost(octets: bytes, bom: bytes) -> None:
    octets = bom + octets
    try:
        text = Text(io.BytesIO(octets))
    except NotUnderstood:
        return
    whole = "".join(text.pieces())
    assert text.encoding.bom + text.encode(whole) == octets
    lines = list(plain([whole]))
    assert text.encoding.bom + b"".join(text.encode(raw) for _, raw, _ in lines) == octets


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-16", "utf-8-sig"])
def test_large_texts_are_decoded_in_pieces(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "HEAD", 1001)
    monkeypatch.setattr(reading, "_PIECE", 7)
    whole = "".join(f"a{n}é😀@example.com\r\n" for n in range(200))
    octets = whole.encode(encoding)
    text = Text(io.BytesIO(octets))
    assert "".join(text.pieces()) == whole
    assert text.encoding.bom + text.encode(whole) == octets


def test_a_pipe_gives_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 1, 3))

    assert "".join(Text(Pipe(b"ann@example.com\n" * 9)).pieces()) == "ann@example.com\n" * 9


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_that_never_ends_is_given_up_and_the_next_is_read(end: str) -> None:
    long = "x" * 300_000
    cut = ["a\n", *([long] * 5), end[:1], end[1:], f"b{end}c{end}"]
    found = list(plain(cut))
    assert [(line, why if isinstance(why, str) else why[0]) for line, _, why in found] == [
        (1, "a"),
        (2, reading.TOO_LONG),
        (3, "b"),
        (4, "c"),
    ]
    assert [line for line, _, _ in records(cut, ",", 1)] == [1, 2, 3, 4]


def test_an_open_quotation_mark_does_not_take_a_megabyte_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONGEST", 3000)
    text = 'x,"a\n' + "b,c\n" * 2000
    found = list(records([text[n : n + 500] for n in range(0, len(text), 500)], ",", 2))
    assert found[0][2] == reading.UNCLOSED
    assert [cells for _, _, cells in found[1:]] == [["b", "c"]] * 2000


def test_a_cell_that_is_far_too_large_is_given_up() -> None:
    text = f'"a","{"x" * 200_000}"\nb,c\n"d\n{"x" * 200_000}",e\nf,g\n'
    found = list(records([text], ",", 2))
    assert [line for line, _, cells in found if isinstance(cells, str)] == [1, 3, 4]
    assert [cells for _, _, cells in found if isinstance(cells, list)] == [["b", "c"], ["f", "g"]]


def test_the_preamble_is_what_stands_before_the_first_row() -> None:
    text = Text(io.BytesIO(b'sep=,\n\n"e\nmail",x\n"ann@example.com",1\n'))
    table = tables.look(text, column="1")
    assert table.preamble == 'sep=,\n\n"e\nmail",x\n'
    assert list(table.records(text)) == [(5, '"ann@example.com",1\n', ["ann@example.com", "1"])]
