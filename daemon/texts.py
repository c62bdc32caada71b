"""Text of somebody else's making, in a place that a person reads; how long something lasted, in words. Pure."""

from __future__ import annotations

from datetime import timedelta


def harmless(text: str) -> str:
    """Hostile mail on a terminal: no control characters, so no escape sequences."""
    return "".join(c if c.isprintable() or c in "\n\t" or "\udc80" <= c <= "\udcff" else "\ufffd" for c in text)


def one_line(text: str) -> str:
    """A text of somebody else's making inside a line of ours."""
    return text if text.isprintable() else repr(text)


def lasted(time: timedelta) -> str:
    """How long that is, in words: `47 minutes`, `3 hours`."""
    seconds = max(0, int(time.total_seconds()))
    for size, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size and (name != "days" or seconds >= 3 * size):
            return f"{seconds // size} {name}"
    return f"{seconds} seconds"
