"""Everybody whom a message may be for, and what is to become of it: an oracle.

It is written from what the documents promise alone. It knows the rows of each person, and nothing of the gate, the
lookup or the relay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal

from daemon.relay.access import Policy
from storage.terms import Reason

Mode = Literal["refuse", "strip", "observe"]
Known = Literal["credential", "List-Id", "unknown"]
HERE: Final = "newsletter"  # the list that is sent to, where one is
OTHER: Final = "offers"
CREDENTIAL: Final = "crm"
TAKEN: Final = "250 2.0.0 taken by puppet"
CLEAR: Final = "clear@example.com"

# Who: the rows that stand against them, as (list or None for all, reason). The address of each is NAME@example.com.
PEOPLE: Final[dict[str, list[tuple[str | None, Reason]]]] = {
    "nothing": [],
    "all": [(None, Reason.OPT_OUT)],
    "here": [(HERE, Reason.OPT_OUT)],
    "elsewhere": [(OTHER, Reason.OPT_OUT)],
    "bounced": [(None, Reason.HARD_BOUNCE)],
    "soft": [(None, Reason.SOFT_BOUNCE)],
    "complained": [(None, Reason.COMPLAINT)],
    "complained-here": [(HERE, Reason.COMPLAINT)],
    "by-hand": [(None, Reason.OPERATOR)],
    "wants-here": [(None, Reason.OPT_OUT), (HERE, Reason.WANTED)],
    "wants-elsewhere": [(None, Reason.OPT_OUT), (OTHER, Reason.WANTED)],
    "complained-wants-here": [(None, Reason.COMPLAINT), (None, Reason.OPT_OUT), (HERE, Reason.WANTED)],
    "bounced-and-out": [(None, Reason.HARD_BOUNCE), (None, Reason.OPT_OUT)],
    "bounced-and-out-here": [(None, Reason.HARD_BOUNCE), (HERE, Reason.OPT_OUT)],
}
DOMAIN: Final = "someone@closed.example"  # of whose whole domain the operator wants no mail sent to
STRENGTH: Final = [
    Reason.COMPLAINT,
    Reason.OPT_OUT,
    Reason.OPERATOR,
    Reason.HARD_BOUNCE,
    Reason.SOFT_BOUNCE,
]  # whose is told of first, if several stand


@dataclass(frozen=True)
class Against:
    """What stands against somebody: the words of the replies, and the row to explain it by."""

    words: str
    reason: Reason
    scope: str | None


@dataclass(frozen=True)
class Case:
    """A client, and how it comes to be known which list it sends to."""

    mode: Mode
    purpose: Literal["marketing", "service"]
    known: Known

    @property
    def policy(self) -> Policy:
        return Policy(self.mode, HERE if self.known == "credential" else None, self.purpose, (), CREDENTIAL)

    @property
    def message(self) -> bytes:
        field = b"List-Id: The Quill Letter <newsletter.quillpdf.example>\r\n" if self.known == "List-Id" else b""
        return field + b"Subject: spring\r\nMessage-ID: <spring@crm.quillpdf.example>\r\n\r\nhello\r\n"

    def against(self, name: str, list_: str | None, *, marketing: bool = False) -> Against | None:
        """The oracle: what stops mail of this list (None: not known) to somebody."""
        if name == "domain":
            return Against("is suppressed: domain", Reason.OPERATOR, None) if self._marketing or marketing else None
        rows = PEOPLE[name]
        if not (self._marketing or marketing):  # service mail is stopped by hard bounces, and by nothing else
            rows = [r for r in rows if r[1] is Reason.HARD_BOUNCE]
        wanted = list_ is not None and (list_, Reason.WANTED) in rows
        rows = [
            (scope, reason)
            for scope, reason in rows
            if reason is not Reason.WANTED
            and (scope is None or scope == list_)
            and not (wanted and reason is Reason.OPT_OUT and scope is None)
        ]
        if not rows:
            return None
        scope, reason = min(rows, key=lambda r: STRENGTH.index(r[1]))
        words = f"is suppressed: {reason.word}"
        if reason is Reason.OPT_OUT:
            words = f"has opted out of {scope}" if scope else "has opted out"
        return Against(words, reason, scope)

    @property
    def _marketing(self) -> bool:
        return self.purpose == "marketing"


CASES: Final = [Case(*c) for c in product(("refuse", "strip", "observe"), ("marketing", "service"), ("credential", "List-Id", "unknown"))]  # type: ignore[arg-type]  # fmt: skip


@dataclass
class Expected:
    """What a message to one person, and perhaps to somebody whom nothing stands against, comes to."""

    rcpt: str
    final: str
    got: list[str]
    outcome: str | None = None  # of the person; None: passed, or nothing to tell
    against: Against | None = None
    event: str | None = None
    read: bool = True  # the message was read, so its list and Message-ID are known


def expected(case: Case, name: str, address: str, ref: Callable[[Against], int], *, company: bool) -> Expected:
    """From what the documents promise."""
    at_rcpt = case.against(name, HERE if case.known == "credential" else None)
    at_data = case.against(name, None if case.known == "unknown" else HERE)
    others = [CLEAR] if company else []
    both = [address, *others]
    n = len(both)
    ok = "250 2.1.5"

    def reply(against: Against) -> str:
        return f"550 5.7.1 <{address}> {against.words} (ref {ref(against)})"

    if case.mode == "observe" and (against := at_rcpt or at_data):
        return Expected(ok, TAKEN, both, "would-refuse", against, "would_refuse")
    if at_rcpt and case.mode == "refuse":
        final = TAKEN if company else "554 5.5.1 no valid recipients"
        return Expected(reply(at_rcpt), final, others, "refused", at_rcpt, "rcpt_refused", read=company)
    if (at_rcpt or at_data) and case.mode == "strip":
        nothing = f"250 2.0.0 nothing sent: all {n} recipients have opted out"
        final = f"{TAKEN} (1 of {n} recipients left out: opted out)" if company else nothing
        return Expected(ok, final, others, "stripped", at_rcpt or at_data, "rcpt_stripped")
    if at_data:
        if not company:
            return Expected(ok, reply(at_data), [], "refused", at_data, "rcpt_refused")
        final = f"{TAKEN} (1 of {n} left out: opted out of {HERE})"
        return Expected(ok, final, others, "stripped", at_data, "rcpt_stripped")
    despite = case.against(name, HERE if case.known == "credential" else None, marketing=True) or case.against(
        name, None if case.known == "unknown" else HERE, marketing=True
    )
    if case.purpose == "service" and despite:
        return Expected(ok, TAKEN, both, "service", despite, "service_mail_passed")
    return Expected(ok, TAKEN, both)


def policy(mode: Mode, list_: str | None = None, purpose: Literal["marketing", "service"] = "marketing") -> Policy:
    return Policy(mode, list_, purpose, (), CREDENTIAL)


TO_LIST = Case("refuse", "marketing", "List-Id").message
