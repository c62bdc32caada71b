"""What the servers of the tests share: their host, free ports, and the error when one does not do its part."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
from typing import Final

HOST: Final = "127.0.0.1"


class ServerError(Exception):
    """A server did not start, did not stop, or did not do what was waited for; the text ends with its log."""


# Below the ephemeral range, so that no outgoing connection takes the port of a server that is stopped and about to come
# back. In no order, for other runs on this machine; each worker of pytest-xdist has its own.
_RANGE = range(
    20_000 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")),
    32_000,
    int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")),
)
_ports = itertools.cycle(random.Random().sample(_RANGE, len(_RANGE)))


def free_port() -> int:
    """A loopback port nobody uses, and that was not given to anybody before (who may have stopped his server, and will
    start it again), unless all have been."""
    for port in itertools.islice(_ports, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise ServerError("no free loopback port between 20000 and 32000")
