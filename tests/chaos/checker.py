"""The judge. It knows nothing of the daemon: only what the clients were told and when, what arrived, and what lies there.

python -m tests.chaos.checker DIRECTORY       judge a run again

mailed      a message to somebody whose wish was acknowledged before its final dot was sent
accepted    a RCPT for such a person was answered with 250, by a client that wants them refused
lost        a wish that was acknowledged does not stand in the list, or one that was lifted does
unasked     somebody stands in the list, or was refused, who did not ask
unread      a mail in the mailbox was never dealt with; one that asks came to nothing
touched     a mail that is none of our business was moved, marked, changed or lost
false 250   a client heard that a message was taken, and it did not arrive
unreported  a message arrived of which the client heard that it did not, and that is no doubt it was told of
twice       a message, a sighting, a record more than once without a reason
record      the audit chain, or a row without evidence
stuck       after the last fault was mended something did not come to an end
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from tests.chaos.evidence import Evidence, Lying
from tests.chaos.history import (
    ALL,
    Acknowledged,
    Arrival,
    Asked,
    Attempt,
    Fault,
    Given,
    Lift,
    Note,
    Posted,
    Record,
    arrivals,
    read,
)

Kind = TypeVar("Kind")
REASONS: Final = {"complaint": 1, "opt-out": 2, "operator": 3, "hard-bounce": 4}
_LOST_AFTER_THE_DOT: Final = "451 4.4.2"
_ENDED: Final = ("done", "owed", "filed", "settled")


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be: which rule, and what was seen."""

    rule: str
    told: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.told}"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asked. `acknowledged`: from when on nothing may be sent (None: nobody said so); `until`: when an operator
    began to lift it; `lifted`: when that was acknowledged."""

    asked: Asked
    acknowledged: float | None
    until: float | None
    lifted: float | None

    def forbids(self, moment: float, list_id: str) -> bool:
        """Was mail of this list, begun at this moment, against it?"""
        if (
            self.acknowledged is None
            or moment <= self.acknowledged
            or (self.until is not None and moment >= self.until)
        ):
            return False
        return self.asked.scope in (ALL, list_id)


@dataclass
class Case:
    """Everything that is known of a run."""

    records: Sequence[Record]
    arrived: Sequence[Arrival]
    evidence: Evidence
    behind_postfix: bool = False
    attempts: dict[str, Attempt] = field(init=False)
    wishes: dict[str, Wish] = field(init=False)
    came: Counter[tuple[str, str]] = field(init=False)  # (attempt, person): how often it arrived
    damaged: list[float] = field(init=False)  # when the database was
    standing: set[str] = field(init=False)  # keys of all who are on the list

    def __post_init__(self) -> None:
        self.attempts = {f"{a.message}.{a.number}": a for a in self.of(Attempt)}
        self.came = Counter((a.attempt, person) for a in self.arrived if a.attempt for person in a.rcpt_to)
        self.damaged = [n.at for n in self.of(Note) if n.name == "damaged"]
        self.standing = {key for key, _, _ in self.evidence.rows}
        self.wishes = self._wishes()

    def of(self, kind: type[Kind]) -> list[Kind]:
        """The records of one kind."""
        return [r for r in self.records if isinstance(r, kind)]

    def _wishes(self) -> dict[str, Wish]:
        heard: dict[str, list[Acknowledged]] = defaultdict(list)
        for a in self.of(Acknowledged):
            heard[a.person].append(a)
        lifts: dict[str, Lift] = {}
        for lift in self.of(Lift):
            lifts[lift.person] = lift  # the one with its end comes last
        found = {}
        for asked in self.of(Asked):
            times = [a.at for a in heard[asked.person] if self._holds(a)]
            lift_ = lifts.get(asked.person)
            ends = (lift_.began, lift_.ended or None) if lift_ else (None, None)
            found[asked.person] = Wish(asked, min(times, default=None), *ends)
        return found

    def _holds(self, heard: Acknowledged) -> bool:
        """A row that a stranger saw was not promised to anybody yet, if the database was damaged after that."""
        return heard.by != "row" or not any(at > heard.at for at in self.damaged)


def judge(case: Case) -> list[Violation]:
    """All that was wrong."""
    rules = (_mail, _attempts, _messages, _list, _mailbox, _record, _stuck)
    return [violation for rule in rules for violation in rule(case)]


# ------------------------------------------------------------------ what was sent


def _mail(case: Case) -> Iterator[Violation]:
    """No mail after an acknowledged wish."""
    for name, person in case.came:
        attempt, wish = case.attempts.get(name), case.wishes.get(person)
        if attempt is None:
            yield Violation("unreported", f"{name} to {person}: no client knows it")
        elif wish is not None and wish.forbids(attempt.dot, attempt.list):
            yield Violation("mailed", f"{name} to {person}: dot at {attempt.dot:.3f}; {wish}")


def _attempts(case: Case) -> Iterator[Violation]:
    """Each attempt for itself: did what came agree with what the client was told?"""
    for name, attempt in case.attempts.items():
        taken = [p for p, _, reply in attempt.answers if reply.startswith("2")]
        for person, at, reply in attempt.answers:
            yield from _answer(case, name, attempt, person, at, reply)
        came = {p: case.came[name, p] for p, _, _ in attempt.answers}
        for person, times in came.items():
            if times > 1 and not case.behind_postfix:
                yield Violation("twice", f"{name} to {person}: {times} times")
            if times and person not in taken:
                yield Violation("unreported", f"{name} to {person}: arrived, though RCPT was not taken: {attempt}")
        if attempt.dot and attempt.reply.startswith("2"):
            for person in taken:
                if not came[person] and not _asked_by(case, person, attempt.at):
                    yield Violation("false 250", f"{name} to {person}: {attempt.reply}")
        elif any(came.values()) and not _in_doubt(attempt):
            yield Violation("unreported", f"{name} arrived: dot {attempt.dot:.3f}, {attempt.reply!r}")


def _in_doubt(attempt: Attempt) -> bool:
    """Was the client told, or did it have to think, that nobody knows what became of the message?"""
    return bool(attempt.dot) and (not attempt.reply or attempt.reply.startswith(_LOST_AFTER_THE_DOT))


def _asked_by(case: Case, person: str, moment: float) -> bool:
    wish = case.wishes.get(person)
    return wish is not None and wish.asked.at < moment


def _answer(case: Case, name: str, attempt: Attempt, person: str, at: float, reply: str) -> Iterator[Violation]:
    wish = case.wishes.get(person)
    if reply.startswith("5"):
        if not _asked_by(case, person, attempt.at):
            yield Violation("unasked", f"{name} to {person}: {reply}")
        elif wish is not None and wish.lifted is not None and at > wish.lifted:
            yield Violation("unasked", f"{name} to {person}: {reply}, after {wish}")
    known = attempt.list if attempt.known else ""
    if reply.startswith("2") and attempt.mode == "refuse" and wish is not None and wish.forbids(at, known):
        yield Violation("accepted", f"{name} to {person}: RCPT at {at:.3f}: {reply}; {wish}")


def _messages(case: Case) -> Iterator[Violation]:
    """Each message and recipient, over all attempts: an end that is true, and nothing twice without a reason."""
    given = Counter((g.message, g.person) for g in case.of(Given))
    for (message, person), times in given.items():
        if times > 1:
            yield Violation("twice", f"{message} to {person}: the client came to {times} ends")
    for (message, person), tries in sorted(_tries(case).items()):
        for attempt in tries[:-1]:
            if not _in_doubt(attempt):
                names = [f"{a.number}: {a.reply!r}" for a in tries]
                yield Violation("twice", f"{message} to {person}: arrived by {names}")


def _tries(case: Case) -> dict[tuple[str, str], list[Attempt]]:
    """(message, person): the attempts by which it arrived, in order."""
    found: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
    for name, person in case.came:
        attempt = case.attempts.get(name)
        if attempt is not None:
            found[attempt.message, person].append(attempt)
    for tries in found.values():
        tries.sort(key=lambda a: a.number)
    return found


def duplicates(case: Case) -> int:
    """How often somebody got a message once more, after an attempt in doubt (or a mail server behind us that was killed)."""
    again = sum(len(tries) - 1 for tries in _tries(case).values())
    return again + sum(times - 1 for times in case.came.values())


# ------------------------------------------------------------------ what is remembered


def _list(case: Case) -> Iterator[Violation]:
    """Every acknowledged wish stands, every lifted one does not, and nobody else."""
    rows = set(case.evidence.rows)
    allowed = set()
    for person, wish in case.wishes.items():
        row = (case.evidence.keys[person], wish.asked.scope, REASONS[wish.asked.reason])
        allowed.add(row)
        if wish.lifted is not None and row in rows:
            yield Violation("lost", f"the lift of {person}, who is on the list still: {wish}")
        if wish.acknowledged is not None and wish.until is None and row not in rows:
            yield Violation("lost", f"the wish of {person}: {wish}")
    people = {key: person for person, key in case.evidence.keys.items()}
    for row in sorted(rows - allowed):
        yield Violation("unasked", f"{people.get(row[0], 'nobody we know')} stands in the list: {row}")


# ------------------------------------------------------------------ the mailbox


def _mailbox(case: Case) -> Iterator[Violation]:
    """What lies there, and what was put there."""
    lying = defaultdict(list)
    for mail in case.evidence.mails:
        lying[mail.name].append(mail)
    ended = {(folder, uid) for folder, uid, state, _ in case.evidence.read if state in _ENDED}
    for name, copies in sorted(lying.items()):
        if len(copies) > 1 and not moved_twice(case, copies):
            yield Violation("twice", f"{name or 'a mail that nobody posted'} lies in {[m.folder for m in copies]}")
        for mail in copies:
            if mail.folder == "INBOX" and ("INBOX", mail.uid) not in ended:
                yield Violation("unread", f"{name}, UID {mail.uid}")
    for post in case.of(Posted):
        if post.mail in lying:
            yield from _posted(case, post, lying[post.mail][0])
        elif post.sure:
            yield Violation("touched", f"{post.mail} is gone: {post}")


def moved_twice(case: Case, copies: Sequence[Lying]) -> bool:
    """A mail server that is killed in the midst of a MOVE may have copied the mail, and have it in the inbox still."""
    killed = any(f.name == "Dovecot killed" for f in case.of(Fault))
    return killed and len(copies) == 2 and {m.folder for m in copies} in ({"Opt-outs"}, {"Machines"})


def _posted(case: Case, post: Posted, mail: Lying) -> Iterator[Violation]:
    """A mail that was put there, as it lies there."""
    if mail.tail != post.digest or (post.way == "append" and not mail.whole):
        yield Violation("touched", f"{post.mail} was changed: {post}")
    if set(mail.flags) != set(post.flags):
        yield Violation("touched", f"{post.mail} had the flags {post.flags} and has {mail.flags}")
    if post.what in ("ordinary", "review") and mail.folder != "INBOX":
        yield Violation("touched", f"{post.mail} was moved to {mail.folder}")
    if post.person and case.evidence.keys[post.person] not in case.standing and not case.wishes[post.person].until:
        yield Violation("unread", f"{post.mail} in {mail.folder} came to nothing: {post}")


# ------------------------------------------------------------------ the record


def _record(case: Case) -> Iterator[Violation]:
    code, told = case.evidence.verified
    if code or not told.startswith("ok, "):
        yield Violation("record", f"audit verify: {code} {told}")
    if case.evidence.unexplained:
        yield Violation("record", f"{case.evidence.unexplained} rows without evidence")
    people = {key: person for person, key in case.evidence.keys.items()}
    for event, key, times in case.evidence.events:
        if times > 1 and event in ("suppressed", "lifted", "bounce", "complaint") and key in people:
            yield Violation("twice", f"{people[key]}: {times} audit rows {event}")


def _stuck(case: Case) -> Iterator[Violation]:
    if not case.evidence.up:
        yield Violation("stuck", "the daemon does not answer")
    for note in case.of(Note):
        if note.name in ("stuck", "lift found nobody"):
            yield Violation("stuck", f"{note.name}: {note.told}")


# ------------------------------------------------------------------ figures


@dataclass(frozen=True)
class Recovery:
    """From the end of a fault, when nothing else was broken, to the first message that was begun and taken after it."""

    fault: str
    seconds: float


def recoveries(case: Case, faults: Iterable[tuple[str, float, float]]) -> list[Recovery]:
    """`faults`: (name, began, ended). Those during which, or just after which, something else broke tell nothing."""
    all_ = sorted(faults, key=lambda f: f[1])
    taken = sorted((a.at, a.answers[0][1]) for a in case.attempts.values() if a.dot and a.reply.startswith("2"))
    ends, found = [t[0] for t in taken], []
    for name, began, ended in all_:
        first = next((t for t in taken[bisect_left(ends, ended) :] if t[1] >= ended), None)
        if first is None:
            continue
        if not any(b < first[0] and e > ended for n, b, e in all_ if (n, b) != (name, began)):
            found.append(Recovery(name, first[0] - ended))
    return found


def main() -> int:
    """Judge the run in a directory."""
    directory = Path(sys.argv[1])
    case = load(directory)
    wrong = judge(case)
    print("\n".join(map(str, wrong)) or "nothing was wrong")
    return int(bool(wrong))


def load(directory: Path) -> Case:
    """What a run has left."""
    return Case(
        list(read(directory / "history.jsonl")),
        list(arrivals(directory / "end" / "arrivals.jsonl")),
        Evidence.load(directory / "evidence.json"),
        (directory / "behind-postfix").exists(),
    )


if __name__ == "__main__":
    sys.exit(main())
