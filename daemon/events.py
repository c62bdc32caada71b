"""One function per event: the log line, and what is counted of it. Events are snake_case past tense, and a person in them is a Who.

No function here takes an address or a message text. Those of mail that goes out are in daemon.relay_events.
"""

from __future__ import annotations

from collections.abc import Iterable

from daemon import log, metrics
from daemon.log import configure, masked, shown, trace_of
from storage.address import Who

__all__ = ["configure", "masked"]  # and every event of this file

# ------------------------------------------------------------------ the service


def ready(**bound: list[str]) -> None:
    """All doors listen: `relay=["127.0.0.1:2525"]`."""
    log.bound.info("ready", **bound)


def stopping(signal: str) -> None:
    """A signal asked us to stop."""
    log.bound.info("stopping", signal=signal)


def stopped() -> None:
    """All is put away."""
    log.bound.info("stopped")


def duties_changed(taken: list[str], lost: list[str]) -> None:
    """Of several nodes this one does from now on what it did not do, or no more what it did."""
    log.bound.info("duties_changed", taken=taken, lost=lost)


def database_reached() -> None:
    """The database was away when we started, and is there now."""
    log.bound.info("database_reached")


def reloaded(changed: list[str]) -> None:
    """SIGHUP: the options that were taken over."""
    log.bound.info("reloaded", changed=changed)


def reload_refused(problems: list[str]) -> None:
    """SIGHUP: what was wrong, or cannot change without a restart."""
    log.bound.error("reload_refused", problems=[masked(p) for p in problems])


def job_done(name: str, **facts: int | str) -> None:
    """A scheduled job ended well."""
    if name == "verify_audit":  # all of it is whole
        metrics.audit_broken.on = False
    elif name == "check_evidence":
        metrics.suppressions_unexplained.on = False
    log.bound.info("job_done", job=name, **facts)


def job_failed(name: str, reason: object) -> None:
    """A scheduled job did not end well; it runs again at its time."""
    metrics.job_failures.inc(name)
    log.bound.error("job_failed", job=name, reason=masked(reason))


def audit_head(seq: int, head: str) -> None:
    """Where the record ends (SEQ:HASH), every hour: in a log that others keep, too, it holds us to what stands there."""
    log.bound.info("audit_head", seq=seq, head=head)


def backup_failed(reason: object, advice: str) -> None:
    """There is no new backup; the older ones are as they were. Tried again in five minutes."""
    metrics.backup_failures.inc()
    log.bound.error("backup_failed", reason=masked(reason), advice=advice)


def journal_failed(reason: object) -> None:
    """What was just recorded is in the database, but not in the journal: a backup is made soon, for it covers that."""
    log.bound.error("journal_failed", reason=masked(reason), advice="look at the disk of storage.backup_dir")


def lookups_deferred(since: str) -> None:
    """The list was restored with a gap that is not closed: every recipient is answered 451."""
    log.bound.error(
        "lookups_deferred", since=since, advice="`optoutd restore --status` says what is still to be replayed"
    )


def audit_broken(reason: str) -> None:
    """A check found that the record was changed."""
    metrics.audit_broken.on = True
    log.bound.error("audit_broken", reason=masked(reason))


def suppressions_unexplained(number: int) -> None:
    """The daily check found so many suppressions without evidence: somebody has deleted rows."""
    metrics.suppressions_unexplained.on = True
    log.bound.error("suppressions_unexplained", number=number)


def alarm_raised(kind: str, which: str, since: str, text: str, advice: str) -> None:
    """Something wants a person (daemon.duty)."""
    log.bound.error("alarm_raised", kind=kind, which=masked(which), since=since, text=masked(text), advice=advice)


def alarm_ended(kind: str, which: str, since: str) -> None:
    """It does not any more."""
    log.bound.info("alarm_ended", kind=kind, which=masked(which), since=since)


def alarms_mailed(new: int, over: int, standing: int) -> None:
    """The upstream has taken a mail to the operators, about so many alarms."""
    metrics.duty_mails.inc("sent")
    log.bound.info("alarms_mailed", new=new, over=over, standing=standing)


def digest_mailed() -> None:
    """The upstream has taken the digest."""
    metrics.duty_mails.inc("sent")
    log.bound.info("digest_mailed")


def alarm_mail_failed(what: str, reason: object) -> None:
    """A mail to the operators (`alarm`, `digest`) was not taken; tried again for as long as there is something to tell."""
    metrics.duty_mails.inc("failed")
    log.bound.error("alarm_mail_failed", what=what, reason=masked(reason))


def operators_not_mailed(reason: str) -> None:
    """There is an address for alarms, and no way to mail it."""
    log.bound.warning("operators_not_mailed", reason=reason)


def database_unavailable(reason: object) -> None:
    """The ledger could not be asked: mail is deferred."""
    log.bound.error("database_unavailable", reason=masked(reason))


def descriptors_exhausted(reason: str) -> None:
    """No file descriptor is free: clients are hung up on as they come. Told once a minute."""
    log.bound.error("descriptors_exhausted", reason=reason)


def failed(where: str, error: BaseException) -> None:
    """A bug of ours. The trace says where; values are left out, for they may be anybody's mail."""
    metrics.failures.inc()
    log.bound.error("failed", where=where, error=type(error).__name__, trace=trace_of(error))


# ------------------------------------------------------------------ the mailbox


def mailbox_connected(mailbox: str, folders: Iterable[str]) -> None:
    """Logged in and reading."""
    log.bound.info("mailbox_connected", mailbox=mailbox, folders=list(folders))


def mailbox_lost(mailbox: str, step: str, reason: object, retry_seconds: float, advice: str = "") -> None:
    """The IMAP server could not be used at `step`; tried again later. `advice`: what to do about it, if that is known."""
    more = {"advice": advice} if advice else {}
    seconds = round(retry_seconds, 1)
    log.bound.warning("mailbox_lost", mailbox=mailbox, step=step, reason=masked(reason), retry_seconds=seconds, **more)


def mailbox_doubtful(mailbox: str, advice: str) -> None:
    """It is read, but something about its folders or its server is not as it should be."""
    log.bound.warning("mailbox_doubtful", mailbox=mailbox, advice=masked(advice))


def refresh_token_not_kept(mailbox: str, reason: object) -> None:
    """The token server gave a new refresh token, and it could not be written down: a restart would lose it."""
    log.bound.error("refresh_token_not_kept", mailbox=mailbox, reason=masked(reason))


def message_read(mailbox: str, uid: int, label: str, rules: Iterable[str], seconds: float) -> None:
    """A message was read and dealt with. `seconds`: from noticing it to the commit."""
    metrics.intake_messages.inc(mailbox, label)
    if label == "opt-out":
        metrics.enforcement_seconds.observe(seconds)
    log.bound.info("message_read", mailbox=mailbox, uid=uid, label=label, rules=list(rules), seconds=round(seconds, 4))


def message_filed(mailbox: str, uid: int, folder: str) -> None:
    """An honoured message was moved."""
    log.bound.info("message_filed", mailbox=mailbox, uid=uid, folder=folder)


def message_not_filed(mailbox: str, uid: int, reason: object) -> None:
    """An honoured message stays where it is: a person took it, or the server cannot move it."""
    log.bound.warning("message_not_filed", mailbox=mailbox, uid=uid, reason=masked(reason))


def messages_missed(mailbox: str, folder: str, number: int) -> None:
    """So many messages lay unread below others that were read: they are read now."""
    metrics.intake_missed.of(mailbox).inc(number)
    log.bound.error("messages_missed", mailbox=mailbox, folder=folder, count=number)


def uids_given_again(mailbox: str, folder: str, first: int) -> None:
    """The server gives UIDs from this one on a second time: it was restored. Mail that bears them is read as new."""
    log.bound.error("uids_given_again", mailbox=mailbox, folder=folder, first=first)


# ------------------------------------------------------------------ the canary


def canary_passed(
    mailbox: str, appended: float, noticed: float, read: float, committed: float, refused: float, removed: float
) -> None:
    """Our test message went through mailbox, reading and gate. Seconds since it was sent to the mailbox."""
    log.bound.info(
        "canary_passed",
        mailbox=mailbox,
        appended=round(appended, 4),
        noticed=round(noticed, 4),
        read=round(read, 4),
        committed=round(committed, 4),
        refused=round(refused, 4),
        removed=round(removed, 4),
    )


def canary_failed(mailbox: str, step: str, reason: object) -> None:
    """Our test message did not come through: at which step, and why. A new one is sent in an hour."""
    log.bound.error("canary_failed", mailbox=mailbox, step=step, reason=masked(reason))


def canary_broken_off(mailbox: str) -> None:
    """A stop, a crash or a lost connection came between; what was left is cleared, and a new one is sent soon."""
    log.bound.info("canary_broken_off", mailbox=mailbox)


def canary_skipped(mailbox: str, reason: object) -> None:
    """No test message can be sent to this mailbox."""
    log.bound.warning("canary_skipped", mailbox=mailbox, reason=masked(reason))


# ------------------------------------------------------------------ what came of it


def opt_out_recorded(who: Who, scope: str, ref: int, source: str) -> None:
    """A suppression was committed."""
    log.bound.info("opt_out_recorded", who=shown(who), scope=scope, ref=ref, source=source)


def opt_out_repeated(who: Who, scope: str, ref: int, source: str) -> None:
    """A person already suppressed asked again."""
    log.bound.info("opt_out_repeated", who=shown(who), scope=scope, ref=ref, source=source)


def opt_out_outdated(who: Who, scope: str) -> None:
    """An old wish, read after the person was taken off the list again: it does not count."""
    log.bound.info("opt_out_outdated", who=shown(who), scope=scope)


def suppression_lifted(who: Who, scope: str, rows: int) -> None:
    """A suppression was ended."""
    log.bound.info("suppression_lifted", who=shown(who), scope=scope, rows=rows)


def review_opened(number: int, mailbox: str, rules: Iterable[str]) -> None:
    """A doubtful message waits for a person."""
    log.bound.info("review_opened", id=number, mailbox=mailbox, rules=list(rules))


def review_decided(number: int, accepted: bool) -> None:
    """A person decided."""
    log.bound.info("review_decided", id=number, accepted=accepted)


def brake_pulled(what: str, because: str) -> None:
    """Too many came of one cause: what it says of further people waits for a person from now on."""
    metrics.brake_pulled.inc(what.partition(":")[0])
    advice = f"`optoutd review list --cause {what}` has what waits; `optoutd brake --release {what}` when it is over"
    log.bound.error("brake_pulled", what=what, because=because, advice=advice)


def bounce_recorded(who: Who, hard: bool, cause: str, suppressed: bool) -> None:
    """A proven delivery report was counted."""
    log.bound.info("bounce_recorded", who=shown(who), hard=hard, cause=cause, suppressed=suppressed)


def complaint_recorded(who: Who, ref: int) -> None:
    """A proven feedback report was honoured."""
    log.bound.info("complaint_recorded", who=shown(who), ref=ref)


def message_observed(
    mailbox: str, uid: int, label: str, about: Iterable[Who], scope: str, rules: Iterable[str]
) -> None:
    """mailbox.observe: a message was read, and nothing done about it. `about`: whom it would concern."""
    people = [shown(who) for who in about]
    log.bound.info(
        "message_observed", mailbox=mailbox, uid=uid, label=label, about=people, scope=scope or None, rules=list(rules)
    )


def notice_sent(who: Who, kind: str) -> None:
    """The upstream has taken a mail of our own."""
    log.bound.info("notice_sent", who=shown(who), kind=kind)


def notice_dropped(who: Who, kind: str, reason: object) -> None:
    """A mail of our own is not sent."""
    log.bound.warning("notice_dropped", who=shown(who), kind=kind, reason=masked(reason))


# ------------------------------------------------------------------ the web


def one_click_recorded(who: Who, scope: str, ref: int, repeated: bool) -> None:
    """A one-click opt-out was committed; `repeated`: it stood already."""
    metrics.oneclick.inc("repeated" if repeated else "recorded")
    log.bound.info("one_click_recorded", who=shown(who), scope=scope, ref=ref, repeated=repeated)


def list_imported(number: int, added: int, already: int, skipped: int, bad: int) -> None:
    """A list that came by HTTP was put into the ledger: which import it is, and what became of its rows."""
    log.bound.info("list_imported", number=number, added=added, already=already, skipped=skipped, bad=bad)


def console_entered(operator: str, peer: str) -> None:
    """An operator has logged in to the console, from this IP address."""
    log.bound.info("console_entered", operator=operator, peer=peer)


def operators_shut_out(listen: str) -> None:
    """The config has operators or tokens, but `web.listen` can be reached by others: neither console nor API is there."""
    log.bound.warning("operators_shut_out", listen=listen)


def console_login_refused(peer: str) -> None:
    """A wrong name or password at the console, from this IP address."""
    log.bound.warning("console_login_refused", peer=peer)


# ------------------------------------------------------------------ webhooks


def hook_told(hook: str, seq: int) -> None:
    """A program has said that it knows of this change."""
    log.bound.debug("hook_told", hook=hook, seq=seq)


def hook_failed(hook: str, reason: object, retry_seconds: float) -> None:
    """A program could not be told of a change; tried again later, with all that comes behind it."""
    log.bound.warning("hook_failed", hook=hook, reason=masked(reason), retry_seconds=round(retry_seconds, 1))


def hook_recovered(hook: str, failures: int) -> None:
    """A program is told of changes again, after so many failures in a row."""
    log.bound.info("hook_recovered", hook=hook, failures=failures)


def hook_gave_up(hook: str, changes: int, reason: object) -> None:
    """These changes could not be told for three days: `optoutd hooks` has them, and somebody must look after it."""
    log.bound.error("hook_gave_up", hook=hook, changes=changes, reason=masked(reason))
