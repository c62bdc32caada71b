"""What optoutd stands on is pinned, complete, and may stand beside it; the same is told to other programs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts/dependencies"


@pytest.fixture(scope="module")
def script() -> Any:
    """scripts/dependencies, as a module."""
    loader = SourceFileLoader("dependencies", str(SCRIPT))
    spec = importlib.util.spec_from_loader("dependencies", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writes
    return module


def installed(directory: Path, *fields: str) -> Distribution:
    """A distribution that says this of itself."""
    place = directory / "thing-1.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", "Name: thing", "Version: 1", *fields, "", ""]))
    return PathDistribution(place)


def test_everything_is_pinned_and_its_licence_is_known() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "check"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_what_is_not_pinned_or_pinned_otherwise_is_told(script: Any) -> None:
    text = (ROOT / "constraints.txt").read_text()
    loose = script.problems(text.replace("idna==", "idna>="))
    assert loose[0].startswith("constraints.txt: 'idna>=")
    assert any(told.startswith("idna: not in constraints.txt; ") for told in loose)
    other = script.problems(text.replace("structlog==", "structlog==0."))
    assert any(told.startswith("structlog: ") and "constraints.txt says 0." in told for told in other)


@pytest.mark.parametrize(
    ("fields", "expression", "allowed"),
    [
        (["License-Expression: MIT"], "MIT", True),
        (["License-Expression: MIT AND GPL-3.0-only"], "MIT AND GPL-3.0-only", False),
        (["License-Expression: GPL-2.0-only OR MIT"], "GPL-2.0-only OR MIT", True),
        (["License-Expression: (MIT OR ISC) AND GPL-3.0-only"], "(MIT OR ISC) AND GPL-3.0-only", False),
        (["License: MIT"], "MIT", True),
        (["License: Apache 2.0"], "Apache-2.0", True),
        (["Classifier: License :: OSI Approved :: BSD License"], "BSD-3-Clause", True),
        (["License: Do what thou wilt"], None, False),
        ([], None, False),
    ],
)
def test_a_licence_is_what_its_distribution_says(
    script: Any, tmp_path: Path, fields: list[str], expression: str | None, allowed: bool
) -> None:
    found = script.licence(installed(tmp_path, *fields))
    assert found == expression
    assert found is None or script.is_allowed(found) is allowed


def test_the_bill_of_materials_is_the_same_each_time_and_names_all_that_we_need(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one.json", "other.json")]
    for path in paths:
        subprocess.run([sys.executable, SCRIPT, "sbom", path], check=True, timeout=120)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    told = json.loads(paths[0].read_text())
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.5")
    parts = {part["name"]: part for part in told["components"]}
    assert parts["aiosmtpd"]["scope"] == parts["cffi"]["scope"] == "required"
    assert parts["psycopg"]["scope"] == parts["cryptography"]["scope"] == "optional"
    assert parts["pytest"]["scope"] == "excluded"
    assert all(part["version"] for part in parts.values())
    refs = {part["bom-ref"] for part in parts.values()} | {"optoutd"}
    assert {link["ref"] for link in told["dependencies"]} == refs
    assert all(set(link["dependsOn"]) <= refs for link in told["dependencies"])
