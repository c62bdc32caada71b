"""The events of mail that goes out: of the relay and its record, of the upstream, of the policy service. As in daemon.events, no
function here takes an address or a message text.
"""

from __future__ import annotations

from daemon import log, metrics
from daemon.log import masked, shown
from storage.address import Who

# ------------------------------------------------------------------ the relay


def rcpt_refused(who: Who, reason: str, ref: int, list_id: str | None) -> None:
    """A suppressed recipient was refused."""
    log.bound.info("rcpt_refused", rcpt=shown(who), reason=reason, ref=ref, list=list_id)


def rcpt_stripped(who: Who, reason: str, ref: int, list_id: str | None) -> None:
    """A suppressed recipient was left out of a message that went to others."""
    log.bound.info("rcpt_stripped", rcpt=shown(who), reason=reason, ref=ref, list=list_id)


def rcpt_deferred(who: Who, reason: object, observed: bool = False) -> None:
    """Could not tell: 451; `observed`: was let pass."""
    log.bound.warning("rcpt_deferred", rcpt=shown(who), reason=masked(reason), observed=observed)


def message_sent(recipients: int, left_out: int, octets: int, seconds: float, upstream: str) -> None:
    """Upstream has taken a message."""
    log.bound.info(
        "message_sent",
        recipients=recipients,
        left_out=left_out,
        octets=octets,
        seconds=round(seconds, 4),
        reply=masked(upstream),
    )


def message_withheld(recipients: int) -> None:
    """Nobody was left to send to."""
    log.bound.info("message_withheld", recipients=recipients)


def message_refused(reply: str) -> None:
    """A message was not passed on; the client was told `reply`."""
    log.bound.info("message_refused", reply=masked(reply))


def would_refuse(who: Who, reason: str, ref: int, list_id: str | None) -> None:
    """Observe mode: a suppressed recipient passes, who would be refused."""
    metrics.passed_all_the_same.inc("observe")
    log.bound.info("would_refuse", rcpt=shown(who), reason=reason, ref=ref, list=list_id)


def service_mail_passed(who: Who, reason: str, ref: int, list_id: str | None) -> None:
    """Service mail passes to somebody whom marketing would not reach."""
    metrics.passed_all_the_same.inc("service")
    log.bound.info("service_mail_passed", rcpt=shown(who), reason=reason, ref=ref, list=list_id)


def late_opt_out(who: Who, reason: str, ref: int, list_id: str | None) -> None:
    """Somebody opted out between RCPT and the dot: the message was withdrawn before its dot."""
    metrics.late_opt_outs.inc()
    log.bound.info("late_opt_out", rcpt=shown(who), reason=reason, ref=ref, list=list_id)


def promise_broken(who: Who, reason: str, ref: int) -> None:
    """Somebody got mail although this suppression stood when the last question was put. Must never happen."""
    metrics.promise_broken.inc()
    log.bound.error("promise_broken", rcpt=shown(who), reason=reason, ref=ref)


def client_logged_in(username: str) -> None:
    """A client proved who it is. `username` is a name of the config; addresses in it are masked."""
    log.bound.debug("client_logged_in", username=masked(username))


def login_refused(peer: str) -> None:
    """A wrong user name or password, from this IP address."""
    log.bound.warning("login_refused", peer=peer)


def client_turned_away(peer: str, reason: str) -> None:
    """A client was greeted with 421."""
    log.bound.warning("client_turned_away", peer=peer, reason=reason)


def upstream_lost(step: str, reason: object) -> None:
    """The upstream could not be reached, or went away."""
    log.bound.warning("upstream_lost", step=step, reason=masked(reason))


def upstream_changed(host: str, port: int, reason: object) -> None:
    """From now on mail goes to this server: why not to the one before."""
    log.bound.warning("upstream_changed", host=host, port=port, reason=masked(reason))


def possibly_duplicated(reason: object) -> None:
    """Upstream was lost after the dot: it may have the message, and the client will send it again."""
    metrics.possibly_duplicated.inc()
    log.bound.warning("possibly_duplicated", reason=masked(reason))


# ------------------------------------------------------------------ the relay's record


def refusals_waiting(number: int, reason: object) -> None:
    """The ledger takes no refusals just now; so many wait to be written down, and are tried again."""
    log.bound.warning("refusals_waiting", number=number, reason=masked(reason))


def refusals_not_kept(number: int) -> None:
    """So many refusals are missing in the record: too many waited, or we had to stop while the ledger was away."""
    log.bound.warning("refusals_not_kept", number=number)


# ------------------------------------------------------------------ the policy service


def policy_refused(who: Who, reason: str, ref: int, list_id: str | None) -> None:
    """Postfix was told to refuse a suppressed recipient."""
    log.bound.info("policy_refused", rcpt=shown(who), reason=reason, ref=ref, list=list_id)


def policy_would_refuse(who: Who, reason: str, ref: int, list_id: str | None) -> None:
    """Only observed: Postfix was let have a suppressed recipient."""
    log.bound.info("policy_would_refuse", rcpt=shown(who), reason=reason, ref=ref, list=list_id)


def policy_unreadable(who: Who, observed: bool) -> None:
    """A recipient that is no address we can look up was refused; `observed`: was let pass. `who` is of its spelling."""
    log.bound.warning("policy_unreadable", rcpt=shown(who), observed=observed)


def policy_deferred(who: Who, reason: object, observed: bool) -> None:
    """Could not tell: 451; `observed`: was let pass."""
    log.bound.warning("policy_deferred", rcpt=shown(who), reason=masked(reason), observed=observed)


def policy_misconfigured(what: str, observed: bool) -> None:
    """main.cf or a credential names what there is not: 451 for all such mail until it is mended; `observed`: it passes."""
    log.bound.error("policy_misconfigured", what=masked(what), observed=observed)


def policy_hung_up(reason: str) -> None:
    """A client of the policy service did not keep to the protocol, or there were too many."""
    log.bound.warning("policy_hung_up", reason=reason)
