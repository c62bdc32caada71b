"""docs/deploy.md prints nothing that is not there, and no configuration that was not tried."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from daemon import options
from tests.interop.documents import BLOCKS, DEPLOY

FENCED = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", DEPLOY, re.MULTILINE | re.DOTALL)
SECTIONS = re.split(r"^## ", DEPLOY, flags=re.MULTILINE)


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections an option's type is made of: `tuple[Mailbox, ...]` and `Upstream | None` have one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models(part)


def paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every option below a section, as `relay.mode`."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for inner in models(field.annotation):
            yield from paths(inner, f"{prefix}{name}.")


def given(table: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Every option that a TOML file gives."""
    for name, value in table.items():
        inner = [x for x in (value if isinstance(value, list) else [value]) if isinstance(x, dict)]
        if not inner:
            yield prefix + name
        for one in inner:
            yield from given(one, f"{prefix}{name}.")


KNOWN = set(paths(options.Config))
NAMED = [(f"`{name}`", name) for name in re.findall(r"`\[*((?:relay|upstream|house|mailbox)\.[a-z_]+)\]*`", DEPLOY)]
PRINTED = [
    (block or "unnamed", path) for lang, block, text in FENCED if lang == "toml" for path in given(tomllib.loads(text))
]


@pytest.mark.parametrize(("where", "path"), [*NAMED, *PRINTED])
def test_every_option_exists(where: str, path: str) -> None:
    assert path in KNOWN, (where, path)


def test_options_are_found_in_the_document() -> None:
    """Or the test above would hold of nothing."""
    assert {"upstream.host", "relay.listen", "relay.credential.username"} <= {path for _, path in PRINTED}
    assert {"upstream.connections", "relay.mode"} <= {path for _, path in NAMED}


@pytest.mark.parametrize("name", BLOCKS)
def test_every_named_block_is_tried(name: str) -> None:
    here = Path(__file__).parent
    tests = "".join(file.read_text() for file in here.glob("test_*.py") if file != Path(__file__))
    assert f'"{name}"' in tests


def test_a_block_without_a_name_stands_where_nothing_was_tried() -> None:
    for language, name, text in FENCED:
        section = next(s for s in SECTIONS if text in s)
        assert name or "**Not tested here**" in section, (language, text)


def test_links_within_the_page_lead_to_a_heading() -> None:
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", DEPLOY, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]*)\)", DEPLOY)
    assert links
    assert set(links) <= anchors
