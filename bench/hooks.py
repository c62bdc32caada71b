"""How many changes a second a webhook is told of, by a receiver on this machine that does nothing with them.

    python bench/hooks.py                   5,000 changes
    python bench/hooks.py --changes 20000

What there is to wait for elsewhere (the network, the receiver's own work) comes on top: one change is under way at a time.
"""

from __future__ import annotations

import multiprocessing
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import common
from daemon import events
from daemon.webhooks import Hook, Tellers, keys_in
from storage import hooks, suppressions
from storage.address import parse
from storage.engine import Ledger
from storage.sqlite import open_ledger
from storage.terms import ALL, Reason
from storage.write import write


def _receive(listening: socket.socket) -> None:
    """Say 204 to whatever comes, on one connection after the other."""
    while True:
        connection, _ = listening.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while connection.recv(65536):
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")


def _reached(ledger: Ledger) -> int:
    with ledger.connect() as db:
        place = hooks.place(db, "crm")
    return place.reached if place else -1


def main() -> None:
    """Print the figure."""
    options = common.parser(__doc__)
    options.add_argument("--changes", type=int, default=5_000, help="changes (default 5,000)")
    given = options.parse_args()
    changes: int = given.changes
    events.configure("text", "warning")
    listening = socket.create_server(("127.0.0.1", 0))
    receiver = multiprocessing.Process(target=_receive, args=(listening,), daemon=True)
    receiver.start()
    with common.place(given) as work:
        ledger = open_ledger(work / "optoutd.db", work / "site.key", allow_create=True)
        with write(ledger, datetime.now(UTC), "bench") as w:
            hooks.begin(w, "crm")
            for n in range(changes):
                suppressions.add(w, parse(f"{n}@customer.example"), ALL, Reason.OPT_OUT, "mail", {"words": ["stop"]})
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        hook = Hook("crm", url, keys_in("a secret of more than 24 characters"), frozenset({"opt-out"}))
        tellers = Tellers(ledger, [hook], lambda: datetime.now(UTC))
        began = time.monotonic()
        tellers.start()
        while _reached(ledger) < changes:
            time.sleep(0.01)
        took = time.monotonic() - began
        tellers.stop()
        ledger.close()
    receiver.terminate()
    print(f"{changes:,} changes in {took:.2f} s: {changes / took:,.0f} a second, {took / changes * 1e6:,.0f} us each")


if __name__ == "__main__":
    main()
