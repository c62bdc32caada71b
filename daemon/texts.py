"""Text of somebody else's making, in a place that a person reads. Pure."""

from __future__ import annotations


def harmless(text: str) -> str:
    """Hostile mail on a terminal: no control characters, so no escape sequences."""
    return "".join(c if c.isprintable() or c in "\n\t" or "\udc80" <= c <= "\udcff" else "\ufffd" for c in text)


def one_line(text: str) -> str:
    """A text of somebody else's making inside a line of ours."""
    return text if text.isprintable() else repr(text)
