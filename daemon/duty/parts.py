"""Alarms about the parts of this node: seen without the database, which may be the very thing that is away."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from daemon.duty.alarm import Alarm, Glance, Look
from daemon.texts import lasted
from daemon.vitals import MailboxVitals

UPSTREAM: Final = timedelta(minutes=15)  # unreached: mail is deferred meanwhile
_JOURNAL: Final = timedelta(minutes=15)  # behind: a backup, which covers it, is tried every five
CERTIFICATE_DAYS: Final = 14
JUMP: Final = timedelta(minutes=1)
DAY: Final = timedelta(hours=24)  # so long an alarm stands of what happened in one moment
_ROOM: Final = 1.1  # an alarm ends at so much more than the limit, so that it does not come and go


def last_heard(look: Glance | Look, mailbox: MailboxVitals) -> datetime:
    """When its server last answered; before the first answer what stood before our own start goes on, else our start."""
    stood = look.standing.get(("mailbox-silent", mailbox.name))
    return mailbox.last_success or stood or look.vitals.started


def mailboxes(look: Glance) -> Iterator[Alarm]:
    """A mailbox of this node that has not answered for too long: what people write there is not read."""
    for mailbox in look.vitals.mailboxes:
        if not mailbox.ours:
            continue
        heard = last_heard(look, mailbox)
        if look.now - heard >= look.limits.silent:
            why = f" ({mailbox.trouble})" if mailbox.trouble else ""
            yield Alarm(
                "mailbox-silent",
                mailbox.name,
                heard,
                f"Mailbox {mailbox.name} has been silent for {lasted(look.now - heard)}{why}",
                "Who writes there is not heard. `optoutd doctor` names the step that fails and what to do;"
                " look at host, user name, password and certificate of that [[mailbox]].",
            )


def promise(look: Glance) -> Iterator[Alarm]:
    """Somebody was mailed who had opted out."""
    number, stood = look.vitals.promise_broken, look.standing.get(("promise-broken", ""))
    if number or (stood is not None and abs(look.now - stood) < DAY):
        many = f"{number} people were" if number > 1 else "Somebody was"
        yield Alarm(
            "promise-broken",
            "",
            stood or look.now,
            f"{many} mailed who had opted out" if number else "",  # before our start: as it was told
            "Stop the campaign. promise_broken in the log has the ref: `optoutd show --ref N` says who it is."
            " Then run `optoutd audit verify`, and report it as a bug.",
        )


def upstream(look: Glance) -> Iterator[Alarm]:
    """No mail server takes what the relay passes on."""
    if look.vitals.upstream:
        yield Alarm(
            "upstream-down",
            look.beside,
            look.now,
            f"No mail server behind the relay answers{look.beside} ({look.vitals.upstream})",
            "Senders hear 451 and try again, and no notice goes out. Look at [upstream] and at that server's own log.",
            ripe=UPSTREAM,
        )


def journal(look: Glance) -> Iterator[Alarm]:
    """Changes are only in the database."""
    if look.vitals.journal_behind:
        yield Alarm(
            "journal-failing",
            look.beside,
            look.now,
            f"The journal of keys{look.beside} cannot be written",
            "Opt-outs are recorded, but after a loss of the disk the newest would be missing."
            " Look at the disk and the rights of storage.backup_dir.",
            ripe=_JOURNAL,
        )


def disks(look: Glance) -> Iterator[Alarm]:
    """There is little room left to write to."""
    for of, octets in look.free.items():
        about = of + look.beside
        limit = look.limits.disk_free * (_ROOM if ("disk-low", about) in look.standing else 1)
        if octets < limit:
            yield Alarm(
                "disk-low",
                about,
                look.now,
                f"{octets // 1024**2:,} MB are left on the disk of the {about}",
                "Make room, or move it: on a full disk no opt-out can be written down.",
            )


def certificates(look: Glance) -> Iterator[Alarm]:
    """Our own certificate ends soon."""
    for file, days in look.vitals.certificates.items():
        if days < CERTIFICATE_DAYS:
            ends = f"ends in {days} days" if days >= 0 else "has ended"
            yield Alarm(
                "certificate-ending",
                file + look.beside,
                look.now,
                f"The certificate {file}{look.beside} {ends}",
                "Senders will refuse to speak to the relay. Put a new one in its place, then `systemctl reload optoutd`.",
            )


def clock(look: Glance) -> Iterator[Alarm]:
    """The wall clock jumped."""
    about = ("forward" if look.jump > timedelta(0) else "back") + look.beside
    jumped = abs(look.jump) > JUMP
    if jumped:
        yield Alarm(
            "clock-jumped",
            about,
            look.now,
            f"The clock went {about} by {lasted(abs(look.jump))} at once",
            "Times in the record and in the log may be wrong around then. See that the machine's clock is kept by NTP;"
            " after a suspended machine this is only told.",
        )
    for key, since in look.standing.items():
        kind, which = key
        if kind == "clock-jumped" and not (jumped and which == about) and abs(look.now - since) < DAY:
            yield Alarm("clock-jumped", which, since, "", "")  # as it was told
