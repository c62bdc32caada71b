"""The documents say what is there."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from sqlmodel import SQLModel

import daemon
from daemon.cli import app
from daemon.config import Retention
from daemon.mail.rules import RULES
from tests.fuzz.driving import NAMES

ROOT = Path(__file__).parents[1]
ARCHITECTURE = (ROOT / "docs/ARCHITECTURE.md").read_text()
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


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


def _commands(text: str) -> Iterator[str]:
    """What a reader would type: in backticks, or a line of a block; without prompt, sudo, comment and continuation."""
    for line in re.findall(r"`(?:sudo )?optoutd ([^`]*)`", text) + re.findall(
        r"^(?: {3,}(?:\$ )?|\$ )(?:sudo (?:-u optoutd )?)?optoutd ([^#|>\n]*)", text, re.MULTILINE
    ):
        yield re.split(r" [|>&;]|\s#", line)[0]


def _wrong(line: str) -> str:
    """What of a command line does not exist; "" if all does."""
    command: Any = typer.main.get_command(app)
    words, options = line.split(), set[str]()
    while words and getattr(command, "commands", None):
        if words[0] not in command.commands:
            return "" if not re.fullmatch(r"[a-z-]+", words[0]) else f"{words[0]}: no such command"
        command = command.commands[words.pop(0)]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.partition("=")[0].strip("[](),.") for word in words if re.match(r"\[?--?[a-z]", word)}
    return ", ".join(sorted(given - options - {"--help"}))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_pages_name_only_commands_and_options_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert {line: wrong for line in _commands(text) if (wrong := _wrong(line))} == {}


def test_a_command_that_does_not_exist_is_found() -> None:
    assert list(_commands("`optoutd frob` and\n\n    $ optoutd lift --cause x --now\n")) == [
        "frob",
        "lift --cause x --now",
    ]
    assert _wrong("frob") == "frob: no such command"
    assert _wrong("lift --cause x --now") == "--now"
    assert _wrong("review accept 5 --note x") == ""


def test_the_changelog_knows_this_version() -> None:
    assert f"[{daemon.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([\w./-]+)(?:#[\w-]*)?\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def _slug(heading: str) -> str:
    """What a heading can be linked by."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_a_heading_that_is_there(page: Path) -> None:
    wrong = []
    for target, anchor in re.findall(r"\]\(([\w./-]*\.md|)#([\w-]+)\)", page.read_text(encoding="utf-8")):
        text = (page.parent / target if target else page).read_text(encoding="utf-8")
        if anchor not in map(_slug, re.findall(r"^#+ (.*)$", text, re.MULTILINE)):
            wrong.append(f"{target}#{anchor}")
    assert wrong == []


def test_the_index_names_every_page() -> None:
    named = set(re.findall(r"\]\(([a-z-]+\.md)\)", (ROOT / "docs/README.md").read_text(), re.IGNORECASE))
    assert named == {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}


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
