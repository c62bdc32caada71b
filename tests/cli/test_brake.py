"""brake: what is shown, and what may be asked of it."""

from __future__ import annotations

import pytest

from daemon.cli import braking
from storage import brake
from tests.cli.desk import Desk

KEYS = ["what", "pulled", "since", "actor", "because", "ref"]


@pytest.fixture(autouse=True)
def books(desk: Desk) -> None:
    desk.books()


def test_the_words_are_those_of_the_ledger() -> None:
    assert braking._WHAT == brake.WHAT
    assert [brake.said(what) for what in brake.WHAT] == ["bounces", "complaints", "requests that nobody proved"]


def test_without_options_it_says_what_acts(desk: Desk) -> None:
    said = desk("brake")
    assert (said.code, said.err) == (0, "")
    assert [line.split()[-1] for line in said.out.splitlines()] == ["act", "act", "act"]
    assert [(f["what"], f["pulled"], f["ref"]) for f in desk("brake", "--json").facts] == [
        ("bounces", False, None),
        ("complaints", False, None),
        ("unproven", False, None),
    ]


def test_pulled_and_released(desk: Desk) -> None:
    said = desk("brake", "--pull", "bounces", "--pull", "unproven", "--because", "a \x1b[31mstorm", "--json")
    assert said.code == 0
    assert all(list(fact) == KEYS for fact in said.facts)
    bounces, complaints, _ = said.facts
    assert (bounces["pulled"], bounces["because"], bounces["ref"]) == (True, "a \x1b[31mstorm", 1)
    assert not complaints["pulled"]
    shown = desk("brake").out
    assert "\x1b" not in shown
    assert "(ref 1): 'a \\x1b[31mstorm'" in shown
    assert desk("show", "--ref", "1", "--json").fact["history"][0]["event"] == "brake"
    desk("brake", "--release", "bounces", "--pull", "complaints", "--because", "over")
    assert [f["pulled"] for f in desk("brake", "--json").facts] == [False, True, True]
    assert desk("audit", "verify").code == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--pull", "spam", "--because", "x"), "--pull 'spam': must be one of bounces, complaints, unproven"),
        (("--release", "", "--because", "x"), "--release '': must be one of"),
        (("--pull", "bounces"), "--because must say why"),
        (("--pull", "bounces", "--because", " "), "--because must say why"),
        (("--because", "x"), "--because goes with --pull or --release"),
        (("--pull", "bounces", "--release", "bounces", "--because", "x"), "bounces: either --pull or --release"),
    ],
)
def test_slips_are_64_and_change_nothing(desk: Desk, words: tuple[str, ...], sentence: str) -> None:
    said = desk("brake", *words)
    assert said.code == 64
    assert said.sentence.startswith(sentence)
    assert not any(f["pulled"] for f in desk("brake", "--json").facts)
