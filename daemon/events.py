"""One function per event: the log line. Events are snake_case past tense, and a person in them is a Who.

`configure` sets up structlog once per process (JSON Lines when stderr is not a terminal). No function here takes an
address or a message text: what is logged of a person is 12 hex digits of a keyed digest, unless the operator asked
for plain addresses. A counter per event comes with /metrics, at this same place.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterable, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog

from storage.address import Who

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_ADDRESS: Final = re.compile(
    r'(?:"[^"@]{1,128}"|[^\s<>()\[\],;:"@]{1,128})@(?:\[[^\s\]]{1,60}\]|[^\s<>()\[\],;:"@]{1,253})'
)
_plain = False
_log: Any = structlog.get_logger()


def configure(format: str = "auto", level: str = "info", addresses: str = "digest") -> None:
    """Set up logging to stderr as the [log] section says."""
    global _plain, _log
    _plain = addresses == "plain"
    as_json = format == "json" or (format == "auto" and not sys.stderr.isatty())
    renderer: Any = _json if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[_head, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: _STDERR,
        cache_logger_on_first_use=False,
    )
    _log = structlog.get_logger().bind()  # made once, not for every line: each message of a campaign has one
    for noisy in ("mail.log", "aiosmtpd", "imapclient", "apscheduler", "alembic", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)  # aiosmtpd logs every command, addresses included, at INFO
    root = logging.getLogger()
    if not any(isinstance(h, _Libraries) for h in root.handlers):
        root.addHandler(_Libraries(logging.WARNING))


class _Stderr:
    """Writes lines to stderr, whole. A log that cannot be written (disk full, reader gone) must not stop a promise."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def msg(self, line: str) -> None:
        """One line."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            sys.stderr.write(line + "\n")  # which flushes: stderr is line-buffered, whatever it is

    log = debug = info = warning = warn = error = critical = fatal = exception = msg


_STDERR: Final = _Stderr()


class _Libraries(logging.Handler):
    """What libraries have to say, as an event like ours: else Python prints it to stderr as it is, addresses and all."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        trace = _trace(record.exc_info[1]) if record.exc_info else []
        say = _log.error if record.levelno >= logging.ERROR else _log.warning
        say("library_said", logger=record.name, text=masked(record.getMessage()), trace=trace)


def _head(_logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """ts, level and event first: a line is read from the left."""
    ts = datetime.now(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
    return {"ts": ts, "level": method, "event": event.pop("event"), **event}


_ENCODER: Final = json.JSONEncoder(default=str)


def _json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    return _ENCODER.encode(event)


def _who(who: Who) -> str:
    return who.plain if _plain else who.digest


def masked(text: object) -> str:
    """A text of somebody else's making (a server's reply, an error) with the addresses in it made unreadable."""
    words = " ".join(str(text)[:4000].split())
    return (words if _plain else _ADDRESS.sub("<address>", words))[:300]  # cut last: half an address is not seen as one


def _trace(error: BaseException | None) -> list[str]:
    """Where it happened, innermost last. No values: a traceback of structlog's or rich's has the locals in it."""
    lines: list[str] = []
    while error is not None:
        lines.append(type(error).__name__)
        lines += [
            f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)[-8:]
        ]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return lines


# ------------------------------------------------------------------ the service


def ready(**bound: list[str]) -> None:
    """All doors listen: `relay=["127.0.0.1:2525"]`."""
    _log.info("ready", **bound)


def stopping(signal: str) -> None:
    """A signal asked us to stop."""
    _log.info("stopping", signal=signal)


def stopped() -> None:
    """All is put away."""
    _log.info("stopped")


def duties_changed(taken: list[str], lost: list[str]) -> None:
    """Of several nodes this one does from now on what it did not do, or no more what it did."""
    _log.info("duties_changed", taken=taken, lost=lost)


def database_reached() -> None:
    """The database was away when we started, and is there now."""
    _log.info("database_reached")


def reloaded(changed: list[str]) -> None:
    """SIGHUP: the options that were taken over."""
    _log.info("reloaded", changed=changed)


def reload_refused(problems: list[str]) -> None:
    """SIGHUP: what was wrong, or cannot change without a restart."""
    _log.error("reload_refused", problems=[masked(p) for p in problems])


def job_done(name: str, **facts: int | str) -> None:
    """A scheduled job ended well."""
    _log.info("job_done", job=name, **facts)


def job_failed(name: str, reason: object) -> None:
    """A scheduled job did not end well; it runs again at its time."""
    _log.error("job_failed", job=name, reason=masked(reason))


def audit_head(seq: int, head: str) -> None:
    """Where the record ends (SEQ:HASH), every hour: in a log that others keep, too, it holds us to what stands there."""
    _log.info("audit_head", seq=seq, head=head)


def backup_failed(reason: object, advice: str) -> None:
    """There is no new backup; the older ones are as they were. Tried again in five minutes."""
    _log.error("backup_failed", reason=masked(reason), advice=advice)


def journal_failed(reason: object) -> None:
    """What was just recorded is in the database, but not in the journal: a backup is made soon, for it covers that."""
    _log.error("journal_failed", reason=masked(reason), advice="look at the disk of storage.backup_dir")


def lookups_deferred(since: str) -> None:
    """The list was restored with a gap that is not closed: every recipient is answered 451."""
    _log.error("lookups_deferred", since=since, advice="`optoutd restore --status` says what is still to be replayed")


def audit_broken(reason: str) -> None:
    """A check found that the record was changed."""
    _log.error("audit_broken", reason=masked(reason))


def database_unavailable(reason: object) -> None:
    """The ledger could not be asked: mail is deferred."""
    _log.error("database_unavailable", reason=masked(reason))


def failed(where: str, error: BaseException) -> None:
    """A bug of ours. The trace says where; values are left out, for they may be anybody's mail."""
    _log.error("failed", where=where, error=type(error).__name__, trace=_trace(error))


# ------------------------------------------------------------------ the mailbox


def mailbox_connected(mailbox: str, folders: Iterable[str]) -> None:
    """Logged in and reading."""
    _log.info("mailbox_connected", mailbox=mailbox, folders=list(folders))


def mailbox_lost(mailbox: str, step: str, reason: object, retry_seconds: float) -> None:
    """The IMAP server could not be used at `step`; tried again later."""
    _log.warning(
        "mailbox_lost", mailbox=mailbox, step=step, reason=masked(reason), retry_seconds=round(retry_seconds, 1)
    )


def message_read(mailbox: str, uid: int, label: str, rules: Iterable[str], seconds: float) -> None:
    """A message was read and dealt with. `seconds`: from noticing it to the commit."""
    _log.info("message_read", mailbox=mailbox, uid=uid, label=label, rules=list(rules), seconds=round(seconds, 4))


def message_filed(mailbox: str, uid: int, folder: str) -> None:
    """An honoured message was moved."""
    _log.info("message_filed", mailbox=mailbox, uid=uid, folder=folder)


def message_not_filed(mailbox: str, uid: int, reason: object) -> None:
    """An honoured message stays where it is: a person took it, or the server cannot move it."""
    _log.warning("message_not_filed", mailbox=mailbox, uid=uid, reason=masked(reason))


# ------------------------------------------------------------------ what came of it


def opt_out_recorded(who: Who, scope: str, ref: int, source: str) -> None:
    """A suppression was committed."""
    _log.info("opt_out_recorded", who=_who(who), scope=scope, ref=ref, source=source)


def opt_out_repeated(who: Who, scope: str, ref: int, source: str) -> None:
    """A person already suppressed asked again."""
    _log.info("opt_out_repeated", who=_who(who), scope=scope, ref=ref, source=source)


def opt_out_outdated(who: Who, scope: str) -> None:
    """An old wish, read after the person was taken off the list again: it does not count."""
    _log.info("opt_out_outdated", who=_who(who), scope=scope)


def suppression_lifted(who: Who, scope: str, rows: int) -> None:
    """A suppression was ended."""
    _log.info("suppression_lifted", who=_who(who), scope=scope, rows=rows)


def review_opened(number: int, mailbox: str, rules: Iterable[str]) -> None:
    """A doubtful message waits for a person."""
    _log.info("review_opened", id=number, mailbox=mailbox, rules=list(rules))


def review_decided(number: int, accepted: bool) -> None:
    """A person decided."""
    _log.info("review_decided", id=number, accepted=accepted)


def bounce_recorded(who: Who, hard: bool, cause: str, suppressed: bool) -> None:
    """A proven delivery report was counted."""
    _log.info("bounce_recorded", who=_who(who), hard=hard, cause=cause, suppressed=suppressed)


def complaint_recorded(who: Who, ref: int) -> None:
    """A proven feedback report was honoured."""
    _log.info("complaint_recorded", who=_who(who), ref=ref)


def message_observed(
    mailbox: str, uid: int, label: str, about: Iterable[Who], scope: str, rules: Iterable[str]
) -> None:
    """mailbox.observe: a message was read, and nothing done about it. `about`: whom it would concern."""
    people = [_who(who) for who in about]
    _log.info(
        "message_observed", mailbox=mailbox, uid=uid, label=label, about=people, scope=scope or None, rules=list(rules)
    )


def notice_sent(who: Who, kind: str) -> None:
    """The upstream has taken a mail of our own."""
    _log.info("notice_sent", who=_who(who), kind=kind)


def notice_dropped(who: Who, kind: str, reason: object) -> None:
    """A mail of our own is not sent."""
    _log.warning("notice_dropped", who=_who(who), kind=kind, reason=masked(reason))


# ------------------------------------------------------------------ the relay


def rcpt_refused(who: Who, reason: str, ref: int, list_id: str | None) -> None:
    """A suppressed recipient was refused."""
    _log.info("rcpt_refused", rcpt=_who(who), reason=reason, ref=ref, list=list_id)


def rcpt_stripped(who: Who, reason: str, ref: int, list_id: str | None) -> None:
    """A suppressed recipient was left out of a message that went to others."""
    _log.info("rcpt_stripped", rcpt=_who(who), reason=reason, ref=ref, list=list_id)


def rcpt_deferred(who: Who, reason: object, observed: bool = False) -> None:
    """Could not tell: 451; `observed`: was let pass."""
    _log.warning("rcpt_deferred", rcpt=_who(who), reason=masked(reason), observed=observed)


def message_sent(recipients: int, left_out: int, octets: int, seconds: float, upstream: str) -> None:
    """Upstream has taken a message."""
    _log.info(
        "message_sent",
        recipients=recipients,
        left_out=left_out,
        octets=octets,
        seconds=round(seconds, 4),
        reply=masked(upstream),
    )


def message_withheld(recipients: int) -> None:
    """Nobody was left to send to."""
    _log.info("message_withheld", recipients=recipients)


def message_refused(reply: str) -> None:
    """A message was not passed on; the client was told `reply`."""
    _log.info("message_refused", reply=masked(reply))


def would_refuse(who: Who, reason: str, ref: int, list_id: str | None) -> None:
    """Observe mode: a suppressed recipient passes, who would be refused."""
    _log.info("would_refuse", rcpt=_who(who), reason=reason, ref=ref, list=list_id)


def service_mail_passed(who: Who, reason: str, ref: int, list_id: str | None) -> None:
    """Service mail passes to somebody whom marketing would not reach."""
    _log.info("service_mail_passed", rcpt=_who(who), reason=reason, ref=ref, list=list_id)


def late_opt_out(who: Who, reason: str, ref: int, list_id: str | None) -> None:
    """Somebody opted out between RCPT and the dot: the message was withdrawn before its dot."""
    _log.info("late_opt_out", rcpt=_who(who), reason=reason, ref=ref, list=list_id)


def client_logged_in(username: str) -> None:
    """A client proved who it is. `username` is a name of the config; addresses in it are masked."""
    _log.debug("client_logged_in", username=masked(username))


def login_refused(peer: str) -> None:
    """A wrong user name or password, from this IP address."""
    _log.warning("login_refused", peer=peer)


def client_turned_away(peer: str, reason: str) -> None:
    """A client was greeted with 421."""
    _log.warning("client_turned_away", peer=peer, reason=reason)


def upstream_lost(step: str, reason: object) -> None:
    """The upstream could not be reached, or went away."""
    _log.warning("upstream_lost", step=step, reason=masked(reason))


def possibly_duplicated(reason: object) -> None:
    """Upstream was lost after the dot: it may have the message, and the client will send it again."""
    _log.warning("possibly_duplicated", reason=masked(reason))


# ------------------------------------------------------------------ the relay's record


def refusals_waiting(number: int, reason: object) -> None:
    """The ledger takes no refusals just now; so many wait to be written down, and are tried again."""
    _log.warning("refusals_waiting", number=number, reason=masked(reason))


def refusals_not_kept(number: int) -> None:
    """So many refusals are missing in the record: too many waited, or we had to stop while the ledger was away."""
    _log.warning("refusals_not_kept", number=number)


# ------------------------------------------------------------------ the policy service


def policy_refused(who: Who, reason: str, ref: int, list_id: str | None) -> None:
    """Postfix was told to refuse a suppressed recipient."""
    _log.info("policy_refused", rcpt=_who(who), reason=reason, ref=ref, list=list_id)


def policy_would_refuse(who: Who, reason: str, ref: int, list_id: str | None) -> None:
    """Only observed: Postfix was let have a suppressed recipient."""
    _log.info("policy_would_refuse", rcpt=_who(who), reason=reason, ref=ref, list=list_id)


def policy_unreadable(who: Who, observed: bool) -> None:
    """A recipient that is no address we can look up was refused; `observed`: was let pass. `who` is of its spelling."""
    _log.warning("policy_unreadable", rcpt=_who(who), observed=observed)


def policy_deferred(who: Who, reason: object, observed: bool) -> None:
    """Could not tell: 451; `observed`: was let pass."""
    _log.warning("policy_deferred", rcpt=_who(who), reason=masked(reason), observed=observed)


def policy_misconfigured(what: str, observed: bool) -> None:
    """main.cf or a credential names what there is not: 451 for all such mail until it is mended; `observed`: it passes."""
    _log.error("policy_misconfigured", what=masked(what), observed=observed)


def policy_hung_up(reason: str) -> None:
    """A client of the policy service did not keep to the protocol, or there were too many."""
    _log.warning("policy_hung_up", reason=reason)


def upstream_changed(host: str, port: int, reason: object) -> None:
    """From now on mail goes to this server: why not to the one before."""
    _log.warning("upstream_changed", host=host, port=port, reason=masked(reason))


# ------------------------------------------------------------------ the web


def one_click_recorded(who: Who, scope: str, ref: int, repeated: bool) -> None:
    """A one-click opt-out was committed; `repeated`: it stood already."""
    _log.info("one_click_recorded", who=_who(who), scope=scope, ref=ref, repeated=repeated)
