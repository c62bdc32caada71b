"""brake: what is shown, and what may be asked of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from daemon.cli import braking, common
from daemon.duty import unusual
from daemon.duty.alarm import Look
from daemon.vitals import Vitals
from storage import brake, held, suppressions
from storage.terms import ALL, Reason
from storage.write import write
from tests.cli.desk import Desk
from tests.ledgers import queued

KEYS = ["what", "pulled", "since", "actor", "because", "ref"]


@pytest.fixture(autouse=True)
def books(desk: Desk) -> None:
    desk.books()


def test_the_words_are_those_of_the_ledger() -> None:
    assert braking._WHAT == brake.WHAT


def test_without_options_it_says_what_acts(desk: Desk) -> None:
    said = desk("brake")
    assert (said.code, said.err) == (0, "")
    assert [line.split() for line in said.out.splitlines()] == [[what, "act"] for what in brake.WHAT]
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


def test_one_cause_by_itself(desk: Desk) -> None:
    name = "bounces:outlook.com/5.1.1"
    assert desk("brake", "--pull", name, "--because", "they block us").out.splitlines()[-1].startswith(f"{name}   wait")
    facts = desk("brake", "--json").facts
    assert [(f["what"], f["pulled"]) for f in facts] == [*((what, False) for what in brake.WHAT), (name, True)]
    assert list(facts[-1]) == KEYS
    desk("brake", "--release", name, "--because", "over")
    assert len(desk("brake", "--json").facts) == 3
    said = desk("brake", "--pull", "bounces:ann@outlook.com", "--because", "x")
    assert (said.code, "bounces:DOMAIN/STATUS" in said.sentence) == (64, True)


# ------------------------------------------------------------------ what waits

CAUSE = ("--cause", "bounces:outlook.com/5.1.1")


@pytest.fixture
def waiting(desk: Desk) -> list[int]:
    """Two of the cause, one of another."""
    causes = ("bounces:outlook.com/5.1.1", "bounces:outlook.com/5.1.1", "bounces:google.com/5.1.1")
    with write(desk.books().ledger, common.now(), "test") as w:
        return [
            queued(
                w,
                addresses=[f"p{n}@example.com"],
                wish="hard-bounce",
                rules=[held.RULE],
                words=held.words_of(cause, "no"),
            )
            for n, cause in enumerate(causes)
        ]


def test_what_waits_is_looked_at_counted_and_decided_by_its_cause(desk: Desk, waiting: list[int]) -> None:
    assert [f["id"] for f in desk("review", "list", *CAUSE, "--json").facts] == waiting[:2]
    dry = desk("review", "accept", *CAUSE, "--dry-run")
    assert (dry.code, dry.out) == (
        0,
        "would be accepted: 2 items about 2 people\n          2  hard-bounce\n  p0@example.com, p1@example.com\n",
    )
    assert desk("check", "p0@example.com").code == 0
    said = desk("review", "accept", *CAUSE, "--yes", "--note", "gone", "--json")
    assert (said.code, said.err) == (0, "")
    assert said.fact == {
        "cause": CAUSE[1],
        "decision": "accepted",
        "dry_run": False,
        "items": 2,
        "people": 2,
        "left": 0,
        "by": {"hard-bounce": 2},
        "first": [],
    }
    assert [desk("check", f"p{n}@example.com").code for n in range(3)] == [1, 1, 0]
    again = desk("review", "accept", *CAUSE, "--yes")
    assert (again.code, again.out) == (1, "nothing waits\n")
    assert desk("review", "reject", "--cause", "bounces", "--yes").out.startswith("rejected: 1 item about 1 person\n")
    assert desk("review", "list").err == "nothing waits\n"
    assert desk("audit", "verify").code == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("accept",), "say which: either one ID, or --cause"),
        (("accept", "1", *CAUSE), "say which: either one ID, or --cause"),
        (("accept", "1", "--yes"), "--dry-run and --yes go with --cause"),
        (("reject", "1", "--dry-run"), "--dry-run and --yes go with --cause"),
        (("reject", "--cause", "spam", "--yes"), "--cause 'spam': must be one of bounces"),
        (("accept", *CAUSE), "nothing done: look with --dry-run"),
        (("list", *CAUSE, "--all"), "either --all or --cause"),
        (("list", "--cause", "spam"), "--cause 'spam': must be one of bounces"),
    ],
)
def test_slips_of_review_are_64_and_decide_nothing(
    desk: Desk, waiting: list[int], words: tuple[str, ...], sentence: str
) -> None:
    said = desk("review", *words)
    assert said.code == 64
    assert said.sentence.startswith(sentence)
    assert len(desk("review", "list", "--json").facts) == 3


# ------------------------------------------------------------------ what the alarms advise


def test_the_commands_that_alarms_advise_are_commands(desk: Desk) -> None:
    it, now = desk.books(), common.now()
    with write(it.ledger, now, "test") as w:
        for n in range(60):
            suppressions.add(w, it.ledger.site_key.address_key(f"{n}@x.example"), ALL, Reason.OPT_OUT, "one-click", {})
        for what in ("bounces:outlook.com/5.1.1", "complaints:reporter.example", "unproven", "bounces"):
            brake.pull_by_itself(w, what, "too many", "dsn")
    with it.ledger.reading() as db:
        later = now + timedelta(seconds=1)
        alarms = list(unusual.find(Look(it.ledger, db, Vitals(later), later)))
    commands = [part for a in alarms for part in a.advice.split("`")[1::2] if part.startswith("optoutd ")]
    assert len(commands) == 1 + 4 * 4
    for command in commands:
        assert desk(*(word.strip('"') for word in command.split()[1:])).code in (0, 1), command
