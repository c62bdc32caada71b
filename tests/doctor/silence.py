"""A server that accepts, and says nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.doctor.imap import port_of
from tests.webhooks.receiver import raw


@contextmanager
def silence() -> Iterator[int]:
    """Its port."""
    ended = threading.Event()

    def keep(_: socket.socket) -> None:
        ended.wait(60)

    with raw(keep) as url:
        try:
            yield port_of(url)
        finally:
            ended.set()
