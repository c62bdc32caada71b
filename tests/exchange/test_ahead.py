"""Reading in another process: the same portions, the same troubles, and nobody left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from daemon.exchange.ahead import read_ahead
from daemon.exchange.portions import Portion
from daemon.exchange.rows import Bad
from storage.bulk import Batch

A, B = b"a" * 16, b"b" * 16
PORTIONS = [
    Portion(Batch([(A, 0, 2, 0), (B, 0, 2, 0)]), rows=2, first=1, last=2),
    Portion(Batch([(A, 0, 2, 7), (B, 1, 4, 0)], {B: "bob@example.com"}, {A: [b"o" * 16]}), rows=2, owners=[1, 2]),
    Portion(Batch([]), rows=3, skipped=1, bad=[Bad(3, "no address in it", "\udcff;"), Bad(4, "bad", "x")]),
    Portion(Batch([(A, 0, 2, 0)], {A: "ann@example.com"}), rows=1, kinds={"md5"}),
]


def test_what_comes_is_what_was_made() -> None:
    with read_ahead(iter(PORTIONS)) as found:
        assert list(found) == PORTIONS


def test_it_is_another_process() -> None:
    def portions() -> Iterator[Portion]:
        yield Portion(Batch([]), rows=os.getpid())

    with read_ahead(portions()) as found:
        assert next(found).rows != os.getpid()


def test_a_file_that_cannot_be_read_on_is_told() -> None:
    def portions() -> Iterator[Portion]:
        yield PORTIONS[0]
        raise OSError(5, "Input/output error", "a.csv")

    with read_ahead(portions()) as found:
        assert next(found) == PORTIONS[0]
        with pytest.raises(OSError, match="Input/output error"):
            next(found)


def test_a_reader_that_dies_is_not_taken_for_the_end_of_the_list() -> None:
    def portions() -> Iterator[Portion]:
        yield PORTIONS[0]
        os._exit(1)

    with read_ahead(portions()) as found, pytest.raises(RuntimeError, match="has died"):
        list(found)


def test_who_stops_early_leaves_no_process_behind() -> None:
    def endless() -> Iterator[Portion]:
        while True:
            yield Portion(Batch([(os.urandom(16), 0, 2, 0)] * 1000), rows=os.getpid())

    with read_ahead(endless()) as found:
        pid = next(found).rows
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
