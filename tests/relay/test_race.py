"""No mail after the opt-out: whoever's opt-out was committed before the last question began.

Randomised: the writer is told at a random moment of each dialogue, and its commit returns at another. `bench/races.py`
runs as many as one likes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.relay import races

pytestmark = pytest.mark.usefixtures("nothing_unexpected")


@pytest.mark.parametrize(("number", "another_process"), [(1500, False), (1000, True)])
async def test_an_opt_out_committed_before_the_last_question_is_never_delivered(
    tmp_path: Path, number: int, another_process: bool
) -> None:
    outcome = await races.run(tmp_path / "state", number, seed=number, another_process=another_process)
    assert outcome.wrong[:3] == []
    table = outcome.table()
    for fell, became in (
        ("before RCPT", "refused"),
        ("between RCPT and the last question", "withdrawn, 451"),
        ("between RCPT and the last question", "left out, others have it"),
        ("between RCPT and the last question", "refused"),
        ("after the last question began", "delivered"),
        ("of no concern", "delivered"),
    ):
        assert table[fell, became] >= number // 300, (fell, became, table)  # else it was no race
