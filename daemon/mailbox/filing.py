"""Filing: what a message is owed after it was honoured, now or after a crash."""

from __future__ import annotations

import random
import threading
from typing import Final

from daemon import events
from daemon.config import Mailbox
from daemon.intake import Done
from daemon.mailbox.folders import Folders
from daemon.mailbox.means import Means
from daemon.mailbox.session import Failed, Session
from storage import incoming
from storage.incoming import Place, Seen

_REFUSALS: Final = 5  # a server that refuses so many moves is asked again at the next poll, not for each message


class Filing:
    """Of one mailbox."""

    def __init__(self, settings: Mailbox, means: Means, folders: Folders, stopping: threading.Event):
        self._settings, self._means, self._folders, self._stopping = settings, means, folders, stopping

    def file(self, session: Session, place: Place, done: Done) -> bool:
        """Move an honoured message, unless a person has moved it already. False: refused, and still owed."""
        if session.enter(place.folder).uidvalidity != place.uidvalidity:
            return True  # that UID is another message now; ours is met again
        if not session.present(place.uid):
            self._settle(done.incoming, "filed")
            return True
        try:
            moved = session.file_away(place.uid, done.target)
        except Failed as failure:  # over quota, no such folder, no right to it: other mail must not wait for that
            if not failure.refused:
                raise
            events.message_not_filed(place.mailbox, place.uid, failure.why)
            return False
        if moved:
            self._settle(done.incoming, "filed")
            events.message_filed(place.mailbox, place.uid, done.target)
        else:
            self._settle(done.incoming, "done")
            events.message_not_filed(place.mailbox, place.uid, "the server has neither MOVE nor UIDPLUS")
        return True

    def _settle(self, number: int, state: incoming.State) -> None:
        with self._means.writing(self._settings.name) as w:
            incoming.settle(w, number, state)

    def pay_debts(self, session: Session) -> None:
        """File what was left owing: by a crash after the commit, or by a decision in the review queue."""
        with self._means.ledger.connect() as db:
            debts = incoming.owed(db, self._settings.name)
        random.shuffle(debts)  # a few that are refused again and again must not stand before all others
        for target in {d.target for d in debts} & set(self._folders.targets.values()):
            with self._folders.spared(target):
                session.ensure(target)  # somebody may have deleted it since we connected
        for folder in dict.fromkeys(d.place.folder for d in debts):
            with self._folders.spared(folder):
                self._pay(session, folder, [d for d in debts if d.place.folder == folder])

    def _pay(self, session: Session, folder: str, debts: list[Seen]) -> None:
        """File what is owed in one folder."""
        validity, refusals = session.enter(folder).uidvalidity, 0
        for debt in debts:
            if self._stopping.is_set() or refusals >= _REFUSALS:
                return
            if debt.place.uidvalidity == validity:
                refusals += not self.file(session, debt.place, Done(debt.label, debt.id, target=debt.target))
            elif self._folders.were_looked_at(folder):
                self._settle(debt.id, "settled")  # under another UIDVALIDITY it was met again, or is gone
