"""How long does it take to understand a message?

    python bench/read.py                        the corpora in tests/, and the third-party ones if they stand beside
    python bench/read.py --hostile DIR          and what is in DIR, one process a message: time and memory

Measured: `triage.read(raw, house)` of every message, on one core; a message's time is the median of its rounds. Peer, in
the same run, the rounds taking turns: what the standard library needs merely to parse the same octets
(`email.message_from_bytes`) and decode their text parts, with nothing understood.

Bars: median at most 3 ms, p99 at most 20 ms; a hostile message at most 2 s and 150 MB.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from email import message_from_bytes
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import common
from bench.common import Bar, percentile, say
from daemon.mail import triage
from training.house import HOUSE

_THIRD_PARTY: Final = (
    Path(os.environ.get("OPTOUTD_CORPUS", common.CHECKOUT.parent / "shared" / "corpus")) / "third-party"
)


def messages() -> list[bytes]:
    """Every message of the corpora."""
    places = sorted((common.CHECKOUT / "tests" / "corpus").rglob("*.eml"))
    if _THIRD_PARTY.is_dir():
        places += sorted(p for kind in ("sisimai", "flufl.bounce") for p in (_THIRD_PARTY / kind / "mail").iterdir())
    return [path.read_bytes() for path in places]


def standard_library(raw: bytes) -> int:
    """Parse and decode, and no more."""
    size = 0
    for part in message_from_bytes(raw).walk():
        if part.get_content_maintype() == "text":
            octets = part.get_payload(decode=True)
            assert isinstance(octets, bytes)
            size += len(octets.decode("utf-8", "replace"))
    return size


def timed(raws: list[bytes], rounds: int) -> tuple[list[float], list[float]]:
    """(our milliseconds, the library's) of each message: the median of its rounds."""
    ours: list[list[float]] = [[] for _ in raws]
    theirs: list[list[float]] = [[] for _ in raws]
    triage.read(raws[0], HOUSE)  # phrases and weights are read on first use
    for n in range(rounds):
        for raw, mine, other in zip(raws, ours, theirs, strict=True):
            began = time.perf_counter()
            triage.read(raw, HOUSE)
            between = time.perf_counter()
            standard_library(raw)
            ended = time.perf_counter()
            mine.append(1000 * (between - began))
            other.append(1000 * (ended - between))
        say(f"round {n + 1}: median {statistics.median(m[-1] for m in ours):.2f} ms")
    return [statistics.median(m) for m in ours], [statistics.median(m) for m in theirs]


def alone(path: Path) -> tuple[float, float]:
    """(seconds, MB) of a process of its own that reads one message; what starting it takes is left out of the seconds."""
    program = "import sys; from bench.read import one; one(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], cwd=common.CHECKOUT, capture_output=True, text=True, check=True
    )
    seconds, megabytes = done.stdout.split()
    return float(seconds), float(megabytes)


def one(name: str) -> None:
    """In the process of `alone`: read it and say what that took."""
    raw = Path(name).read_bytes()[: 1 << 20]  # what the watcher fetches of it
    triage.read(b"Subject: x\n\nx", HOUSE)
    began = time.perf_counter()
    triage.read(raw, HOUSE)
    print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def hostile(directory: Path) -> list[Bar]:
    """Time and memory of each message in a directory."""
    rows, bars = [], []
    for path in sorted(directory.rglob("*.eml")):
        seconds, megabytes = alone(path)
        rows.append([path.name, f"{path.stat().st_size:,}", f"{seconds:.2f}", f"{megabytes:.0f}"])
        bars += [Bar(f"{path.name}: time", seconds, 2, "s"), Bar(f"{path.name}: memory", megabytes, 150, "MB")]
    common.table(["hostile message", "octets", "s", "MB"], rows)
    return bars


def main() -> int:
    """Run it."""
    options = common.parser(__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--hostile", type=Path, metavar="DIR")
    given = options.parse_args()
    raws = messages()
    ours, theirs = timed(raws, given.rounds)
    print(f"\n{len(raws)} messages, {sum(map(len, raws)) / len(raws) / 1024:.1f} KB on average\n")
    common.table(
        ["ms", "p50", "p90", "p99", "most"],
        [
            [name, *(f"{percentile(took, p):.2f}" for p in (0.5, 0.9, 0.99)), f"{max(took):.1f}"]
            for name, took in (("triage.read", ours), ("standard library, parsing only", theirs))
        ],
    )
    print(
        f"\nratio of the medians: {percentile(ours, 0.5) / percentile(theirs, 0.5):.1f}; of the sums: {sum(ours) / sum(theirs):.1f}"
    )
    bars = [Bar("median", percentile(ours, 0.5), 3, "ms"), Bar("p99", percentile(ours, 0.99), 20, "ms")]
    return common.judge(bars + (hostile(given.hostile) if given.hostile else []), given.no_bar)


if __name__ == "__main__":
    sys.exit(main())
