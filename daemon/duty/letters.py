"""The mail that tells the operators of alarms: when one goes out, and what is in it. Pure.

All of a moment goes into one mail, and there is one in 15 minutes at most; what comes meanwhile is gathered. What still
stands is told again after a day, and the end is told, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.headerregistry import Address as Mailbox
from typing import Final

from daemon import own_mail
from daemon.texts import lasted
from storage.alarms import Noted
from storage.terms import seconds

APART: Final = timedelta(minutes=15)  # two mails
AGAIN: Final = timedelta(hours=24)  # what stands is told again
_SUBJECT: Final = 78  # characters


@dataclass(frozen=True, slots=True)
class Letter:
    """What a mail tells: what is new, what is over, and what still stands beside that."""

    new: tuple[Noted, ...]
    over: tuple[Noted, ...]
    standing: tuple[Noted, ...]


def due(alarms: Sequence[Noted], now: datetime, last: datetime | None) -> Letter | None:
    """The mail that is to go out now, if any. `last`: when one last did.

    Differences are taken without their sign: a clock that was set back must not keep an alarm for a year.
    """
    if last is not None and abs(now - last) < APART:
        return None
    standing = [a for a in alarms if a.ended is None]
    new = tuple(a for a in standing if a.told is None)
    over = tuple(a for a in alarms if a.ended is not None and a.closed is None)
    again = any(a.told is not None and abs(now - a.told) >= AGAIN for a in standing)
    if not (new or over or again):
        return None
    return Letter(new, over, tuple(a for a in standing if a.told is not None))


def subject(letter: Letter) -> str:
    """`[optoutd] 2 alarms: mailbox support has been silent for 20 minutes`."""
    for alarms, one, many in (
        (letter.new, "alarm", "alarms"),
        (letter.over, "over", "over"),
        (letter.standing, "still", "still"),
    ):
        if alarms:
            text = alarms[0].text.partition(" (")[0]
            count = f"{len(alarms)} {many}" if len(alarms) > 1 else one
            said = f"[optoutd] {count}: {text[:1].lower()}{text[1:]}"
            return said if len(said) <= _SUBJECT else said[: _SUBJECT - 3].rstrip() + "..."
    raise AssertionError("a letter that tells nothing")


def body(letter: Letter, now: datetime) -> str:
    """Plain text: what is wrong, since when, what to do."""
    parts = [*_section("", letter.new, now), *_section("Still so:", letter.standing, now)]
    if letter.over:
        parts += ["Over:", *(_ended(alarm) for alarm in letter.over)]
    parts.append(
        "This mail comes from optoutd itself. What still stands is told again each day; the log (alarm_raised,"
        " alarm_ended), the console and /metrics have it, too. docs/monitoring.md explains each kind of alarm."
    )
    return "\n\n".join(parts) + "\n"


def _section(title: str, alarms: Iterable[Noted], now: datetime) -> list[str]:
    told = [f"{a.text}.\n  Since {_moment(a.since)}, {lasted(now - a.since)}. ({a.kind})\n  {a.advice}" for a in alarms]
    return [title, *told] if told and title else told


def _ended(alarm: Noted) -> str:
    assert alarm.ended is not None
    stood = f"{_moment(alarm.since)} to {_moment(alarm.ended)}, {lasted(alarm.ended - alarm.since)}"
    return f"{alarm.text}.\n  From {stood}. ({alarm.kind})"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who writes to whom. `house`: its name; `sender`, `to`: addresses."""

    house: str
    sender: str
    to: str


def compose(envelope: Envelope, about: str, text: str, now: datetime, name: str) -> bytes:
    """The whole message, with CRLF line ends. `name`: what tells its Message-ID from others of the same second."""
    house = "".join(c for c in envelope.house if c.isprintable())
    sender = Mailbox(f"optoutd at {house}", addr_spec=envelope.sender)
    subject = "".join(c if c.isprintable() else " " for c in about)
    return own_mail.compose(sender, envelope.to, subject, text, now, f"{name}.{seconds(now)}").as_bytes()
