"""digest: the weekly mail, now and on a terminal."""

from __future__ import annotations

import json

from tests.cli.desk import Desk


def test_the_promise_was_kept(desk: Desk) -> None:
    assert desk("suppress", "ann@example.com").code == 0
    said = desk("digest")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("The promise was kept.\n")
    assert "opt-outs              0" in said.out  # what an operator enters is no opt-out
    assert "suppressions          1 in force" in said.out
    (fact,) = [json.loads(line) for line in desk("digest", "--json").out.splitlines()]
    assert (fact["kept"], fact["suppressions"], fact["alarms"]) == (True, 1, [])
    assert fact["head"].startswith("1:")


def test_from_another_day_on(desk: Desk) -> None:
    desk("suppress", "ann@example.com")
    (fact,) = [json.loads(line) for line in desk("digest", "--json", "--since", "2024-02-03").out.splitlines()]
    assert fact["start"] == "2024-02-03T00:00:00Z"
    for since in ("2999-01-01", "yesterday"):
        assert desk("digest", "--since", since).code == 64
