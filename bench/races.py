"""Is anybody mailed whose opt-out was committed before the relay's last question?

    python bench/races.py                       10,000 races with a thread, about half a minute
    python bench/races.py --another-process     the writer is another process
    python bench/races.py --races 100000 --seed 7

The real relay in this process, in front of an upstream that takes everything; six clients at a time, each message with
an opt-out of one of its recipients that is begun at a random moment of the dialogue (tests/relay/races.py). Opt-outs are
of everything, of the list that is sent to (known from the listener, or from the List-Id only), or of another list; to
refuse and in strip mode; messages to one and to several; bodies of one piece and of several. All times are of the
machine's monotonic clock.

No peer: nothing is compared. The table says how the commits fell, and what became of the messages. Bar: no message that
was delivered to somebody whose opt-out was committed before the client's dot, or before the last question began.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import common
from bench.common import Bar
from daemon import events
from tests.relay import races


def main() -> int:
    """Run them, and print how they ended."""
    parser = common.parser(__doc__)
    parser.add_argument("--races", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--another-process", action="store_true", help="commit in another process, not in a thread")
    arguments = parser.parse_args()
    events.configure(level="error")
    with common.place(arguments) as work:
        running = races.run(work / "races", arguments.races, arguments.seed, another_process=arguments.another_process)
        outcome = asyncio.run(running)
    rows = sorted(outcome.table().items())
    common.table(("the commit returned", "the message was", "races"), [(f, b, f"{n:,}") for (f, b), n in rows])
    before, behind = outcome.nearest()
    print(
        f"\n{arguments.races:,} races in {outcome.took:.1f} s, seed {arguments.seed}; the commit nearest to the last"
        f" question returned {before * 1e6:.0f} us before it, and {behind * 1e6:.0f} us after it"
    )
    for why, race in outcome.wrong[:10]:
        print(f"WRONG: {why}: {race}")
    return common.judge([Bar("races that ended wrongly", len(outcome.wrong), 0)], arguments.no_bar)


if __name__ == "__main__":  # another process imports this file again
    sys.exit(main())
