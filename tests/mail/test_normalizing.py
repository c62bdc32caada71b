"""Accents in any number, in time that grows as their number does."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config import House
from daemon.mail.normalizing import composed
from daemon.mail.triage import read

ROWS = ["\u0345\u0334", "\u0f73", "\u0f81\u0345", "\uff9e\u0334", "\u0344\u0334"]
HOUSE = House(name="Quill PDF", domains=("quillpdf.example",), addresses=("support@quillpdf.example",))


@given(st.lists(st.text(max_size=30), max_size=5))
def test_of_few_marks_none_is_left_out(pieces: list[str]) -> None:
    text = " ".join(pieces)
    assert composed(text) == unicodedata.normalize("NFC", text)
    assert composed(text, "NFKD") == unicodedata.normalize("NFKD", text)


@pytest.mark.parametrize(
    "row", ["\u2500" * 200, "\u2014 " * 200, "\U0001f600" * 200, "\uff76\uff9e" * 200, "e\u0301" * 200]
)
def test_a_row_of_other_characters_stays_whole(row: str) -> None:
    assert composed(row) == unicodedata.normalize("NFC", row)
    assert composed(row, "NFKD") == unicodedata.normalize("NFKD", row)


@pytest.mark.parametrize("row", ROWS)
def test_many_marks_keep_nobody_waiting(row: str) -> None:
    text, began = "a" + row * 100_000 + "b", time.monotonic()
    assert composed(text).endswith("b")
    assert composed(text, "NFKD").endswith("b")
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("row", ["\u0345" * 50_000 + "\u0334" * 50_000, "\u0f73" * 60_000])
def test_a_mail_of_marks_keeps_nobody_waiting(row: str) -> None:
    head = "From: ann@customer.example\r\nSubject: Unsubscribe\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    began = time.thread_time()
    read(f"{head}please unsubscribe me{row}\r\n".encode(), HOUSE)
    assert time.thread_time() - began < 3
