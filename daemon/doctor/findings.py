"""What a probe works with, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from daemon.config import Config, Loaded
from daemon.log import masked, without_addresses

State = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the doctor's. `part`: what it is about, such as `imap support`; `advice`: what to do; "" if all is well.

    No secret and nobody's address is in it, but for the house's own addresses.
    """

    part: str
    state: State
    text: str
    advice: str = ""


@dataclass(frozen=True)
class House:
    """What all probes know. `running`: has a daemon this database now? None: that cannot be told from here.

    `traces`: may something be left behind, as `--probe` allows?
    """

    loaded: Loaded
    now: datetime
    running: bool | None
    traces: bool = False

    @cached_property
    def known(self) -> frozenset[str]:
        """Addresses that stand in the config, in small letters: they may be read."""
        return frozenset(text.lower() for text in _texts(self.loaded.config.model_dump()) if "@" in text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


@dataclass
class Step:
    """What a probe tries just now, for whoever waits: of which part, and what."""

    part: str
    doing: str = ""


@dataclass(frozen=True)
class Look:
    """One probe's look at its part of the house."""

    house: House
    part: str
    at: Step

    @property
    def loaded(self) -> Loaded:
        """The config, and where it was read."""
        return self.house.loaded

    @property
    def config(self) -> Config:
        """The config."""
        return self.house.loaded.config

    def of(self, part: str) -> Look:
        """The same look at another part."""
        return replace(self, part=part)

    def step(self, doing: str) -> None:
        """Tell what is tried from now on: if it comes to no end, this is what is named."""
        self.at.part, self.at.doing = self.part, doing

    def ok(self, text: str) -> Finding:
        """All is well."""
        return self._finding("ok", text, "")

    def warn(self, text: str, advice: str) -> Finding:
        """It works, and somebody should look at it some day."""
        return self._finding("warn", text, advice)

    def fail(self, text: str, advice: str) -> Finding:
        """It does not work."""
        return self._finding("FAIL", text, advice)

    def said(self, what: object) -> str:
        """A text of somebody else's making (a server's, the system's), to be put into one of ours."""
        return masked(what, self.house.known)

    def _finding(self, state: State, text: str, advice: str) -> Finding:
        plain = (without_addresses(" ".join(words.split()), self.house.known) for words in (text, advice))
        return Finding(self.part, state, *plain)


Probe = Callable[[Look], Iterator[Finding]]


def count(number: int, thing: str) -> str:
    """`1 message`, `1,204 messages`."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def size(octets: float) -> str:
    """`740 KB`, `12 GB`."""
    for unit in ("octets", "KB", "MB", "GB"):
        if octets < 1000 or unit == "GB":
            break
        octets /= 1000
    return f"{octets:,.0f} {unit}"
