"""Who looks from outside whether a wish was heard: at the folder of honoured requests, and at the rows of the database."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from typing import Final

from imapclient import IMAPClient

from tests.chaos.askers import AWAY, Means
from tests.chaos.ledger import Away, Ledger

_NAME: Final = re.compile(rb"X-Chaos: (\S+)")
_OPEN: Final = ("mail", "bounce", "complaint")  # nobody answers these


class Witness(threading.Thread):
    """Looks several times a second; what it sees was done before it looked."""

    def __init__(self, means: Means, ledger: Ledger, looking: threading.Lock):
        super().__init__(name="witness")
        self._means, self._ledger, self._looking = means, ledger, looking

    def run(self) -> None:
        """Until it is over."""
        while not self._means.over.wait(0.25):
            with suppress(Away), self._looking:
                self._look_at_rows()

    def _look_at_rows(self) -> None:
        waiting = {self._ledger.key(p): p for p, way in list(self._means.open.items()) if way in _OPEN}
        if not waiting:
            return
        for key in {row[0] for row in self._ledger.suppressions()} & waiting.keys():
            self._means.heard(waiting[key], "row")


class Filed(threading.Thread):
    """Looks into the folder of honoured requests."""

    def __init__(self, means: Means):
        super().__init__(name="filed")
        self._means = means
        self._next = 1

    def run(self) -> None:
        """Until it is over; through outages."""
        while not self._means.over.is_set():
            with suppress(*AWAY), self._means.stage.box.connect("support") as client:
                while not self._means.over.wait(0.5):
                    self._look(client)
            self._means.over.wait(0.5)

    def _look(self, client: IMAPClient) -> None:
        if not client.folder_exists("Opt-outs"):
            return
        client.select_folder("Opt-outs", readonly=True)
        uids = [u for u in client.search(["UID", f"{self._next}:*"]) if u >= self._next]
        if not uids:
            return
        found = client.fetch(uids, ["BODY.PEEK[HEADER.FIELDS (X-CHAOS)]"])
        for uid, parts in sorted(found.items()):
            name = next((_NAME.search(v) for k, v in parts.items() if k.startswith(b"BODY[")), None)
            person = self._means.written.get(name[1].decode()) if name else None
            if person is not None:
                self._means.heard(person, "filed")
            self._next = uid + 1
