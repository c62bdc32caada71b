"""Runs of a target: many inputs, each failure made short and kept as a seed.

A target is a module of tests/fuzz/targets: `BASES` (inputs as they should be), `WORDS` (what they are made of), and
`ready()`, a context manager that gives `one(octets)`: it raises whatever is wrong with the answer to these octets.
Every input is octets, so that all can be made shorter in the same way and lie in a file each.
"""

from __future__ import annotations

import hashlib
import importlib
import random
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Protocol, cast

from tests.fuzz.mutating import mutated

SEEDS: Final = Path(__file__).with_name("seeds")
NAMES: Final = tuple(sorted(p.stem for p in Path(__file__).with_name("targets").glob("[a-z]*.py")))
LONGEST: Final = 32_768  # octets of an input
HUNG: Final = 20.0  # seconds for one input: far more than a loaded machine needs
_SHORTER_SECONDS: Final = 30.0
One = Callable[[bytes], None]


class Hung(Exception):
    """An input that nobody should take so long over."""


class Target(Protocol):
    """A module of tests/fuzz/targets."""

    BASES: Sequence[bytes]
    WORDS: Sequence[bytes]

    def ready(self) -> AbstractContextManager[One]:
        """What one input is given to."""


def target(name: str) -> Target:
    """By its name."""
    return cast(Target, importlib.import_module(f"tests.fuzz.targets.{name}"))


def seeds(name: str) -> list[Path]:
    """What once broke something, or nearly did."""
    return sorted((SEEDS / name).glob("[0-9a-f]*"))


def inputs(name: str, seed: int) -> Iterator[bytes]:
    """The bases, and then what is made of them and of the seeds, without end. The same for the same seed."""
    of, chance = target(name), random.Random(f"{name} {seed}")
    yield from of.BASES
    bases = [*of.BASES, *(path.read_bytes() for path in seeds(name))]
    while True:
        yield mutated(chance, bases, of.WORDS, LONGEST)


def failure(one: One, octets: bytes) -> BaseException | None:
    """What comes of one input; None: all is as it should be."""
    began = time.monotonic()
    try:
        one(octets)
    except Exception as why:  # noqa: BLE001 - any exception at all is what is looked for
        return why
    took = time.monotonic() - began
    return None if took < HUNG else Hung(f"{took:.1f} s")


def shortened(one: One, octets: bytes, like: str) -> bytes:
    """As few octets as still fail in the same place, within half a minute."""
    end, size = time.monotonic() + _SHORTER_SECONDS, max(1, len(octets) // 2)
    while time.monotonic() < end:
        at, before = 0, len(octets)
        while at < len(octets) and time.monotonic() < end:
            fewer = octets[:at] + octets[at + size :]
            why = failure(one, fewer)
            if why is not None and place(why) == like:
                octets = fewer
            else:
                at += size
        if size == 1 and len(octets) == before:
            break
        size = max(1, size // 2)
    return octets


def place(why: BaseException) -> str:
    """Which failure it is: its type, and the last line of ours that it came through."""
    if isinstance(why, Hung):
        return "hung"
    frames = [f for f in traceback.extract_tb(why.__traceback__) if "/fuzz/driving" not in f.filename]
    ours = [f for f in frames if "/daemon/" in f.filename or "/storage/" in f.filename] or frames
    return f"{type(why).__name__} {Path(ours[-1].filename).name}:{ours[-1].lineno}"


def keep(name: str, octets: bytes) -> Path:
    """Put an input among the seeds."""
    path = SEEDS / name / hashlib.sha256(octets).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(octets)
    return path


def run(name: str, seconds: float, seed: int, say: Callable[[str], object]) -> int:
    """Fuzz for so long; returns how many different failures there were. Each is told, made short, and kept."""
    found: set[str] = set()
    began, count, slowest = time.monotonic(), 0, 0.0
    with target(name).ready() as one:
        for octets in inputs(name, seed):
            at = time.monotonic()
            if at - began > seconds:
                break
            why = failure(one, octets)
            count, slowest = count + 1, max(slowest, time.monotonic() - at)
            if why is None or place(why) in found:
                continue
            found.add(place(why))
            short = shortened(one, octets, place(why))
            say(f"{name}: {place(why)}: {why}\n  {short[:300]!r}\n  kept as {keep(name, short)}")
            say("".join(traceback.format_exception(why)[-6:]))
    say(
        f"{name}: {count} inputs in {time.monotonic() - began:.0f} s, the slowest {slowest:.2f} s, {len(found)} failures"
    )
    return len(found)
