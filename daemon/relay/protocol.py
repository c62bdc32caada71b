"""The commands of a session (RFC 5321 4.1): who may say what when, and the replies. Octets and timers are wire.py's.

What a message goes through stands in transaction.py.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Final
from typing import Protocol as Interface

from daemon import events, relay_events
from daemon.relay import sasl
from daemon.relay.access import BLOCKED, Brake, Credentials, Policy
from daemon.relay.body import Body, Gone
from daemon.relay.context import Client, Context
from daemon.relay.envelope import Syntax
from daemon.relay.transaction import Transaction
from daemon.relay.wire import MAX_HELD, Wire

MAX_ERRORS: Final = 50  # bad commands before 421
MAX_WRONG_LOGINS: Final = 3
_HELD_SECONDS: Final = (
    30  # a client may keep an upstream connection for so long without a word, while others wait for one
)
_COMMANDS: Final = "EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY HELP"


@dataclass(frozen=True)
class Door:
    """A listener: what applies to whoever comes in by it. `tls`: for STARTTLS, None: not offered."""

    policy: Policy
    tls: ssl.SSLContext | None = None
    required: bool = False  # AUTH before MAIL
    credentials: Credentials = field(default_factory=lambda: Credentials({}))
    loopback: bool = True  # nobody listens in: AUTH may go in clear


class Host(Interface):
    """What a session needs of the server that it belongs to."""

    context: Context
    closing: bool
    brake: Brake
    template: dict[str, Any]

    def connected(self, client: Wire) -> None:
        """A client has come."""

    def disconnected(self, client: Wire) -> None:
        """It has gone, and nothing of it is under way any more."""

    def refusal(self, client: Wire) -> str | None:
        """What to greet with instead of 220, if anything."""


class Protocol(Wire):
    """One client. aiosmtpd reads its own state from `session` and `envelope`; ours is `transaction`."""

    server: Host

    def __init__(self, server: Host, door: Door, loop: asyncio.AbstractEventLoop):
        super().__init__(server, loop)
        self.door = door
        self.policy = door.policy
        self.client: Client | None = None  # what it called itself; None: it has not yet
        self.transaction: Transaction | None = None
        self._bad = self._messages = self._wrong_logins = 0

    # ------------------------------------------------------------ the session

    async def _handle_client(self) -> None:
        try:
            await self._session()
        except (Gone, OSError):
            pass  # the client left; `finally` forgets what was under way
        except Exception as error:  # noqa: BLE001 - a session's outermost frame: told in our log, the client hears 421
            events.failed("relay", error)
            self._say("421 4.3.0 internal error, try again later")
        finally:
            self._end_transaction()
            self._close()

    async def _session(self) -> None:
        server = self.server
        refusal = server.refusal(self)
        self._say(refusal or f"220 {server.context.hostname} ESMTP optoutd")
        if refusal:
            return
        while self.transport is not None and (not server.closing or self.transaction is not None):
            if len(self._out) >= MAX_HELD:
                await self._send()
                await asyncio.sleep(0)
            try:
                goes_on = self._obey(await self._line())
                if not isinstance(goes_on, bool):
                    goes_on = await goes_on
            except Syntax as problem:
                self._complain(str(problem))
                goes_on = True
            if not goes_on:
                return
            if self._bad >= MAX_ERRORS:
                self._say("421 4.7.0 too many errors")
                return
        self._say("421 4.3.2 closing")

    def _is_idle(self) -> bool:
        return self.transaction is None

    def _linger(self, silent: float) -> None:
        if self.transaction is not None and silent > _HELD_SECONDS and self._waiting and not self._reading:
            self.transaction.make_room()

    def _complain(self, reply: str) -> None:
        self._bad += 1
        self._say(reply)

    def _obey(self, line: bytes | None) -> bool | Awaitable[bool]:
        """Carry out one command, at once or, where it has to wait, as what is awaited. False: the session is over.

        `line`: None for one that was too long. Raises Syntax, at once or then.
        """
        if line is None:
            raise Syntax("500 5.5.2 command line too long")
        verb, _, argument = line.decode("utf-8", "surrogateescape").partition(" ")
        verb = verb.upper() if verb.isascii() else "?"  # "QU\u0131T".upper() would be QUIT
        match verb:
            case "RCPT":
                return self._rcpt(argument)
            case "MAIL":
                return self._mail(argument.strip())
            case "DATA":
                return self._data(argument)
            case "QUIT":
                self._say("221 2.0.0 bye")
                return False
            case "RSET":
                self._end_transaction()
                self._say("250 2.0.0 ok")
            case "EHLO" | "HELO":
                self._hello(verb, argument.strip())
            case "STARTTLS":
                return self._starttls(argument)
            case "AUTH":
                return self._auth(argument)
            case _:
                self._other(verb)
        return True

    def _hello(self, verb: str, name: str) -> None:
        if not name or not name.isprintable() or len(name) > 255 or not name.isascii():
            raise Syntax(f"501 5.5.4 syntax: {verb} hostname")
        self._end_transaction()
        extended, context = verb == "EHLO", self.server.context
        self.client = Client(name, self.peer, extended, self.encrypted, self.policy is not self.door.policy)
        if extended:
            offered = context.offers() | self._own_offers()
            lines = [context.hostname, *(f"{k} {v}".rstrip() for k, v in offered.items())]
            self._say("\r\n".join(f"250{' ' if n == len(lines) - 1 else '-'}{x}" for n, x in enumerate(lines)))
        else:
            self._say(f"250 {context.hostname}")

    def _own_offers(self) -> dict[str, str]:
        """EHLO keywords of this listener and this moment."""
        offered = {}
        if self.door.tls is not None and not self.encrypted:
            offered["STARTTLS"] = ""
        if self.door.credentials and (self.encrypted or self.door.loopback):
            offered["AUTH"] = sasl.MECHANISMS
        return offered

    def _other(self, verb: str) -> None:
        match verb:
            case "NOOP":
                self._say("250 2.0.0 ok")
            case "VRFY":
                self._say("252 2.5.0 cannot verify, but will try to deliver")
            case "HELP":
                self._say(f"214 2.0.0 {_COMMANDS}")
            case "EXPN" | "BDAT" | "ETRN" | "TURN":
                self._complain("502 5.5.1 command not implemented")
            case _:
                self._complain("500 5.5.2 command not recognized")

    # ------------------------------------------------------------ TLS and AUTH

    async def _starttls(self, argument: str) -> bool:
        if self.door.tls is None:
            raise Syntax("502 5.5.1 command not implemented")
        if self.encrypted:
            raise Syntax("503 5.5.1 TLS is on already")
        if argument:
            raise Syntax("501 5.5.4 syntax: STARTTLS")
        self._end_transaction()
        self._say("220 2.0.0 ready to start TLS")
        await self._start_tls(self.door.tls)
        self.client, self.policy = None, self.door.policy  # RFC 3207 4.2: what was said in clear counts no more
        return True

    async def _auth(self, argument: str) -> bool:
        """AUTH (RFC 4954). False: too many wrong ones, the session is over."""
        if not self.door.credentials:
            raise Syntax("502 5.5.1 command not implemented")
        if self.client is None or not self.client.extended:
            raise Syntax("503 5.5.1 send EHLO first")
        if self.transaction is not None or self.policy is not self.door.policy:
            raise Syntax("503 5.5.1 not now: logged in already, or in the middle of a message")
        if not (self.encrypted or self.door.loopback):
            raise Syntax("538 5.7.11 AUTH needs TLS: send STARTTLS first")
        exchange = sasl.Exchange()
        step = exchange.begin(argument)
        while isinstance(step, sasl.Challenge):
            self._say(f"334 {step.text}")
            step = exchange.more(await self._line(sasl.MAX_LINE) or b"*")
        if isinstance(step, sasl.Failed) and step.reply != sasl.INVALID:
            raise Syntax(step.reply)
        return await self._judge(step)

    async def _judge(self, claim: sasl.Proof | sasl.Failed) -> bool:
        brake = self.server.brake
        if waits := brake.delay(self.peer, self.loop.time()):
            await asyncio.sleep(waits)
        if brake.blocked(self.peer, self.loop.time()):  # it may have opened this connection before it was
            relay_events.login_refused(self.peer)
            self._say(BLOCKED)
            return False
        found = self.door.credentials.check(claim.username, claim.password) if isinstance(claim, sasl.Proof) else None
        if found is not None:
            self.policy = found
            assert self.client is not None
            self.client = self.client.logged_in()
            relay_events.client_logged_in(found.credential)
            self._say("235 2.7.0 authentication successful")
            return True
        self._wrong_logins += 1
        relay_events.login_refused(self.peer)
        await asyncio.sleep(brake.failed(self.peer, self.loop.time()))
        last = self._wrong_logins >= MAX_WRONG_LOGINS
        self._say("421 4.7.0 too many wrong log-ins" if last else sasl.INVALID)
        return not last

    # ------------------------------------------------------------ a message

    def _mail(self, argument: str) -> bool:
        """MAIL. False: no more on this connection."""
        context = self.server.context
        if self.client is None:
            raise Syntax("503 5.5.1 send EHLO first")
        if self.transaction is not None:
            raise Syntax("503 5.5.1 nested MAIL command")
        if self.door.required and self.policy is self.door.policy:
            raise Syntax("530 5.7.0 authentication required")
        if context.settings.max_messages and self._messages >= context.settings.max_messages:
            self._say("421 4.7.0 too many messages on this connection, come again")
            return False
        self.transaction = Transaction.begin(context, self.policy, argument, self.client)
        self._messages += 1
        self._say("250 2.1.0 ok")
        return True

    async def _rcpt(self, argument: str) -> bool:
        if self.transaction is None:
            raise Syntax("503 5.5.1 need MAIL before RCPT")
        more = self._more_recipients() if self._inbox else None
        if more:
            for reply in await self.transaction.rcpts([argument, *more]):
                self._say(reply)
        else:
            self._say(await self.transaction.rcpt(argument))
        return True

    def _more_recipients(self) -> list[str]:
        """The arguments of the RCPT commands that wait in the buffer, whole (RFC 2920): one question answers them all."""
        found: list[str] = []
        while len(found) < MAX_HELD and self._inbox[:5].upper() == b"RCPT " and (line := self._take_line()) is not None:
            found.append(line[5:].decode("utf-8", "surrogateescape"))
        return found

    async def _data(self, argument: str) -> bool:
        if self.transaction is None:
            raise Syntax("503 5.5.1 need MAIL before DATA")
        if argument:
            raise Syntax("501 5.5.4 syntax: DATA")
        refusal = self.transaction.before_data()
        if refusal is not None:
            self._say(refusal)
            return True
        self._say("354 end data with <CR><LF>.<CR><LF>")
        self._flush()
        try:
            reply = await self._message(self.transaction)
            self._say(reply)
            self._flush()  # at once: what follows may be slow, and a client that does not know sends it again
            self.transaction.answered(reply)
        finally:
            self._end_transaction()
        return True

    async def _message(self, transaction: Transaction) -> str:
        normalise = self.server.context.settings.bare_newline == "normalise"
        self._begin_body()
        try:
            refusal = await transaction.message(Body(self._octets, self._past_the_dot, normalise=normalise))
            return await transaction.finish() if refusal is None else refusal
        finally:
            self._handing_over = self._reading = False

    def _past_the_dot(self, rest: bytes) -> None:
        """From here a client that leaves changes nothing. `rest`: commands pipelined behind the dot."""
        self._handing_over, self._reading = True, False
        if rest:
            self._inbox[:0] = rest

    def _end_transaction(self) -> None:
        if self.transaction is not None:
            self.transaction.abandon()
            self.transaction = None
