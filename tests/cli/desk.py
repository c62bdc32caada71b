"""A command line to test with: a config and a ledger in a directory of their own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from daemon.cli import invoke
from tests.ledgers import Books, books

ROOT = Path(__file__).parents[2]
CONFIG = """\
[house]
name = "Quill PDF"
domains = ["quillpdf.example"]
addresses = ["support@quillpdf.example"]

[[list]]
id = "newsletter"
list_id = "newsletter.quillpdf.example"

[[list]]
id = "offers"
"""


@dataclass(frozen=True)
class Said:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def facts(self) -> list[dict[str, Any]]:
        """stdout as JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def fact(self) -> dict[str, Any]:
        """stdout as one JSON line."""
        (fact,) = self.facts
        return fact

    @property
    def sentence(self) -> str:
        """stderr, which is one sentence."""
        assert self.out == ""
        (line,) = self.err.splitlines()
        assert line.startswith("optoutd: ")
        return line.removeprefix("optoutd: ")


@dataclass
class Desk:
    """`desk("check", "ann@example.com")` in a directory with optoutd.toml."""

    directory: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, *arguments: str, stdin: bytes = b"") -> Said:
        """In this process: fast."""
        self.monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = invoke(arguments)
        said = self.capsys.readouterr()
        assert "Traceback" not in said.err
        return Said(code, said.out, said.err)

    def process(self, *arguments: str | bytes, stdin: bytes = b"", **environment: str) -> Said:
        """As a process of its own: the real thing."""
        done = subprocess.run(
            [sys.executable, "-m", "daemon", *arguments],
            input=stdin,
            capture_output=True,
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            timeout=60,
        )
        assert b"Traceback" not in done.stderr, done.stderr
        return Said(done.returncode, done.stdout.decode(), done.stderr.decode())

    def books(self) -> Books:
        """The ledger, made if there is none; both lists have their numbers."""
        return books(self.directory)

    def configure(self, config: str) -> None:
        """Another config."""
        path = self.directory / "optoutd.toml"
        path.write_text(config)
        path.chmod(0o600)
