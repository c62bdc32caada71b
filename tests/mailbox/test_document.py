"""docs/mailboxes.md: every configuration that it prints is one, and what it says of failures is what is said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from daemon.config import load
from daemon.mailbox import advising, command, grants
from daemon.mailboxes import tokens_of

TEXT: Final = (Path(__file__).parents[2] / "docs/mailboxes.md").read_text()
BLOCKS: Final = dict(re.findall(r"^```toml (\S+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))


def test_the_document_has_configurations() -> None:
    assert len(BLOCKS) == TEXT.count("```toml") > 8


@pytest.mark.parametrize("name", BLOCKS)
def test_every_configuration_is_one(name: str, tmp_path: Path) -> None:
    block = BLOCKS[name]
    for file in re.findall(r'_file = "([^"]+)"', block):
        (tmp_path / file).write_text("secret")
    path = tmp_path / "optoutd.toml"
    path.write_text(f'[house]\nname = "Quill PDF"\n{block}')
    path.chmod(0o600)
    loaded = load(path)
    (settings,) = loaded.config.mailbox
    source = tokens_of(loaded, settings)
    assert (source is None) == bool(settings.password_file)
    if source is not None:
        assert source.login in block


def test_every_number_of_microsoft_in_the_document_has_advice() -> None:
    numbers = set(re.findall(r"AADSTS(\d+)", TEXT))
    assert len(numbers) > 6
    assert numbers <= advising._MICROSOFT.keys()


def test_the_document_has_the_times_of_the_code() -> None:
    assert f"It has {command.SECONDS:.0f} seconds" in TEXT
    assert f"no answer within {grants.SECONDS:.0f} seconds" in TEXT


def test_links_within_the_page_lead_to_a_heading() -> None:
    anchors = {
        re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    }
    links = re.findall(r"\]\(#([^)]*)\)", TEXT)
    assert links
    assert set(links) <= anchors
