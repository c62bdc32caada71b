"""The loop of one mailbox, in a thread of its own.

    connect -> every folder: what is unread by us -> attempt (committed) -> fetch -> triage.read -> intake.act (committed)
    -> file away -> wait for news (IDLE, at most poll_seconds) -> search again

Everything that must not be lost is committed before the mailbox is touched, and everything the mailbox is owed is found
again after a crash. Ordinary mail is never moved and never marked.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from daemon import events
from daemon.config import Mailbox
from daemon.intake import Envelope, Shelf
from daemon.log import masked
from daemon.mail.reading import addresses, label
from daemon.mailbox.canary import DAILY, Canary, Rhythm
from daemon.mailbox.filing import Filing
from daemon.mailbox.folders import SWEEP_SECONDS, Folders
from daemon.mailbox.means import Means
from daemon.mailbox.session import Failed, Fetched, Session
from daemon.mailbox.sighting import envelope, note
from storage import incoming
from storage.engine import Unavailable, Unusable
from storage.incoming import Place, Seen

MAX_ATTEMPTS: Final = 2
_FORGIVEN: Final = 10  # attempts that ended by no fault of the message; more than that, and it may be its fault
_RETRY_SECONDS: Final = (1.0, 60.0)  # doubling from the first to the last
# While an outage is under a minute we are back within 10 s of its end: a connect that the end came too late for may
# need up to 3 s more to fail.
_SHORT_OUTAGE: Final = 60.0
_SOON: Final = 5.0
_FAR_BACK: Final = 10.0  # s; a connection that held so long was good: the next failure starts from the beginning
_CHANCE: Final = random.SystemRandom()  # keeps many daemons from coming back in the same moment


class Watcher:
    """Watches one mailbox until it is stopped. `start` returns at once; `stop` wakes it and waits."""

    def __init__(self, settings: Mailbox, means: Means, rhythm: Rhythm = DAILY, sweep_seconds: float = SWEEP_SECONDS):
        self.settings, self._means = settings, means
        self._stopping = threading.Event()
        self._session: Session | None = None
        self._thread = threading.Thread(target=self.run, name=f"mailbox {settings.name}", daemon=True)
        self._folders = Folders(settings, means, sweep_seconds)
        self._filing = Filing(settings, means, self._folders, self._stopping)
        self._canary = Canary(settings, means, rhythm)
        self._forgiven: Counter[Place] = Counter()
        self.connected = False
        self.last_success: datetime | None = None  # when the server last answered us
        self.trouble = ""  # `STEP: reason` while it does not

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """End after the message under way; returns at once."""
        self._stopping.set()
        self._means.interrupt()
        session = self._session
        if session is not None:
            session.wake()

    def stop(self, seconds: float = 10) -> None:
        """End after the message under way, and wait for that."""
        self.ask_to_stop()
        if self._thread.is_alive():
            self._thread.join(seconds)

    # ---- the loop

    def run(self) -> None:
        """Connect, watch, and after any failure do so again, a little later each time."""
        delay = since = 0.0
        while not self._stopping.is_set():
            began, advice = time.monotonic(), ""
            try:
                self._once()
                continue  # told to stop
            except Failed as failure:
                step, reason, advice = failure.step, failure.why, failure.advice
            except (Unavailable, Unusable) as why:  # not recorded: left in place
                events.database_unavailable(why)
                step, reason = "record", why
            except Exception as error:  # noqa: BLE001 - a thread's outermost loop: told in our log, tried again later
                events.failed(f"mailbox {self.settings.name}", error)
                step, reason = "read", type(error).__name__
            ended = time.monotonic()
            if not delay or (self.connected and ended - began > _FAR_BACK):
                delay, since = 0.0, ended
            self.connected, self.trouble = False, f"{step}: {masked(reason)}" + (f" ({advice})" if advice else "")
            delay = longer(delay, ended - since)
            if step == "read":  # a message's fault, most likely; it is begun twice, and what came after it waits
                delay = min(delay, _SOON)
            resting = delay * _CHANCE.uniform(0.75, 1.0)
            events.mailbox_lost(self.settings.name, step, reason, resting, advice)
            self._stopping.wait(resting)

    def _once(self) -> None:
        session = self._means.connect()
        self._session = session
        try:
            self._folders.begin(session)
            self._canary.begin(session)
            events.mailbox_connected(self.settings.name, self.settings.folders)
            for doubt in session.doubts():
                events.mailbox_doubtful(self.settings.name, doubt)
            self._heard()
            self._watch(session)
        finally:
            self._session = None
            session.close()

    def _heard(self) -> None:
        self.connected, self.last_success, self.trouble = True, self._means.now(), ""

    def _watch(self, session: Session) -> None:
        """IDLE on the first folder; the others, and what else is due, every poll_seconds."""
        first, *others = self.settings.folders
        due = 0.0
        while not self._stopping.is_set():
            if time.monotonic() >= due:
                due = time.monotonic() + self.settings.poll_seconds
                for name in others:
                    with self._folders.spared(name):
                        self._read_folder(session, name)
                with self._folders.spared(self._folders.targets.get("processed", "")):
                    self._look_at_filed(session)
                if not self.settings.observe:
                    self._filing.pay_debts(session)
            self._read_folder(session, first)
            self._heard()
            self._canary.tend(session)
            session.enter(first)
            session.wait(max(min(due - time.monotonic(), self._canary.wait()), 0.05))
        self._canary.end(session)

    # ---- a folder

    def _read_folder(self, session: Session, name: str) -> None:
        """Deal with all that we have not read yet."""
        noticed = time.monotonic()
        folder = session.enter(name)
        for uid in self._folders.unread(session, folder):
            if self._stopping.is_set():
                return
            self._deal_with(session, Place(self.settings.name, name, folder.uidvalidity, uid), noticed)
            self._folders.passed(folder, uid)

    # ---- a message

    def _deal_with(self, session: Session, place: Place, noticed: float) -> None:
        """Read one message, act on it, file it."""
        if self.settings.observe:
            self._observe(session, place)
            return
        if self._attempts(place) > MAX_ATTEMPTS:  # not even fetched: that may be what fails
            self._give_up(place, self._folders.targets)
            return
        with self._forgiving(place):
            self._read_one(session, place, noticed)

    def _read_one(self, session: Session, place: Place, noticed: float) -> None:
        session.enter(place.folder)
        fetched = session.fetch(place.uid)
        if fetched is None:
            self._settle_unseen(place)
            return
        envelope = self._envelope(fetched)
        if self._canary.is_ours(fetched):
            self._canary.take(session, fetched, envelope)
            return
        if self._met_before(session, envelope):
            return
        reading = self._means.read(fetched.raw)
        done = self._means.intake.act(reading, envelope, self._means.now())
        events.message_read(place.mailbox, place.uid, done.label, reading.rules, time.monotonic() - noticed)
        if done.target:
            self._filing.file(session, place, done)

    def _observe(self, session: Session, place: Place) -> None:
        """Say what would be made of a message. It is not recorded as read: once this option is gone, it is read in earnest."""
        session.enter(place.folder, writable=False)
        fetched = session.fetch(place.uid)
        if fetched is not None:
            reading = self._means.read(fetched.raw)
            about = [self._means.ledger.site_key.who(p) for p in self._means.intake.people(addresses(reading))]
            scope = ";".join(getattr(reading, "scope", ()))
            events.message_observed(place.mailbox, place.uid, label(reading), about, scope, reading.rules)

    def _attempts(self, place: Place) -> int:
        """How often this message was begun, this time included: committed before it is touched."""
        with self._means.writing(place.mailbox) as w:
            return incoming.attempt(w, place) - min(self._forgiven[place], _FORGIVEN)

    @contextlib.contextmanager
    def _forgiving(self, place: Place) -> Iterator[None]:
        """An attempt that ended for want of the database (a full disk, a long lock) does not count."""
        try:
            yield
        except (Unavailable, Unusable):
            self._forgiven[place] += 1
            raise
        self._forgiven.pop(place, None)

    def _give_up(self, place: Place, targets: dict[Shelf, str]) -> None:
        """Attempts did not end: a person looks at it."""
        intake, now = self._means.intake, self._means.now
        done = intake.unread(Envelope(place, b"", 0, "", now(), targets=targets), now())
        events.message_read(place.mailbox, place.uid, done.label, ("attempts-did-not-end",), 0)

    def _envelope(self, fetched: Fetched) -> Envelope:
        return envelope(fetched, self._folders.targets, self.settings.trusted_only)

    def _settle_unseen(self, place: Place) -> None:
        """It went between the search and the fetch."""
        with self._means.writing(place.mailbox) as w:
            incoming.settle_unseen(w, place)

    # ---- messages met before

    def _known(self, envelope: Envelope) -> Seen | None:
        """The same message (identity, date and size) as seen before in this mailbox; rather one that was honoured."""
        with self._means.ledger.connect() as db:
            twins = incoming.twins(db, envelope.message_id, envelope.digest, mailbox=envelope.place.mailbox)
        identity = (envelope.size, envelope.internaldate)
        same = [t for t in twins if t.place != envelope.place and (t.size, t.internaldate) == identity]
        return next((t for t in same if t.state in ("filed", "owed")), same[-1] if same else None)

    def _met_before(self, session: Session, envelope: Envelope) -> bool:
        """Deal with a message that we know from another place. False: it is to be read like a new one."""
        known = self._known(envelope)
        if known is None or self._is_still_there(session, known):
            return False  # new, or a second copy of the same request
        if known.state == "filed":
            done = self._means.intake.found_back(envelope, self._means.now())
            events.message_read(self.settings.name, envelope.place.uid, done.label, ("moved-back-by-a-person",), 0)
            return True
        with self._means.writing(self.settings.name) as w:
            known = incoming.seen(w.db, known.id)  # a decision may have come in just now
            state: incoming.State = "owed" if known.state == "owed" else "done"
            incoming.take_over(w, known.id, note(w, envelope, known, state))
        return True

    def _is_still_there(self, session: Session, known: Seen) -> bool:
        """Does the copy that we know still lie where it was left? Not in a folder that is no more."""
        try:
            return self._lies_there(session, known)
        except Failed as failure:
            if failure.refused:
                return False
            raise

    @staticmethod
    def _lies_there(session: Session, known: Seen) -> bool:
        if known.state == "filed":
            session.enter(known.target, writable=False)
            return session.holds(known.message_id)
        same_numbers = session.enter(known.place.folder, writable=False).uidvalidity == known.place.uidvalidity
        return same_numbers and session.present(known.place.uid)

    # ---- what people filed

    def _look_at_filed(self, session: Session) -> None:
        """A message that we did not put into the folder of honoured requests was put there by a person: a decision."""
        name = self._folders.targets.get("processed")
        if not name:
            return
        folder = session.enter(name, writable=False)
        for uid in self._folders.unread(session, folder):
            if self._stopping.is_set():
                return
            place = Place(self.settings.name, name, folder.uidvalidity, uid)
            if self._attempts(place) > MAX_ATTEMPTS:
                self._give_up(place, {})  # a decision that we cannot read is not to be forgotten
            else:
                with self._forgiving(place):
                    self._look_at_one(session, place)
            self._folders.passed(folder, uid)

    def _look_at_one(self, session: Session, place: Place) -> None:
        fetched = session.fetch(place.uid)
        if fetched is None:
            self._settle_unseen(place)
            return
        envelope = self._envelope(fetched)
        known = self._known(envelope)
        if known is not None and known.state in ("filed", "owed"):
            with self._means.writing(self.settings.name) as w:
                note(w, envelope, known, "settled")
        else:
            done = self._means.intake.filed_by_hand(self._means.read(fetched.raw), envelope, self._means.now())
            events.message_read(place.mailbox, place.uid, done.label, ("filed-by-a-person",), 0)


def longer(delay: float, lasted: float) -> float:
    """The seconds to wait before the next try: `delay` before this one (0: the first), `lasted` since all was well."""
    first, last = _RETRY_SECONDS
    return min(max(first, 2 * delay), _SOON if lasted < _SHORT_OUTAGE else last)
