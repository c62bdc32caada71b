"""A marketing message's way through the relay (DESIGN 4.2).

    MAIL noted · RCPT -> gate.may -> refused, left out, deferred, or upstream.rcpt · DATA -> header block -> list ->
    gate again if the list is known only now -> body streamed -> gate for all, the last question -> dot -> its reply

The relay never owns a message: the client hears 250 only after the upstream's own 250. The one exception is a
strip-mode message with nobody left, and the reply says so.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import Final

from daemon import events
from daemon.config import Relay
from daemon.delivery import Delivery
from daemon.gate import Gate, Pass, Refused, Unknown
from daemon.mail import tokens
from daemon.relay import envelope
from daemon.relay.body import Body
from daemon.upstream import Lost, Pool, Reply, told
from storage.address import SiteKey, person

_HEADER_LIMIT: Final = 262_144  # octets of header in which we look for List-Id and Received
_GROWN: Final = 1024  # octets: a generous measure of the Received line, for SIZE
_MAX_HOPS: Final = 50
_LIST_ID: Final = re.compile(rb"^List-Id[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*){0,20})", re.IGNORECASE | re.MULTILINE)
_HELO_ODD: Final = re.compile(r"[^A-Za-z0-9.:_\[\]-]")  # what a client calls itself must not break our own line
_RECEIVED: Final = re.compile(rb"^Received:", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Context:
    """What every message of a relay works with. `lists`: RFC 2919 value (lower case) -> list id; `numbers`: id -> number."""

    settings: Relay
    gate: Gate
    pool: Pool
    site_key: SiteKey
    lists: Mapping[str, str]
    numbers: Mapping[str, int]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    same_person: tuple[str, ...] = ("tag", "alias")  # storage.same_person: under which form a person's rows are written

    @property
    def hostname(self) -> str:
        """What we call ourselves."""
        return self.settings.hostname

    @property
    def max_size(self) -> int:
        """Octets of the largest message: our own limit, and never more than the upstream takes with our line added."""
        offered = self.pool.features.get("SIZE", "")
        theirs = int(offered) if re.fullmatch(r"[0-9]{1,20}", offered) else 0  # RFC 1870: 0 is no limit
        return min(self.settings.max_size, max(theirs - _GROWN, 1)) if theirs else self.settings.max_size

    def offers(self) -> dict[str, str]:
        """Our EHLO keywords: what we do ourselves, and of the rest what the upstream offered last."""
        upstream = self.pool.features
        offered = {"PIPELINING": "", "ENHANCEDSTATUSCODES": ""}
        if "SIZE" in upstream:
            offered["SIZE"] = str(self.max_size)
        return offered | {k: "" for k in ("8BITMIME", "SMTPUTF8", "DSN") if k in upstream}

    def list_of(self, block: bytes) -> str | None:
        """The id of our list that a List-Id field (RFC 2919) of a header block names; None: no field, or not ours."""
        for field in _LIST_ID.findall(block):
            value = field.decode("ascii", "replace")
            for name in re.findall(r"<([^<>]*)>", value) or [value]:  # brackets may also stand in the quoted phrase
                if (found := self.lists.get(name.strip().lower())) is not None:
                    return found
        return None


@dataclass(slots=True)
class _Recipient:
    rcpt: envelope.Rcpt
    refused: Refused | None = None  # left out, and why


class Transaction:
    """One message from MAIL to the reply to its dot."""

    def __init__(self, context: Context, mail: envelope.Mail, helo: str, peer: object, *, extended: bool):
        self._context, self._mail, self._helo, self._peer, self._extended = context, mail, helo, peer, extended
        self._delivery = Delivery(context.pool, mail.command(_GROWN, context.pool.features), mail.needs)
        self._taken: list[_Recipient] = []  # accepted by the upstream
        self._left_out: list[_Recipient] = []  # strip mode: told 250, not passed on
        self._asked = 0
        self._list: str | None = None
        self._began = asyncio.get_running_loop().time()
        self._body: Body | None = None
        self._lost: str | None = None  # the upstream went away with recipients taken: the answer to all that follows

    @classmethod
    def begin(cls, context: Context, argument: str, helo: str, peer: object, *, extended: bool) -> Transaction:
        """A MAIL command. Raises envelope.Syntax."""
        offered = context.offers() if extended else {}
        return cls(context, envelope.mail(argument, offered, context.max_size), helo, peer, extended=extended)

    # ---- RCPT

    async def rcpt(self, argument: str) -> str:
        """Answer one RCPT."""
        self._asked += 1
        if self._lost is not None:
            return self._lost
        if len(self._taken) + len(self._left_out) >= self._context.settings.max_recipients:
            return "452 4.5.3 too many recipients"
        found = envelope.rcpt(argument, self._context.offers(), self._mail.smtputf8)
        answer = self._context.gate.may(found.address)
        if isinstance(answer, Refused):
            return self._refuse(found, answer)
        if isinstance(answer, Unknown):
            events.rcpt_deferred(self._context.site_key.who(found.address), answer.why)
            return answer.reply
        try:
            reply = await self._delivery.rcpt(found.command)
        except Lost as lost:
            self._delivery.drop()
            return self._lose(lost)
        if reply.good:
            self._taken.append(_Recipient(found))
        return str(reply)

    def _refuse(self, found: envelope.Rcpt, answer: Refused) -> str:
        who = self._context.site_key.who(found.address)
        facts = (who, answer.text, answer.verdict.evidence, answer.of)
        if self._context.settings.mode == "strip":
            self._left_out.append(_Recipient(found, answer))
            events.rcpt_stripped(*facts)
            return "250 2.1.5 ok"
        events.rcpt_refused(*facts)
        return answer.reply(found.path)

    def _lose(self, lost: Lost) -> str:
        """The upstream went away: the recipients it had taken are gone with it, so no later dot may count for them."""
        reply = told(lost)
        if self._taken:
            self._lost = reply
        return reply

    # ---- DATA

    def before_data(self) -> str | None:
        """What stands against reading a message at all, if anything."""
        if self._lost is not None:
            return self._lost
        if self._taken or self._left_out:
            return None
        return "554 5.5.1 no valid recipients" if self._asked else "503 5.5.1 need RCPT before DATA"

    async def message(self, body: Body) -> str | None:
        """Read the message to its end and pass it on, all but its dot. A str is the reply that refuses it."""
        self._body = body
        head = await body.head(_HEADER_LIMIT)
        # The verdict first: upstream must not see one octet of a piece with a bare LF, it may take it for the end.
        reply = self._verdict_on(body) or await self._pass_on(head, body)
        await body.skip()
        refusal = self._verdict_on(body) or reply
        if refusal is not None:
            self._delivery.drop()
            if not refusal.startswith("2"):
                events.message_refused(refusal)
        return refusal

    async def _pass_on(self, head: bytes, body: Body) -> str | None:
        """Everything up to the dot. None: all sent, and nothing stands against the dot but the last question."""
        block, end, _ = (b"", b"\r\n", b"") if head.startswith(b"\r\n") else head.partition(b"\r\n\r\n")
        if not end and len(head) > _HEADER_LIMIT:  # what we have not read may be the List-Id that somebody left
            self._delivery.forget()
            return "552 5.3.4 the header is larger than this server takes"
        if len(_RECEIVED.findall(block)) > _MAX_HOPS:
            self._delivery.forget()
            return "554 5.4.6 too many Received lines: a mail loop"
        try:
            self._list = self._context.list_of(block)
            reply = await self._leave_out_of_list(self._list) if self._list is not None else None
            if reply is not None:
                return reply
            if not self._taken:
                return self._nothing_sent()
            data = await self._delivery.data()
            if data.code != 354:
                self._delivery.forget()
                return str(data)
            await self._stream(head, body)
        except Lost as lost:
            self._delivery.drop()
            return told(lost)
        return None

    async def _stream(self, head: bytes, body: Body) -> None:
        await self._delivery.body(self._received() + head)
        while (piece := await body.piece()) is not None:
            if self._verdict_on(body) is not None:
                return
            await self._delivery.body(piece)

    def _verdict_on(self, body: Body) -> str | None:
        """What a whole body is refused for."""
        if body.octets > self._context.max_size:
            return "552 5.3.4 message is larger than this server takes"
        if body.bare:
            return "550 5.6.11 a CR or LF stands alone: lines end in CR LF"
        return None

    async def _leave_out_of_list(self, list_id: str) -> str | None:
        """The list is known only now: ask again, and start over without those who left it (DESIGN 7.2)."""
        gate = self._context.gate
        answers = gate.may_all([r.rcpt.address for r in self._taken], list_id)
        stay: list[_Recipient] = []
        out: list[_Recipient] = []
        for recipient, answer in zip(self._taken, answers, strict=True):
            match answer:
                case Unknown():
                    events.rcpt_deferred(self._context.site_key.who(recipient.rcpt.address), answer.why)
                    return self._withdraw(answer.reply)
                case Refused():
                    recipient.refused = answer
                    out.append(recipient)
                case Pass():
                    stay.append(recipient)
        if not out:
            return None
        self._tell(out)
        self._left_out += out
        self._taken = stay
        if not stay:
            return None
        replies = await self._delivery.replay([r.rcpt.command for r in stay])
        if not all(r.good for r in replies):
            return self._withdraw("451 4.5.0 the next mail server changed its mind, try again later")
        return None

    def _tell(self, out: list[_Recipient]) -> None:
        for recipient in out:
            assert recipient.refused is not None
            v = recipient.refused.verdict
            who = self._context.site_key.who(recipient.rcpt.address)
            events.rcpt_stripped(who, recipient.refused.text, v.evidence, recipient.refused.of)

    def _nothing_sent(self) -> str:
        """Nobody is left. In strip mode that is success; else the client must know of its recipient."""
        self._delivery.forget()
        if self._context.settings.mode == "strip":
            events.message_withheld(len(self._left_out))
            return f"250 2.0.0 nothing sent: all {len(self._left_out)} recipients have opted out"
        last = self._left_out[-1]
        assert last.refused is not None
        return last.refused.reply(last.rcpt.path)

    def _withdraw(self, reply: str) -> str:
        """Nothing is sent: the upstream connection goes before its dot."""
        self._delivery.drop()
        return reply

    # ---- the dot

    async def finish(self) -> str:
        """The last question, then the dot and the upstream's reply (DESIGN 7.1)."""
        answers = self._context.gate.may_all([r.rcpt.address for r in self._taken], self._list)
        for recipient, answer in zip(self._taken, answers, strict=True):
            who = self._context.site_key.who(recipient.rcpt.address) if not isinstance(answer, Pass) else None
            if isinstance(answer, Unknown) and who:
                events.rcpt_deferred(who, answer.why)
                return self._withdraw(answer.reply)
            if isinstance(answer, Refused) and who:
                events.late_opt_out(who, answer.verdict.evidence)
                return self._withdraw("451 4.7.1 a recipient has just opted out, try again later")
        try:
            reply = await self._delivery.dot()
        except Lost as lost:
            events.possibly_duplicated(lost)
            return told(lost)
        except asyncio.CancelledError:  # we are stopping, and 30 s were not enough
            events.possibly_duplicated("stopped before the next mail server answered the dot")
            raise
        return str(self._account(reply))

    def _account(self, reply: Reply) -> Reply:
        if not reply.good:
            events.message_refused(str(reply))
            return reply
        assert self._body is not None
        took = asyncio.get_running_loop().time() - self._began
        events.message_sent(len(self._taken), len(self._left_out), self._body.octets, took, str(reply))
        return reply.with_suffix(self._suffix()) if self._left_out else reply

    def _suffix(self) -> str:
        every, out = len(self._taken) + len(self._left_out), len(self._left_out)
        if self._context.settings.mode == "strip":
            return f" ({out} of {every} recipients left out: opted out)"
        return f" ({out} of {every} left out: opted out of {self._list})"

    def abandon(self) -> None:
        """The client reset, left, or is answered: nothing half-sent remains at the upstream."""
        if self._body is None:
            self._delivery.forget()
        else:
            self._delivery.drop()

    def _received(self) -> bytes:
        """Our Received line (RFC 5321 4.4). Its id is a signed token, by which a bounce proves that it is of our mail."""
        key = bytes(16)
        if len(self._taken) == 1 and not self._left_out:
            form = person(self._taken[0].rcpt.address, self._context.same_person)
            key = self._context.site_key.address_key(form)
        token = tokens.make(self._context.site_key, "received", key, self._context.numbers.get(self._list or "", 0))
        peer = self._peer[0] if isinstance(self._peer, tuple) else "unknown"
        literal = f"IPv6:{peer}" if ":" in str(peer) else peer
        protocol = "UTF8SMTP" if self._mail.smtputf8 else "ESMTP" if self._extended else "SMTP"
        return (
            f"Received: from {_HELO_ODD.sub('?', self._helo)} ([{literal}])\r\n\tby {self._context.hostname} (optoutd) with {protocol}\r\n"
            f"\tid {token};\r\n\t{_date(self._context.now().replace(microsecond=0))}\r\n"
        ).encode()


@lru_cache(maxsize=4)
def _date(moment: datetime) -> str:
    """RFC 5322 date: made once for all messages of a second."""
    return format_datetime(moment)
