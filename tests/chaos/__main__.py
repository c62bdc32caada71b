"""make chaos: rounds of the campaign, one after the other, and a report. Exit code 1: something was wrong, 0: nothing."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final, Literal

from tests.chaos.campaign import Plan, Result, add_up, play
from tests.conftest import NEEDS

_ROUND: Final = 300.0  # s, at most
# In this order, again and again: where the list is, and what stands behind us.
_STAGES: Final[tuple[tuple[Literal["sqlite", "postgresql"], Literal["sink", "postfix"]], ...]] = (
    ("sqlite", "sink"),
    ("postgresql", "sink"),
    ("sqlite", "postfix"),
    ("postgresql", "postfix"),
)


def options() -> argparse.Namespace:
    """The command line."""
    made = argparse.ArgumentParser("make chaos ARGS=...", description=__doc__)
    made.add_argument(
        "--minutes", type=float, default=20.0, help="of load and faults, all rounds together (default 20)"
    )
    made.add_argument(
        "--seed", type=int, default=None, help="of the dice; default: another one each time, which is told"
    )
    made.add_argument("--database", choices=("sqlite", "postgresql"), help="only this one; default: both")
    made.add_argument("--upstream", choices=("sink", "postfix"), help="only this one; default: both")
    made.add_argument("--calm", action="store_true", help="load only, no faults")
    made.add_argument(
        "--keep", action="store_true", help="keep the files of every round, not only of those with a violation"
    )
    return made.parse_args()


def plans(given: argparse.Namespace, seed: int) -> list[Plan]:
    """The rounds."""
    seconds = given.minutes * 60
    number = max(1, round(seconds / _ROUND + 0.49))
    chosen = [s for s in _STAGES if given.database in (None, s[0]) and given.upstream in (None, s[1]) and _possible(*s)]
    if not chosen:
        raise SystemExit("nothing of what was asked for can be run here")
    return [Plan(seed + n, seconds / number, *chosen[n % len(chosen)], breaks=not given.calm) for n in range(number)]


def _possible(*parts: str) -> bool:
    """Are its servers here? What is missing is told."""
    for part in ("dovecot", *parts):
        missing = NEEDS.get({"postgresql": "postgres"}.get(part, part), str)()
        if missing:
            print(f"left out: {' before '.join(parts)}: {missing} is missing", file=sys.stderr)
            return False
    return True


class Bar:
    """A line that says how far we are, on a terminal; on anything else a line now and then."""

    def __init__(self, name: str):
        self._name, self._told = name, 0.0

    def __call__(self, part: float, counts: dict[str, int], broken: str) -> None:
        """Told by the round."""
        terminal, now = sys.stderr.isatty(), time.monotonic()
        if now - self._told < (0.4 if terminal else 30):
            return
        self._told = now
        width = 20
        done = int(width * min(part, 1.0))
        text = f"{self._name} [{'#' * done}{'.' * (width - done)}] {counts.get('attempt', 0)} attempts,"
        text += f" {counts.get('acknowledged', 0)} wishes, {counts.get('fault', 0)} faults; {broken}"
        print(f"\r{text[:118]:<118}" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)


def report(results: list[Result], seed: int) -> None:
    """What is printed in the end."""
    print(f"\nseed {seed}, {len(results)} rounds, {sum(r.plan.seconds for r in results) / 60:.1f} minutes")
    for result in results:
        told = result.figures["slowest recovery"]
        print(
            f"  {result.plan.database} before {result.plan.behind}, seed {result.plan.seed}: {told or 'no recovery measured'}"
        )
    for name, value in add_up(results).items():
        print(f"{name:>16}  {_words(value)}")
    for what in sorted({what for r in results for what in r.left_out}):
        print(f"{'not possible here':>16}  {what}")
    wrong = [(r, v) for r in results for v in r.violations]
    print(f"{'violations':>16}  {len(wrong)}")
    for result, violation in wrong[:50]:
        print(f"  {result.directory}: {violation}"[:1000])


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{word} {n}" for word, n in value.items())
    return f"{value:,}"


def main() -> int:
    """Play and report."""
    given = options()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1_000_000)
    results: list[Result] = []
    try:
        for plan in plans(given, seed):
            directory = Path(tempfile.mkdtemp(prefix="ch", dir="/tmp"))
            directory.chmod(0o755)
            print(
                f"round {len(results) + 1}: {plan.database}, {plan.behind}, seed {plan.seed}: {directory}",
                file=sys.stderr,
            )
            results.append(play(plan, directory, Bar(f"round {len(results) + 1}")))
            if not results[-1].violations and not given.keep:
                shutil.rmtree(directory)
    except KeyboardInterrupt:
        print("\nbroken off; what was done so far:", file=sys.stderr)
        return 130
    finally:
        if results:
            report(results, seed)
    return int(any(r.violations for r in results))


if __name__ == "__main__":
    sys.exit(main())
