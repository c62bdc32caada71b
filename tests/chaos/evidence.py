"""What there is to see when all is quiet: the mailbox, the tables, the record; written down so that it can be judged later."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.chaos.history import Posted
from tests.chaos.ledger import Ledger
from tests.servers import Dovecot

_NAME: Final = re.compile(rb"^X-Chaos: (\S+)\r$", re.MULTILINE)
_AT_ONCE: Final = 200


@dataclass(frozen=True, slots=True)
class Lying:
    """A mail in the mailbox. `tail`: of its last octets, as many as were posted."""

    folder: str
    uid: int
    name: str
    flags: tuple[str, ...]
    tail: str
    whole: bool  # is it no longer than what was posted?


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of it. Keys are in hex."""

    keys: dict[str, str]  # of the people
    rows: tuple[tuple[str, str, int], ...]  # suppression: key, scope, reason
    unexplained: int  # of them, whose evidence is not there
    events: tuple[tuple[str, str, int], ...]  # audit: event, key, how often
    read: tuple[tuple[str, int, str, str], ...]  # incoming: folder, uid, state, label
    mails: tuple[Lying, ...]
    verified: tuple[int, str]  # what `audit verify` said
    up: bool  # did the daemon run, and answer?

    def save(self, path: Path) -> None:
        """Write it down."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Evidence:
        """Read what `save` wrote."""
        told = json.loads(path.read_text())
        told["mails"] = tuple(Lying(**(m | {"flags": tuple(m["flags"])})) for m in told["mails"])
        for name in ("rows", "events", "read"):
            told[name] = tuple(tuple(row) for row in told[name])
        return cls(**(told | {"verified": tuple(told["verified"])}))


def lying(box: Dovecot, posted: dict[str, Posted]) -> tuple[Lying, ...]:
    """Every mail in every folder."""
    found = []
    with box.connect("support") as client:
        for _, _, folder in client.list_folders():
            client.select_folder(folder, readonly=True)
            uids = client.search()
            for first in range(0, len(uids), _AT_ONCE):
                for uid, parts in client.fetch(uids[first : first + _AT_ONCE], ["FLAGS", "BODY.PEEK[]"]).items():
                    found.append(_look_at(str(folder), uid, parts[b"FLAGS"], parts[b"BODY[]"], posted))
    return tuple(found)


def _look_at(folder: str, uid: int, flags: tuple[bytes, ...], raw: bytes, posted: dict[str, Posted]) -> Lying:
    found = _NAME.search(raw)
    name = found[1].decode() if found else ""
    octets = posted[name].octets if name in posted else len(raw)
    told = tuple(sorted(f.decode() for f in flags if f != rb"\Recent"))
    return Lying(folder, uid, name, told, hashlib.sha256(raw[-octets:]).hexdigest(), len(raw) == octets)


def collect(
    ledger: Ledger,
    people: list[str],
    box: Dovecot,
    posted: dict[str, Posted],
    verified: subprocess.CompletedProcess[str],
    *,
    up: bool,
) -> Evidence:
    """Look at everything. Raises ledger.Away."""
    unexplained = ledger.ask(
        "SELECT count(*) FROM suppression s LEFT JOIN evidence e ON e.id = s.evidence WHERE e.detail IS NULL"
    )[0][0]
    events = ledger.ask("SELECT event, key, count(*) FROM audit WHERE key IS NOT NULL GROUP BY event, key")
    return Evidence(
        keys={person: ledger.key(person).hex() for person in people},
        rows=tuple((key.hex(), scope, reason) for key, scope, reason in ledger.suppressions()),
        unexplained=unexplained,
        events=tuple((event, bytes(key).hex(), number) for event, key, number in events),
        read=tuple((f, u, s, i) for f, u, s, i in ledger.ask("SELECT folder, uid, state, label FROM incoming")),
        mails=lying(box, posted),
        verified=(verified.returncode, verified.stdout + verified.stderr),
        up=up,
    )
