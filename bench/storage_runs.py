"""What the measures of storage.py share: commands that are run and timed, and the table of what they took."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import common
from bench.common import CHECKOUT, percentile

_CONFIG: Final = """\
[house]
name = "Bench"
domains = ["quillpdf.example"]
addresses = ["support@quillpdf.example"]
[storage]
"""
# A process begins with the memory of who started it, as far as its peak goes: so a small one does. It writes its figures last.
_WATCH: Final = """
import os, sys, time
began = time.perf_counter()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
took = time.perf_counter() - began
print(f"\\n{took} {usage.ru_maxrss} {os.waitstatus_to_exitcode(status)}", end="")
"""


@dataclass(frozen=True)
class Took:
    """A run of a command: seconds, and the most memory that one of its processes had (MB)."""

    seconds: float
    memory: float


def timed(command: Sequence[str]) -> Took:
    """Run it to its end; raises SystemExit with what it said when it fails."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    watched = [sys.executable, "-I", "-S", "-c", _WATCH, *command]
    said = subprocess.run(watched, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment).stdout.decode(
        errors="replace"
    )
    output, _, figures = said.rpartition("\n")
    try:
        seconds, kilobytes, code = figures.split()
    except ValueError:
        raise SystemExit(f"{' '.join(command)}:\n{said}") from None
    if int(code):
        raise SystemExit(f"{' '.join(command)}: {code}\n{output}")
    return Took(float(seconds), int(kilobytes) / 1024)


def config(path: Path, **storage: str | bool) -> Path:
    """A config file with these values in [storage]."""
    words = {k: str(v).lower() if isinstance(v, bool) else f'"{v}"' for k, v in storage.items()}
    path.write_text(_CONFIG + "".join(f"{k} = {v}\n" for k, v in words.items()))
    path.chmod(0o600)
    return path


def ours(config: Path, *arguments: str) -> list[str]:
    """Our command line."""
    return [sys.executable, "-m", "daemon", "-c", str(config), *arguments]


@dataclass
class Runs:
    """What each contestant took, round by round. `names`: what the table calls them; the first is the one to compare with."""

    names: Mapping[str, str]
    took: dict[str, list[Took]] = field(default_factory=dict)

    def add(self, name: str, took: Took) -> None:
        """Another round of one of them."""
        self.took.setdefault(name, []).append(took)

    def seconds(self, name: str) -> float:
        """The median of its rounds."""
        return self._middle(name, lambda took: took.seconds)

    def memory(self, name: str) -> float:
        """The median of its rounds (MB)."""
        return self._middle(name, lambda took: took.memory)

    def times(self, name: str, other: str) -> float:
        """How many times as long as the other it took: the median of the rounds."""
        return percentile([a.seconds / b.seconds for a, b in zip(self.took[name], self.took[other], strict=True)], 0.5)

    def say(self, number: int, of: int) -> None:
        """Tell of the last round."""
        last = (f"{name} {took[-1].seconds:.2f} s" for name, took in self.took.items())
        common.say(f"round {number} of {of}: {', '.join(last)}")

    def table(self, head: str, rows: int) -> None:
        """Print what was found. `rows`: how many went through in each run."""
        first = next(iter(self.names))
        common.table(
            [head, "seconds", "rows/s", "of the first's", "MB"],
            [
                [
                    text,
                    f"{self.seconds(name):.2f}",
                    f"{rows / self.seconds(name):,.0f}",
                    f"{self.times(first, name):.2f}",
                    f"{self.memory(name):.0f}",
                ]
                for name, text in self.names.items()
                if name in self.took
            ],
        )

    def _middle(self, name: str, of: Callable[[Took], float]) -> float:
        return percentile([of(took) for took in self.took[name]], 0.5)
