"""docs/failures.md: every failure that is told there has a test, and says all that an operator wants to know."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from daemon import events, relay_events

ROOT = Path(__file__).parents[1]
LEAST = 80  # component and fault; what we promise to have thought through


def _rows() -> list[tuple[str, list[str]]]:
    rows, component = [], ""
    for line in (ROOT / "docs/failures.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            component = line[3:]
        elif line.startswith("| ") and not line.startswith("| fault "):
            rows.append((component, [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]))
    return rows


@cache
def _tests(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return frozenset(n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def test_there_are_as_many_as_promised() -> None:
    assert len(_rows()) >= LEAST
    named = [(component, cells[0]) for component, cells in _rows()]
    assert sorted(set(named)) == sorted(named)


@pytest.mark.parametrize(("component", "cells"), _rows(), ids=lambda x: x if isinstance(x, str) else x[0][:40])
def test_each_says_what_happens_and_has_its_test(component: str, cells: list[str]) -> None:
    assert component
    assert len(cells) == 5
    assert all(cells), cells
    file, _, name = cells[4].partition("::")
    folder, _, stem = file.rpartition("/")
    assert f"test_{name}" in _tests(f"{folder}/test_{stem}.py".lstrip("/")), cells[4]


def test_the_events_it_names_are_events() -> None:
    told = {name for _, cells in _rows() for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", cells[2])}
    assert told
    assert sorted(name for name in told if not (hasattr(events, name) or hasattr(relay_events, name))) == []
