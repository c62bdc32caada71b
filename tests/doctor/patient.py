"""A house to be examined: a config with whatever a test wants to be wrong, and what the doctor finds in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from daemon.config import load
from daemon.doctor import Finding, examine
from daemon.doctor.findings import Probe
from daemon.doctor.rounds import probes_of
from tests.ledgers import Books, books

HOUSE = """
[house]
name = "Quill PDF"
domains = ["quillpdf.example"]
addresses = ["support@quillpdf.example"]
"""


@dataclass
class Patient:
    """`found("upstream", UPSTREAM)`: what the probes of that part find."""

    directory: Path
    monkeypatch: pytest.MonkeyPatch
    house: str = HOUSE
    files: list[Path] = field(default_factory=list)

    def file(self, name: str, text: str, mode: int = 0o600) -> Path:
        """A file beside the config."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def books(self) -> Books:
        """The ledger, made if there is none."""
        return books(self.directory)

    def found(self, part: str, more: str = "", *, seconds: float = 30, **options: Any) -> list[Finding]:
        """What the probes of one part (or of all that begin with it) find under this config."""
        loaded = load(self.file("optoutd.toml", self.house + more))
        probes = [(name, probe) for name, probe in probes_of(loaded) if name.startswith(part)]
        assert probes, part
        return list(examine(loaded, probes=probes, seconds=seconds, **options))

    def told(self, part: str, more: str = "", **options: Any) -> list[str]:
        """The same as lines: `STATE PART: TEXT -> ADVICE`."""
        return [line(finding) for finding in self.found(part, more, **options)]

    def probed(self, probe: Callable[..., Iterator[Finding]], **options: Any) -> list[Finding]:
        """What this one probe finds."""
        loaded = load(self.file("optoutd.toml", self.house))
        named: list[tuple[str, Probe]] = [("test", probe)]
        return list(examine(loaded, probes=named, **options))


def line(finding: Finding) -> str:
    """One line of it; every FAIL and every warning says what to do."""
    assert bool(finding.advice) == (finding.state != "ok"), finding
    return f"{finding.state} {finding.part}: {finding.text} -> {finding.advice}".removesuffix(" -> ")


def failures(lines: list[str]) -> list[str]:
    """Those that say FAIL."""
    return [x for x in lines if x.startswith("FAIL")]
