"""How long is nobody there when the daemon is restarted?

    python bench/restart.py                  a list of 1 M rows, 10 restarts of each kind
    python bench/restart.py --rows 100000 --rounds 3

From SIGTERM to the `READY=1` of the next daemon, idle, over a list of --rows: as systemd does it, which starts the new one
when the old one is gone. Three configs: the relay alone; with the HTTP door; with a mailbox, too (needs Dovecot). Printed:
the median of how long the old one took to end and the new one to come up. Bar: 2 s for the largest of the three, the
longest of its rounds.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import common
from bench.common import Bar, say
from tests.loopback import HOST, free_port
from tests.scenarios.process import Daemon, config
from tests.servers import Dovecot, dovecot, sink

_BAR_SECONDS: Final = 2.0
_MAILBOX: Final = "relay, web, mailbox"


@dataclass
class Kind:
    """Restarts of one config: seconds to end, and to come up."""

    ended: list[float] = field(default_factory=list)
    up: list[float] = field(default_factory=list)

    @property
    def longest(self) -> float:
        """Of the whole."""
        return max(a + b for a, b in zip(self.ended, self.up, strict=True))


def main() -> int:
    """Measure and print; returns the exit code."""
    arguments = common.parser(__doc__)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=10)
    given = arguments.parse_args()
    with common.place(given) as work, sink() as upstream, dovecot() as imap:
        common.seeded(work, given.rows)
        (work / "imap-password").write_text("secret-support\n")
        kinds = {}
        for name, text in _configs(upstream.port, imap).items():
            kinds[name] = _restarted(Daemon(work, text), given.rounds)
            say(f"{name}: done")
    common.table(
        ["parts", "ends in ms", "is up in ms", "both, longest"],
        [[name, _ms(kind.ended), _ms(kind.up), f"{1000 * kind.longest:.0f}"] for name, kind in kinds.items()],
    )
    return common.judge([Bar("SIGTERM to READY", kinds[_MAILBOX].longest, _BAR_SECONDS, "s")], given.no_bar)


def _configs(port: int, imap: Dovecot) -> dict[str, str]:
    web = f'[web]\nlisten = "{HOST}:{free_port()}"\npublic_listen = "{HOST}:{free_port()}"\n'
    return {
        "relay": config(port),
        "relay, web": config(port, more=web),
        _MAILBOX: config(port, imap, more=web),
    }


def _restarted(daemon: Daemon, rounds: int) -> Kind:
    kind = Kind()
    with _silent(daemon):
        for _ in range(rounds):
            began = time.monotonic()
            daemon.stop()
            ended = time.monotonic()
            daemon.start()
            kind.ended.append(ended - began)
            kind.up.append(time.monotonic() - ended)
    return kind


@contextlib.contextmanager
def _silent(daemon: Daemon) -> Iterator[None]:
    """Running, and idle: what it does after its start is done."""
    with daemon.running():
        time.sleep(1)
        yield


def _ms(seconds: list[float]) -> str:
    return f"{1000 * statistics.median(seconds):.0f}"


if __name__ == "__main__":
    sys.exit(main())
