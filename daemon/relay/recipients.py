"""Who gets a message and who does not: what the gate says, by the sender's policy, and what is written down of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from daemon import events
from daemon.connection import Reply
from daemon.gate import Answer, Pass, Refused, Unknown
from daemon.relay import envelope
from daemon.relay.access import Policy
from daemon.relay.context import Context
from storage.address import person
from storage.refusals import Kept, Refusal

_MESSAGE_ID: Final = re.compile(rb"^message-id[ \t]*:\s{0,5}([^\r\n]{1,300})", re.IGNORECASE | re.MULTILINE)


@dataclass(slots=True)
class Recipient:
    """A recipient whom nothing stands against, or who was left out; `refused` says why, in observe mode of one who passes."""

    rcpt: envelope.Rcpt
    refused: Refused | None = None


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
        self._kept: list[tuple[Kept, Recipient]] = []
        self._message_id = ""

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
            self._defer(found, answer)
            return answer.reply
        recipient = Recipient(found, answer)
        if self._policy.mode == "observe":
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
            self.rejected += 1

    def part(self, answers: Sequence[Answer]) -> Unknown | None:
        """Leave out of `taken` whoever has left the list, which is known only now. Doubt about one is doubt about all."""
        stay: list[Recipient] = []
        out: list[Recipient] = []
        for recipient, answer in zip(self.taken, answers, strict=True):
            if isinstance(answer, Unknown):
                self._defer(recipient.rcpt, answer)
                self.deferred += len(self.taken) - 1
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
        untold = len(self.taken)
        for recipient, answer in zip(self.taken, answers, strict=True):
            if isinstance(answer, Unknown):
                self._defer(recipient.rcpt, answer)
                found = answer
                untold -= 1
            elif self._stands_against(recipient, answer):
                self._keep("withdrawn", recipient)
                found = found or recipient.refused
                untold -= 1
        if found is not None:
            self.deferred += untold
        return found

    def _stands_against(self, recipient: Recipient, answer: Answer) -> bool:
        """Is this recipient refused, by an answer that came after RCPT? In observe mode nobody is, but it is told."""
        if not isinstance(answer, Refused):
            return False
        known, recipient.refused = recipient.refused, answer
        if self._policy.mode != "observe":
            return True
        if known is None:
            self._keep("would-refuse", recipient)
        return False

    # ---- replies

    def nobody_left(self) -> str:
        """Nobody is left to send to. In strip mode that is success; else the client must know of its recipient."""
        last = self.left_out[-1]
        if self._policy.mode == "strip":
            events.message_withheld(len(self.left_out))
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

    def remember(self, block: bytes, folded: bytes) -> None:
        """The message's id, for the record of its refusals. `folded`: the block in small letters."""
        if self._kept and b"message-id" in folded and (found := _MESSAGE_ID.search(block)):
            self._message_id = found[1].decode("ascii", "replace").strip()

    def _defer(self, rcpt: envelope.Rcpt, answer: Unknown) -> None:
        events.rcpt_deferred(self._context.site_key.who(rcpt.address), answer.why)
        self.deferred += 1

    def _keep(self, outcome: Kept, recipient: Recipient) -> None:
        refused = recipient.refused
        assert refused is not None
        tell = _TOLD[outcome]
        tell(self._context.site_key.who(recipient.rcpt.address), refused.text, refused.verdict.evidence, refused.of)
        self._kept.append((outcome, recipient))

    def write_down(self, list_id: str | None) -> None:
        """What became of everybody: counted, and kept of those whom something stood against."""
        record, credential = self._context.record, self._policy.credential
        number = self._context.numbers.get(list_id or "", 0)
        kept = self._passed_or_not()
        if self.sent:
            special = sum(outcome in _PASSED for outcome, _ in kept)
            if self.sent > special:
                record.note("passed", number, credential, 0, self.sent - special)
            if self.foreign:
                record.note("foreign", number, credential, 0)
        if self.rejected:
            record.note("rejected", number, credential, 0, self.rejected)
        if self.deferred:
            record.note("deferred", number, credential, 0, self.deferred)
        if self.duplicates:
            record.note("duplicate", number, credential, 0, self.duplicates)
        if kept:
            record.keep(*(self._refusal(outcome, r, number) for outcome, r in kept))

    def _passed_or_not(self) -> list[tuple[Kept, Recipient]]:
        """What is kept, less those who should have passed and did not: the upstream's refusal counts for them."""
        got_it = {id(r) for r in self.taken} if self._kept and self.sent else set()
        return [(outcome, r) for outcome, r in self._kept if outcome not in _PASSED or id(r) in got_it]

    def _refusal(self, outcome: Kept, recipient: Recipient, number: int) -> Refusal:
        refused, rcpt = recipient.refused, recipient.rcpt
        assert refused is not None
        return Refusal(
            self._context.now(),
            outcome,
            self._key(rcpt),
            number,
            refused.verdict.reason,
            self._policy.credential,
            self._message_id,
            refused.verdict.evidence,
            self.sent,
            rcpt.path,
        )


_PASSED: Final = ("would-refuse", "service")  # outcomes of recipients whom the message was not kept from
_TOLD: Final = {
    "refused": events.rcpt_refused,
    "stripped": events.rcpt_stripped,
    "withdrawn": events.late_opt_out,
    "would-refuse": events.would_refuse,
    "service": events.service_mail_passed,
}
