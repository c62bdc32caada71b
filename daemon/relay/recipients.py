"""Who gets a message and who does not: what the gate says, by the sender's policy, and what is written down of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from daemon import metrics, relay_events
from daemon.connection import Reply
from daemon.gate import Answer, Pass, Refused, Unknown
from daemon.relay import envelope
from daemon.relay.access import Policy
from daemon.relay.context import Context
from storage.address import person
from storage.refusals import Kept, Refusal

_MESSAGE_ID: Final = re.compile(
    rb"^message-id[ \t]*:[ \t]{0,5}(?:\r\n[ \t]{1,5})?([^ \t\r\n][^\r\n]{0,299})", re.IGNORECASE | re.MULTILINE
)
_PASSED: Final = ("would-refuse", "service")  # kept of those who get the message all the same
_PASSED_ON: Final = metrics.relay_recipients.of("passed")


@dataclass(slots=True)
class Recipient:
    """A recipient whom nothing stands against, or who was left out; `refused` says why, in observe mode of one who passes.

    `outcome`: as what it is kept, so that it is counted once; None: as nothing, or it was deferred or rejected since.
    """

    rcpt: envelope.Rcpt
    refused: Refused | None = None
    outcome: Kept | None = None


class Recipients:
    """The recipients of one message. `taken`: by the upstream. `left_out`: told 250, or known too late for a 550."""

    def __init__(self, context: Context, policy: Policy):
        self._context, self._policy = context, policy
        self.taken: list[Recipient] = []
        self.left_out: list[Recipient] = []
        self.asked = 0
        self.parted = False  # some were left out when the list was known
        self.foreign = False  # the message carries somebody else's unsubscribe link
        self.sent = self.deferred = self.rejected = self.duplicates = 0
        self.withheld = False  # nobody was left to send to
        self._kept: list[Recipient] = []
        self._block = b""  # the message's header

    @property
    def _observes(self) -> bool:
        """Does everything pass, whatever the gate says or cannot say? What it says is told all the same."""
        return self._policy.mode == "observe"

    @property
    def promised(self) -> bool:
        """Does nobody get this mail who is on the list?"""
        return self._policy.purpose == "marketing" and not self._observes

    @property
    def count(self) -> int:
        """How many were told 250."""
        return len(self.taken) + len(self.left_out)

    # ---- what the gate says

    def judge(self, found: envelope.Rcpt, answer: Answer) -> Recipient | str:
        """Somebody to offer to the upstream, or the reply to this RCPT."""
        if isinstance(answer, Pass):
            recipient = Recipient(found)
            if answer.despite is not None:
                recipient.refused = answer.despite
                self._keep("service", recipient)
            return recipient
        if isinstance(answer, Unknown):
            self._tell_doubt(found, answer)
            if self._observes:
                return Recipient(found)
            self.deferred += 1
            return answer.reply
        recipient = Recipient(found, answer)
        if self._observes:
            self._keep("would-refuse", recipient)
            return recipient
        if self._policy.mode == "strip":
            self.left_out.append(recipient)
            self._keep("stripped", recipient)
            return "250 2.1.5 ok"
        self._keep("refused", recipient)
        return answer.reply(found.path)

    def upstream_said(self, recipient: Recipient, reply: Reply) -> None:
        """The upstream's answer to a recipient."""
        if reply.good:
            self.taken.append(recipient)
        else:
            self.reject([recipient])

    def part(self, answers: Sequence[Answer]) -> Unknown | None:
        """Leave out of `taken` whoever has left the list, which is known only now. Doubt about one is doubt about all."""
        stay: list[Recipient] = []
        out: list[Recipient] = []
        for recipient, answer in zip(self.taken, answers, strict=True):
            if isinstance(answer, Unknown):
                self._tell_doubt(recipient.rcpt, answer)
                if self._observes:
                    stay.append(recipient)
                    continue
                self.defer(self.taken)
                return answer
            (out if self._stands_against(recipient, answer) else stay).append(recipient)
        for recipient in out:
            self._keep("stripped" if stay or self._policy.mode == "strip" else "refused", recipient)
        self.taken, self.parted = stay, bool(out)
        self.left_out += out
        return None

    def late(self, answers: Sequence[Answer]) -> Refused | Unknown | None:
        """The last question: what keeps the message from being sent at all."""
        found: Refused | Unknown | None = None
        others: list[Recipient] = []
        for recipient, answer in zip(self.taken, answers, strict=True):
            if not isinstance(answer, Unknown) and self._stands_against(recipient, answer):
                self._keep("withdrawn", recipient)
                found = found or recipient.refused
                continue
            others.append(recipient)
            if isinstance(answer, Unknown):
                self._tell_doubt(recipient.rcpt, answer)
                found = found if self._observes else answer
        if found is not None:
            self.defer(others)
        return found

    def _stands_against(self, recipient: Recipient, answer: Pass | Refused) -> bool:
        """Is this recipient refused, by an answer that came after RCPT?

        In observe mode nobody is, nor is service mail by an opt-out; but it is told, unless it was at RCPT.
        """
        against = answer.despite if isinstance(answer, Pass) else answer
        if against is None:
            return False
        refused = isinstance(answer, Refused) and not self._observes
        if refused or recipient.outcome is None:  # else the record says what was told at RCPT
            recipient.refused = against
        if not refused and recipient.outcome is None:
            self._keep("would-refuse" if isinstance(answer, Refused) else "service", recipient)
        return refused

    # ---- who does not get it for another reason

    def defer(self, recipients: Sequence[Recipient]) -> None:
        """They had our 451, or will have it."""
        self.deferred += len(recipients)
        _did_not_pass(recipients)

    def reject(self, recipients: Sequence[Recipient]) -> None:
        """The upstream refused them, or the message."""
        self.rejected += len(recipients)
        _did_not_pass(recipients)

    # ---- replies

    def nobody_left(self) -> str:
        """Nobody is left to send to. In strip mode that is success; else the client must know of its recipient."""
        last, self.withheld = self.left_out[-1], True
        if self._policy.mode == "strip":
            relay_events.message_withheld(len(self.left_out))
            return f"250 2.0.0 nothing sent: all {len(self.left_out)} recipients have opted out"
        assert last.refused is not None
        return last.refused.reply(last.rcpt.path)

    def suffix(self, list_id: str | None) -> str:
        """What is said at the end of the upstream's 250 when some were left out."""
        if self._policy.mode == "strip":
            return f" ({len(self.left_out)} of {self.count} recipients left out: opted out)"
        return f" ({len(self.left_out)} of {self.count} left out: opted out of {list_id})"

    def only_one(self) -> bytes | None:
        """The address key of the one recipient that is left, if none was left out beside it."""
        if len(self.taken) != 1 or self.left_out:
            return None
        return self._key(self.taken[0].rcpt)

    def _key(self, rcpt: envelope.Rcpt) -> bytes:
        return self._context.site_key.address_key(person(rcpt.address, self._context.same_person))

    # ---- the record

    def remember(self, block: bytes) -> None:
        """The header of the message: its Message-ID is looked for if somebody is refused, which few messages have."""
        self._block = block

    def _tell_doubt(self, rcpt: envelope.Rcpt, answer: Unknown) -> None:
        relay_events.rcpt_deferred(self._context.site_key.who(rcpt.address), answer.why, observed=self._observes)

    def _keep(self, outcome: Kept, recipient: Recipient) -> None:
        refused = recipient.refused
        assert refused is not None
        tell = _TOLD[outcome]
        tell(self._context.site_key.who(recipient.rcpt.address), refused.text, refused.verdict.evidence, refused.of)
        if recipient.outcome is None:
            self._kept.append(recipient)
        recipient.outcome = outcome

    def write_down(self, list_id: str | None) -> None:
        """What became of everybody: counted once each, and kept of those whom something stood against."""
        record, credential = self._context.record, self._policy.credential
        number = self._context.numbers.get(list_id or "", 0)
        if not self.sent:  # the client has thought better of it, or we refused the message
            _did_not_pass(self._kept)
        kept = [r for r in self._kept if r.outcome is not None]
        passed = self.sent and self.sent - sum(r.outcome in _PASSED for r in kept)
        if passed:
            _PASSED_ON.value += passed
            record.note("passed", number, credential, 0, passed)
        if self.sent and self.foreign:
            record.note("foreign", number, credential, 0)
        if self.rejected:
            metrics.relay_recipients.of("rejected").inc(self.rejected)
            record.note("rejected", number, credential, 0, self.rejected)
        if self.deferred:
            metrics.relay_recipients.of("deferred").inc(self.deferred)
            record.note("deferred", number, credential, 0, self.deferred)
        if self.duplicates:
            record.note("duplicate", number, credential, 0, self.duplicates)
        if kept:
            for recipient in kept:
                metrics.relay_recipients.inc(metrics.COUNTED_AS[str(recipient.outcome)])
            found = _MESSAGE_ID.search(self._block)
            message_id = found[1].decode("ascii", "replace").strip() if found else ""
            record.keep(*(self._refusal(r, number, message_id, passed) for r in kept))

    def _refusal(self, recipient: Recipient, number: int, message_id: str, others: int) -> Refusal:
        refused, rcpt, outcome = recipient.refused, recipient.rcpt, recipient.outcome
        assert refused is not None
        assert outcome is not None
        return Refusal(
            self._context.now(),
            outcome,
            self._key(rcpt),
            number,
            refused.verdict.reason,
            self._policy.credential,
            message_id,
            refused.verdict.evidence,
            others,
            rcpt.path,
        )


def _did_not_pass(recipients: Sequence[Recipient]) -> None:
    """Counted as what happened to them instead."""
    for recipient in recipients:
        if recipient.outcome in _PASSED:
            recipient.outcome = None


_TOLD: Final = {
    "refused": relay_events.rcpt_refused,
    "stripped": relay_events.rcpt_stripped,
    "withdrawn": relay_events.late_opt_out,
    "would-refuse": relay_events.would_refuse,
    "service": relay_events.service_mail_passed,
}
