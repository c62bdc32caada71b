"""A marketing message's way through the relay.

    MAIL noted · RCPT -> gate.may -> refused, left out, deferred, or upstream.rcpt · DATA -> header block -> list ->
    gate again if the list is known only now -> stamped, streamed -> gate for all, the last question -> dot -> its reply

The relay never owns a message: the client hears 250 only after the upstream's own 250. The one exception is a
strip-mode message with nobody left, and the reply says so.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Sequence
from time import monotonic
from typing import Final

from daemon import metrics, relay_events
from daemon.delivery import Delivery
from daemon.gate import Answer, Pass, Unknown
from daemon.mail import tokens
from daemon.relay import envelope
from daemon.relay.access import Policy
from daemon.relay.body import Body
from daemon.relay.context import GROWN, Client, Context
from daemon.relay.recipients import Recipient, Recipients
from daemon.upstream import Lost, Reply, told
from storage.address import Address

_HEADER_LIMIT: Final = 262_144  # octets of header in which we look for List-Id and Received
_MAX_HOPS: Final = 50
_SEPARATOR: Final = re.compile(
    rb">{0,20}From (?![ \t]*:)[^\r\n]{0,300}?(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? "
    rb"[^\r\n]{0,40}?[0-9]{1,2}:[0-9]{2}[^\r\n]{0,60}\r\n"
)
_TOO_SLOW: Final = "451 4.3.2 silent for too long while others wait, start the message again"
_CHANGED: Final = "451 4.5.0 the next mail server changed its mind, try again later"
_SENT: Final = metrics.relay_messages.of("sent")
_OPTED_OUT: Final = "451 4.7.1 a recipient has just opted out, try again later"


class Transaction:
    """One message, from its MAIL command to the reply to its dot."""

    def __init__(self, context: Context, policy: Policy, mail: envelope.Mail, client: Client):
        self._context, self._policy, self._mail, self._client = context, policy, mail, client
        self._delivery = Delivery(context.pool, mail.command(GROWN, context.pool.features), mail.needs)
        self._people = Recipients(context, policy)
        self._list = policy.list_id
        self._began = asyncio.get_running_loop().time()
        self._body: Body | None = None
        self._last = b""  # the last octets of the body: they go out with the dot
        self._lost: str | None = None  # the upstream went away with recipients taken: the answer to all that follows

    @classmethod
    def begin(cls, context: Context, policy: Policy, argument: str, client: Client) -> Transaction:
        """A MAIL command. Raises envelope.Syntax."""
        offered = context.offers() if client.extended else {}
        mail = envelope.mail(argument, offered, context.max_size)
        if not policy.may_send_as(mail.path):
            raise envelope.Syntax("550 5.7.1 relaying denied")
        return cls(context, policy, mail, client)

    # ---- RCPT

    async def rcpts(self, arguments: Sequence[str]) -> list[str]:
        """Answer RCPT commands that came together (RFC 2920): one question for all, and one write to the upstream."""
        most = self._context.settings.max_recipients - self._people.count
        if len(arguments) > most:
            return [await self.rcpt(argument) for argument in arguments]
        found = [self._read(argument) for argument in arguments]
        asked = [f for f in found if isinstance(f, envelope.Rcpt)]
        answers = iter(await self._ask([f.address for f in asked]) if asked else ())
        replies = [self._people.judge(f, next(answers)) if isinstance(f, envelope.Rcpt) else f for f in found]
        passing = [n for n, reply in enumerate(replies) if isinstance(reply, Recipient)]
        if passing:
            told_ = await self._offer([reply for reply in replies if isinstance(reply, Recipient)])
            for n, reply in zip(passing, told_, strict=True):
                replies[n] = reply
        return [str(reply) for reply in replies]

    async def rcpt(self, argument: str) -> str:
        """Answer one RCPT command."""
        found = self._read(argument)
        if isinstance(found, str):
            return found
        reply = self._people.judge(found, (await self._ask((found.address,)))[0])
        if isinstance(reply, str):
            return reply
        replies, lost = await self._delivery.rcpts((found.command,))
        if lost is not None:
            return self._lose(lost, [reply])
        self._people.upstream_said(reply, replies[0])
        return str(replies[0])

    def _read(self, argument: str) -> envelope.Rcpt | str:
        people = self._people
        people.asked += 1
        if self._lost is not None:
            people.deferred += 1
            return self._lost
        if people.count >= self._context.settings.max_recipients:
            return "452 4.5.3 too many recipients"
        try:
            return envelope.rcpt(argument, self._context.offers(), self._mail.smtputf8)
        except envelope.Syntax as problem:
            return str(problem)  # a list with addresses that are none is the sender's misfortune, not an attack on us

    def _ask(self, addresses: Sequence[Address]) -> Awaitable[Sequence[Answer]]:
        return self._context.gate.ask(addresses, self._list, self._policy.purpose)

    async def _offer(self, passing: Sequence[Recipient]) -> list[str]:
        replies, lost = await self._delivery.rcpts([p.rcpt.command for p in passing])
        for recipient, reply in zip(passing, replies, strict=False):
            self._people.upstream_said(recipient, reply)
        said = [str(reply) for reply in replies]
        if lost is not None:
            said += [self._lose(lost, passing[len(said) :])] * (len(passing) - len(said))
        return said

    def _lose(self, lost: Lost, unanswered: Sequence[Recipient]) -> str:
        """The upstream went away: the recipients it had taken are gone with it, so no later dot may count for them."""
        reply = told(lost)
        if self._people.taken:
            self._lost = reply
        self._people.defer([*self._people.taken, *unanswered])
        return reply

    def make_room(self) -> None:
        """The client is silent between two commands: give its place at the upstream to somebody who waits for one."""
        if self._delivery.begun and self._body is None and self._context.pool.waiting:
            self._delivery.forget()
            self._people.defer(self._people.taken)
            self._lost = _TOO_SLOW

    # ---- DATA

    def before_data(self) -> str | None:
        """What stands against reading a message at all, if anything."""
        if self._lost is not None:
            return self._lost
        if self._people.count:
            return None
        return "554 5.5.1 no valid recipients" if self._people.asked else "503 5.5.1 need RCPT before DATA"

    async def message(self, body: Body) -> str | None:
        """Read the message to its end and pass it on, all but its last piece. A str is the reply that refuses it."""
        self._body = body
        head = without_separator(await body.head(_HEADER_LIMIT))
        # The verdict first: upstream must not see one octet of a piece with a bare LF, it may take it for the end.
        verdict = self._verdict_on(body)
        reply = None if verdict else await self._pass_on(head, body)
        if not body.ended:
            await body.skip()
        refusal = self._verdict_on(body) or reply
        if refusal is not None:
            self._delivery.drop()
            if reply is None:  # else it is counted what became of them
                self._people.reject(self._people.taken)
            if not refusal.startswith("2"):
                relay_events.message_refused(refusal)
        return refusal

    async def _pass_on(self, head: bytes, body: Body) -> str | None:
        """Everything up to the dot. None: all sent, and nothing stands against the dot but the last question."""
        block = b"" if head.startswith(b"\r\n") else head.partition(b"\r\n\r\n")[0]
        refusal = self._look_at(block) if len(block) <= _HEADER_LIMIT else _TOO_MUCH_HEADER
        if refusal is not None:
            self._delivery.forget()
            self._people.reject(self._people.taken)
            return refusal
        try:
            refusal = await self._leave_out()
            if refusal is not None:
                return refusal
            data = await self._delivery.data()
            if data.code != 354:
                self._delivery.forget()
                self._people.reject(self._people.taken)
                return str(data)
            await self._stream(self._written_on(block, head), body)
        except Lost as lost:
            self._delivery.drop()
            self._people.defer(self._people.taken)
            return told(lost)
        return None

    def _look_at(self, block: bytes) -> str | None:
        """What the header says of the message: its list, its Message-ID, the hops it has behind it."""
        folded = block.lower()
        if folded.count(b"received:") > _MAX_HOPS and hops(folded) > _MAX_HOPS:
            return "554 5.4.6 too many Received lines: a mail loop"
        self._people.remember(block)
        if self._list is None and b"list-id" in folded:
            self._list = self._context.list_of(block)
        return None

    async def _stream(self, first: bytes, body: Body) -> None:
        """All pieces but the last one, which waits for the last question and goes out in one write with the dot."""
        held = first
        while not body.ended and (piece := await body.piece()) is not None:
            if self._verdict_on(body) is not None:
                return
            await self._delivery.body(held)
            held = piece
        self._last = held

    def _verdict_on(self, body: Body) -> str | None:
        """What a whole body is refused for."""
        if body.octets > self._context.max_size:
            return "552 5.3.4 message is larger than this server takes"
        if body.bare:
            return "550 5.6.11 a CR or LF stands alone: lines end in CR LF"
        return None

    async def _leave_out(self) -> str | None:
        """If the list is known only now, ask again, and start over without those who left it."""
        people = self._people
        if self._list is not None and self._list != self._policy.list_id:
            answers = await self._ask([r.rcpt.address for r in people.taken])
            unknown = people.part(answers)
            if unknown is not None:
                return self._withdraw(unknown.reply)
            if people.parted and people.taken:
                replies = await self._delivery.replay([r.rcpt.command for r in people.taken])
                if not all(r.good for r in replies):
                    people.defer(people.taken)
                    return self._withdraw(_CHANGED)
        if people.taken:
            return None
        self._delivery.forget()
        return people.nobody_left()

    def _withdraw(self, reply: str) -> str:
        """Nothing is sent: the upstream connection goes before its dot."""
        self._delivery.drop()
        return reply

    # ---- what we write on it

    def _written_on(self, block: bytes, head: bytes) -> bytes:
        context, person = self._context, self._people.only_one()
        number = context.numbers.get(self._list or "", 0)
        token = tokens.make(context.site_key, "received", person or tokens.NOBODY, number)
        received = context.received(self._client, token, utf8=self._mail.smtputf8)
        if context.stamping is None or self._policy.purpose == "service":  # service mail cannot be opted out of
            return received + head
        stamped = context.stamping.on(block, person, self._list, self._policy.credential)
        if stamped.foreign:
            self._people.foreign = True
        return received + stamped.applied_to(head)

    # ---- the dot

    async def finish(self) -> str:
        """The last question, then the dot and the upstream's reply."""
        people, began = self._people, monotonic()
        answers = await self._ask([r.rcpt.address for r in people.taken])
        if any(type(answer) is not Pass or answer.despite is not None for answer in answers):
            late = people.late(answers)
            if late is not None:
                return self._withdraw(late.reply if isinstance(late, Unknown) else _OPTED_OUT)
        try:
            reply = await self._delivery.dot(self._last)
        except Lost as lost:
            if lost.in_doubt:
                self._in_doubt(lost)
            people.defer(people.taken)
            return told(lost)
        except asyncio.CancelledError:  # we are stopping, and 30 s were not enough
            self._in_doubt("stopped before the next mail server answered the dot")
            people.defer(people.taken)
            raise
        if reply.good and self._context.saw is not None and people.promised:
            number = self._context.numbers.get(self._list or "", 0)
            self._context.saw([r.rcpt.address for r in people.taken], number, began)
        return str(self._account(reply))

    def _in_doubt(self, why: object) -> None:
        relay_events.possibly_duplicated(why)
        self._people.duplicates += 1

    def _account(self, reply: Reply) -> Reply:
        people = self._people
        if not reply.good:
            relay_events.message_refused(str(reply))
            people.reject(people.taken)
            return reply
        assert self._body is not None
        people.sent = len(people.taken)
        took = asyncio.get_running_loop().time() - self._began
        relay_events.message_sent(people.sent, len(people.left_out), self._body.octets, took, str(reply))
        return reply.with_suffix(people.suffix(self._list)) if people.left_out else reply

    def answered(self, reply: str) -> None:
        """The client has its reply to the dot: what became of the message is counted."""
        if self._people.sent:
            _SENT.value += 1
        elif self._people.withheld:
            metrics.relay_messages.inc("withheld")
        else:
            metrics.relay_messages.inc("deferred" if reply.startswith("4") else "rejected")

    def abandon(self) -> None:
        """The client reset, left, or is answered: nothing half-sent remains at the upstream; the rest is written down."""
        if self._body is None:
            self._delivery.forget()
        else:
            self._delivery.drop()
        self._people.write_down(self._list)


_TOO_MUCH_HEADER: Final = (
    "552 5.3.4 the header is larger than this server takes"  # the rest may be a List-Id somebody left
)


def hops(folded: bytes) -> int:
    """Received fields of a header block in small letters."""
    return (b"\n" + folded).count(b"\nreceived:")


def without_separator(head: bytes) -> bytes:
    """The octets of a message without the `From ann@example.com Mon Jan  1 ...` line that an mbox has before it (RFC 4155).

    It is no field, and clients that send out of an mbox leave it in. Postfix copes with it as the first line only; behind
    our Received it would be the first line of the body, and the whole header with it.
    """
    found = _SEPARATOR.match(head)
    return head[found.end() :] if found else head
