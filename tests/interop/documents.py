"""docs/deploy.md, and the configurations it prints: a fenced block with a name is one that a test starts servers with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

DEPLOY: Final = (Path(__file__).parents[2] / "docs/deploy.md").read_text()
BLOCKS: Final[dict[str, str]] = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", DEPLOY, re.MULTILINE | re.DOTALL))


def filled(name: str, **ports: int) -> str:
    """The block of that name, with `p2525=30123` put in for the printed port 2525; each must be in it."""
    text = BLOCKS[name]
    for printed, real in ports.items():
        text, found = re.subn(rf"(?<![\d.]){printed.removeprefix('p')}(?!\d)", str(real), text)
        assert found, f"{name} does not name port {printed}"
    return text
