"""The man pages say what the program does: they are made from it, and made anew when it changes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from daemon import options
from daemon.cli import app
from scripts import manuals

MAN = Path(__file__).parents[1] / "man"


@pytest.mark.parametrize("name", manuals.PAGES)
def test_the_pages_are_those_of_this_version(name: str) -> None:
    assert (MAN / name).read_text(encoding="utf-8") == manuals.PAGES[name](), "make man writes them anew"


@pytest.mark.parametrize("name", manuals.PAGES)
@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not here")
def test_groff_has_nothing_to_complain_about(name: str) -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", MAN / name], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


def test_every_command_has_its_paragraph() -> None:
    text = (MAN / "optoutd.1").read_text(encoding="utf-8")
    named = set(re.findall(r"^\.SS \\fB([a-z\\ -]+)\\fR", text, re.MULTILINE))
    group = typer.main.get_command(app)
    wanted = {name.replace("-", "\\-") for name, c in group.commands.items() if not c.hidden}  # type: ignore[attr-defined]  # typer says Command, and it is a group
    assert {name.split()[0] for name in named} == wanted


def test_every_option_says_what_it_is_for() -> None:
    text = (MAN / "optoutd.toml.5").read_text(encoding="utf-8")
    assert re.findall(r"^\.TP\n(.*)\n\\&$", text, re.MULTILINE) == []
    assert text.count("\n.TP\n") >= sum(len(s.model_fields) for s in options.Section.__subclasses__()) - len(
        options.Config.model_fields
    )


@pytest.mark.parametrize(
    ("text", "roff"),
    [
        (".dot", r"\&.dot"),
        ("'quote", r"\&'quote"),
        ("a\n.b", "a\n\\&.b"),
        (r"C:\x", r"C:\ex"),
        ("--json", r"\-\-json"),
        ("“x”", r"\(lqx\(rq"),
    ],
)
def test_text_is_taken_literally(text: str, roff: str) -> None:
    assert manuals.escaped(text) == roff
