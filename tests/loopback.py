"""What the servers of the tests share: their host, free ports, and the error when one does not do its part."""

from __future__ import annotations

import contextlib
import random
import socket
from typing import Final

HOST: Final = "127.0.0.1"


class ServerError(Exception):
    """A server did not start, did not stop, or did not do what was waited for; the text ends with its log."""


def free_port() -> int:
    """A loopback port nobody uses. Below the ephemeral range, so that no outgoing connection takes it while its
    server is stopped and about to come back."""
    for port in random.sample(range(20_000, 32_000), 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise ServerError("no free loopback port between 20000 and 32000")
