"""`optoutd replay`: read an archive, or a live folder, for requests that were never honoured.

Composes a door (IMAP), the reading and the intake desk. Nothing of the mailbox changes. A dry run tells whom it would
suppress; with `apply`, what is missing is recorded with the date at which it was asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal

from sqlalchemy import Connection

from daemon import archives
from daemon.config import Loaded, Mailbox
from daemon.intake import Envelope, Intake
from daemon.mail import triage
from daemon.mail.reading import OptOut, Resubscribe, Review, addresses
from daemon.mail.summary import summary
from daemon.mailbox.session import Failed, Session
from daemon.mailboxes import log_in
from storage import suppressions
from storage.engine import Ledger
from storage.incoming import Place
from storage.terms import ALL, Reason, seconds

# missing: never honoured · suppressed: stands already · lifted: honoured, and taken off the list again since ·
# taken-back: the person wrote later, in the same archive, to be put back · doubtful: only a person can judge ·
# applied: was missing, and is recorded now
State = Literal["missing", "suppressed", "lifted", "taken-back", "doubtful", "applied"]
_EPOCH = datetime.fromtimestamp(0, UTC)


class MailboxFailed(Exception):
    """The IMAP server could not do something; the message names the step."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where messages come from: how many there are, and (name, octets, when it came or None) of each."""

    total: int
    messages: Iterator[tuple[str, bytes, datetime | None]]


@dataclass(frozen=True, slots=True)
class Found:
    """One old request. `since`: from when on the suppression stands that covers it."""

    file: str
    received: datetime | None
    sender: str
    reading: OptOut | Review
    envelope: Envelope
    state: State
    since: datetime | None = None


def archive(path: str, note: Callable[[str], object]) -> Source:
    """Files on disk. Raises archives.CannotOpen."""
    total = archives.count(path)
    return Source(total, ((name, raw, None) for name, raw in archives.messages(path, note, deep=True)))


def folder(
    loaded: Loaded, settings: Mailbox, folders: Iterable[str], since: datetime | None, *, filed: str = ""
) -> Source:
    """The folders of a live mailbox, and the one that honoured requests were filed into if it is there.

    Raises MailboxFailed; so may what comes out of it.
    """
    try:
        session = log_in(loaded, settings)
        found = [(name, uid) for name in folders for uid in _uids(session, name, since)]
        if filed:
            found += [(filed, uid) for uid in _uids_if_there(session, filed, since)]
    except Failed as failure:
        raise MailboxFailed(f"{failure} ({failure.advice})" if failure.advice else str(failure)) from failure
    return Source(len(found), _fetched(session, found))


def _uids(session: Session, name: str, since: datetime | None) -> list[int]:
    session.enter(name, writable=False)
    return session.uids_since(since) if since else session.uids_from(1)


def _uids_if_there(session: Session, name: str, since: datetime | None) -> list[int]:
    try:
        return _uids(session, name, since)
    except Failed as failure:
        if failure.refused:
            return []
        raise


def _fetched(session: Session, found: list[tuple[str, int]]) -> Iterator[tuple[str, bytes, datetime | None]]:
    try:
        for name, uid in found:
            session.enter(name, writable=False)
            message = session.fetch(uid)
            if message is not None:
                yield f"{name}:{uid}", message.raw, message.internaldate
    except Failed as failure:
        raise MailboxFailed(str(failure)) from failure
    finally:
        session.close()


# ------------------------------------------------------------------ reading


def search(
    source: Source,
    ledger: Ledger,
    intake: Intake,
    *,
    since: datetime | None = None,
    mailbox: str = "",
    progress: Callable[[], object] = lambda: None,
) -> list[Found]:
    """The requests in a source, oldest first, each with what became of it. `progress` is called once a message."""
    asked: list[Found] = []
    back: list[tuple[datetime, Resubscribe]] = []
    for name, raw, came in source.messages:
        progress()
        outside = summary(raw)
        received = came or outside.received
        if since and received and received < since:
            continue
        reading = triage.read(raw, intake.house, ledger.site_key)
        if isinstance(reading, Resubscribe):
            back.append((received or _EPOCH, reading))
        if isinstance(reading, OptOut | Review):
            envelope = Envelope(
                Place(mailbox or "archive", name, 0, 0),
                hashlib.blake2b(raw, digest_size=16).digest(),
                len(raw),
                outside.message_id,
                received or _EPOCH,
                outside.sender,
                f"Subject: {outside.subject}\n\n{outside.excerpt}",
            )
            asked.append(Found(name, received, outside.sender, reading, envelope, "doubtful"))
    asked.sort(key=lambda f: f.received or _EPOCH)
    return [_judged(found, ledger, intake, back) for found in asked]


def _judged(found: Found, ledger: Ledger, intake: Intake, back: list[tuple[datetime, Resubscribe]]) -> Found:
    """What became of it? For each person and scope apart: one that is missing makes the whole request missing."""
    reading, when = found.reading, found.received or _EPOCH
    people: list[suppressions.Whom] = [*intake.people(reading.addresses)]
    if not people and isinstance(reading, OptOut) and reading.token is not None:
        people = [reading.token.address_key]
    if not people:
        return found  # it names nobody but ourselves: only a person can judge
    scopes = intake.scopes(reading) if isinstance(reading, OptOut) else [ALL]
    with ledger.connect() as db:
        standing = [_stands(db, ledger, person, scope, when) for person in people for scope in scopes]
        if standing and all(standing):
            return replace(found, state="suppressed", since=max(s for s in standing if s))
        if not isinstance(reading, OptOut):
            return found
        ended = [
            suppressions.lifted_since(db, ledger, person, scope, seconds(when)) for person in people for scope in scopes
        ]
    if standing and all(stands or lifted for stands, lifted in zip(standing, ended, strict=True)):
        return replace(found, state="lifted")
    wishes = [wish for at, wish in back if at > when and _takes_back(wish, reading)]
    if wishes:
        return replace(found, state="taken-back" if any(w.proof != "none" for w in wishes) else "doubtful")
    return replace(found, state="missing")


def _takes_back(wish: Resubscribe, request: OptOut) -> bool:
    """Is a later wish about the same people, and about all that was asked?"""
    people = {a.lower() for a in addresses(wish)}
    covers = "all" in wish.scope or set(request.scope) <= set(wish.scope)
    return covers and {a.lower() for a in request.addresses} <= people


# What stands for good, and says that the person (or an operator) does not want this: a bounce may pass.
_WISHES: Final = (Reason.OPT_OUT, Reason.COMPLAINT, Reason.OPERATOR)


def _stands(db: Connection, ledger: Ledger, person: suppressions.Whom, scope: int, when: datetime) -> datetime | None:
    """From when on a suppression for all that is asked stands, without an exemption older than the request."""
    rows = suppressions.standing(db, ledger.site_key, person)
    if any(r[2] == Reason.WANTED and scope in (r[1], ALL) and r[3] <= seconds(when) for r in rows):
        return None
    found = [r[3] for r in rows if r[1] in (ALL, scope) and r[2] in _WISHES]
    return datetime.fromtimestamp(min(found), UTC) if found else None


# ------------------------------------------------------------------ applying


def apply(
    found: list[Found], intake: Intake, clock: Callable[[], datetime], actor: str, *, reviews: bool = False
) -> list[Found]:
    """Record what is missing, with the date at which it was asked; `reviews`: and queue what is doubtful.

    `clock`: now, aware; each is written down at its own time, for it may take long, and the record is in the order of time.
    """
    return [_applied(f, lambda r, e: intake.honour(r, e, now=clock(), actor=actor), reviews) for f in found]


def _applied(found: Found, honour: Callable[[OptOut | Review, Envelope], object], reviews: bool) -> Found:
    if found.state == "missing":
        honour(found.reading, found.envelope)
        return replace(found, state="applied")
    if found.state == "doubtful" and reviews:
        honour(_as_review(found.reading), found.envelope)
    return found


def _as_review(reading: OptOut | Review) -> Review:
    if isinstance(reading, Review):
        return reading
    return Review(
        reading.addresses,
        reading.scope,
        reading.writer,
        reading.language,
        reading.rules,
        reading.words,
        reading.weighed,
    )
