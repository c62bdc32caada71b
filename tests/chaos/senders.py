"""Campaigns: SMTP clients that queue and try again, and write down every reply and the moment of every final dot."""

from __future__ import annotations

import base64
import heapq
import random
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from tests.chaos.crowd import Crowd
from tests.chaos.history import Attempt, Given, History
from tests.chaos.stage import HOST, SECRET

_PATIENCE: Final = 25.0  # s for a reply
_AGAIN: Final = (0.5, 3.0)  # s before a deferred message is tried again, thrice that after some tries
_SOME: Final = 4
_LISTS: Final = ("", "newsletter")


@dataclass(frozen=True)
class Manner:
    """How a client sends."""

    name: str
    user: str = ""
    mode: str = "refuse"
    list: str = ""  # of the credential
    pipelined: bool = False
    most: int = 1  # recipients


MANNERS: Final = (
    Manner("one by one"),
    Manner("pipelined", pipelined=True, most=8),
    Manner("stripped", user="shop", mode="strip", pipelined=True, most=10),
    Manner("of a list", user="crm", list="newsletter", most=4),
    Manner("stripped, one by one", user="shop", mode="strip", most=2),
)


@dataclass(order=True)
class _Due:
    at: float
    message: str = field(compare=False)
    people: tuple[str, ...] = field(compare=False)
    list: str = field(compare=False)
    tries: int = field(compare=False, default=0)


class Line:
    """One SMTP connection. Raises OSError when it is lost, silent or out of step."""

    def __init__(self, port: int, user: str):
        self._socket = socket.create_connection((HOST, port), timeout=_PATIENCE)
        try:
            self._replies = self._socket.makefile("rb")
            self._expect(self.reply(), "220")
            self.say("EHLO shop.example")
            self._expect(self.reply(), "250")
            if user:
                self.say("AUTH PLAIN " + base64.b64encode(f"\0{user}\0{SECRET}".encode()).decode())
                self._expect(self.reply(), "235")
        except OSError:
            self.close()
            raise

    @staticmethod
    def _expect(reply: str, code: str) -> None:
        if not reply.startswith(code):
            raise ConnectionError(reply)

    def say(self, *commands: str) -> None:
        """Send commands together."""
        self.send("".join(c + "\r\n" for c in commands).encode())

    def send(self, octets: bytes) -> None:
        """Send."""
        self._socket.sendall(octets)

    def reply(self) -> str:
        """The last line of the next reply."""
        while True:
            line = self._replies.readline(2000)
            if not line.endswith(b"\n"):
                raise ConnectionError("lost")
            if line[3:4] != b"-":
                return line.decode(errors="replace").rstrip()

    def close(self) -> None:
        """Without a goodbye."""
        if hasattr(self, "_replies"):
            self._replies.close()
        self._socket.close()


@dataclass
class _Try:
    """What becomes of one attempt, step by step, so that whatever interrupts it, all is known up to there."""

    answers: list[tuple[str, float, str]] = field(default_factory=list)
    dot: float = 0.0
    reply: str = ""


class Sender(threading.Thread):
    """One client: makes messages at a rate until `resting` is set, goes on with its queue until `over` is set."""

    def __init__(
        self,
        manner: Manner,
        port: int,
        crowd: Crowd,
        history: History,
        dice: random.Random,
        resting: threading.Event,
        over: threading.Event,
        rate: float,
    ):
        super().__init__(name=f"sender {manner.name}")
        self.manner, self._port, self._crowd, self._history, self._dice = manner, port, crowd, history, dice
        self._resting, self._over, self._rate = resting, over, rate
        self._queue: list[_Due] = []
        self._numbers = count(1)
        self._line: Line | None = None
        self.made = 0

    @property
    def idle(self) -> bool:
        """Has it nothing to send any more?"""
        return not self._queue

    def run(self) -> None:
        """Until it is over; what is queued then was never sent, and that is said."""
        following = time.monotonic()
        while not self._over.is_set():
            now = time.monotonic()
            if not self._resting.is_set() and now >= following:
                following = max(following + self._dice.expovariate(self._rate), now - 1)
                self._make(now)
            if self._queue and self._queue[0].at <= now:
                self._try(heapq.heappop(self._queue))
            else:
                self._over.wait(0.02)
        for due in self._queue:
            self._give(due, due.people, "deferred")
        self._hang_up()

    def _make(self, now: float) -> None:
        people = self._crowd.recipients(self._dice, self._dice.randint(1, self.manner.most))
        name = f"{self.manner.name.replace(' ', '-').replace(',', '')}-{next(self._numbers)}"
        self.made += 1
        heapq.heappush(self._queue, _Due(now, name, tuple(people), self._dice.choice(_LISTS)))

    def _try(self, due: _Due) -> None:
        number, done = due.tries + 1, _Try()
        try:
            if self._line is None:
                self._line = Line(self._port, self.manner.user)
            self._transact(self._line, due, number, done)
            if self._dice.random() < 0.05:
                self._hang_up()
        except OSError:
            if self._line is None:
                self._over.wait(0.3)  # a door that is closed
            self._hang_up()
        sort = self.manner.mode, self.manner.list or due.list, bool(self.manner.list)
        self._history.add(
            Attempt(due.message, number, *sort, tuple(done.answers), done.dot, done.reply, time.monotonic())
        )
        self._judge(due, number, done)

    def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def _transact(self, line: Line, due: _Due, number: int, done: _Try) -> None:
        """MAIL, RCPT and DATA, together or one by one, and the message; or RSET."""
        commands = ["MAIL FROM:<news@quillpdf.example>", *(f"RCPT TO:<{p}>" for p in due.people)]
        done.reply = ""
        if self.manner.pipelined:
            sent = time.monotonic()
            done.answers = [(p, sent, "") for p in due.people]
            line.say(*commands, "DATA")
            mail = line.reply()
            for place, person in enumerate(due.people):
                done.answers[place] = (person, sent, line.reply())
            data = line.reply()
        else:
            line.say(commands[0])
            mail = line.reply()
            for person, command in zip(due.people, commands[1:], strict=True):
                sent = time.monotonic()
                done.answers.append((person, sent, ""))
                line.say(command)
                done.answers[-1] = (person, sent, line.reply())
            if not any(a[2].startswith("2") for a in done.answers):
                line.say("RSET")
                line.reply()
                return
            line.say("DATA")
            data = line.reply()
        if not data.startswith("354"):
            done.reply = data if mail.startswith("2") else mail
            line.say("RSET")
            line.reply()
            return
        body = self._body(due, number)
        line.send(body)
        done.dot = time.monotonic()
        line.send(b".\r\n")
        done.reply = line.reply()

    def _body(self, due: _Due, number: int) -> bytes:
        head = f"X-Attempt: {due.message}.{number}\r\nMessage-ID: <{due.message}@shop.example>\r\nSubject: spring\r\n"
        head += "From: The Quill Letter <letter@quillpdf.example>\r\nTo: reader@reader.example\r\n"
        if due.list:
            head += f"List-Id: <{due.list}.quillpdf.example>\r\n"
        octets = self._dice.choice((100, 100, 5_000, 120_000))
        return head.encode() + b"\r\n" + b"Buy a pen, or two.\r\n" * (octets // 20)

    def _judge(self, due: _Due, number: int, done: _Try) -> None:
        """What a queueing client makes of the replies: sent, refused, or again later."""
        taken = [p for p, _, reply in done.answers if reply.startswith("2")]
        refused = [p for p, _, reply in done.answers if reply.startswith("5")]
        self._give(due, refused, "refused")
        if done.dot and done.reply.startswith("2"):
            self._give(due, taken, "sent")
        elif done.reply.startswith("5") and taken:
            self._give(due, taken, "refused")
        over = set(refused)
        if done.reply[:1] in ("2", "5"):
            over |= set(taken)
        again = tuple(p for p in due.people if p not in over)
        if again:
            at = time.monotonic() + self._dice.uniform(*_AGAIN) * (1 if number < _SOME else 3)
            heapq.heappush(self._queue, _Due(at, due.message, again, due.list, number))

    def _give(self, due: _Due, people: Sequence[str], state: str) -> None:
        for person in people:
            self._history.add(Given(due.message, person, state))
