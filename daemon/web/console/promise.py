"""Is the promise being kept? What is known of the parts of the daemon and of the ledger, judged. Pure.

The alarms that stand come with what to do; what can be seen at once and is no alarm (yet) is found here, and left out where an
alarm says the same.

good   nothing waits too long, nothing is in the way
doubt  nobody is mailed by mistake, but something wants to be looked at
bad    somebody who asked to be left alone waits too long, or what we know of them may be wrong
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from daemon.duty.alarm import Kind, Limits
from daemon.texts import lasted
from daemon.vitals import AlarmVitals, MailboxVitals, Vitals
from storage import brake
from storage.sights import Sight

Level = Literal["good", "doubt", "bad"]
_UNCHECKED: Final = timedelta(hours=3)  # for the record, which is checked every hour
_UNSAVED: Final = timedelta(hours=2), timedelta(hours=26)  # for the ledger, of which a backup is made every hour
_LEVELS: Final = ("good", "doubt", "bad")
_BAD: Final[frozenset[Kind]] = frozenset(
    {
        "promise-broken",
        "record-broken",
        "suppressions-unexplained",
        "request-overdue",
        "mailbox-silent",
        "mailbox-unwatched",
        "uid-gap",
        "canary-failed",
        "database-away",
    }
)
_HEADLINES: Final[Mapping[Level, str]] = {
    "good": "Yes: the promise is kept.",
    "doubt": "Yes, but something wants to be looked at.",
    "bad": "It is in danger: somebody has to act.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be. `alarm`: the (kind, about) of the alarm that says the same, if it stands;
    "*": whatever it is about. `since`, `advice`: of one that does."""

    level: Level
    sentence: str
    alarm: tuple[Kind, str] | None = None
    since: datetime | None = None
    advice: str = ""

    def is_said_by(self, alarm: AlarmVitals) -> bool:
        """Does this alarm say the same?"""
        return self.alarm in ((alarm.kind, alarm.about), (alarm.kind, "*"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What it all comes to, and why: what is worst comes first."""

    level: Level
    headline: str
    findings: tuple[Finding, ...]


def judged(
    sight: Sight, vitals: Vitals, settings: Mapping[str, str], now: datetime, limits: Limits | None = None
) -> Verdict:
    """Is it kept? `settings`: path of an option -> its value in TOML, of those that are given; `limits`: section duty."""
    limits = limits or Limits()
    seen = [
        *_mailboxes(sight, vitals, now, limits),
        *_requests(sight, now, limits),
        *_record(sight, vitals, now),
        *_passing(sight, vitals, settings),
        *_held_up(sight, now),
        *_backups(sight, vitals, settings, now),
    ]
    alarms = vitals.duty.alarms if vitals.duty else ()
    found = [_of_alarm(alarm, seen) for alarm in alarms]
    found += [finding for finding in seen if not any(map(finding.is_said_by, alarms))]
    found.sort(key=lambda finding: -_LEVELS.index(finding.level))
    level = found[0].level if found else "good"
    return Verdict(level, _HEADLINES[level], tuple(found))


def _of_alarm(alarm: AlarmVitals, seen: Iterable[Finding]) -> Finding:
    """As bad as its kind, or as what is seen of it at this moment."""
    levels: list[Level] = ["bad" if alarm.kind in _BAD else "doubt"]
    levels += [finding.level for finding in seen if finding.is_said_by(alarm)]
    return Finding(max(levels, key=_LEVELS.index), f"{alarm.text}.", None, alarm.since, alarm.advice)


def mailbox_level(mailbox: MailboxVitals, sight: Sight, vitals: Vitals, now: datetime, limits: Limits) -> Level:
    """How a mailbox is."""
    if not mailbox.ours:  # of several nodes another one watches it
        return "good" if watched_by(mailbox, sight) else "bad"
    silent = now - (mailbox.last_success or vitals.started) >= limits.silent
    return "bad" if silent else "good" if mailbox.connected else "doubt"


def watched_by(mailbox: MailboxVitals, sight: Sight) -> str | None:
    """The other node that watches a mailbox."""
    return sight.holders.get(f"mailbox {mailbox.name}")


def _mailboxes(sight: Sight, vitals: Vitals, now: datetime, limits: Limits) -> Iterator[Finding]:
    for mailbox in vitals.mailboxes:
        level = mailbox_level(mailbox, sight, vitals, now, limits)
        if level == "good":
            continue
        if not mailbox.ours:
            said = f"Nobody watches the mailbox {mailbox.name}: what people write there lies unread."
            yield Finding(level, said, ("mailbox-unwatched", mailbox.name))
            continue
        since = f"has not answered for {lasted(now - (mailbox.last_success or vitals.started))}"
        said = f"The mailbox {mailbox.name} {since}{f' ({mailbox.trouble})' if mailbox.trouble else ''}."
        yield Finding(level, said, ("mailbox-silent", mailbox.name))


def _requests(sight: Sight, now: datetime, limits: Limits) -> Iterator[Finding]:
    if sight.oldest_review is None:
        return
    waited = now - sight.oldest_review
    if waited > limits.review:
        late = waited > limits.due
        than = f", longer than the {lasted(limits.due)} that a request may take" if late else ""
        said = f"A mail has waited for your decision for {lasted(waited)}{than}."
        yield Finding("bad" if late else "doubt", said, ("review-old", ""))


def _record(sight: Sight, vitals: Vitals, now: datetime) -> Iterator[Finding]:
    if vitals.record_broken:
        said = "The record was changed behind our back: run `optoutd audit verify`, which names the row."
        yield Finding("bad", said, ("record-broken", ""))
    if not sight.record.as_left:
        said = "The end of the audit log is not as we left it: run `optoutd audit verify`."
        yield Finding("bad", said, ("record-broken", "end"))
    checked = max(filter(None, (last_check(sight), vitals.started)))
    if now - checked > _UNCHECKED:
        sentence = f"The audit log has not been found whole for {lasted(now - checked)}"
        said = f"{sentence}: run `optoutd audit verify`, and look for audit_broken in the log."
        yield Finding("bad", said, ("job-late", "note_head"))


def last_check(sight: Sight) -> datetime | None:
    """When the record was last found whole, back to the check before or altogether."""
    found = [sight.jobs[name] for name in ("verify_audit", "note_head") if name in sight.jobs]
    return max(found, default=None)


def _passing(sight: Sight, vitals: Vitals, settings: Mapping[str, str]) -> Iterator[Finding]:
    """What stands between a campaign and the people it may reach."""
    if vitals.promise_broken:
        many = f"{vitals.promise_broken} were mailed who had opted out before"
        said = f"The promise was broken: {many}. Stop the campaign; promise_broken in the log says whom."
        yield Finding("bad", said, ("promise-broken", ""))
    if sight.deferring_since is not None:
        since = f"{sight.deferring_since:%Y-%m-%d %H:%M} UTC"
        sentence = f"The list has a gap since {since}, so all mail is deferred: run `optoutd restore --status`."
        yield Finding("doubt", sentence, ("lookups-deferred", ""))
    if vitals.upstream:
        said = f"The mail server behind the relay does not answer ({vitals.upstream}): mail is deferred."
        yield Finding("doubt", said, ("upstream-down", "*"))
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
        said = f"{_PULLED[kind]}{narrow}: the brake has been pulled for {lasted(now - since)}."
        yield Finding("doubt", said, ("brake-pulled", what))
    for name, hook in sight.hooks.items():
        if hook.trouble:
            said = f"The webhook {name} does not take what it is told ({hook.trouble})."
            yield Finding("doubt", said, ("webhook-failing", name))
        if hook.undelivered:
            said = f"The webhook {name} was never told of {hook.undelivered} changes: see Webhooks."
            yield Finding("doubt", said, ("webhook-gave-up", name))


def _backups(sight: Sight, vitals: Vitals, settings: Mapping[str, str], now: datetime) -> Iterator[Finding]:
    if not keeps_backups(settings):
        return
    unsaved = now - max(filter(None, (sight.jobs.get("back_up"), vitals.started)))
    soon, late = _UNSAVED
    if unsaved > soon:
        level: Level = "bad" if unsaved > late else "doubt"
        said = f"There has been no backup for {lasted(unsaved)}: look for backup_failed in the log."
        yield Finding(level, said, ("backup-old", ""))


def keeps_backups(settings: Mapping[str, str]) -> bool:
    """Are backups made?"""
    return settings.get("storage.backup_dir", '""') != '""'
