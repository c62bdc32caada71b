"""The readings: what `triage.read` can say of a message. A closed set, so that `intake.act` is one match.

Every reading carries `rules` (names of the rules that decided, in order of application, as in docs/triage.md)
and `words` (the writer's own words that made it so, at most 200 characters; "" for machine mail).
Addresses are addr-specs as written, with the domain in lower case. `weighed`: where the model decided (a rule
`2-weighed...`), the words that spoke most for what it said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from daemon.mail.tokens import Token

# How far the author is who he says he is:
#   token       a valid token of ours came with the message and names this very address or message
#   dmarc       our own mail server says dmarc=pass for the domain in From
#   unchecked   house.authserv_id is not configured: nobody can be proven
#   none        we have an authserv_id, but it said nothing usable
Proof = Literal["token", "dmarc", "unchecked", "none"]

# What a bounce is about: the address is gone, the mailbox is full or away for now, or somebody's policy said no.
Cause = Literal["address", "mailbox", "policy"]

ALL = ("all",)  # the scope of everything; otherwise ("list:ID", ...), sorted


@dataclass(frozen=True, slots=True)
class OptOut:
    """Stop mailing `addresses` within `scope`. `writer` is the From address (None if it was not usable).

    `keep`: list ids that the writer wants to go on receiving. `stays`: the message also has other business with
    support and must not be filed away. `language`: of the words that decided, ISO 639-1, "" if unknown.
    `token`: whom and which list the request is about, whatever From says; `addresses` has the writer then if it is his.
    """

    addresses: tuple[str, ...]
    scope: tuple[str, ...]
    keep: tuple[str, ...]
    writer: str | None
    proof: Proof
    stays: bool
    language: str
    rules: tuple[str, ...]
    words: str
    token: Token | None = None
    weighed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resubscribe:
    """A wish to get mail (again); never acted on without confirmation. `token`: this is the confirmation (undo)."""

    addresses: tuple[str, ...]
    scope: tuple[str, ...]
    writer: str | None
    proof: Proof
    language: str
    rules: tuple[str, ...]
    words: str
    token: Token | None = None
    weighed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """What a delivery report says of one recipient. `status` as in Bounce.

    `host`: the server that said no, else the one that reports it (RFC 3464 sections 2.3.5, 2.2.2); "": it names none.
    """

    recipient: str
    hard: bool
    cause: Cause
    status: str = ""
    host: str = ""

    @property
    def is_gone(self) -> bool:
        """Is there no such address, for good?"""
        return self.hard and self.cause == "address"


@dataclass(frozen=True, slots=True)
class Bounce:
    """A delivery report: `recipients` as we mailed them. `hard`: permanent and about the address itself, for all of them.

    `each`: what it says of each recipient (RFC 3464 section 2.3), where that is not the same for all.
    `status` is the RFC 3463 code ("5.1.1", "" if none), `diagnostic_code` the remote text (at most 500 characters), `host`
    as in Failed.
    """

    recipients: tuple[str, ...]
    hard: bool
    cause: Cause
    status: str
    diagnostic_code: str
    proof: Proof
    rules: tuple[str, ...]
    words: str = ""
    each: tuple[Failed, ...] = ()
    host: str = ""

    @property
    def failed(self) -> tuple[Failed, ...]:
        """One for each recipient."""
        return self.each or tuple(Failed(r, self.hard, self.cause, self.status, self.host) for r in self.recipients)


@dataclass(frozen=True, slots=True)
class Complaint:
    """A feedback report (RFC 5965); `recipients` is empty when the reporter redacted them.

    `token`: ours, in the returned header, if it names one person: whom a redacted report (RFC 6590) is about.
    """

    recipients: tuple[str, ...]
    feedback_type: str
    proof: Proof
    rules: tuple[str, ...]
    words: str = ""
    token: Token | None = None


@dataclass(frozen=True, slots=True)
class AutoReply:
    """An automatic answer: nothing to do."""

    rules: tuple[str, ...]
    words: str = ""


@dataclass(frozen=True, slots=True)
class Review:
    """A person must decide. `addresses` and `scope` are what accepting would suppress: hints, not facts."""

    addresses: tuple[str, ...]
    scope: tuple[str, ...]
    writer: str | None
    language: str
    rules: tuple[str, ...]
    words: str
    weighed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ordinary:
    """Support mail: not ours."""

    rules: tuple[str, ...]
    words: str = ""
    weighed: tuple[str, ...] = ()


Reading = OptOut | Resubscribe | Bounce | Complaint | AutoReply | Review | Ordinary

_LABELS: dict[type, str] = {
    OptOut: "opt-out",
    Resubscribe: "resubscribe",
    Bounce: "bounce",
    Complaint: "complaint",
    AutoReply: "auto-reply",
    Review: "review",
    Ordinary: "ordinary",
}


def label(reading: Reading) -> str:
    """The contract's word for a reading."""
    return _LABELS[type(reading)]


def addresses(reading: Reading) -> tuple[str, ...]:
    """Whom the reading is about, whatever its kind; () where it is about nobody."""
    match reading:
        case OptOut() | Resubscribe() | Review():
            return reading.addresses
        case Bounce() | Complaint():
            return reading.recipients
        case _:
            return ()
