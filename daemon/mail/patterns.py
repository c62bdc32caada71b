"""The one place where the room's regular expressions are compiled.

`re` holds the interpreter lock while it matches: one backtracking pattern in a mailbox thread would stop the relay.
So no pattern here has nested or adjacent open repeats, and every one is known to `REGISTRY`, from which
tests/mail/test_patterns.py feeds each of them 64 KB of what it likes least.
"""

from __future__ import annotations

import re
from typing import Final

REGISTRY: Final[list[re.Pattern[str]]] = []


def pattern(text: str, *, verbose: bool = False) -> re.Pattern[str]:
    """Compile a pattern that ignores case, and register it for the test of time."""
    compiled = re.compile(text, re.IGNORECASE | (re.VERBOSE if verbose else 0))
    REGISTRY.append(compiled)
    return compiled
