"""`python -m tests.fuzz NAME... [--seconds N] [--seed S]`; without a name: all, one after the other."""

from __future__ import annotations

import argparse
import sys
import time

from tests.fuzz.driving import NAMES, run


def main() -> int:
    """1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Hostile input, made by the thousand.")
    parser.add_argument("name", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)} (default: all)")
    parser.add_argument("--seconds", type=float, default=60, help="for each (default: 60)")
    parser.add_argument("--seed", type=int, default=None, help="the same inputs again (default: others each time)")
    asked = parser.parse_args()
    if unknown := set(asked.name) - set(NAMES):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    seed = int(time.time()) if asked.seed is None else asked.seed
    print(f"seed {seed}", flush=True)
    failures = [run(name, asked.seconds, seed, lambda text: print(text, flush=True)) for name in asked.name or NAMES]
    return int(any(failures))


if __name__ == "__main__":
    sys.exit(main())
