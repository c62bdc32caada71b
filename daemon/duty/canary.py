"""Does the mailbox's own test fail, or has none come through for too long?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from daemon.duty.alarm import Alarm, Look
from daemon.vitals import MailboxVitals
from storage import canaries
from storage.canaries import State
from storage.terms import seconds, utc

KIND: Final = "canary-failed"
LATE_SECONDS: Final = 26 * 3600  # one a day, and one that failed is tried again within the hour
_BY_HAND: Final = "Until that is mended, read the mailbox by hand."
_ADVICE: Final = {
    "append": "Give the account of optoutd the right to put messages into the first of its folders (RFC 4314: i), or set"
    " canary = false for this mailbox.",
    "noticed": "Does another program, or a rule, take new messages out of the folder at once? If it must, set"
    " canary = false for this mailbox.",
    "read": f"A plain request is not understood: look at `canary_failed` in the log. {_BY_HAND}",
    "committed": f"Look at the database and its disk, and at `canary_failed` in the log. {_BY_HAND}",
    "refused": "Stop campaigns: somebody who has just opted out might be mailed. Look at `canary_failed` in the log, and"
    " restart optoutd.",
    "removed": "Give the account of optoutd the right to delete messages (RFC 4314: t and e); or remove the message"
    " `optoutd self-test` by hand, and set canary = false for this mailbox.",
}
_LATE: Final = (
    "Look for `mailbox_lost`, `canary_broken_off` and `failed` in the log: something comes between each time. "
    + _BY_HAND
)


def find(look: Look) -> Iterator[Alarm]:
    """An alarm for each mailbox of the config whose last canary failed, or which has had none for 26 hours."""
    states = canaries.states(look.db)
    for mailbox in look.vitals.mailboxes:
        if (state := states.get(mailbox.name)) is not None and not state.skipped:
            yield from _of(mailbox, state, look)


def _of(mailbox: MailboxVitals, state: State, look: Look) -> Iterator[Alarm]:
    result = state.result
    if state.failed is not None and result is not None and result.step:
        text = f"The daily test of mailbox {mailbox.name} did not come through: {result.step}: {result.why}."
        yield Alarm(KIND, mailbox.name, utc(state.failed), text, _ADVICE.get(result.step, _LATE))
        return
    since = _awaited_since(state, look.vitals.started)
    if seconds(look.now) - since > LATE_SECONDS and (mailbox.connected or not mailbox.ours):
        text = f"No test message has come through mailbox {mailbox.name} since {utc(since):%Y-%m-%d %H:%M} UTC."
        yield Alarm(KIND, mailbox.name, utc(since), text, _LATE)


def _awaited_since(state: State, started: datetime) -> int:
    """While we do not run there can be none."""
    return max(state.passed or state.first, seconds(started))
