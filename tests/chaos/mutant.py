"""Daemons that break a promise each: what the judge must find.

python -m tests.chaos.mutant NAME[,NAME...] -c FILE run
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final
from unittest import mock

from daemon.__main__ import main
from daemon.gate import Gate
from daemon.mailbox.session import Session
from daemon.mailbox.watcher import Watcher
from daemon.relay.transaction import Transaction
from daemon.web import oneclick


def _put(where: object, name: str, what: Callable[..., object]) -> None:
    mock.patch.object(where, name, what).start()


def _passes_everybody() -> None:
    def judged(*_: Any) -> None:
        return None

    _put(Gate, "_judged", judged)


def _answers_without_a_commit() -> None:
    def record(*_: Any, **__: Any) -> str:
        return ""

    _put(oneclick, "record", record)


def _says_yes_for_the_upstream() -> None:
    """What it puts off was taken, it says."""
    finish = Transaction.finish

    async def says(self: Transaction) -> str:
        reply = await finish(self)
        return "250 2.0.0 ok" if reply.startswith("4") else reply

    _put(Transaction, "finish", says)


def _marks_what_it_reads() -> None:
    fetch = Session.fetch

    def marking(self: Session, uid: int) -> Any:
        self._client.add_flags([uid], ["\\Flagged"])
        return fetch(self, uid)

    _put(Session, "fetch", marking)


def _forgets_what_it_reads() -> None:
    def nothing(*_: Any) -> None:
        """Every second mail or so is left unread."""

    deal = Watcher._deal_with

    def sometimes(self: Watcher, session: Session, place: Any, noticed: float) -> None:
        (deal if place.uid % 2 else nothing)(self, session, place, noticed)

    _put(Watcher, "_deal_with", sometimes)


MUTANTS: Final[dict[str, Callable[[], None]]] = {
    "passes": _passes_everybody,
    "answers": _answers_without_a_commit,
    "says-yes": _says_yes_for_the_upstream,
    "marks": _marks_what_it_reads,
    "forgets": _forgets_what_it_reads,
}

if __name__ == "__main__":
    for mutant in sys.argv.pop(1).split(","):
        MUTANTS[mutant]()
    main()
