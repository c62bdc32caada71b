"""Those who ask to be left alone, in every way there is; and operators, who also take it back."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import smtplib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from imapclient.exceptions import IMAPClientError

from tests.chaos.crowd import Crowd, Mailroom, link
from tests.chaos.history import ALL, Acknowledged, Asked, History, Lift, Posted
from tests.chaos.letters import Composer
from tests.chaos.stage import HOST, SECRET, Stage
from tests.loopback import ServerError

_FLAGS: Final = ("\\Seen", "\\Answered", "\\Flagged", "$Label1")
_LIFTED: Final = 0.15  # of those who asked a machine, so many are taken off the list again
_HTTP_SECONDS: Final = 12.0
_IMPORTED: Final = 30
AWAY: Final = (OSError, IMAPClientError, ServerError, smtplib.SMTPException)


@dataclass
class Means:
    """What all of them work with."""

    stage: Stage
    crowd: Crowd
    mailroom: Mailroom
    history: History
    resting: threading.Event  # nothing new is begun
    over: threading.Event  # nothing goes on
    liftable: deque[str] = field(default_factory=deque)
    open: dict[str, str] = field(default_factory=dict)  # asked and not yet acknowledged: person -> way
    written: dict[str, str] = field(default_factory=dict)  # letters that ask: their names -> who wrote them

    def asked(self, person: str, way: str, scope: str, reason: str) -> None:
        """Somebody is about to."""
        self.open[person] = way
        self.history.add(Asked(person, way, scope, reason, time.monotonic()))

    def heard(self, person: str, by: str) -> None:
        """It was acknowledged."""
        self.history.add(Acknowledged(person, by, time.monotonic()))
        self.open.pop(person, None)


class Asker(threading.Thread):
    """Does one thing at a rate; what it has begun it goes on with, until it is over."""

    def __init__(
        self, name: str, means: Means, dice: random.Random, rate: float, once: Callable[[random.Random], None]
    ):
        super().__init__(name=name)
        self._means, self._dice, self._rate, self._once = means, dice, rate, once

    def run(self) -> None:
        """Until nothing new is to be begun."""
        means = self._means
        while not means.resting.wait(self._dice.expovariate(self._rate)):
            self._once(self._dice)


def until(means: Means, dice: random.Random, done: Callable[[], bool]) -> bool:
    """Try again and again, as those do who were told to come back. False: it was over before."""
    while not means.over.is_set():
        if done():
            return True
        means.over.wait(dice.uniform(0.3, 1.5))
    return False


# ------------------------------------------------------------------ by HTTP


def post(port: int, path: str, body: str, kind: str, **fields: str) -> int:
    """The status of a POST; 0: there was no answer."""
    line = http.client.HTTPConnection(HOST, port, timeout=_HTTP_SECONDS)
    try:
        line.request("POST", path, body, {"Content-Type": kind, "Host": "optout.quillpdf.example", **fields})
        answer = line.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        line.close()


def call(port: int, path: str, **fields: str) -> int:
    """The status of a call of the API."""
    bearer = {"Authorization": f"Bearer {SECRET}"}
    return post(port, f"/api/v1/{path}", json.dumps(fields), "application/json", **bearer)


def click(means: Means, dice: random.Random) -> None:
    """Somebody presses the button that the link made."""
    means.mailroom.look()
    letter = means.mailroom.take()
    path = link(letter[1]) if letter else None
    if letter is None or path is None or not means.crowd.asks_this(letter[0]):
        return
    person, head = letter
    of_list = "list-id:" in head.lower() and dice.random() < 0.5
    body = "List-Unsubscribe=One-Click" + ("" if of_list else "&all=1")
    means.asked(person, "click", "newsletter" if of_list else ALL, "opt-out")
    form, port = "application/x-www-form-urlencoded", means.stage.ports["clicks"]
    if until(means, dice, lambda: post(port, path, body, form) == 200):
        means.heard(person, "answer")
        _perhaps_lifted(means, dice, person, ALL if not of_list else "")


def call_up(means: Means, dice: random.Random) -> None:
    """Another program tells of a wish, or an operator takes one back through it."""
    port = means.stage.ports["api"]
    if means.liftable and dice.random() < 0.3:
        _lift(
            means,
            dice,
            "api",
            lambda p: call(port, "lift", address=p, because="asked us to"),
            {200: True, 404: None},
        )
        return
    person = means.crowd.asks()
    if person is None:
        return
    means.asked(person, "api", ALL, "operator")
    if until(means, dice, lambda: call(port, "suppressions", address=person, source="phone") in (200, 201)):
        means.heard(person, "answer")
        _perhaps_lifted(means, dice, person, ALL)


def _perhaps_lifted(means: Means, dice: random.Random, person: str, scope: str) -> None:
    if scope == ALL and dice.random() < _LIFTED:
        means.liftable.append(person)


def _lift(
    means: Means, dice: random.Random, way: str, once: Callable[[str], int], codes: dict[int, bool | None]
) -> None:
    """Take somebody off the list. A second try may find nobody there: the first was heard after all (None in `codes`)."""
    try:
        person = means.liftable.popleft()
    except IndexError:
        return
    began, tries = time.monotonic(), count()
    means.history.add(Lift(person, way, began, 0.0))

    def done() -> bool:
        code = once(person)
        first = next(tries) == 0
        if first and codes.get(code, False) is None:
            means.history.note("lift found nobody", f"{person} by {way}")
        return codes.get(code, False) is not False

    if until(means, dice, done):
        means.history.add(Lift(person, way, began, time.monotonic()))


# ------------------------------------------------------------------ by the command line


class Operators:
    """Who sits at the command line."""

    def __init__(self, means: Means):
        self._means, self._files = means, count(1)

    def once(self, dice: random.Random) -> None:
        """One errand."""
        errand = dice.choices((self.suppress, self.lift, self.bring, self.back_up), (4, 2, 2, 2))[0]
        errand(dice)

    def _run(self, *arguments: str) -> int:
        return self._means.stage.daemon.cli(*arguments).returncode

    def suppress(self, dice: random.Random) -> None:
        """Somebody has called."""
        person = self._means.crowd.asks()
        if person is None:
            return
        self._means.asked(person, "cli", ALL, "operator")
        if until(self._means, dice, lambda: self._run("suppress", person, "--source", "phone") == 0):
            self._means.heard(person, "answer")
            _perhaps_lifted(self._means, dice, person, ALL)

    def lift(self, dice: random.Random) -> None:
        """Somebody has changed their mind."""
        _lift(self._means, dice, "cli", lambda p: self._run("lift", p, "--because", "asked us to"), {0: True, 1: None})

    def bring(self, dice: random.Random) -> None:
        """A list of another service."""
        people = [p for p in (self._means.crowd.asks() for _ in range(_IMPORTED)) if p is not None]
        file = self._means.stage.directory / f"list-{next(self._files)}.csv"
        file.write_text("email\n" + "".join(p + "\n" for p in people))
        for person in people:
            self._means.asked(person, "import", ALL, "opt-out")
        command = ("import", str(file), "--format", "csv", "--reason", "opt-out", "--yes")
        if people and until(self._means, dice, lambda: self._run(*command) == 0):
            for person in people:
                self._means.heard(person, "answer")

    def back_up(self, dice: random.Random) -> None:
        """As the daemon does by itself every hour."""
        self._run("backup", str(self._means.stage.backups))


# ------------------------------------------------------------------ by mail


class Writers:
    """Who writes to support, and what mail servers write there."""

    def __init__(self, means: Means, dice: random.Random):
        self._means, self._composer = means, Composer(dice)

    def once(self, dice: random.Random) -> None:
        """One mail."""
        kinds = (self.ask, self.wonder, self.ramble, self.report)
        dice.choices(kinds, (5, 5, 1, 3))[0](dice)

    def ask(self, dice: random.Random) -> None:
        """A customer wants no more mail; whoever is not sure that it was sent sends it again."""
        person = self._means.crowd.asks()
        if person is None:
            return
        self._means.asked(person, "mail", ALL, "opt-out")
        until(self._means, dice, lambda: self._post("opt-out", person, *self._composer.asking(person), dice))

    def wonder(self, dice: random.Random) -> None:
        """A customer has a question."""
        self._post("ordinary", "", *self._composer.ordinary(), dice)

    def ramble(self, dice: random.Random) -> None:
        """A customer wants something, and a person has to find out what."""
        self._post("review", "", *self._composer.doubtful(), dice)

    def report(self, dice: random.Random) -> None:
        """A mail server returns our mail, or tells that somebody has complained."""
        self._means.mailroom.look()
        letter = self._means.mailroom.take()
        if letter is None or not self._means.crowd.asks_this(letter[0]):
            return
        person, head = letter
        kind, reason = dice.choice((("bounce", "hard-bounce"), ("complaint", "complaint")))
        make = self._composer.bounce if kind == "bounce" else self._composer.complaint
        self._means.asked(person, kind, ALL, reason)
        until(self._means, dice, lambda: self._post(kind, person, *make(person, head), dice))

    def _post(self, what: str, person: str, name: str, raw: bytes, dice: random.Random) -> bool:
        if what == "opt-out":
            self._means.written[name] = person
        box, flags, sure = self._means.stage.box, tuple(f for f in _FLAGS if dice.random() < 0.25), True
        way = "lmtp" if dice.random() < 0.3 else "append"
        try:
            if way == "lmtp":
                flags = ()
                box.lmtp("support", raw)
            else:
                box.append("support", raw, flags=flags)
        except AWAY:
            sure = False
        digest = hashlib.sha256(raw).hexdigest()
        self._means.history.add(Posted(name, what, person, way, flags, digest, len(raw), sure, time.monotonic()))
        return sure
