"""A long list is read and hashed in a process of its own, while this one writes: half of the work each.

What goes over the pipe is packed: a row costs 16 octets and no object of its own.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from daemon.exchange.portions import Portion
from storage.address import KEY_OCTETS
from storage.bulk import Batch


@contextmanager
def read_ahead(portions: Iterator[Portion]) -> Iterator[Iterator[Portion]]:
    """The same portions, made by another process. What goes wrong there is raised here."""
    fork = get_context("fork")  # the list is open and understood, and nothing of it has to be told again
    ours, theirs = fork.Pipe(duplex=False)
    child = fork.Process(target=_send_all, args=(ours, theirs, portions), daemon=True)
    child.start()
    theirs.close()
    try:
        yield _received(ours)
    finally:
        ours.close()
        child.kill()
        child.join()


def _send_all(ours: Connection, theirs: Connection, portions: Iterator[Portion]) -> None:
    """The other process. It ends when nobody reads any more: its parent may be killed at any time."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the parent knows what to do
    gc.disable()  # rows by the hundred thousand, none of them in a circle: looking for one is 2 of 5 us a row
    ours.close()
    try:
        try:
            for portion in portions:
                theirs.send(_packed(portion))
                del portion  # before the next one is made
            theirs.send(None)
        except OSError as why:
            theirs.send(OSError(why.errno, why.strerror, why.filename))
    except BrokenPipeError:
        os._exit(0)


def _received(pipe: Connection) -> Iterator[Portion]:
    while True:
        try:
            found = pipe.recv()
        except EOFError:
            raise RuntimeError("the process that read the list has died") from None
        if found is None:
            return
        if isinstance(found, OSError):
            raise found
        portion = _unpacked(*found)
        del found
        yield portion
        del portion


def _packed(portion: Portion) -> tuple[Any, ...]:
    """As a few values."""
    batch = portion.batch
    rests: Any = [row[1:] for row in batch.rows]
    if rests and all(rest == rests[0] for rest in rests):
        rests = rests[0]
    keys = [row[0] for row in batch.rows]
    addresses = [batch.addresses.get(key) for key in keys] if batch.addresses else None
    others = portion.rows, portion.skipped, portion.bad, portion.owners, portion.kinds, portion.first, portion.last
    return b"".join(keys), rests, addresses, batch.older, batch.elsewhere, others


def _unpacked(
    octets: bytes,
    rests: Any,
    addresses: list[str | None] | None,
    older: dict[bytes, list[bytes]],
    elsewhere: dict[bytes, list[bytes]],
    others: Any,
) -> Portion:
    keys = [octets[n : n + KEY_OCTETS] for n in range(0, len(octets), KEY_OCTETS)]
    if isinstance(rests, tuple):
        scope, reason, since = rests
        rows = [(key, scope, reason, since) for key in keys]
    else:
        rows = [(key, *rest) for key, rest in zip(keys, rests, strict=True)]
    named = {key: text for key, text in zip(keys, addresses or (), strict=False) if text is not None}
    return Portion(Batch(rows, named, older, elsewhere), *others)
