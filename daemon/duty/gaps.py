"""Was mail missed in a mailbox, or could it have been?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from daemon.duty.alarm import Alarm, Look
from storage import gaps
from storage.gaps import Gap
from storage.terms import seconds, utc

KIND: Final = "uid-gap"
_ADVICE: Final = (
    "They have been read by now. Was the mail server restored, or mail put back into the mailbox? If not, please report it"
    " with the `messages_missed` lines of the log. Requests among them were honoured late: `optoutd replay` finds what is older."
)
_RESTORED: Final = (
    "Nothing is lost by it in optoutd, but mail that came between the backup and the restore of the mail server is gone:"
    " ask its administrator, and look at what the backup of your mail gateway has of that time."
)


def find(look: Look) -> Iterator[Alarm]:
    """An alarm for each mailbox of the config in which a gap was found in the last seven days."""
    ours = {mailbox.name for mailbox in look.vitals.mailboxes}
    for name, gap in gaps.found(look.db, seconds(look.now)).items():
        if name in ours:
            yield Alarm(KIND, name, utc(gap.first), _text(name, gap), _ADVICE if gap.missed else _RESTORED)


def _text(name: str, gap: Gap) -> str:
    where = f"mailbox {name}, folder {gap.folder}"
    if gap.missed:
        return f"{gap.missed} messages lay unread below others in {where}."
    return f"The mail server has gone back in its numbers in {where}: it was restored from a backup."
