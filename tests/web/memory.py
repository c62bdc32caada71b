"""How much memory a long list takes on its way through the door: run by a test, in a process of its own.

    python -m tests.web.memory DIRECTORY MEGABYTES

A list of a megabyte goes first, so that everything is loaded; then the long one, counted and imported. Prints megabytes of
resident memory as JSON: before, when it had arrived, and at most.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.ledgers import books
from tests.loopback import HOST
from tests.web.sending import multipart
from tests.web.support import Answer, Door, door, whole
from tests.web.visitor import Visitor

_AT_ONCE = 1000


def resident() -> float:
    """Megabytes."""
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def lines(megabytes: int) -> Iterator[bytes]:
    """A list, a thousand rows at a time, with a column that is none of ours, as lists have them."""
    yield b"email,note\n"
    note = b"called twice; " * 14
    for start in range(0, megabytes * (1 << 20) // 238, _AT_ONCE):
        rows = ((b"person-%08d@customer-%04d.example" % (n, n % 5000)) for n in range(start, start + _AT_ONCE))
        yield b"".join(b"%b,%b\n" % (row, note) for row in rows)


def bring(web: Door, visitor: Visitor, megabytes: int) -> str:
    """Send it as the form does, never all of it in memory; returns where it has its page."""
    content_type, body = multipart({"csrf_token": visitor.csrf_token}, "big.csv", b"@@@")
    before, behind = body.split(b"@@@")
    head = [
        "POST /console/imports HTTP/1.1",
        "Host: mail.quillpdf.example",
        "Connection: close",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(before) + sum(map(len, lines(megabytes))) + len(behind)}",
        "Cookie: " + "; ".join(f"{name}={value}" for name, value in visitor.cookies.items()),
    ]
    with socket.create_connection((HOST, web.port)) as client:
        client.sendall("\r\n".join([*head, "", ""]).encode() + before)
        for piece in lines(megabytes):
            client.sendall(piece)
        client.sendall(behind)
        found = re.search(r"location: (\S+)", client.recv(65536).decode())
    assert found
    return found[1]


def settled(visitor: Visitor, path: str) -> tuple[Answer, float]:
    """The page when nothing is under way any more, and the most memory until then."""
    most = 0.0
    while True:
        page = visitor.get(path)
        most = max(most, resident())
        if "refresh" not in page.headers:
            return page, most
        time.sleep(0.1)


def measured(web: Door, megabytes: int) -> dict[str, object]:
    """Bring both."""
    visitor = Visitor(web)
    visitor.get("/console/imports")
    path = bring(web, visitor, 1)
    settled(visitor, path)
    visitor.post(path, decision="import")
    settled(visitor, path)
    visitor.get("/console/imports")
    first = resident()
    path = bring(web, visitor, megabytes)
    arrived = resident()
    _, counted = settled(visitor, path)
    visitor.post(path, decision="import")
    page, imported = settled(visitor, path)
    return {
        "first": first,
        "arrived": arrived,
        "counted": counted,
        "most": max(arrived, counted, imported),
        "done": "Done" in page.body,
    }


def main() -> None:
    """As the module says."""
    it = books(Path(sys.argv[1]))
    with door(it, whole(it, max_upload=1 << 31)) as web:
        print(json.dumps(measured(web, int(sys.argv[2]))))
    it.ledger.close()


if __name__ == "__main__":
    main()
