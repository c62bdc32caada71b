"""The folders of a mailbox: which there are, and what in them is still to be read."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from daemon import events, metrics
from daemon.config import Mailbox
from daemon.intake import Shelf
from daemon.mailbox.means import Means
from daemon.mailbox.session import Failed, Folder, Session
from storage import gaps, watched

SWEEP_SECONDS: Final = 86_400.0  # between two comparisons of a folder with what is recorded, on one connection
_AT_ONCE: Final = 200  # messages whose size and date are asked for in one go


class Folders:
    """Of one mailbox, as seen by one connection after the other. `targets`: where filed mail goes, "" = it stays."""

    def __init__(self, settings: Mailbox, means: Means, sweep_seconds: float = SWEEP_SECONDS):
        self._settings, self._means, self._sweep_seconds = settings, means, sweep_seconds
        self._sweeps: dict[str, float] = {}  # folder -> when it is compared next, by time.monotonic
        self._next: dict[str, tuple[int, int]] = {}  # folder -> (UIDVALIDITY, first UID not looked at)
        self.targets: dict[Shelf, str] = {}
        metrics.intake_missed.of(settings.name)  # 0 from now on, so that an alert sees the first

    def begin(self, session: Session) -> None:
        """A new connection: nothing has been looked at, and the folders that filed mail goes to are made if missing."""
        self._next.clear()
        self.targets = self._prepare(session)

    def _prepare(self, session: Session) -> dict[Shelf, str]:
        """One that cannot be made leaves its mail in place."""
        settings = self._settings
        targets: dict[Shelf, str] = {"processed": settings.processed_folder, "machine": settings.machine_folder}
        if settings.observe:
            return dict.fromkeys(targets, "")
        for kind, name in targets.items():
            if name:
                try:
                    session.ensure(name)
                except Failed as failure:
                    events.mailbox_lost(settings.name, f"create {name}", failure.why, 0, failure.advice)
                    targets[kind] = ""
        return targets

    @contextlib.contextmanager
    def spared(self, folder: str) -> Iterator[None]:
        """A folder that the server refuses (deleted, renamed, not ours) must not keep the others from being read."""
        try:
            yield
        except Failed as failure:
            if not failure.refused:
                raise
            self._next.pop(folder, None)  # what was left unread of it is looked for anew
            why, seconds = f"{folder}: {failure.why}", self._settings.poll_seconds
            events.mailbox_lost(self._settings.name, failure.step, why, seconds, failure.advice)

    def were_looked_at(self, name: str) -> bool:
        """Has this connection seen all of the folder?"""
        return name in self._next

    def unread(self, session: Session, folder: Folder) -> list[int]:
        """UIDs to read: new ones; on first sight of this connection, and once a day, all that was not ended before."""
        validity, following = self._next.get(folder.name, (None, 0))
        if validity != folder.uidvalidity:
            return self._compared(session, folder, 0)
        if time.monotonic() >= self._sweeps[folder.name] and not self._settings.observe:
            return self._compared(session, folder, following)
        return session.uids_from(following)

    def _compared(self, session: Session, folder: Folder, following: int) -> list[int]:
        """What lies in the folder, less what has been read. What is below others and was never begun has been missed."""
        of = self._settings.name, folder.name, folder.uidvalidity
        # Before the beginning is asked for: retention moves that past what it forgets.
        with self._means.ledger.connect() as db:
            known = watched.known(db, *of)
        begun = self._first_sight(folder)
        found = set(session.uids_from(begun.uidnext))
        if not self._is_target(folder.name):
            found |= set(session.uids_since(begun.since))
        mark = max(following, max(known, default=-1) + 1)
        if known and not self._settings.observe:
            again = self._given_again(session, folder, known, found)
            if again is not None:
                self._give_free(folder, again)
                known = {uid: ended for uid, ended in known.items() if uid < again}
                mark = again
            if missed := sum(uid < mark and uid not in known for uid in found):
                self._tell_missed(folder, missed)
        following = max(mark, max(found, default=folder.uidnext - 1) + 1)
        self._next[folder.name] = (folder.uidvalidity, following)
        self._sweeps[folder.name] = time.monotonic() + self._sweep_seconds
        return sorted(uid for uid in found if not known.get(uid))

    def _given_again(
        self, session: Session, folder: Folder, known: Mapping[int, bool], found: Collection[int]
    ) -> int | None:
        """The first UID that the server gives a second time, or has given: it went back, as after a restore. None: none.

        Either its next one is not above all that we know, or a message that we know is another one by now.
        """
        if folder.told and folder.uidnext <= max(known):
            # What was told when we came in may be less than there is by now.
            now = session.enter(folder.name, afresh=True)
            if now.uidvalidity == folder.uidvalidity and now.uidnext <= max(known):
                return now.uidnext
        lowest: int | None = None
        latest = sorted((uid for uid in found if known.get(uid)), reverse=True)
        for start in range(0, len(latest), _AT_ONCE):
            others = self._others(session, folder, latest[start : start + _AT_ONCE])
            if not others:
                break
            lowest = min(others)
        return lowest

    def _others(self, session: Session, folder: Folder, uids: Sequence[int]) -> list[int]:
        """Which of these messages differ from what is recorded under their UIDs, in both size and date?"""
        with self._means.ledger.connect() as db:
            recorded = watched.identities(db, self._settings.name, folder.name, folder.uidvalidity, uids)
        try:
            there = session.identities(uids)
        except Failed as failure:
            if not failure.refused:
                raise
            return []
        both = there.keys() & recorded.keys()
        return [uid for uid in both if all(x != y for x, y in zip(there[uid], recorded[uid], strict=True))]

    def _give_free(self, folder: Folder, first: int) -> None:
        name = self._settings.name
        with self._means.writing(name) as w:
            watched.give_free(w, name, folder.name, folder.uidvalidity, first)
            gaps.note(w, name, folder.name, 0)
        events.uids_given_again(name, folder.name, first)

    def _tell_missed(self, folder: Folder, number: int) -> None:
        name = self._settings.name
        with self._means.writing(name) as w:
            gaps.note(w, name, folder.name, number)
        events.messages_missed(name, folder.name, number)

    def passed(self, folder: Folder, uid: int) -> None:
        """This UID needs no second look; one below others that were ended before must not make us look at those."""
        self._next[folder.name] = (folder.uidvalidity, max(self._next[folder.name][1], uid + 1))

    def _first_sight(self, folder: Folder) -> watched.FirstSight:
        name = self._settings.name
        with self._means.ledger.connect() as db:
            begun = watched.first_sight(db, name, folder.name, folder.uidvalidity)
        if begun is None:
            days = None if self._is_target(folder.name) else self._settings.first_days
            with self._means.writing(name) as w:
                begun = watched.begin_folder(w, name, folder.name, folder.uidvalidity, folder.uidnext, days)
        return begun

    def _is_target(self, folder: str) -> bool:
        return folder in self.targets.values()
