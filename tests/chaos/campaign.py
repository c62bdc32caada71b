"""A round: everything is brought up, loaded and broken for a while, mended, let come to rest, and judged."""

from __future__ import annotations

import random
import shutil
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from tests.chaos import checker, faults
from tests.chaos.askers import Asker, Means, Operators, Writers, call_up, click
from tests.chaos.crowd import Crowd, Mailroom
from tests.chaos.evidence import collect
from tests.chaos.history import Fault, History, Note, Posted, read
from tests.chaos.ledger import Away, Ledger
from tests.chaos.senders import MANNERS, Line, Sender
from tests.chaos.stage import Database, Stage, stage
from tests.chaos.watchers import Filed, Witness
from tests.servers import ServerError

SETTLE_SECONDS: Final = 120.0  # in which something must come to its end after the last fault, until all has
_LATEST: Final = 600.0  # s, however slow the machine
_PEOPLE: Final = 12  # a second, so that there are some left who have not asked
_WARM: Final = 3.0  # s before anything breaks


@dataclass(frozen=True)
class Plan:
    """What a round is."""

    seed: int
    seconds: float
    database: Database = "sqlite"
    behind: Literal["sink", "postfix"] = "sink"
    module: tuple[str, ...] = ("daemon",)  # what is run as optoutd
    pause: float = 2.0  # s between two faults of a lane, on average
    breaks: bool = True
    only: tuple[str, ...] = ()  # faults; () all kinds
    settle: float = SETTLE_SECONDS


@dataclass
class Result:
    """What came of it."""

    plan: Plan
    directory: Path
    figures: dict[str, Any] = field(default_factory=dict)
    violations: list[checker.Violation] = field(default_factory=list)
    left_out: tuple[str, ...] = ()  # faults that cannot be made on this machine


Watch = Callable[[float, dict[str, int], str], object]  # told: the part done (0 to 1), counts, what is broken now


def play(plan: Plan, directory: Path, watch: Watch = lambda *_: None) -> Result:
    """One round, in an empty directory with a short name. All that it starts is gone when it returns or raises."""
    history = History(directory / "history.jsonl")
    if plan.behind == "postfix":
        (directory / "behind-postfix").touch()
    try:
        with stage(directory, history, plan.database, behind=plan.behind, module=plan.module) as made:
            shutil.copy(made.state / "site.key", directory / "site.key")
            _Round(plan, made, history, watch).play()
    finally:
        history.close()
    case = checker.load(directory)
    left_out = tuple(n.told for n in case.of(Note) if n.name == "left out")
    return Result(plan, directory, _figures(case), checker.judge(case), left_out)


class _Round:
    def __init__(self, plan: Plan, made: Stage, history: History, watch: Watch):
        self._plan, self._stage, self._history, self._watch = plan, made, history, watch
        self._calm, self._resting, self._over = threading.Event(), threading.Event(), threading.Event()
        self._looking = threading.Lock()
        crowd = Crowd(int(max(300, plan.seconds * _PEOPLE)), self._dice("crowd"))
        self._means = Means(made, crowd, Mailroom(made.end.record), history, self._resting, self._over)
        where = made.state / "optoutd.db" if made.database is None else made.url
        self._ledger = Ledger(where, made.directory / "site.key")
        self._senders = [
            Sender(m, made.ports["relay"], crowd, history, self._dice(m.name), self._resting, self._over, 4.0)
            for m in MANNERS
        ]
        self._askers = self._all_askers()
        self._lanes = self._all_lanes()

    def _dice(self, name: str) -> random.Random:
        return random.Random(f"{self._plan.seed} {name}")

    def _all_askers(self) -> list[Asker]:
        means, operators = self._means, Operators(self._means)
        writers = Writers(means, self._dice("letters"))
        works: list[tuple[str, float, Callable[[random.Random], None]]] = [
            *((f"clicks {n}", 0.7, lambda dice: click(means, dice)) for n in range(3)),
            *((f"calls {n}", 0.5, lambda dice: call_up(means, dice)) for n in range(2)),
            *((f"writers {n}", 1.2, writers.once) for n in range(2)),
            ("operators", 0.25, operators.once),
        ]
        return [Asker(name, means, self._dice(name), rate, once) for name, rate, once in works]

    def _all_lanes(self) -> list[faults.Lane]:
        if not self._plan.breaks:
            return []
        lanes, plan = faults.lanes(self._stage, self._history, self._looking), self._plan
        return [
            faults.Lane(kinds, self._dice(f"lane {n}"), self._history, self._calm, plan.pause)
            for n, of_lane in enumerate(lanes)
            if (kinds := [k for k in of_lane if not plan.only or k.name in plan.only])
        ]

    def play(self) -> None:
        """Load and break; mend; wait; look."""
        watchers: list[threading.Thread] = [Witness(self._means, self._ledger, self._looking), Filed(self._means)]
        self._stage.daemon.cli("backup", str(self._stage.backups))
        with ExitStack() as stack:
            for event in (self._over, self._resting, self._calm):
                stack.callback(event.set)  # in the reverse order, before the threads are joined
            threads = [*watchers, *self._senders, *self._askers, *self._lanes]
            try:
                for thread in (*watchers, *self._senders, *self._askers):
                    thread.start()
                self._pass(0, _WARM)
                for lane in self._lanes:
                    lane.start()
                self._pass(_WARM, self._plan.seconds)
                self._settle()
            finally:
                stack.close()
                for thread in threads:
                    if thread.ident is not None:
                        thread.join()
        self._look()

    def _pass(self, first: float, last: float) -> None:
        end = time.monotonic() + last - first
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))
            self._watch((last - left) / self._plan.seconds, self._history.counts, ", ".join(self._broken()))

    def _broken(self) -> list[str]:
        return [lane.now for lane in self._lanes if lane.now]

    def _settle(self) -> None:
        """No more faults, then no more load; and then all that was begun must come to an end."""
        self._calm.set()
        for lane in self._lanes:
            lane.join()
        self._history.note("mended")
        self._resting.set()
        latest, seen, moved = time.monotonic() + _LATEST, list[str](), time.monotonic()
        while (stuck := self._unfinished()) and time.monotonic() < min(moved + self._plan.settle, latest):
            if stuck != seen:
                seen, moved = stuck, time.monotonic()
            time.sleep(0.5)
            self._watch(1.0, self._history.counts, f"waiting for {stuck[0]}")
        for what in stuck:
            self._history.note("stuck", what)
        self._history.note("at rest")

    def _unfinished(self) -> list[str]:
        """What has not ended yet."""
        found = [f"{s.name} has mail left" for s in self._senders if not s.idle]
        found += [f"{a.name} is not answered" for a in self._askers if a.is_alive()]
        found += [f"{person} asked by {way}, nobody has heard" for person, way in list(self._means.open.items())]
        if found:
            return found
        try:
            ((owed,),) = self._ledger.ask("SELECT count(*) FROM incoming WHERE state = 'owed'")
            found += [f"{owed} mails are not filed yet"] if owed else []
            found += self._unread()
        except Away as why:
            found.append(f"the database: {why}")
        if self._stage.mta is not None and not _is_empty(self._stage.mta.directory):
            found.append("the queue of Postfix")
        return found

    def _unread(self) -> list[str]:
        """What lies in the inbox. (A restored backup may know a mail as being read that was filed since, and is gone.)"""
        ended = "SELECT uid FROM incoming WHERE folder = 'INBOX' AND state <> 'reading'"
        read_ = {uid for (uid,) in self._ledger.ask(ended)}
        try:
            with self._stage.box.connect("support") as client:
                client.select_folder("INBOX", readonly=True)
                left = set(client.search()) - read_
        except (OSError, ServerError) as why:
            return [f"the mailbox: {why}"]
        return [f"{len(left)} mails are unread"] if left else []

    def _look(self) -> None:
        up = self._answers()
        verified = self._stage.daemon.cli("audit", "verify", seconds=120)
        posted = {p.mail: p for p in read(self._stage.directory / "history.jsonl") if isinstance(p, Posted)}
        found = collect(self._ledger, self._means.crowd.people, self._stage.box, posted, verified, up=up)
        found.save(self._stage.directory / "evidence.json")

    def _answers(self) -> bool:
        try:
            Line(self._stage.ports["relay"], "").close()
        except OSError:
            return False
        return True


def _is_empty(mta: Path) -> bool:
    """Has Postfix nothing to deliver? A file that may not be executed is none that it ever said 250 to: it was killed then."""
    for queue in ("incoming", "active", "deferred"):
        for path in (mta / "spool" / queue).rglob("*"):
            with suppress(FileNotFoundError):  # it has just gone out
                mode = path.stat().st_mode
                if stat.S_ISREG(mode) and mode & stat.S_IXUSR:
                    return False
    return True


def _figures(case: checker.Case) -> dict[str, Any]:
    """What the report says of a round."""
    broken = case.of(Fault)
    attempts = case.attempts.values()
    found = checker.recoveries(case, [(f.name, f.began, f.ended) for f in broken])
    slowest = max(found, key=lambda r: r.seconds, default=None)
    return {
        "messages": len({a.message for a in attempts}),
        "attempts": len(attempts),
        "delivered": sum(case.came.values()),
        "answers": _count(r[:3] or "none" for a in attempts for _, _, r in a.answers),
        "replies": _count(a.reply[:3] or "none" for a in attempts if a.dot),
        "opt-outs": _count(w.asked.way for w in case.wishes.values() if w.acknowledged is not None),
        "lifted": sum(w.lifted is not None for w in case.wishes.values()),
        "mails": _count(p.what for p in case.of(Posted)),
        "faults": _count(f.name for f in broken),
        "duplicates": checker.duplicates(case),
        "filed twice": sum(n > 1 for n in Counter(m.name for m in case.evidence.mails).values()),
        "slowest recovery": f"{slowest.seconds:.1f} s after {slowest.fault}" if slowest else "",
        "notices": sum(1 for a in case.arrived if not a.attempt and not a.mail_from),
    }


def _count(words: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return dict(sorted(found.items()))


def add_up(results: Sequence[Result]) -> dict[str, Any]:
    """The figures of several rounds together."""
    total: dict[str, Any] = {}
    for result in results:
        for name, value in result.figures.items():
            if isinstance(value, dict):
                into = total.setdefault(name, {})
                for word, n in value.items():
                    into[word] = into.get(word, 0) + n
            elif isinstance(value, int):
                total[name] = total.get(name, 0) + value
    return total
