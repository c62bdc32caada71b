"""The fault campaign itself: a short one finds nothing, and daemons that break a promise are found out."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.campaign import Plan, Result, play

pytestmark = pytest.mark.dovecot


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short, for sockets; kept if something is wrong."""
    made = Path(tempfile.mkdtemp(prefix="ch", dir="/tmp"))
    made.chmod(0o755)
    yield made
    if not (made / "keep").exists():
        shutil.rmtree(made)


def wrong(result: Result) -> str:
    """What a failing test says: enough to look into it."""
    (result.directory / "keep").touch()
    return "\n".join(map(str, (result.directory, result.figures, *result.violations)))


@pytest.mark.timeout(600)
def test_a_short_campaign_breaks_no_promise(directory: Path) -> None:
    result = play(Plan(seed=20, seconds=35), directory)
    assert not result.violations, wrong(result)
    assert result.figures["delivered"] > 10, wrong(result)
    assert sum(result.figures["faults"].values()) > 1, wrong(result)
    assert {"api", "mail"} <= result.figures["opt-outs"].keys(), wrong(result)


@pytest.mark.postgres
@pytest.mark.timeout(600)
def test_a_shorter_one_with_postgresql(directory: Path) -> None:
    result = play(Plan(seed=21, seconds=15, database="postgresql"), directory)
    assert not result.violations, wrong(result)
    assert result.figures["delivered"] > 5, wrong(result)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("mutants", "rules", "fault"),
    [
        ("passes", {"mailed", "accepted"}, ""),
        ("answers,marks,forgets", {"lost", "touched", "unread", "stuck"}, ""),
        ("says-yes", {"false 250"}, "upstream drops at the dot"),
    ],
)
def test_a_daemon_that_breaks_a_promise_is_found_out(
    directory: Path, mutants: str, rules: set[str], fault: str
) -> None:
    plan = Plan(
        seed=22,
        seconds=15,
        module=("tests.chaos.mutant", mutants),
        breaks=bool(fault),
        only=(fault,),
        pause=0.5,
        settle=8,
    )
    result = play(plan, directory)
    assert rules <= {violation.rule for violation in result.violations}, wrong(result)
