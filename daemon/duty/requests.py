"""Alarms about what people asked for: does a request wait longer than it may?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from daemon.duty.alarm import Alarm, Look
from daemon.duty.parts import last_heard
from daemon.texts import lasted
from storage import census, leases, waiting

_READING: Final = timedelta(hours=1)  # one message: usually a second
_FILING: Final = timedelta(hours=24)
_NOTICE: Final = timedelta(hours=2)  # of the day after which it is not sent any more
_UNWATCHED: Final = timedelta(minutes=5)  # while another node takes over
_DECIDE: Final = "Decide it in the console under Review, or with `optoutd review list`, `accept ID` or `reject ID`."


@dataclass(frozen=True, slots=True)
class Open:
    """A request that is open, or may be: what it is, since when it waits, what to do. The oldest is the one that counts."""

    since: datetime
    what: str
    advice: str


def oldest(look: Look) -> Open | None:
    """The oldest request that may be open: a doubtful mail, one to be filed, or what a silent mailbox may hold."""
    return min(_open(look), key=lambda found: found.since, default=None)


def _open(look: Look) -> Iterator[Open]:
    review = census.numbers(look.db).review_oldest
    if review is not None:
        yield Open(datetime.fromtimestamp(review, look.now.tzinfo), "a doubtful mail", _DECIDE)
    for mailbox in look.vitals.mailboxes:
        filing = waiting.to_be_filed(look.db, mailbox.name)
        if filing.since is not None:
            yield Open(
                filing.since,
                f"a recorded mail in {mailbox.name} that is to be filed away",
                "Look for message_not_filed and mailbox_lost in the log; the opt-out itself stands.",
            )
        if not mailbox.ours:
            continue
        heard = last_heard(look, mailbox)
        if look.now - heard >= look.limits.silent:
            yield Open(
                heard, f"whatever came into {mailbox.name} since it fell silent", "Mend the way to this mailbox."
            )


def overdue(look: Look) -> Iterator[Alarm]:
    """The oldest open request is past its due time, or may be."""
    found = oldest(look)
    if found is not None and look.now - found.since > look.limits.due:
        late = lasted(look.now - found.since - look.limits.due)
        text = f"The oldest open request is {late} past its due time: {found.what}"
        yield Alarm("request-overdue", "", found.since, text, found.advice)


def reviews(look: Look) -> Iterator[Alarm]:
    """A doubtful mail waits too long for a person."""
    numbers = census.numbers(look.db)
    if numbers.review_oldest is None:
        return
    since = datetime.fromtimestamp(numbers.review_oldest, look.now.tzinfo)
    if look.now - since > look.limits.review:
        many = f"{numbers.review_open} doubtful mails wait" if numbers.review_open > 1 else "A doubtful mail waits"
        text = f"{many} for a person, the oldest for {lasted(look.now - since)}"
        yield Alarm("review-old", "", since, text, _DECIDE)


def stuck(look: Look) -> Iterator[Alarm]:
    """A message is being read, or is to be filed, and that does not end."""
    for mailbox in look.vitals.mailboxes:
        uid = waiting.oldest_reading(look.db, mailbox.name)
        if uid is not None:
            yield Alarm(
                "reading-stuck",
                f"{mailbox.name} UID {uid}",
                look.now,
                f"The reading of message UID {uid} in mailbox {mailbox.name} does not end",
                "Look for mailbox_lost and failed in the log. It is tried twice, then a person has to read it.",
                ripe=_READING,
            )
        filing = waiting.to_be_filed(look.db, mailbox.name)
        if filing.since is not None and look.now - filing.since > _FILING:
            many = f"{filing.number} recorded mail{'s' if filing.number > 1 else ''}"
            yield Alarm(
                "filing-stuck",
                mailbox.name,
                filing.since,
                f"{many} in mailbox {mailbox.name} could not be filed away for {lasted(look.now - filing.since)}",
                "The opt-outs stand. Look for mailbox_lost with step=move in the log, and at that folder's rights.",
                ripe=_READING,
            )


def unwatched(look: Look) -> Iterator[Alarm]:
    """Of several nodes none watches a mailbox."""
    held = leases.held(look.db)
    for mailbox in look.vitals.mailboxes:
        if not mailbox.ours and f"mailbox {mailbox.name}" not in held:
            yield Alarm(
                "mailbox-unwatched",
                mailbox.name,
                look.now,
                f"No node watches the mailbox {mailbox.name}",
                "See that a node whose config has this [[mailbox]] runs.",
                ripe=_UNWATCHED,
            )


def notices(look: Look) -> Iterator[Alarm]:
    """Mail that we owe people does not go out."""
    owed = waiting.notices(look.db)
    if owed.since is not None and look.now - owed.since > _NOTICE:
        many = f"{owed.number} notice{'s' if owed.number > 1 else ''}"
        yield Alarm(
            "notices-late",
            "",
            owed.since,
            f"{many} to people could not be sent, the oldest for {lasted(look.now - owed.since)}",
            "The opt-outs stand; what is not sent within a day is dropped. Look for upstream_lost in the log.",
        )
