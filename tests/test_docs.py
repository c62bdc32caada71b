"""The documents say what is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from sqlmodel import SQLModel

import daemon
from daemon.cli import invoke
from daemon.config import Retention
from daemon.mail.rules import RULES
from tests.fuzz.driving import NAMES

ROOT = Path(__file__).parents[1]
ARCHITECTURE = (ROOT / "docs/ARCHITECTURE.md").read_text()
README = (ROOT / "README.md").read_text()


def test_triage_lists_every_rule_and_no_other() -> None:
    text = (ROOT / "docs/triage.md").read_text()
    listed = dict(re.findall(r"^\| `([0-9a-z.-]+)` \| (.*) \|$", text.partition("## Rules")[2], re.MULTILINE))
    assert listed == RULES


def test_every_file_of_the_architecture_exists() -> None:
    for name in re.findall(r"`((?:daemon|storage)/[a-z_/.]+)`", ARCHITECTURE):
        assert (ROOT / name).exists(), name


def test_the_architecture_knows_every_module_at_the_top() -> None:
    named = set(re.findall(r"`((?:daemon|storage)/[a-z_/.]+)`", ARCHITECTURE))
    left_out = {"daemon/__init__.py", "daemon/__main__.py", "daemon/demo.py", "storage/__init__.py"}
    modules = {str(p.relative_to(ROOT)) for room in ("daemon", "storage") for p in (ROOT / room).glob("*.py")}
    assert modules - left_out <= named


def test_every_file_and_test_of_the_threats_exists() -> None:
    text = (ROOT / "docs/threats.md").read_text()
    named = set(re.findall(r"`((?:daemon|storage|tests|scripts)/[\w./-]*)(?:::(\w+))?`", text))
    assert len({test for _, test in named if test}) > 50
    for name, test in named:
        assert (ROOT / name).exists(), name
        assert not test or re.search(rf"^(async )?def {test}\(", (ROOT / name).read_text(), re.MULTILINE), (name, test)
    for names in re.findall(r"fuzz ((?:`\w+`(?:, )?)+)", text):
        assert set(re.findall(r"\w+", names)) <= set(NAMES), names
    assert " ".join(NAMES) in text


def test_the_readme_names_only_commands_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for command in sorted(set(re.findall(r"`optoutd ([a-z-]+)", README))):
        assert invoke([command, "--help"]) == 0, (command, capsys.readouterr().err)


def test_the_changelog_knows_this_version() -> None:
    assert f"[{daemon.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("target", re.findall(r"\]\(([\w./-]+)\)", README + ARCHITECTURE.replace("](", "](docs/")))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / target).exists(), target


def test_ci_does_what_the_readme_says() -> None:
    run = (ROOT / ".ci/run").read_text()
    assert "make --no-print-directory check" in run
    assert "make --no-print-directory test" in run
    assert ".ci/run" in README


def test_privacy_names_every_table_and_the_days_of_the_code() -> None:
    text = (ROOT / "docs/privacy.md").read_text()
    importlib.import_module("storage.models")
    tables = text.partition("| table |")[2].partition("\n\n")[0]
    assert set(SQLModel.metadata.tables) == {
        name for row in tables.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    told = {name: int(days) for name, days in re.findall(r"`retention\.(\w+)` \((\d+) days\)", text)}
    assert told == Retention().model_dump()
