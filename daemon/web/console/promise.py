"""Is the promise being kept? What is known of the parts of the daemon and of the ledger, judged. Pure.

good   nothing waits too long, nothing is in the way
doubt  nobody is mailed by mistake, but something wants to be looked at
bad    somebody who asked to be left alone waits too long, or what we know of them may be wrong
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from daemon.vitals import MailboxVitals, Vitals
from storage import brake
from storage.sights import Sight

Level = Literal["good", "doubt", "bad"]
DUE: Final = timedelta(hours=48)  # after a request was received it must have been dealt with
_LONG: Final = timedelta(hours=24)  # for a request to wait
_SILENT: Final = timedelta(minutes=15)  # for a mailbox
_UNCHECKED: Final = timedelta(hours=3)  # for the record, which is checked every hour
_UNSAVED: Final = timedelta(hours=2), timedelta(hours=26)  # for the ledger, of which a backup is made every hour
_LEVELS: Final = ("good", "doubt", "bad")
_HEADLINES: Final[Mapping[Level, str]] = {
    "good": "Yes: the promise is kept.",
    "doubt": "Yes, but something wants to be looked at.",
    "bad": "It is in danger: somebody has to act.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be."""

    level: Level
    sentence: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What it all comes to, and why: what is worst comes first."""

    level: Level
    headline: str
    findings: tuple[Finding, ...]


def judged(sight: Sight, vitals: Vitals, settings: Mapping[str, str], now: datetime) -> Verdict:
    """Is it kept? `settings`: path of an option -> its value in TOML, of those that are given."""
    found = [
        *_mailboxes(sight, vitals, now),
        *_requests(sight, now),
        *_record(sight, vitals, now),
        *_passing(sight, vitals, settings),
        *_held_up(sight, now),
        *_backups(sight, vitals, settings, now),
    ]
    found.sort(key=lambda finding: -_LEVELS.index(finding.level))
    level = found[0].level if found else "good"
    return Verdict(level, _HEADLINES[level], tuple(found))


def mailbox_level(mailbox: MailboxVitals, sight: Sight, vitals: Vitals, now: datetime) -> Level:
    """How a mailbox is."""
    if not mailbox.ours:  # of several nodes another one watches it
        return "good" if watched_by(mailbox, sight) else "bad"
    silent = now - (mailbox.last_success or vitals.started) >= _SILENT
    return "bad" if silent else "good" if mailbox.connected else "doubt"


def watched_by(mailbox: MailboxVitals, sight: Sight) -> str | None:
    """The other node that watches a mailbox."""
    return sight.holders.get(f"mailbox {mailbox.name}")


def _mailboxes(sight: Sight, vitals: Vitals, now: datetime) -> Iterator[Finding]:
    for mailbox in vitals.mailboxes:
        level = mailbox_level(mailbox, sight, vitals, now)
        if level == "good":
            continue
        if not mailbox.ours:
            yield Finding(level, f"Nobody watches the mailbox {mailbox.name}: what people write there lies unread.")
            continue
        since = f"has not answered for {lasted(now - (mailbox.last_success or vitals.started))}"
        yield Finding(level, f"The mailbox {mailbox.name} {since}{f' ({mailbox.trouble})' if mailbox.trouble else ''}.")


def _requests(sight: Sight, now: datetime) -> Iterator[Finding]:
    if sight.oldest_review is None:
        return
    waited = now - sight.oldest_review
    if waited > _LONG:
        late = waited > DUE
        than = f", longer than the {lasted(DUE)} that a request may take" if late else ""
        yield Finding("bad" if late else "doubt", f"A mail has waited for your decision for {lasted(waited)}{than}.")


def _record(sight: Sight, vitals: Vitals, now: datetime) -> Iterator[Finding]:
    if vitals.record_broken:
        yield Finding("bad", "The record was changed behind our back: run `optoutd audit verify`, which names the row.")
    if not sight.record.as_left:
        yield Finding("bad", "The end of the audit log is not as we left it: run `optoutd audit verify`.")
    checked = max(filter(None, (last_check(sight), vitals.started)))
    if now - checked > _UNCHECKED:
        sentence = f"The audit log has not been found whole for {lasted(now - checked)}"
        yield Finding("bad", f"{sentence}: run `optoutd audit verify`, and look for audit_broken in the log.")


def last_check(sight: Sight) -> datetime | None:
    """When the record was last found whole, back to the check before or altogether."""
    found = [sight.jobs[name] for name in ("verify_audit", "note_head") if name in sight.jobs]
    return max(found, default=None)


def _passing(sight: Sight, vitals: Vitals, settings: Mapping[str, str]) -> Iterator[Finding]:
    """What stands between a campaign and the people it may reach."""
    if vitals.promise_broken:
        many = f"{vitals.promise_broken} were mailed who had opted out before"
        yield Finding("bad", f"The promise was broken: {many}. Stop the campaign; promise_broken in the log says whom.")
    if sight.deferring_since is not None:
        since = f"{sight.deferring_since:%Y-%m-%d %H:%M} UTC"
        sentence = f"The list has a gap since {since}, so all mail is deferred: run `optoutd restore --status`."
        yield Finding("doubt", sentence)
    if vitals.upstream:
        yield Finding(
            "doubt", f"The mail server behind the relay does not answer ({vitals.upstream}): mail is deferred."
        )
    for path, value in settings.items():
        section, _, option = path.rpartition(".")
        if section.startswith("relay") and option == "mode" and value == '"observe"':
            yield Finding("doubt", f"The relay only observes ({path}): mail to people who have opted out passes.")
        elif section.startswith("mailbox") and option == "observe" and value == "true":
            yield Finding(
                "doubt", f"A mailbox is only observed ({path}): nobody who writes there is taken off the list."
            )


_PULLED: Final[Mapping[str, str]] = {
    "bounces": "Bounces wait for a person",
    "complaints": "Complaints wait for a person, and who complained is mailed meanwhile",
    "unproven": "Requests that nobody proved wait for a person, and who wrote them is mailed meanwhile",
}


def _held_up(sight: Sight, now: datetime) -> Iterator[Finding]:
    """What the brake keeps from acting, and what other programs have not heard."""
    for what, since in sight.pulled.items():
        kind, narrow = brake.kind_of(what), f" ({brake.said(what)})" if what not in _PULLED else ""
        yield Finding("doubt", f"{_PULLED[kind]}{narrow}: the brake has been pulled for {lasted(now - since)}.")
    for name, hook in sight.hooks.items():
        if hook.trouble:
            yield Finding("doubt", f"The webhook {name} does not take what it is told ({hook.trouble}).")
        if hook.undelivered:
            yield Finding("doubt", f"The webhook {name} was never told of {hook.undelivered} changes: see Webhooks.")


def _backups(sight: Sight, vitals: Vitals, settings: Mapping[str, str], now: datetime) -> Iterator[Finding]:
    if not keeps_backups(settings):
        return
    unsaved = now - max(filter(None, (sight.jobs.get("back_up"), vitals.started)))
    soon, late = _UNSAVED
    if unsaved > soon:
        level: Level = "bad" if unsaved > late else "doubt"
        yield Finding(level, f"There has been no backup for {lasted(unsaved)}: look for backup_failed in the log.")


def keeps_backups(settings: Mapping[str, str]) -> bool:
    """Are backups made?"""
    return settings.get("storage.backup_dir", '""') != '""'


def lasted(time: timedelta) -> str:
    """How long that is, in words: `47 minutes`, `3 hours`."""
    seconds = max(0, int(time.total_seconds()))
    for size, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size and (name != "days" or seconds >= 3 * size):
            return f"{seconds // size} {name}"
    return f"{seconds} seconds"
