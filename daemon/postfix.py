"""Postfix asks before it takes a recipient: its policy service (postfix.org/SMTPD_POLICY_README.html), on the relay's gate.

So mail that does not pass our relay is guarded too. docs/policy-service.md has the main.cf, and what this cannot see.

    request  `name=value` lines, then an empty line           answer  `action=...` and an empty line
    RCPT     may this recipient be mailed?                    550 5.7.1 · DUNNO (nothing against it) · 451
    DATA, END-OF-MESSAGE   the recipient, if there is only one: asked again, for an opt-out may have come meanwhile
    others   no recipient to ask about                        DUNNO

Whatever is in doubt does not pass: 451. What does not keep to the protocol is hung up on without an answer, as the
README asks; Postfix then answers its client with `default_action`, 451 unless main.cf says otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from daemon import events, relay_events
from daemon.config import bound_to, host_port
from daemon.gate import Answer, Gate, Purpose, Refused, Unknown
from storage.address import Address, NotAnAddress, SiteKey
from storage.refusals import Outcome
from storage.routes import meant as addresses

MAX_REQUEST: Final = 65_536  # octets; Postfix sends about 600
MAX_LINE: Final = 4096  # octets
MAX_ATTRIBUTES: Final = 100  # Postfix 3.7 sends 29
MAX_CONNECTIONS: Final = 1000  # Postfix opens one for every smtpd process, and has at most 100 of those by default
IDLE_SECONDS: Final = 1000  # as Postfix's own smtpd_policy_service_max_ttl; it hangs up after 300 idle seconds itself
_AT_ONCE: Final = 50  # requests that have come together: then the relay's clients get their turn
_LINGER_SECONDS: Final = 1  # for a client to read its last answer

_DUNNO: Final = "DUNNO"
_UNREADABLE: Final = "550 5.1.3 this recipient cannot be read, so nobody can tell whether it has opted out"
_MISCONFIGURED: Final = "451 4.3.5 the policy_context of this server is wrong, see the log of optoutd"
_BROKEN: Final = "451 4.3.0 local error, try again later"
_UNSAID: Final[tuple[str | None, Purpose]] = (None, "marketing")
_LATER: Final = frozenset(("DATA", "END-OF-MESSAGE"))  # BDAT is called DATA here


def _nothing(*_: object) -> None:
    """What `note` does unless somebody counts."""


@dataclass(frozen=True)
class Context:
    """What every question is answered with.

    `users`: sasl_username -> (list id, purpose). `lists`: the list ids there are. `observe`: everything passes, the log
    says what would have been refused. `note(outcome, list id, credential, reason, n)` counts answers; outcome:
    `passed refused would-refuse service deferred`; credential: a name out of `users` or ""; reason: a
    storage.terms.Reason, or 0. `default_list`: the list of mail for which neither policy_context nor user names one.
    """

    gate: Gate
    site_key: SiteKey
    users: Mapping[str, tuple[str | None, Purpose]]
    lists: frozenset[str]
    observe: bool = False
    note: Callable[[Outcome, str | None, str, int, int], None] = _nothing
    default_list: str | None = None


# ------------------------------------------------------------------ requests


class NotARequest(Exception):
    """What came does not keep to the protocol; str() says how, without a word of it."""


@dataclass(frozen=True, slots=True)
class Request:
    """The attributes that matter to us, "" where not given. Octets that are not UTF-8 are surrogates."""

    state: str
    recipient: str = ""
    sasl_username: str = ""
    policy_context: str = ""


def read(block: bytes) -> Request:
    """Read a request without the empty line that ends it. Raises NotARequest."""
    lines = block.split(b"\n")
    if len(lines) > MAX_ATTRIBUTES:
        raise NotARequest("too many attributes")
    if max(map(len, lines)) > MAX_LINE:
        raise NotARequest("a line is too long")
    try:
        given = dict([line.split(b"=", 1) for line in lines])
    except ValueError:
        raise NotARequest("a line without =") from None
    if given.get(b"request") != b"smtpd_access_policy":
        raise NotARequest("not an smtpd_access_policy request")
    return Request(
        *[
            given.get(name, b"").decode("utf-8", "surrogateescape")
            for name in (b"protocol_state", b"recipient", b"sasl_username", b"policy_context")
        ]
    )


# ------------------------------------------------------------------ the decision


@dataclass(frozen=True, slots=True)
class _Mail:
    """What kind of mail it is. `user`: whom of `Context.users` it comes from, or ""."""

    list_id: str | None
    purpose: Purpose
    user: str


class _Misconfigured(Exception):
    """The operator named what there is not; str() says what."""


def _mail(context: Context, asked: Request) -> _Mail:
    """policy_context, if there is one, else what the user's mail is; the default list where neither names one.

    Raises _Misconfigured: with a list that we do not know, only opt-outs of everything would count.
    """
    user = asked.sasl_username if asked.sasl_username in context.users else ""
    list_id, purpose = _stated(asked.policy_context) if asked.policy_context else context.users.get(user, _UNSAID)
    list_id = context.default_list if list_id is None else list_id
    if list_id is not None and list_id not in context.lists:
        raise _Misconfigured(f"list={list_id}: no such list")
    return _Mail(list_id, purpose, user)


def _stated(policy_context: str) -> tuple[str | None, Purpose]:
    """Read `list=ID purpose=service`, parted by space, comma or semicolon. Raises _Misconfigured."""
    words = policy_context.replace(",", " ").replace(";", " ").split()
    stated = dict(word.split("=", 1) for word in words if "=" in word)
    if len(stated) == len(words) and stated.keys() <= {"list", "purpose"}:  # the same word twice is a slip as well
        match stated.get("purpose", "marketing"):
            case "marketing" | "service" as purpose:
                return stated.get("list"), purpose
    raise _Misconfigured(f"{policy_context}: only list=ID and purpose=marketing or purpose=service are understood")


async def action(context: Context, asked: Request) -> str:
    """Answer a request: what stands behind `action=`."""
    if asked.state != "RCPT" and not (asked.state in _LATER and asked.recipient):
        return _DUNNO
    answer = await _decide(context, asked)
    return _DUNNO if context.observe else answer


async def _decide(context: Context, asked: Request) -> str:
    try:
        mail = _mail(context, asked)
    except _Misconfigured as wrong:
        relay_events.policy_misconfigured(str(wrong), observed=context.observe)
        context.note("passed" if context.observe else "deferred", None, "", 0, 1)
        return _MISCONFIGURED
    if asked.recipient.lower() == "postmaster":
        return _DUNNO  # RFC 5321 4.5.1: taken without a domain. Postfix asks about it at DATA only
    try:
        meant = addresses(asked.recipient)
    except NotAnAddress:
        relay_events.policy_unreadable(context.site_key.who(asked.recipient), observed=context.observe)
        context.note("would-refuse" if context.observe else "refused", mail.list_id, mail.user, 0, 1)
        return _UNREADABLE
    answers = await context.gate.ask(meant, mail.list_id, mail.purpose)
    return _judge(context, asked, mail, list(zip(meant, answers, strict=True)))


def _judge(context: Context, asked: Request, mail: _Mail, answers: Sequence[tuple[Address, Answer]]) -> str:
    """Nobody meant may stand on the list: the first answer that is no Pass is the answer."""
    despite: Refused | None = None
    for address, answer in answers:
        if isinstance(answer, Refused):
            return _refuse(context, asked, mail, address, answer)
        if isinstance(answer, Unknown):
            relay_events.policy_deferred(context.site_key.who(address), answer.why, observed=context.observe)
            context.note("passed" if context.observe else "deferred", mail.list_id, mail.user, 0, 1)
            return answer.reply
        despite = despite or answer.despite
    _passed(context, asked, mail, despite)
    return _DUNNO


def _refuse(context: Context, asked: Request, mail: _Mail, address: Address, answer: Refused) -> str:
    facts = (context.site_key.who(address), answer.text, answer.verdict.evidence, answer.of)
    if context.observe:
        relay_events.policy_would_refuse(*facts)
    else:
        relay_events.policy_refused(*facts)
    outcome: Outcome = "would-refuse" if context.observe else "refused"
    context.note(outcome, mail.list_id, mail.user, int(answer.verdict.reason), 1)
    return answer.reply(asked.recipient)


def _passed(context: Context, asked: Request, mail: _Mail, despite: Refused | None) -> None:
    """Counted at RCPT only: what is asked again later is the same recipient."""
    if asked.state == "RCPT":
        reason = int(despite.verdict.reason) if despite else 0
        context.note("service" if despite else "passed", mail.list_id, mail.user, reason, 1)


# ------------------------------------------------------------------ the connections


class Server:
    """The listening policy service: its clients, and how it starts and stops.

    The protocol knows no log-in: whoever connects is answered, so `listen` must be loopback only (the caller sees to it).
    """

    def __init__(self, listen: Sequence[str], context: Context):
        self.context = context
        self._listen = tuple(listen)
        self._listening: list[asyncio.Server] = []
        self._clients: set[asyncio.StreamWriter] = set()
        self._empty = asyncio.Event()

    async def start(self) -> list[str]:
        """Listen; returns the bound addresses as HOST:PORT. Raises OSError, and then listens nowhere."""
        try:
            for listen in self._listen:
                host, port = host_port(listen)
                self._listening.append(
                    await asyncio.start_server(self._accepted, host, port, limit=MAX_REQUEST, backlog=1024)
                )
        except OSError:
            self._close()
            raise
        return [bound_to(s.getsockname()) for server in self._listening for s in server.sockets]

    async def stop(self) -> None:
        """No new connections, and an end to the ones there are. Every request is answered as it comes: none waits."""
        self._close()
        for client in list(self._clients):
            client.close()
        self._empty.clear()
        if self._clients:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(3 * _LINGER_SECONDS):
                    await self._empty.wait()

    def take_over(self, fresh: Context) -> None:
        """Answer by other settings from the next request on; listeners and connections stay."""
        self.context = fresh

    def _close(self) -> None:
        for server in self._listening:
            server.close()
        self._listening.clear()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A client comes, asks and goes. The outermost loop of this door: nothing is raised out of it."""
        self._clients.add(writer)
        try:
            if len(self._clients) > MAX_CONNECTIONS:
                relay_events.policy_hung_up("too many connections")
            else:
                await self._talk(reader, writer)
        except NotARequest as how:
            relay_events.policy_hung_up(str(how))
        except asyncio.LimitOverrunError:
            relay_events.policy_hung_up("a request is too large")
        except (EOFError, OSError):
            pass  # gone, or silent for too long
        finally:
            await _hang_up(writer)
            self._clients.discard(writer)  # till now it has held a socket
            if not self._clients:
                self._empty.set()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(IDLE_SECONDS) as silence:
            for answered in count(1):
                block = await reader.readuntil(b"\n\n")
                writer.write(f"action={await self._answer(read(block[:-2]))}\n\n".encode())
                await writer.drain()  # one that does not read its answers is not read from
                silence.reschedule(loop.time() + IDLE_SECONDS)
                if answered % _AT_ONCE == 0:
                    await asyncio.sleep(0)

    async def _answer(self, asked: Request) -> str:
        try:
            return await action(self.context, asked)
        except Exception as error:  # noqa: BLE001 - told in our log; this question hears 451, the connection goes on
            events.failed("postfix", error)
            return _BROKEN


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    """Close, with a moment to read the last answer."""
    writer.close()
    with contextlib.suppress(OSError):
        async with asyncio.timeout(_LINGER_SECONDS):
            await writer.wait_closed()
    writer.transport.abort()
